//! What is mounted where: `/proc/self/mountinfo`, read by its own rules.
//!
//! The format is that of proc(5): fields parted by single blanks, any number of optional fields before a `-`, and blank,
//! tab, newline and backslash as octal escapes. A source may be empty, which leaves two blanks in a row. Names are bytes.
//! The lines also tell what a path leads to when mounts lie over each other, because each knows its parent.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A device number, as mounts and files are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number in this mount namespace.
    pub id: u32,
    /// The mount that it lies on.
    pub parent: u32,
    /// The filesystem. Files of a btrfs subvolume show other numbers.
    pub device: Device,
    /// Which directory of the filesystem is seen here; `/` is all of it.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of this mount alone: `rw`, `noatime`, …
    pub options: Vec<String>,
    /// The type: `ext4`, `fuse.sshfs`.
    pub kind: String,
    /// The block device, or what the type calls its source; may be empty.
    pub source: OsString,
    /// Options of the filesystem, the same at all its mounts.
    pub super_options: Vec<OsString>,
}

/// Every mount of this mount namespace, in the order of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

/// A line that proc(5) does not describe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} of mountinfo has no {field}")]
pub struct MountsError {
    /// Counted from one.
    line: usize,
    /// What is missing, or is not what it must be.
    field: &'static str,
}

// === impl Device ===

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

// === impl Mount ===

impl Mount {
    /// The value of an option of the filesystem: `upperdir` of `upperdir=/a`.
    pub fn super_option(&self, name: &str) -> Option<OsString> {
        self.super_options.iter().find_map(|option| {
            let value = option
                .as_encoded_bytes()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    }

    /// This mount may not be written to, whatever the filesystem allows.
    pub fn is_read_only(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }

    /// The kernel withdrew the filesystem after an error, which leaves the mount as it was made. ext4 of Linux 6.15 and later
    /// has a word for it, and its filesystem stays `rw` otherwise.
    pub fn is_withdrawn(&self) -> bool {
        let has = |name: &str| self.super_options.iter().any(|option| option == name);
        has("emergency_ro") || (self.is_filesystem_read_only() && !self.is_read_only())
    }

    /// Nobody may write to the filesystem: it was mounted so, or the kernel withdrew it after an error.
    pub fn is_filesystem_read_only(&self) -> bool {
        self.super_options.iter().any(|option| option == "ro")
    }
}

// === impl Mounts ===

impl Mounts {
    /// Reads the text of a `mountinfo` file.
    ///
    /// # Errors
    /// The first line that has not the fields of proc(5).
    pub fn parse(text: &[u8]) -> Result<Self, MountsError> {
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty());
        let mounts = lines.map(|(index, line)| {
            parse_line(line).map_err(|field| MountsError {
                line: index + 1,
                field,
            })
        });
        Ok(Self(mounts.collect::<Result<_, _>>()?))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount with this number.
    pub fn with_id(&self, id: u32) -> Option<&Mount> {
        self.iter().find(|mount| mount.id == id)
    }

    /// The mount that an absolute path without symbolic links leads to.
    ///
    /// It goes the way of the kernel: from the root over each mount that lies on the mount before, the nearest first. So
    /// of several at one place the last counts, and what was mounted below a place that is covered now does not.
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        let mut current = self
            .iter()
            .find(|mount| mount.point == Path::new("/") && !self.is_child(mount))?;
        // Each round goes to a child; a table that names itself in a circle ends after as many rounds as it has lines.
        for _ in 0..self.0.len() {
            let on_the_way = self.children(current).filter(|mount| {
                path.starts_with(&mount.point) && mount.point.starts_with(&current.point)
            });
            match on_the_way.min_by_key(|mount| mount.point.components().count()) {
                Some(next) => current = next,
                None => break,
            }
        }
        Some(current)
    }

    /// The mounts that lie directly on this one. Each hides what the filesystem has at its place.
    pub fn children<'a>(&'a self, mount: &'a Mount) -> impl Iterator<Item = &'a Mount> {
        self.iter()
            .filter(|other| other.parent == mount.id && other.id != mount.id)
    }

    /// The mounts through which most of a filesystem can be seen: those that can be reached, without those whose
    /// directory another one shows too.
    pub fn views(&self, device: Device) -> Vec<&Mount> {
        let mut reached: Vec<&Mount> = self
            .iter()
            .filter(|mount| mount.device == device && !is_gone(mount))
            .filter(|mount| self.at(&mount.point).is_some_and(|at| at.id == mount.id))
            .collect();
        // The largest part first; of equal ones the one that is reached on the shortest way.
        let length = |path: &Path| path.components().count();
        reached.sort_by_key(|mount| {
            let point = mount.point.clone();
            (length(&mount.root), length(&point), point)
        });
        let mut views: Vec<&Mount> = Vec::new();
        for mount in reached {
            if !views.iter().any(|view| mount.root.starts_with(&view.root)) {
                views.push(mount);
            }
        }
        views
    }

    fn is_child(&self, mount: &Mount) -> bool {
        mount.parent != mount.id && self.with_id(mount.parent).is_some()
    }
}

/// The directory that is shown was removed since; the kernel says so behind its name.
fn is_gone(mount: &Mount) -> bool {
    mount
        .root
        .as_os_str()
        .as_encoded_bytes()
        .ends_with(b"//deleted")
}

fn parse_line(line: &[u8]) -> Result<Mount, &'static str> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = |name: &'static str| fields.next().ok_or(name);
    let id = number(next("id")?).ok_or("id")?;
    let parent = number(next("parent")?).ok_or("parent")?;
    let device = device(next("device")?).ok_or("device")?;
    let root = PathBuf::from(unescape(next("root")?));
    let point = PathBuf::from(unescape(next("mount point")?));
    let options = list(next("options")?);
    // Propagation (`shared:1`, `master:2`, …): none, one or several.
    while next("'-'")? != b"-" {}
    let kind = text(next("type")?);
    let source = unescape(next("source")?);
    let super_options = next("options of the filesystem")?;
    Ok(Mount {
        id,
        parent,
        device,
        root,
        point,
        options,
        kind,
        source,
        super_options: super_options
            .split(|byte| *byte == b',')
            .map(unescape)
            .collect(),
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn device(field: &[u8]) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

fn list(field: &[u8]) -> Vec<String> {
    field.split(|byte| *byte == b',').map(text).collect()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Takes the octal escapes out. What only looks like one stays.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let escape = if *first == b'\\' { octal(behind) } else { None };
        let (byte, after) = escape.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes)
}

fn octal(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = text.split_at_checked(3)?;
    let value = digits.iter().try_fold(0_u32, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u32::from(digit - b'0')),
        _ => None,
    })?;
    Some((u8::try_from(value).ok()?, after))
}

#[cfg(test)]
mod tests;
