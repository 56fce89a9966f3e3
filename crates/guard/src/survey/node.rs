//! The node before it is walked: what is mounted, what of it matters, and where each walk begins.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Effort, Hidden, Place, Request, SurveyError, Under};
use crate::advice::{self, Advice, Facts};
use crate::blocks::Tally;
use crate::clean::place;
use crate::filesystem::{self, Filesystem, Kind};
use crate::kubelet::Thresholds;
use crate::marks::{self, Marks, beneath};
use crate::mounts::{Device, Mount, Mounts};
use crate::owner::Owner;
use crate::owner_table::GUARDED;
use crate::view;
use crate::walk::tree::{NodeId, Tree};
use crate::walk::{self, Limits, Manner, Pace, Start, Walked, Watch};

/// Directories whose filesystem kubelet calls that of the images: the first that is there.
const IMAGES: [&str; 5] = [
    "/var/lib/containerd",
    "/var/lib/rancher",
    "/var/lib/k0s",
    "/var/lib/docker",
    "/var/lib/containers",
];
const KUBELET: &str = "/var/lib/kubelet";
/// Whose bytes are images and what containers wrote.
const IMAGE_OWNERS: [Owner; 6] = [
    Owner::Containerd,
    Owner::ContainerdContent,
    Owner::ContainerdIngest,
    Owner::ContainerdSnapshots,
    Owner::Docker,
    Owner::ContainersStorage,
];

/// What is known before anything is walked.
#[derive(Debug)]
pub(super) struct Node<'a> {
    request: &'a Request,
    pub(super) mounts: Mounts,
    pub(super) root: OwnedFd,
    /// Guarded paths that are there: as the rules call them, and where they lead.
    pub(super) guarded: Vec<(&'static str, PathBuf)>,
}

/// One walk: directories with the mount that each is seen through.
#[derive(Debug)]
pub(super) struct Task<'a> {
    starts: Vec<(PathBuf, &'a Mount)>,
    is_whole: bool,
}

// === impl Task ===

