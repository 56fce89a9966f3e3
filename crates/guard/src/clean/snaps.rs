//! Disabled revisions of snaps: which there are, by snapd's own list, and how snapd is asked to let one go.
//!
//! The file of a revision often has a second name in snapd's cache. Then removing the revision frees nothing by itself: it
//! comes back when snapd drops the other name, of which it keeps at most five that nothing else names.

/// The program of snapd.
pub(super) const PROGRAM: &str = "snap";

/// A revision that snapd keeps only to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revision {
    pub(super) name: String,
    pub(super) revision: String,
}

// === impl Revision ===

impl Revision {
    /// The name of its file in `/var/lib/snapd/snaps`.
    pub(super) fn file(&self) -> String {
        format!("{}_{}.snap", self.name, self.revision)
    }

    /// The revision of a file.
    pub(super) fn of_file(file: &[u8]) -> Option<Self> {
        let stem = std::str::from_utf8(file).ok()?.strip_suffix(".snap")?;
        let (name, revision) = stem.rsplit_once('_')?;
        Self::new(name, revision)
    }

    /// How it goes.
    pub(super) fn removal(&self) -> Vec<String> {
        let revision = format!("--revision={}", self.revision);
        ["remove", &self.name, &revision]
            .map(str::to_owned)
            .to_vec()
    }

    /// None for what snapd would not name so: nothing that looks like an option or a path is ever passed on.
    fn new(name: &str, revision: &str) -> Option<Self> {
        let is_name_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.bytes().all(is_name_byte);
        let number = revision.strip_prefix('x').unwrap_or(revision);
        let is_revision = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_name && is_revision).then(|| Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
        })
    }
}

/// Lists all revisions.
pub(super) fn listing() -> Vec<String> {
    ["list", "--all"].map(str::to_owned).to_vec()
}

/// The revisions of a list that are kept only to go back to: disabled, beside exactly one of the same name that is not. A snap
/// that somebody switched off (`snap disable`) has all its revisions disabled, the one in use too; removing those would remove
/// it with its data. None when the heading of the list is not the one that this knows: then no column can be trusted.
pub(super) fn disabled(list: &str) -> Option<Vec<Revision>> {
    if list.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut lines = list.lines();
    let heading: Vec<&str> = lines.next()?.split_whitespace().collect();
    let is_known = matches!(heading[..], ["Name", "Version", "Rev", .., "Notes"]);
    if !is_known {
        return None;
    }
    let rows: Vec<(&str, &str, bool)> = lines.filter_map(row).collect();
    let in_use = |of: &str| {
        let rows = rows.iter();
        rows.filter(|(name, _, is_disabled)| *name == of && !is_disabled)
            .count()
    };
    let goes = rows
        .iter()
        .filter(|(name, _, is_disabled)| *is_disabled && in_use(name) == 1);
    Some(
        goes.filter_map(|(name, revision, _)| Revision::new(name, revision))
            .collect(),
    )
}

/// Name, revision, and whether it is disabled.
fn row(line: &str) -> Option<(&str, &str, bool)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [name, _, revision, .., notes] = fields[..] else {
        return None;
    };
    let is_disabled = notes.split(',').any(|note| note == "disabled");
    Some((name, revision, is_disabled))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
Name    Version        Rev    Tracking       Publisher   Notes
core20  20230622       1974   latest/stable  canonical✓  base,disabled
core20  20230801       2015   latest/stable  canonical✓  base
lxd     5.0.2-838e1b2  24322  5.0/stable/…   canonical✓  -
snapd   2.59.5         x1     latest/stable  canonical✓  snapd,disabled
snapd   2.60           x2     latest/stable  canonical✓  snapd
off     1              1      latest/stable  me          disabled
off     2              2      latest/stable  me          disabled
two     1              1      latest/stable  me          disabled
two     2              2      latest/stable  me          -
two     3              3      latest/stable  me          -
disabled 1             7      -              me          -
--purge 1              7      -              me          disabled
--purge 1              8      -              me          -
a/b     1              7      -              me          disabled
a/b     1              8      -              me          -
";

    // B-012: only what is disabled beside the one in use, by name and revision; nothing of a snap that is switched off.
    #[test]
    fn only_disabled_revisions_are_taken_from_the_list() {
        let found = disabled(LIST).unwrap();
        let names: Vec<String> = found.iter().map(Revision::file).collect();
        assert_eq!(names, ["core20_1974.snap", "snapd_x1.snap"]);
        assert_eq!(found[0].removal(), ["remove", "core20", "--revision=1974"]);
        for revision in &found {
            assert_eq!(
                Revision::of_file(revision.file().as_bytes()).as_ref(),
                Some(revision)
            );
        }
    }

    #[test]
    fn a_list_of_another_form_is_not_guessed_at() {
        assert_eq!(disabled("\n"), Some(Vec::new()), "no snaps at all");
        assert_eq!(disabled("No snaps are installed yet.\n"), None);
        assert_eq!(disabled("Name Rev Notes\na 1 disabled\n"), None);
        assert_eq!(Revision::of_file(b"core20.snap"), None);
        assert_eq!(Revision::of_file(b"../x_1.snap"), None);
        assert_eq!(Revision::of_file(b"-x_1.snap"), None);
    }
}
