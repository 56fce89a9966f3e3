//! One line of the hosts file, by which a name of a certificate leads through a tunnel.
//!
//! The line says whose it is, so that it is found again and only it is taken away. Lines of others are never touched, also when
//! they say the same.

use std::net::IpAddr;
use std::path::Path;

use crate::edit::Original;

/// What a line of ours ends with.
const MARK: &str = "# by nagi recover hosts";
/// The same where the file ended without a line end, which is put back.
const MARK_ENDED: &str = "# by nagi recover hosts, which ended the line above";

/// What a name is to lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsEntry {
    /// The address.
    pub address: IpAddr,
    /// The name.
    pub name: String,
}

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostsChange {
    /// It is to be there.
    Add,
    /// It is to be gone.
    Remove,
}

/// What of the file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostsStep {
    /// This line comes.
    Add(String),
    /// This line goes.
    Remove(String),
    /// Nothing: it is as it is to be.
    AsItIs,
    /// Nothing: the line that is there is somebody else's.
    OfOthers(String),
}

/// Why the file cannot be changed.
#[derive(Debug)]
pub enum HostsError {
    /// It cannot be read or written.
    File(std::io::Error),
    /// A line of somebody else gives the name another address, and the first one counts.
    Taken {
        /// Its number.
        line: usize,
        /// What it says.
        text: String,
    },
    /// Our line gives the name another address than the one that was named.
    Other {
        /// Its number.
        line: usize,
        /// What it leads to.
        address: IpAddr,
    },
}

/// A change of the hosts file that can be looked at, and made.
#[derive(Debug)]
pub struct HostsPlan {
    original: Original,
    new: Vec<u8>,
    /// What changes.
    pub step: HostsStep,
}

/// What would change.
///
/// # Errors
/// The file cannot be read, or the name is taken.
pub fn plan_hosts(
    file: &Path,
    entry: &HostsEntry,
    change: HostsChange,
) -> Result<HostsPlan, HostsError> {
    let original = Original::read(file).map_err(HostsError::File)?;
    let (new, step) = match change {
        HostsChange::Add => added(&original.bytes, entry)?,
        HostsChange::Remove => removed(&original.bytes, entry)?,
    };
    Ok(HostsPlan {
        original,
        new,
        step,
    })
}

fn added(text: &[u8], entry: &HostsEntry) -> Result<(Vec<u8>, HostsStep), HostsError> {
    let mut same = None;
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        match Line::of(line) {
            Some(found) if !found.has(&entry.name) => {}
            Some(found) if found.address == Some(entry.address) => {
                same.get_or_insert((line.to_owned(), found.is_ours));
            }
            // Addresses of the other family are found beside ours.
            Some(found) if found.is_other_family(entry.address) => {}
            Some(_) => {
                return Err(HostsError::Taken {
                    line: index + 1,
                    text: line.to_owned(),
                });
            }
            None => {}
        }
    }
    match same {
        Some((_, true)) => return Ok((text.to_owned(), HostsStep::AsItIs)),
        Some((line, false)) => return Ok((text.to_owned(), HostsStep::OfOthers(line))),
        None => {}
    }
    let has_end = text.is_empty() || text.ends_with(b"\n");
    let mark = if has_end { MARK } else { MARK_ENDED };
    let line = format!("{} {} {mark}", entry.address, entry.name);
    let mut new = text.to_owned();
    if !has_end {
        new.push(b'\n');
    }
    new.extend_from_slice(line.as_bytes());
    new.push(b'\n');
    Ok((new, HostsStep::Add(line)))
}

fn removed(text: &[u8], entry: &HostsEntry) -> Result<(Vec<u8>, HostsStep), HostsError> {
    let mut new = Vec::with_capacity(text.len());
    let mut step = HostsStep::AsItIs;
    let mut other = None;
    // Our next line takes over that the one above had no end.
    let mut takes_over = false;
    let mut lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .peekable();
    while let Some((index, line)) = lines.next() {
        let plain = String::from_utf8_lossy(line);
        let plain = plain.trim_end();
        let found = Line::of(plain);
        let is_ours = found.as_ref().is_some_and(|found| found.is_ours);
        let has_mark = std::mem::take(&mut takes_over);
        let found = found.filter(|found| found.has(&entry.name));
        match found {
            Some(found) if found.is_ours && found.address != Some(entry.address) => {
                other = other.or(found.address.map(|address| (index + 1, address)));
                new.extend_from_slice(&marked(line, has_mark));
            }
            Some(found) if found.is_ours => {
                if plain.ends_with(MARK_ENDED) || has_mark {
                    // The line above ends where the file ended, unless somebody wrote behind ours.
                    if lines.peek().is_none() && new.ends_with(b"\n") {
                        new.pop();
                    }
                    takes_over = true;
                }
                step = HostsStep::Remove(plain.to_owned());
            }
            Some(found) if found.address == Some(entry.address) => {
                if step == HostsStep::AsItIs {
                    step = HostsStep::OfOthers(plain.to_owned());
                }
                new.extend_from_slice(line);
            }
            Some(_) | None => new.extend_from_slice(&marked(line, has_mark && is_ours)),
        }
    }
    match (&step, other) {
        (HostsStep::AsItIs, Some((line, address))) => Err(HostsError::Other { line, address }),
        _ => Ok((new, step)),
    }
}

