//! Ballast: two files that hold space back for the worst minute, and give it back without needing any.
//!
//! Two, because a half must come back alone: of a file that is cut in two btrfs keeps the whole extent, and gives nothing back.
//!
//! It is worth something only where the disk really gave the blocks away, so that is measured: free blocks must have fallen
//! by what it holds. Some filesystems say yes to `fallocate` and reserve nothing, or pack what is written; then bytes that
//! cannot be packed are tried, and where that reserves nothing either, there is no ballast and the answer says so.
//!
//! The first bytes of each say that it is ours. Whatever else lies under these names is left alone.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::clean::place;
use crate::clean::reach::Reach;
use crate::filesystem::Space;
use crate::own::{make, own};

/// Its halves, in the order in which they are taken.
const NAMES: [&str; 2] = ["ballast.1", "ballast.2"];
/// The first words of a file of ours.
const MARK: &[u8; 15] = b"nagi ballast 1\n";
/// How long that is.
const MARK_BYTES: u64 = 15;
/// The least that helps: a journal, a few logs and etcd's next pages.
const LEAST: u64 = 64 << 20;
/// What a large disk gives away at most, unless it fills fast.
const MOST: u64 = 1 << 30;
/// So long it must last when a disk fills as fast as it does: until somebody has read the alert and acted.
const REACTION_HOURS: f64 = 0.5;
/// So much of the size must have gone from the free blocks. Others give space back at the same moment; a file that was packed
/// takes a few percent of its size.
const REAL_PERCENT: u64 = 95;
/// Random bytes are written in pieces of this.
const PIECE: usize = 1 << 20;

/// Why there is no ballast.
#[derive(Debug, Error)]
pub enum BallastError {
    /// The directory cannot be opened or made.
    #[error("cannot open the directory of the ballast")]
    Directory(#[source] Errno),
    /// Something else has its name.
    #[error("what lies under the name of the ballast is none of ours")]
    Foreign,
    /// It cannot be made or given back.
    #[error("cannot write the ballast")]
    Write(#[source] Errno),
    /// The disk took it and gave nothing away for it: it packs what is written, or only promised.
    #[error(
        "this filesystem reserves nothing for it: {taken} of {bytes} bytes went from its free blocks"
    )]
    Worthless {
        /// What was asked for.
        bytes: u64,
        /// What went from the free blocks.
        taken: u64,
    },
}

/// A way to fill a file so that it holds its blocks.
pub trait Reserve {
    /// Fills the file from its beginning.
    ///
    /// # Errors
    /// The disk does not take it.
    fn reserve(&self, file: &OwnedFd, bytes: u64) -> Result<(), Errno>;
}

/// `fallocate`: at once, and writes nothing.
#[derive(Debug)]
pub struct Allocate;

/// Bytes that nothing packs.
#[derive(Debug)]
pub struct Scramble;

/// The ballast of one disk, by the directory that its halves lie in.
#[derive(Debug)]
pub struct Ballast {
    directory: OwnedFd,
}

/// What a disk should hold back, in bytes: 1 % of it, between 64 MiB and 1 GiB, and at least what it fills with in half an hour;
/// but never more than a twentieth, so that a small disk is not full of it. 0 where that is less than 2 MiB.
///
/// `growth` is in bytes an hour.
pub fn wanted(bytes: u64, growth: Option<f64>) -> u64 {
    let by_size = (bytes / 100).clamp(LEAST, MOST);
    let by_growth = growth.map_or(0.0, |growth| (growth * REACTION_HOURS).max(0.0));
    let most = bytes / 20;
    // Whole MiB in each half.
    let all = by_size.max(whole(by_growth)).min(most) >> 21;
    all << 21
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::as_conversions,
    reason = "a float becomes the nearest whole number that there is: no wrap"
)]
const fn whole(bytes: f64) -> u64 {
    bytes as u64
}

// === impl Reserve ===

impl Reserve for Allocate {
    fn reserve(&self, file: &OwnedFd, bytes: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes)
    }
}

