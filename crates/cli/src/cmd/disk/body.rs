//! The survey as JSON and YAML: types of their own, because programs rely on them.
//!
//! Sizes are in bytes, allocated and not apparent. A path that is no UTF-8 has its bytes as `\xHH`, and all of them in
//! `path_hex`. Of the tree there is what matters: of each directory the largest below it, as long as they are at least a
//! thousandth of the whole.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nagi_guard::{
    Advice, Class, Estimate, Filesystem, Gap, NodeId, Place, ReadOnly, Survey, Tally,
    ThresholdSource, Tree, Under,
};
use serde::Serialize;

use super::text;

/// Directories of less than this part of the whole are summed up.
const TREE_PARTS: u64 = 1000;
/// No tree is drawn deeper.
const TREE_DEPTH: usize = 32;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// `success`, or `partial` when something could not be read.
    status: &'static str,
    message: String,
    filesystems: Vec<FilesystemBody>,
    places: Vec<PlaceBody>,
    eviction: EvictionBody,
    advice: Vec<AdviceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<ProcessesBody>,
}

#[derive(Debug, Serialize)]
struct FilesystemBody {
    mounted_on: PathBody,
    device: String,
    #[serde(rename = "type")]
    fstype: String,
    source: String,
    read_only: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<SpaceBody>,
    holds: Vec<PathBody>,
}

#[derive(Debug, Serialize)]
struct SpaceBody {
    bytes: u64,
    used: u64,
    free: u64,
    available: u64,
    reserved: u64,
    used_percent: Option<u64>,
    inodes: u64,
    inodes_used: u64,
    inodes_free: u64,
    inodes_used_percent: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PlaceBody {
    paths: Vec<PathBody>,
    mounted_on: PathBody,
    whole_filesystem: bool,
    #[serde(flatten)]
    visible: TallyBody,
    owners: Vec<OwnerBody>,
    classes: Vec<ClassBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapBody>,
    under_mounts: UnderBody,
    deleted_open: Vec<DeletedBody>,
    tree: Vec<TreeBody>,
    largest_files: Vec<FileBody>,
    fullest_directories: Vec<DirectoryBody>,
    subvolumes: Vec<PathBody>,
    unread: UnreadBody,
    /// Entries that were gone when they were looked at.
    vanished: u64,
    /// Directories that are counted at one above them.
    folded: u64,
    /// For files with several names: whether chance decided at which one they are counted.
    links_by_chance: bool,
}

#[derive(Debug, Serialize)]
struct PathBody {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

#[derive(Debug, Serialize)]
struct TallyBody {
    bytes: u64,
    inodes: u64,
}

#[derive(Debug, Serialize)]
struct OwnerBody {
    owner: &'static str,
    class: &'static str,
    #[serde(flatten)]
    tally: TallyBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    lever: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct ClassBody {
    class: &'static str,
    #[serde(flatten)]
    tally: TallyBody,
}

#[derive(Debug, Serialize)]
struct GapBody {
    used: u64,
    files: u64,
    hidden: Option<u64>,
    deleted_open: u64,
    filesystem: u64,
    filesystem_is_exact: bool,
    shared: u64,
    unexplained: i64,
    unexplained_per_mille: u64,
}

#[derive(Debug, Serialize)]
struct UnderBody {
    seen: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    mounts: Vec<HiddenBody>,
}

#[derive(Debug, Serialize)]
struct HiddenBody {
    #[serde(flatten)]
    point: PathBody,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    fstype: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    tally: Option<TallyBody>,
}

#[derive(Debug, Serialize)]
struct DeletedBody {
    #[serde(flatten)]
    path: PathBody,
    bytes: u64,
    holders: Vec<HolderBody>,
}

#[derive(Debug, Serialize)]
struct HolderBody {
    /// Null for a loop device.
    pid: Option<u32>,
    command: String,
    /// Absent when the file is only mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<u32>,
}

#[derive(Debug, Serialize)]
struct TreeBody {
    #[serde(flatten)]
    path: PathBody,
    #[serde(flatten)]
    tally: TallyBody,
    owner: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hidden: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    directories: Vec<TreeBody>,
}

#[derive(Debug, Serialize)]
struct FileBody {
    #[serde(flatten)]
    path: PathBody,
    bytes: u64,
    owner: &'static str,
}

#[derive(Debug, Serialize)]
struct DirectoryBody {
    #[serde(flatten)]
    path: PathBody,
    /// In the directory itself.
    inodes: u64,
}

#[derive(Debug, Serialize)]
struct UnreadBody {
    count: u64,
    first: Vec<FaultBody>,
}

#[derive(Debug, Serialize)]
struct FaultBody {
    #[serde(flatten)]
    path: PathBody,
    error: String,
}

#[derive(Debug, Serialize)]
struct EvictionBody {
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    nodefs_available: Option<String>,
    nodefs_inodes_free: Option<String>,
    imagefs_available: Option<String>,
    imagefs_inodes_free: Option<String>,
}

#[derive(Debug, Serialize)]
struct AdviceBody {
    kind: &'static str,
    #[serde(flatten)]
    mounted_on: PathBody,
    message: String,
}

#[derive(Debug, Serialize)]
struct ProcessesBody {
    looked_at: u64,
    denied: u64,
}

// === impl Answer ===

impl Answer {
    /// The survey for programs; of each directory the `top` largest below it.
    pub(super) fn of(survey: &Survey, top: usize) -> Self {
        let unread: u64 = survey.places.iter().map(|place| place.unread.1).sum();
        Self {
            status: if unread == 0 { "success" } else { "partial" },
            message: match unread {
                0 => "surveyed".to_owned(),
                unread => format!("surveyed; could not read: {unread}"),
            },
            filesystems: survey.filesystems.iter().map(filesystem).collect(),
            places: survey.places.iter().map(|one| place(one, top)).collect(),
            eviction: eviction(survey),
            advice: survey.advice.iter().map(advice).collect(),
            processes: survey.open.as_ref().map(|open| ProcessesBody {
                looked_at: open.processes,
                denied: open.denied,
            }),
        }
    }
}

/// A path as text: what is no UTF-8 as `\xHH`.
pub(super) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            write!(text, "\\x{byte:02x}").unwrap_or(());
        }
    }
    text
}

