//! Backups of the double and going back to them, which changes what a version says.

use crate::server::Double;
use crate::store::Backup;

impl Double {
    /// What a backup of its etcd would hold now.
    pub fn back_up(&self) -> Backup {
        self.shared.store().back_up()
    }

    /// Goes back to a backup, and ends every watch, as an API server that is started on it.
    pub fn restore(&self, backup: &Backup) {
        self.shared.store().restore(backup);
        self.cut_watches();
    }

    /// The same with a version behind everything that was ever told, and all before it compacted away: `etcdutl snapshot restore
    /// --bump-revision … --mark-compacted`. Objects keep their versions.
    pub fn restore_behind(&self, backup: &Backup, bump: u64) {
        {
            let mut store = self.shared.store();
            store.restore(backup);
            store.raise(bump);
        }
        self.cut_watches();
    }
}