impl Reserve for Scramble {
    fn reserve(&self, file: &OwnedFd, bytes: u64) -> Result<(), Errno> {
        // SplitMix64: no secret, only nothing that a packer finds a pattern in.
        let mut state = bytes;
        // The mark stays: a crash on the way must not leave a file that nobody owns.
        let mut at = MARK_BYTES;
        let mut piece = vec![0; PIECE];
        while at < bytes {
            for eight in piece.chunks_mut(8) {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                eight.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
            }
            let rest = usize::try_from(bytes - at).unwrap_or(PIECE).min(PIECE);
            let written = rustix::io::pwrite(file, piece.get(..rest).unwrap_or(&piece), at)?;
            at += u64::try_from(written).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

// === impl Ballast ===

impl Ballast {
    /// How a ballast is filled, the best way first.
    pub const WAYS: [&'static dyn Reserve; 2] = [&Allocate, &Scramble];

    /// The ballast of the disk that a directory of the node lies on. `place` is that directory (`/var/lib`), and ours is made
    /// in it.
    ///
    /// # Errors
    /// It cannot be opened or made, or may not answer.
    pub fn at(root: &Path, place: &Path, name: &str) -> Result<Self, BallastError> {
        Self::opened(root, place, |base| own(&base, name))
    }

    /// The same where there is one already; nothing is made.
    ///
    /// # Errors
    /// It cannot be opened, or may not answer.
    pub fn find(root: &Path, place: &Path, name: &str) -> Result<Option<Self>, BallastError> {
        match Self::opened(root, place, |base| {
            place::open_below(&base, name.as_bytes())
        }) {
            Ok(found) => Ok(Some(found)),
            Err(BallastError::Directory(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn opened(
        root: &Path,
        place: &Path,
        open: impl FnOnce(OwnedFd) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, BallastError> {
        let failed = BallastError::Directory;
        let root = place::open_root(root).map_err(failed)?;
        let reach = Reach::of(&root).map_err(|_unreadable| failed(Errno::NOENT))?;
        if reach.refuses(place).is_some() {
            return Err(failed(Errno::OPNOTSUPP));
        }
        let base = place::open_base(&root, place).map_err(failed)?;
        let directory = open(base.ok_or(failed(Errno::NOENT))?).map_err(failed)?;
        Ok(Self { directory })
    }

    /// What it holds; 0 when there is none.
    ///
    /// # Errors
    /// Something else has one of its names.
    pub fn held(&self) -> Result<u64, BallastError> {
        Ok(self.halves()?.iter().sum())
    }

    /// What each half holds, in the order in which they are taken: the last one that holds something goes first.
    ///
    /// # Errors
    /// Something else has one of its names.
    pub fn halves(&self) -> Result<[u64; 2], BallastError> {
        let [first, second] = NAMES;
        Ok([self.held_by(first)?, self.held_by(second)?])
    }

    /// Takes so much, in place of what there was.
    ///
    /// # Errors
    /// The disk has no room or reserves nothing for it, in any of these ways; then nothing of it is left.
    pub fn take(&self, bytes: u64, ways: &[&dyn Reserve]) -> Result<(), BallastError> {
        self.leave(0)?;
        let mut last = BallastError::Write(Errno::INVAL);
        for way in ways {
            let mut halves = NAMES.iter().map(|name| self.try_to(name, bytes / 2, *way));
            match halves.by_ref().collect::<Result<(), _>>() {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            self.leave(0)?;
        }
        Err(last)
    }

    /// Gives halves back until it holds no more than this. Needs neither a byte nor an inode.
    ///
    /// # Errors
    /// The filesystem fails, or something else has one of its names.
    pub fn leave(&self, bytes: u64) -> Result<(), BallastError> {
        for name in NAMES.iter().rev() {
            // One that was cut short by a crash holds nothing, and goes when nothing is to be left.
            if bytes == 0 || self.held()? > bytes {
                self.drop_half(name)?;
            }
        }
        Ok(())
    }

    fn held_by(&self, name: &str) -> Result<u64, BallastError> {
        match place::look(&self.directory, name.as_bytes()) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(0),
            Err(error) => return Err(BallastError::Write(error)),
        }
        let file = self.open(name)?;
        let stat = rustix::fs::fstat(&file).map_err(BallastError::Write)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512);
        // One with holes holds what it has blocks for.
        Ok(size.min(blocks))
    }

    fn try_to(&self, name: &str, bytes: u64, way: &dyn Reserve) -> Result<(), BallastError> {
        let write = BallastError::Write;
        let free = || {
            rustix::fs::syncfs(&self.directory)?;
            Ok(Space::of(&rustix::fs::fstatvfs(&self.directory)?).bytes_free)
        };
        let before = free().map_err(write)?;
        let file = make(&self.directory, name, OFlags::RDWR | OFlags::EXCL).map_err(write)?;
        // Before, so that a crash leaves a file that is known as ours; after, whatever the way wrote there.
        rustix::io::pwrite(&file, MARK, 0)
            .and_then(|_| way.reserve(&file, bytes))
            .and_then(|()| rustix::io::pwrite(&file, MARK, 0))
            .and_then(|_| rustix::fs::fsync(&file))
            .and_then(|()| rustix::fs::fsync(&self.directory))
            .map_err(write)?;
        let taken = before.saturating_sub(free().map_err(write)?);
        if taken < bytes / 100 * REAL_PERCENT {
            return Err(BallastError::Worthless { bytes, taken });
        }
        Ok(())
    }

    /// Opens a file of ours, and no other.
    fn open(&self, name: &str) -> Result<OwnedFd, BallastError> {
        let how = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, how, Mode::empty());
        let file = file.map_err(|error| match error {
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => BallastError::Foreign,
            error => BallastError::Write(error),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(BallastError::Write)?;
        let is_plain = FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1;
        let mut mark = [0; MARK.len()];
        let read = if is_plain {
            rustix::io::pread(&file, &mut mark, 0).map_err(BallastError::Write)?
        } else {
            0
        };
        // A crash between making and marking leaves an empty one: nobody's bytes.
        let is_ours = (read == MARK.len() && mark == *MARK) || stat.st_size == 0;
        if is_plain && is_ours {
            Ok(file)
        } else {
            Err(BallastError::Foreign)
        }
    }

    fn drop_half(&self, name: &str) -> Result<(), BallastError> {
        match self.open(name) {
            Ok(_) => {}
            Err(BallastError::Write(Errno::NOENT)) => return Ok(()),
            Err(error) => return Err(error),
        }
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()).map_err(BallastError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // B17, §3.2: by size, by growth, and never more than a small disk bears.
    #[test]
    fn ballast_is_sized_by_disk_and_growth() {
        const GIB: u64 = 1 << 30;
        assert_eq!(wanted(8 * GIB, None) >> 20, 80);
        assert_eq!(wanted(2 * GIB, None) >> 20, 64);
        assert_eq!(wanted(1000 * GIB, None), GIB);
        assert_eq!(wanted(320 << 20, None) >> 20, 16);
        assert_eq!(wanted(10 << 20, None), 0);
        // 20 GiB an hour: ten of them in half an hour, and a twentieth of 100 GiB is five.
        let fast = 20.0 * 1_073_741_824.0;
        assert_eq!(wanted(1000 * GIB, Some(fast)), 10 * GIB);
        assert_eq!(wanted(100 * GIB, Some(fast)), 5 * GIB);
        assert_eq!(wanted(1000 * GIB, Some(-fast)), GIB);
        assert_eq!(wanted(1000 * GIB, Some(f64::NAN)), GIB);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let node = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(node.path().join("var/lib")).unwrap();
        let ballast = Ballast::at(node.path(), Path::new("/var/lib"), "own").unwrap();
        let path = node.path().join("var/lib/own").join(NAMES[1]);
        assert_eq!(ballast.held().unwrap(), 0);
        std::fs::write(&path, "somebody's notes, longer than a mark").unwrap();
        assert!(matches!(ballast.held(), Err(BallastError::Foreign)));
        assert!(matches!(ballast.leave(0), Err(BallastError::Foreign)));
        assert!(matches!(
            ballast.take(4096, &Ballast::WAYS),
            Err(BallastError::Foreign)
        ));
        std::fs::rename(&path, node.path().join("aside")).unwrap();
        let target = node.path().join("target");
        std::fs::write(&target, MARK).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(ballast.leave(0), Err(BallastError::Foreign)));
        assert_eq!(std::fs::read(&target).unwrap(), MARK);
    }
}