impl Task<'_> {
    /// All of the filesystem is walked.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The filesystems that it walks.
    pub(super) fn disks(&self) -> impl Iterator<Item = Filesystem> {
        let mounts = self.starts.iter().map(|(_, mount)| mount);
        mounts.map(|mount| Filesystem::look(mount, Vec::new()))
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Looks at the guarded paths.
    ///
    /// # Errors
    /// The root of the node cannot be opened.
    pub(super) fn look(request: &'a Request, mounts: Mounts) -> Result<Self, SurveyError> {
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&request.root, how, Mode::empty()).map_err(|source| {
            SurveyError::Open {
                path: request.root.clone(),
                source,
            }
        })?;
        let guarded = GUARDED
            .iter()
            .filter_map(|path| Some((*path, resolve(&root, path)?)));
        Ok(Self {
            guarded: guarded.collect(),
            request,
            mounts,
            root,
        })
    }

    /// The disks that hold something guarded, each from where most of it is seen.
    pub(super) fn disks(&self) -> Vec<Task<'_>> {
        let held = self
            .filesystems()
            .into_iter()
            .filter(|filesystem| filesystem.kind == Kind::Disk && !filesystem.holds.is_empty());
        held.filter_map(|filesystem| self.whole(filesystem.device))
            .collect()
    }

    /// A disk from where most of it is seen. None when it is mounted nowhere.
    pub(super) fn whole(&self, device: Device) -> Option<Task<'_>> {
        let views = self.mounts.views(device);
        // The largest part is the first.
        let is_whole = views.first()?.root == Path::new("/");
        Some(Task {
            starts: views
                .into_iter()
                .map(|mount| (mount.point.clone(), mount))
                .collect(),
            is_whole,
        })
    }

    /// The directories that were named, each by itself.
    ///
    /// # Errors
    /// One is not there, or lies where nothing is walked.
    pub(super) fn named(&self) -> Result<Vec<Task<'_>>, SurveyError> {
        let named = self.request.paths.iter();
        named.map(|path| self.task(path)).collect()
    }

    /// The disk that a path lies on.
    ///
    /// # Errors
    /// The path is not there, or lies on something else.
    pub(super) fn disk_of(&self, path: &Path) -> Result<Vec<Filesystem>, SurveyError> {
        let disks: Vec<Filesystem> = self.task(path)?.disks().collect();
        match disks.iter().find(|disk| disk.kind != Kind::Disk) {
            Some(other) => Err(SurveyError::NotDisk {
                path: path.to_owned(),
                fstype: other.fstype.clone(),
            }),
            None => Ok(disks),
        }
    }

    fn task(&self, named: &Path) -> Result<Task<'_>, SurveyError> {
        let find = |source| SurveyError::Find {
            path: named.to_owned(),
            source,
        };
        let path = named.canonicalize().map_err(find)?;
        let mount = self.mounts.at(&path);
        let mount = mount.ok_or_else(|| find(std::io::ErrorKind::NotFound.into()))?;
        if !Kind::of(&mount.kind).may_be_walked() {
            return Err(SurveyError::NotWalked {
                path,
                fstype: mount.kind.clone(),
            });
        }
        let is_whole = path == mount.point
            && mount.root == Path::new("/")
            && Kind::of(&mount.kind) != Kind::Layered;
        Ok(Task {
            starts: vec![(path, mount)],
            is_whole,
        })
    }

    /// Every filesystem for storage, as it is now.
    pub(super) fn filesystems(&self) -> Vec<Filesystem> {
        let guarded: Vec<PathBuf> = self.guarded.iter().map(|(_, path)| path.clone()).collect();
        filesystem::all(&self.mounts, &guarded)
    }

    /// The first guarded path on a disk, as the rules call it.
    pub(super) fn name_of(&self, device: Device) -> Option<&'static str> {
        let mut guarded = self.guarded.iter();
        let found = guarded.find(|(_, path)| {
            let mount = self.mounts.at(path);
            mount.is_some_and(|mount| mount.device == device)
        });
        found.map(|(name, _)| *name)
    }

    /// When kubelet kills pods for space.
    pub(super) fn thresholds(&self) -> Thresholds {
        let file = resolve(&self.root, nagi_cri::kubelet::CONFIG);
        Thresholds::read(
            &file
                .unwrap_or_else(|| beneath(&self.request.root, nagi_cri::kubelet::CONFIG.as_ref())),
        )
    }

    /// What it all means.
    pub(super) fn advice(
        &self,
        filesystems: &[Filesystem],
        thresholds: &Thresholds,
        places: &[Place],
    ) -> Vec<Advice> {
        let shares: Vec<(PathBuf, u64, u64)> = places
            .iter()
            .filter(|place| place.is_whole)
            .map(|place| {
                let images: Tally = IMAGE_OWNERS.iter().map(|owner| place.of(*owner)).sum();
                let point = place.filesystem.point.clone();
                (point, images.bytes(), place.visible.bytes())
            })
            .collect();
        advice::judge(&Facts {
            filesystems,
            thresholds,
            node: &self.request.root,
            kubelet: self.place_of(KUBELET),
            images: IMAGES.iter().find_map(|path| self.place_of(path)),
            shares: &shares,
        })
    }

    /// Walks.
    ///
    /// # Errors
    /// A directory where it begins cannot be opened or asked.
    pub(super) fn walk(&self, task: &Task<'_>, watch: &Watch) -> Result<Place, SurveyError> {
        self.walk_within(task, watch, Limits::DEFAULT, None)
    }

    /// The same for nobody who waits: at a pace, and with little memory.
    ///
    /// # Errors
    /// As [`Node::walk`].
    pub(super) fn stroll(&self, task: &Task<'_>, pace: &Pace) -> Result<Place, SurveyError> {
        self.walk_within(task, &Watch::new(), Limits::SMALL, Some(pace))
    }

    fn walk_within(
        &self,
        task: &Task<'_>,
        watch: &Watch,
        limits: Limits,
        pace: Option<&Pace>,
    ) -> Result<Place, SurveyError> {
        let Some((first, mount)) = task.starts.first() else {
            return Err(SurveyError::Open {
                path: self.request.root.clone(),
                source: Errno::NOENT,
            });
        };
        let covers = self.covers(task);
        let mut starts = Vec::new();
        let mut seen = Ok(());
        for (path, _) in &task.starts {
            let view = view::open(path).map_err(|source| SurveyError::Open {
                path: path.clone(),
                source,
            })?;
            seen = seen.and(view.past_mounts);
            starts.push(Start {
                directory: view.directory,
                path: path.clone(),
            });
        }
        let mut marks = self.marks();
        for (number, cover) in (0..).zip(&covers) {
            marks.cover(&cover.point, number);
        }
        let manner = Manner {
            marks: &marks,
            threads: self.request.threads,
            top: match self.request.effort {
                Effort::Whole => self.request.top,
                Effort::Total => 0,
            },
            watch,
            limits,
            pace,
        };
        let walked = walk::walk(&starts, &manner).map_err(|source| match source {
            Errno::NOSYS => SurveyError::Kernel,
            source => SurveyError::Walk {
                path: first.clone(),
                source,
            },
        })?;
        let holds = self.guarded.iter().map(|(_, path)| path.clone());
        let holds = holds.filter(|path| {
            self.mounts
                .at(path)
                .is_some_and(|at| at.device == mount.device)
        });
        Ok(place(
            Filesystem::look(mount, holds.collect()),
            task,
            walked,
            seen.map(|()| covers),
            self.request.top,
        ))
    }

    /// The mounts that hide something of what is walked.
    fn covers<'b>(&'b self, task: &'b Task<'b>) -> Vec<&'b Mount> {
        let all = task.starts.iter().flat_map(|(path, mount)| {
            self.mounts
                .children(mount)
                .filter(move |child| child.point.starts_with(path) && child.point != *path)
        });
        all.collect()
    }

    fn marks(&self) -> Marks {
        match self.request.effort {
            Effort::Whole => {
                let machine = place::machine_id(&self.root);
                Marks::owners(&self.request.root, &self.moved(), machine.as_deref())
            }
            Effort::Total => Marks::none(),
        }
    }

    /// Directories of the rules that are links on this node, and where they lead.
    fn moved(&self) -> Vec<(PathBuf, PathBuf)> {
        let moved = marks::ruled().filter_map(|path| {
            let leads_to = resolve(&self.root, &path)?;
            (leads_to != beneath(&self.request.root, &path)).then_some((path, leads_to))
        });
        moved.collect()
    }

    fn place_of(&self, path: &str) -> Option<&Path> {
        let found = self.guarded.iter().find(|(name, _)| *name == path);
        found.map(|(_, place)| place.as_path())
    }
}

