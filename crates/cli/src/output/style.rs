//! Colours, only where somebody sees them. A colour never says more than the word that it paints.

/// Whether text is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Plain,
    /// With ANSI sequences.
    Coloured,
}

/// What a text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing in particular.
    Plain,
    /// It serves; it succeeded.
    Good,
    /// Under way.
    Busy,
    /// At rest.
    Calm,
    /// Failed.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

impl Style {
    /// The text, painted.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        match (self, code(tone)) {
            (Self::Coloured, Some(code)) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            (Self::Coloured | Self::Plain, _) => text.to_owned(),
        }
    }
}

/// The eight colours of every terminal: they follow the reader's own scheme, on dark and on light.
const fn code(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Good => Some("32"),
        Tone::Busy => Some("33"),
        Tone::Calm => Some("36"),
        Tone::Bad => Some("1;31"),
        Tone::Dim => Some("2"),
        Tone::Strong => Some("1"),
    }
}
