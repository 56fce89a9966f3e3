//! The limits of a diagnosis, each with its reason.

use std::time::Duration;

/// What counts as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A filesystem with less bytes available is full.
    pub full_below: u64,
    /// One with less inodes free than this part of all, in thousandths, has none left.
    pub inodes_free_permille: u64,
    /// So has one with fewer than so many, whatever part of all they are.
    pub inodes_free_min: u64,
    /// Clocks that differ by more are wrong.
    pub skew_max: Duration,
    /// A certificate that ends within this time is worth a word.
    pub expires_soon: Duration,
    /// etcd above this part of its quota is worth a word, in percent.
    pub quota_warn_percent: u64,
}

// === impl Default for Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self {
            // A segment of etcd's write-ahead log is 64 MB and allocated whole: with less it cannot begin the next one.
            full_below: 64 << 20,
            // 65 of the 65,536 inodes of a 1 GiB ext4; a pod needs about a hundred.
            inodes_free_permille: 1,
            inodes_free_min: 100,
            // What Kerberos has taught everybody to allow; certificates of kubeadm begin up to now, so less would do harm.
            skew_max: Duration::from_mins(5),
            // kubeadm warns in the same time.
            expires_soon: Duration::from_hours(30 * 24),
            quota_warn_percent: 80,
        }
    }
}