/// Where a path of the node leads, links followed as on the node. None when it is not there.
pub(super) fn resolve(root: &OwnedFd, path: impl AsRef<Path>) -> Option<PathBuf> {
    let how = OFlags::PATH | OFlags::CLOEXEC;
    let path = path.as_ref();
    let opened = rustix::fs::openat2(root, path, how, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()
}

fn place(
    filesystem: Filesystem,
    task: &Task<'_>,
    walked: Walked,
    covers: Result<Vec<&Mount>, Errno>,
    top: usize,
) -> Place {
    let hidden: Tally = walked.hidden.iter().copied().sum();
    let total = walked.tree.total();
    let visible = Tally {
        blocks: crate::Blocks(total.blocks.0.saturating_sub(hidden.blocks.0)),
        inodes: total.inodes.saturating_sub(hidden.inodes),
    };
    let mut owners: Vec<(Owner, Tally)> = Owner::all().zip(walked.owners.iter().copied()).collect();
    owners.retain(|(_, tally)| tally.inodes > 0);
    owners.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.blocks));
    let under = match covers {
        Ok(covers) => Under::Seen(hidden_by(&covers, &walked.hidden)),
        Err(why) => Under::NotSeen(why, walked.crossed),
    };
    Place {
        paths: task.starts.iter().map(|(path, _)| path.clone()).collect(),
        is_whole: task.is_whole,
        visible,
        owners,
        under,
        largest: walked.largest,
        crowded: crowded(&walked.tree, top),
        deleted: Vec::new(),
        gap: None,
        subvolumes: walked.subvolumes,
        unread: (walked.faults.first, walked.faults.count),
        vanished: walked.faults.vanished,
        links_by_chance: walked.links_by_chance,
        is_cut: walked.is_cut,
        devices: walked.devices,
        tree: walked.tree,
        filesystem,
    }
}

/// The largest first. What holds nothing but its own empty directory hides nothing.
fn hidden_by(covers: &[&Mount], tallies: &[Tally]) -> Vec<Hidden> {
    let mut hidden: Vec<Hidden> = covers
        .iter()
        .zip(tallies)
        .filter(|(_, tally)| tally.inodes > 0)
        .map(|(cover, tally)| Hidden {
            point: cover.point.clone(),
            fstype: cover.kind.clone(),
            source: cover.source.clone(),
            tally: *tally,
        })
        .collect();
    hidden.sort_by_key(|one| std::cmp::Reverse(one.tally.blocks));
    hidden
}

/// The directories with the most entries of their own, by path where equal.
fn crowded(tree: &Tree, top: usize) -> Vec<NodeId> {
    let mut all: Vec<(u64, NodeId)> = tree
        .ids()
        .map(|id| (tree.own(id).inodes, id))
        .filter(|(inodes, _)| *inodes > 1)
        .collect();
    let larger = |one: &(u64, NodeId), other: &(u64, NodeId)| {
        let by_path = || tree.path(one.1).cmp(&tree.path(other.1));
        other.0.cmp(&one.0).then_with(by_path)
    };
    if all.len() > top {
        all.select_nth_unstable_by(top, larger);
        all.truncate(top);
    }
    all.sort_by(larger);
    all.into_iter().map(|(_, id)| id).collect()
}