fn path(path: &Path) -> PathBody {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap_or(());
            text
        })
    };
    let is_text = path.to_str().is_some();
    PathBody {
        path: shown(path),
        path_hex: (!is_text).then(|| hex(path.as_os_str().as_bytes())),
    }
}

fn tally(tally: Tally) -> TallyBody {
    TallyBody {
        bytes: tally.bytes(),
        inodes: tally.inodes,
    }
}

fn filesystem(one: &Filesystem) -> FilesystemBody {
    FilesystemBody {
        mounted_on: path(&one.point),
        device: one.device.to_string(),
        fstype: one.fstype.clone(),
        source: shown(Path::new(&one.source)),
        read_only: match one.read_only {
            ReadOnly::No => "no",
            ReadOnly::Mount => "mount",
            ReadOnly::Filesystem | ReadOnly::Withdrawn => "filesystem",
        },
        space: one.space.map(|space| SpaceBody {
            bytes: space.bytes,
            used: space.used(),
            free: space.bytes_free,
            available: space.bytes_available,
            reserved: space.reserved(),
            used_percent: space.used_percent(),
            inodes: space.inodes,
            inodes_used: space.inodes_used(),
            inodes_free: space.inodes_free,
            inodes_used_percent: space.inodes_used_percent(),
        }),
        holds: one.holds.iter().map(|held| path(held)).collect(),
    }
}

fn place(one: &Place, top: usize) -> PlaceBody {
    let tree = &one.tree;
    let class = |class: Class| ClassBody {
        class: class.word(),
        tally: tally(text::of_class(one, class)),
    };
    PlaceBody {
        paths: one.paths.iter().map(|start| path(start)).collect(),
        mounted_on: path(&one.filesystem.point),
        whole_filesystem: one.is_whole,
        visible: tally(one.visible),
        owners: one
            .owners
            .iter()
            .map(|(owner, sum)| OwnerBody {
                owner: owner.name(),
                class: owner.class().word(),
                tally: tally(*sum),
                lever: owner.lever(),
            })
            .collect(),
        classes: Class::ALL.into_iter().map(class).collect(),
        gap: one.gap.as_ref().map(gap),
        under_mounts: under(&one.under),
        deleted_open: deleted(one),
        tree: tree
            .starts()
            .map(|start| branch(tree, start, top, TREE_DEPTH))
            .collect(),
        largest_files: one
            .largest
            .iter()
            .map(|file| FileBody {
                path: path(&file.path),
                bytes: file.blocks.bytes(),
                owner: file.owner.name(),
            })
            .collect(),
        fullest_directories: one
            .crowded
            .iter()
            .map(|id| DirectoryBody {
                path: path(&tree.path(*id)),
                inodes: tree.own(*id).inodes,
            })
            .collect(),
        subvolumes: one.subvolumes.iter().map(|root| path(root)).collect(),
        unread: UnreadBody {
            count: one.unread.1,
            first: one
                .unread
                .0
                .iter()
                .map(|fault| FaultBody {
                    path: path(&fault.path),
                    error: fault.error.to_string(),
                })
                .collect(),
        },
        vanished: one.vanished,
        folded: tree.folded(),
        links_by_chance: one.links_by_chance,
    }
}

