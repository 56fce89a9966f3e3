//! Reads what replicas printed back from their numbered files.
//!
//! A cursor names, for each replica, a file and an offset in it: `0:7:1234,1:3:0`. Only whole lines are read, so a cursor
//! always stands at the beginning of one. Files that were removed since are skipped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use nagi_core::id::{Name, ReplicaName};
use nagi_ports::{LogLine, LogPage, LogQuery, PortError};

use crate::shim::output::{file_path, numbers};

/// Bytes of stored output in one page, as the port promises.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// A place in the output of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    file: u64,
    offset: u64,
}

/// Reads a page of the output of all replicas below a workload's directory. Blocks for as long as the disk takes.
///
/// # Errors
/// [`PortError::Refused`] for a cursor that was never given out.
pub(super) fn read(directory: &Path, name: &Name, query: &LogQuery) -> Result<LogPage, PortError> {
    let mut positions = match &query.after {
        Some(cursor) => parse(cursor)
            .ok_or_else(|| PortError::Refused(format!("{cursor:?} is no cursor of a log")))?,
        None => BTreeMap::new(),
    };
    let replicas = replicas(directory);
    let share = PAGE_BYTES_MAX / u64::try_from(replicas.len()).unwrap_or(1).max(1);
    let mut lines = Vec::new();
    for number in replicas {
        let output = directory.join(number.to_string());
        let Ok(replica) = ReplicaName::new(format!("{name}-{number}")) else {
            continue;
        };
        let texts = match positions.get(&number) {
            Some(from) => {
                let (texts, next) = forward(&output, *from, share);
                positions.insert(number, next);
                texts
            }
            // A replica that came into being after the cursor is read from its beginning.
            None if query.after.is_some() => {
                let (texts, next) = forward(&output, Position { file: 0, offset: 0 }, share);
                positions.insert(number, next);
                texts
            }
            None => {
                let (texts, next) = tail(&output, query.tail, share);
                positions.insert(number, next);
                texts
            }
        };
        lines.extend(texts.into_iter().map(|text| LogLine {
            replica: replica.clone(),
            text,
        }));
    }
    let cursor: Vec<String> = positions
        .iter()
        .map(|(number, at)| format!("{number}:{}:{}", at.file, at.offset))
        .collect();
    Ok(LogPage {
        lines,
        cursor: cursor.join(","),
    })
}

/// Lines from a position on, at most `budget` bytes of them, and the position behind.
fn forward(directory: &Path, from: Position, mut budget: u64) -> (Vec<String>, Position) {
    let mut texts = Vec::new();
    let mut at = from;
    for number in numbers(directory)
        .into_iter()
        .filter(|number| *number >= from.file)
    {
        let offset = if number == from.file { from.offset } else { 0 };
        let content = chunk(
            directory,
            Position {
                file: number,
                offset,
            },
            budget,
        );
        let read = take_lines(&content, &mut texts);
        at = Position {
            file: number,
            offset: offset + read,
        };
        budget = budget.saturating_sub(read);
        // More of this file is left: the next page goes on here.
        if read < u64::try_from(content.len()).unwrap_or(0) || budget == 0 {
            break;
        }
    }
    (texts, at)
}

/// The last lines, at most `count` and `budget` bytes, and the position behind them.
fn tail(directory: &Path, count: usize, budget: u64) -> (Vec<String>, Position) {
    let mut texts: Vec<String> = Vec::new();
    let mut end = Position { file: 0, offset: 0 };
    let mut left = budget;
    for number in numbers(directory).into_iter().rev() {
        let path = file_path(directory, number);
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let offset = size.saturating_sub(left);
        let content = chunk(
            directory,
            Position {
                file: number,
                offset,
            },
            left,
        );
        let mut found = Vec::new();
        let read = take_lines(&content, &mut found);
        if offset > 0 && !found.is_empty() {
            // Begun in the middle of a line.
            found.remove(0);
        }
        if end.file == 0 {
            end = Position {
                file: number,
                offset: offset + read,
            };
        }
        found.append(&mut texts);
        texts = found;
        left = left.saturating_sub(size);
        if texts.len() >= count || left == 0 {
            break;
        }
    }
    let surplus = texts.len().saturating_sub(count);
    (texts.split_off(surplus), end)
}

/// Takes the whole lines at the beginning of `content`, and says how many bytes they were.
fn take_lines(content: &[u8], texts: &mut Vec<String>) -> u64 {
    let Some(end) = content.iter().rposition(|byte| *byte == b'\n') else {
        return 0;
    };
    let whole = content.get(..end).unwrap_or_default();
    texts.extend(whole.split(|byte| *byte == b'\n').map(text_of));
    u64::try_from(end + 1).unwrap_or(0)
}

/// What was printed, without time, stream and tag.
fn text_of(line: &[u8]) -> String {
    let printed = line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or(line);
    String::from_utf8_lossy(printed).into_owned()
}