/// A line of ours, which from now on says that the one above had no end.
fn marked(line: &[u8], takes_over: bool) -> Vec<u8> {
    let mut line = line.to_owned();
    let end = line.trim_ascii_end().len();
    if takes_over
        && line
            .get(..end)
            .is_some_and(|said| said.ends_with(MARK.as_bytes()))
    {
        line.splice(end - MARK.len()..end, MARK_ENDED.bytes());
    }
    line
}

/// A line that says something.
#[derive(Debug)]
struct Line<'a> {
    address: Option<IpAddr>,
    names: Vec<&'a str>,
    is_ours: bool,
}

// === impl Line ===

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let said = line.split('#').next().unwrap_or_default();
        let mut words = said.split_ascii_whitespace();
        let address = words.next()?;
        let names: Vec<&str> = words.collect();
        // One that somebody wrote a further name into is no longer ours alone.
        let is_ours = names.len() == 1 && (line.ends_with(MARK) || line.ends_with(MARK_ENDED));
        Some(Self {
            address: address.parse().ok(),
            names,
            is_ours,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|one| one.eq_ignore_ascii_case(name))
    }

    fn is_other_family(&self, address: IpAddr) -> bool {
        self.address
            .is_some_and(|own| own.is_ipv4() != address.is_ipv4())
    }
}

// === impl HostsPlan ===

impl HostsPlan {
    /// Makes the change; nothing where there is none to make.
    ///
    /// # Errors
    /// It cannot be written, or somebody else has changed it since it was planned.
    pub fn apply(&self) -> Result<(), HostsError> {
        match self.step {
            HostsStep::Add(_) | HostsStep::Remove(_) => {
                self.original.replace(&self.new).map_err(HostsError::File)
            }
            HostsStep::AsItIs | HostsStep::OfOthers(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> HostsEntry {
        HostsEntry {
            address: "127.0.0.1".parse().unwrap(),
            name: "ip-172-31-37-254".to_owned(),
        }
    }

    // B-019: twice is one line, and taking it away gives every byte back.
    #[test]
    fn a_line_comes_once_and_goes_without_a_trace() {
        for text in [
            &b"127.0.0.1 localhost\n::1 localhost\n"[..],
            b"",
            b"127.0.0.1 localhost",
            b"# \xff is no text\r\n10.0.0.1\ta b # ip-172-31-37-254\n\n",
        ] {
            let (once, step) = added(text, &entry()).unwrap();
            assert!(matches!(step, HostsStep::Add(_)));
            let line = b"127.0.0.1 ip-172-31-37-254 # by nagi";
            let found = once.windows(line.len()).filter(|one| one == line).count();
            assert_eq!(found, 1);
            assert!(once.ends_with(b"\n"), "others may append to it");
            let (twice, step) = added(&once, &entry()).unwrap();
            assert_eq!((twice, step), (once.clone(), HostsStep::AsItIs));
            let (back, step) = removed(&once, &entry()).unwrap();
            assert!(matches!(step, HostsStep::Remove(_)));
            assert_eq!(back, text);
            assert_eq!(removed(&back, &entry()).unwrap().1, HostsStep::AsItIs);
        }
    }

    #[test]
    fn lines_of_others_stay() {
        let theirs = b"127.0.0.1 ip-172-31-37-254\n";
        let (same, step) = added(theirs, &entry()).unwrap();
        assert_eq!(same, theirs);
        assert!(matches!(step, HostsStep::OfOthers(_)));
        let (same, step) = removed(theirs, &entry()).unwrap();
        assert_eq!(same, theirs);
        assert!(matches!(step, HostsStep::OfOthers(_)));
        // Somebody wrote behind ours, where the file had no last line end.
        let (mut text, _) = added(b"a", &entry()).unwrap();
        text.extend_from_slice(b"10.0.0.1 b\n");
        assert_eq!(removed(&text, &entry()).unwrap().0, b"a\n10.0.0.1 b\n");
        // Somebody gave our line a second name.
        let shared = b"127.0.0.1 ip-172-31-37-254 b # by nagi recover hosts\n";
        assert_eq!(removed(shared, &entry()).unwrap().0, shared);
    }

    // In whatever order several lines of ours go.
    #[test]
    fn lines_that_go_one_by_one_give_every_byte_back() {
        let names = ["a", "b", "c"];
        let of = |name: &str| HostsEntry {
            name: name.to_owned(),
            ..entry()
        };
        for text in [&b"10.0.0.1 x"[..], b"10.0.0.1 x\n", b""] {
            for order in [
                [0, 1, 2],
                [0, 2, 1],
                [1, 0, 2],
                [1, 2, 0],
                [2, 0, 1],
                [2, 1, 0],
            ] {
                let mut now = text.to_owned();
                for name in names {
                    now = added(&now, &of(name)).unwrap().0;
                }
                for index in order {
                    now = removed(&now, &of(names[index])).unwrap().0;
                }
                assert_eq!(now, text, "{order:?}");
            }
        }
    }

    #[test]
    fn our_line_with_another_address_is_told() {
        let (text, _) = added(b"a\n", &entry()).unwrap();
        let address = "10.0.0.1".parse().unwrap();
        let entry = HostsEntry { address, ..entry() };
        let error = removed(&text, &entry).unwrap_err();
        assert!(
            matches!(error, HostsError::Other { line: 2, .. }),
            "{error:?}"
        );
    }

    // The first line of a family counts, so one below it would change nothing.
    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let error = added(b"a\n10.0.0.1 IP-172-31-37-254\n", &entry()).unwrap_err();
        assert!(
            matches!(error, HostsError::Taken { line: 2, .. }),
            "{error:?}"
        );
        assert!(added(b"::1 ip-172-31-37-254\n", &entry()).is_ok());
    }
}