fn deleted(place: &Place) -> Vec<DeletedBody> {
    let files = place.deleted.iter().map(|file| DeletedBody {
        path: path(&file.path),
        bytes: file.blocks.bytes(),
        holders: file
            .holders
            .iter()
            .map(|holder| HolderBody {
                pid: (holder.pid != 0).then_some(holder.pid),
                command: holder.command.clone(),
                fd: holder.fd,
            })
            .collect(),
    });
    files.collect()
}

fn gap(gap: &Gap) -> GapBody {
    let rest = gap.rest();
    GapBody {
        used: gap.used,
        files: gap.files,
        hidden: gap.hidden,
        deleted_open: gap.deleted,
        filesystem: gap.own.bytes(),
        filesystem_is_exact: matches!(gap.own, Estimate::Exact(_)),
        shared: gap.shared,
        unexplained: i64::try_from(rest).unwrap_or(if rest < 0 { i64::MIN } else { i64::MAX }),
        unexplained_per_mille: gap.rest_per_mille(),
    }
}

fn under(under: &Under) -> UnderBody {
    match under {
        Under::Seen(hidden) => UnderBody {
            seen: true,
            reason: None,
            mounts: hidden
                .iter()
                .map(|one| HiddenBody {
                    point: path(&one.point),
                    fstype: Some(one.fstype.clone()),
                    tally: Some(tally(one.tally)),
                })
                .collect(),
        },
        Under::NotSeen(why, points) => UnderBody {
            seen: false,
            reason: Some(why.to_string()),
            mounts: points
                .iter()
                .map(|point| HiddenBody {
                    point: path(point),
                    fstype: None,
                    tally: None,
                })
                .collect(),
        },
    }
}

fn branch(tree: &Tree, id: NodeId, top: usize, depth: usize) -> TreeBody {
    let floor = tree.total().bytes() / TREE_PARTS;
    let below = if depth == 0 {
        Vec::new()
    } else {
        tree.largest_below(id)
    };
    let below = below
        .into_iter()
        .take(top)
        .filter(|child| tree.sum(*child).bytes() > floor);
    TreeBody {
        path: path(&tree.path(id)),
        tally: tally(tree.sum(id)),
        owner: tree.owner(id).name(),
        hidden: tree.is_hidden(id),
        directories: below
            .map(|child| branch(tree, child, top, depth - 1))
            .collect(),
    }
}

fn eviction(survey: &Survey) -> EvictionBody {
    let thresholds = &survey.thresholds;
    let shown = |quantity: Option<nagi_guard::Quantity>| quantity.map(|one| one.to_string());
    let (source, error) = match &thresholds.source {
        ThresholdSource::File => ("file", None),
        ThresholdSource::Defaults => ("defaults", None),
        ThresholdSource::Unreadable(why) => ("defaults", Some(why.clone())),
    };
    EvictionBody {
        source,
        error,
        nodefs_available: shown(thresholds.nodefs_available),
        nodefs_inodes_free: shown(thresholds.nodefs_inodes_free),
        imagefs_available: shown(thresholds.imagefs_available),
        imagefs_inodes_free: shown(thresholds.imagefs_inodes_free),
    }
}

fn advice(advice: &Advice) -> AdviceBody {
    let (kind, point) = match advice {
        Advice::ReadOnly { point } => ("read-only", point),
        Advice::Evicting { point, .. } => ("evicting", point),
        Advice::OnlyReserve { point, .. } => ("only-reserve", point),
        Advice::AboveGoal { point, .. } => ("above-goal", point),
        Advice::Headroom { point, .. } => ("headroom", point),
        Advice::BelowFloor { point, .. } => ("below-floor", point),
        Advice::BelowAdvised { point, .. } => ("below-advised", point),
        Advice::ImagesAboveHalf { point, .. } => ("images-above-half", point),
    };
    AdviceBody {
        kind,
        mounted_on: path(point),
        message: text::advice(advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn a_path_that_is_no_text_can_be_read_and_taken_back() {
        let odd = Path::new(OsStr::from_bytes(b"/a/\xff\xc3\xa4\xc3"));
        let body = path(odd);
        assert_eq!(body.path, "/a/\\xffä\\xc3");
        assert_eq!(body.path_hex.as_deref(), Some("2f612fffc3a4c3"));
        assert_eq!(path(Path::new("/凪")).path, "/凪");
        assert_eq!(path(Path::new("/凪")).path_hex, None);
    }
}