fn chunk(directory: &Path, at: Position, bytes_max: u64) -> Vec<u8> {
    let mut content = Vec::new();
    let read = File::open(file_path(directory, at.file)).and_then(|mut file| {
        file.seek(SeekFrom::Start(at.offset))?;
        file.take(bytes_max).read_to_end(&mut content)
    });
    // A file that was rotated away in this moment is skipped, as the port says.
    read.map(|_| content).unwrap_or_default()
}

fn replicas(directory: &Path) -> Vec<u32> {
    let mut numbers: Vec<u32> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn parse(cursor: &str) -> Option<BTreeMap<u32, Position>> {
    cursor
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut fields = part.split(':');
            let number = fields.next()?.parse().ok()?;
            let file = fields.next()?.parse().ok()?;
            let offset = fields.next()?.parse().ok()?;
            fields
                .next()
                .is_none()
                .then_some((number, Position { file, offset }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(directory: &Path, query: &LogQuery) -> (Vec<String>, String) {
        let page = read(directory, &Name::new("app").unwrap(), query).unwrap();
        let shown = page
            .lines
            .into_iter()
            .map(|line| format!("{}: {}", line.replica, line.text));
        (shown.collect(), page.cursor)
    }

    fn stored(texts: &[&str]) -> String {
        let mut stored = String::new();
        for text in texts {
            stored.push_str("2026-01-01T00:00:00.000000Z stdout F ");
            stored.push_str(text);
            stored.push('\n');
        }
        stored
    }

    #[test]
    fn the_last_lines_come_first_and_the_cursor_goes_on_behind_them() {
        let directory = tempfile::tempdir().unwrap();
        let (zero, one) = (directory.path().join("0"), directory.path().join("1"));
        fs::create_dir_all(&zero).unwrap();
        fs::create_dir_all(&one).unwrap();
        fs::write(file_path(&zero, 1), stored(&["a", "b  b"])).unwrap();
        fs::write(file_path(&zero, 2), stored(&["c"]) + "2026-01-01 torn").unwrap();
        fs::write(file_path(&one, 1), stored(&["x"])).unwrap();
        let last = |tail| LogQuery { tail, after: None };
        let (lines, cursor) = page(directory.path(), &last(2));
        assert_eq!(lines, ["app-0: b  b", "app-0: c", "app-1: x"]);
        assert_eq!(page(directory.path(), &last(100)).0.len(), 4);
        assert_eq!(page(directory.path(), &last(0)).0.len(), 0);
        // Nothing new, then a line, a new file and a new replica.
        let after = |cursor: &str| LogQuery {
            tail: 0,
            after: Some(cursor.to_owned()),
        };
        assert_eq!(page(directory.path(), &after(&cursor)).0.len(), 0);
        fs::write(file_path(&zero, 2), stored(&["c", "d"])).unwrap();
        fs::write(file_path(&zero, 3), stored(&["e"])).unwrap();
        fs::create_dir_all(directory.path().join("2")).unwrap();
        fs::write(file_path(&directory.path().join("2"), 1), stored(&["new"])).unwrap();
        let (lines, cursor) = page(directory.path(), &after(&cursor));
        assert_eq!(lines, ["app-0: d", "app-0: e", "app-2: new"]);
        assert_eq!(page(directory.path(), &after(&cursor)).0.len(), 0);
    }

    #[test]
    fn a_page_is_bounded_and_the_rest_follows() {
        let directory = tempfile::tempdir().unwrap();
        let zero = directory.path().join("0");
        fs::create_dir_all(&zero).unwrap();
        let long = "y".repeat(1_000);
        for number in 1..=3 {
            fs::write(file_path(&zero, number), stored(&vec![long.as_str(); 900])).unwrap();
        }
        let mut cursor = "0:1:0".to_owned();
        let mut pages = Vec::new();
        loop {
            let query = LogQuery {
                tail: 0,
                after: Some(cursor),
            };
            let (lines, next) = page(directory.path(), &query);
            cursor = next;
            if lines.is_empty() {
                break;
            }
            pages.push(lines.len());
        }
        assert_eq!(pages.iter().sum::<usize>(), 2_700);
        assert!(
            pages.iter().all(|lines| lines * 1_000 < 1 << 20),
            "{pages:?}"
        );
        let tail = LogQuery {
            tail: 5_000,
            after: None,
        };
        assert!(page(directory.path(), &tail).0.len() < 1_049);
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let name = Name::new("app").unwrap();
        for cursor in ["x", "1:2", "1:2:3:4", "-1:0:0", "0:99999999999999999999:0"] {
            let query = LogQuery {
                tail: 0,
                after: Some(cursor.into()),
            };
            assert!(matches!(
                read(directory.path(), &name, &query),
                Err(PortError::Refused(_))
            ));
        }
    }
}
