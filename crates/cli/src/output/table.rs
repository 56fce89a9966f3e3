//! Columns that line up, whatever script their text is in.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style::{Style, Tone};

const GAP: &str = "   ";
/// A last column narrower than this says nothing; then the line is left to the terminal to wrap.
const LAST_COLUMN_MIN: usize = 12;

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// Rows under headings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    /// A cell whose text means something.
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    /// A cell, or a dash.
    pub(crate) fn or_dash(text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => Self::toned(Tone::Plain, text),
            None => Self::toned(Tone::Dim, "-"),
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(headings: impl Into<Vec<&'static str>>) -> Self {
        Self {
            headings: headings.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has a cell for each heading.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// The table as text. The last column is cut where the terminal ends.
    pub(crate) fn text(&self, style: Style, columns: Option<usize>) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| self.width(column))
            .collect();
        let headings: Vec<Cell> = self
            .headings
            .iter()
            .map(|text| Cell::toned(Tone::Strong, *text))
            .collect();
        let last = last_column(&widths, columns);
        std::iter::once(&headings)
            .chain(&self.rows)
            .map(|cells| line(cells, &widths, last, style))
            .collect()
    }

    fn width(&self, column: usize) -> usize {
        let cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.text.width());
        let heading = self
            .headings
            .get(column)
            .map_or(0, |heading| heading.width());
        cells.chain([heading]).max().unwrap_or(0)
    }
}

fn last_column(widths: &[usize], columns: Option<usize>) -> Option<usize> {
    let (_, before) = widths.split_last()?;
    let taken: usize = before.iter().map(|width| width + GAP.width()).sum();
    columns?
        .checked_sub(taken)
        .filter(|left| *left >= LAST_COLUMN_MIN)
}

fn line(cells: &[Cell], widths: &[usize], last: Option<usize>, style: Style) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let is_last = column + 1 == cells.len();
        let text = match last {
            Some(room) if is_last => cut(&cell.text, room),
            Some(_) | None => cell.text.clone(),
        };
        let fill = if is_last {
            0
        } else {
            width.saturating_sub(text.width())
        };
        line.push_str(&style.paint(cell.tone, &text));
        line.push_str(&" ".repeat(fill));
        if !is_last {
            line.push_str(GAP);
        }
    }
    let end = line.trim_end_matches(' ').len();
    line.truncate(end);
    line.push('\n');
    line
}

/// The text, at most `room` columns wide.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 1; // The ellipsis.
    for character in text.chars() {
        used += character.width().unwrap_or(0);
        if used > room {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "REASON", "BY"]);
        table.row([
            "凪".into(),
            "コスト最適化".into(),
            Cell::or_dash(None::<&str>),
        ]);
        table.row(["sample-app-a".into(), "cost".into(), "key/ops".into()]);
        table
    }

    #[test]
    fn columns_line_up_in_every_script() {
        assert_eq!(
            table().text(Style::Plain, None),
            "NAME           REASON         BY\n\
             凪             コスト最適化   -\n\
             sample-app-a   cost           key/ops\n"
        );
    }

    #[test]
    fn the_last_column_ends_where_the_terminal_does_and_no_line_ends_in_blanks() {
        let mut table = Table::new(["NAME", "REASON"]);
        table.row(["a".into(), "理由を書く理由を書く".into()]);
        table.row(["b".into(), "".into()]);
        assert_eq!(
            table.text(Style::Plain, Some(20)),
            "NAME   REASON\na      理由を書く理…\nb\n"
        );
        let wrapped = table.text(Style::Plain, Some(10));
        assert!(
            wrapped.contains("理由を書く理由を書く"),
            "too narrow to cut: {wrapped}"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(["STATUS", "NAME"]);
        table.row([Cell::toned(Tone::Good, "active"), "a".into()]);
        table.row([Cell::toned(Tone::Calm, "inactive"), "b".into()]);
        let painted = table.text(Style::Coloured, None);
        assert!(
            painted.contains("\u{1b}[32mactive\u{1b}[0m     a\n"),
            "{painted:?}"
        );
        assert!(
            painted.contains("\u{1b}[36minactive\u{1b}[0m   b\n"),
            "{painted:?}"
        );
    }
}
