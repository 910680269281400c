//! The lock that a running node holds on its data folder: what changes files is refused meanwhile.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Name of the file in a data folder that its node holds locked.
pub const LOCK_FILE: &str = ".lock";

/// Data folders that no node can take until this is dropped, by their lock files.
#[derive(Debug, Default)]
pub(crate) struct HeldFolders(Vec<(PathBuf, File)>);

impl HeldFolders {
    /// Takes the data folder that `path` lies in; nothing when it lies in none.
    ///
    /// # Errors
    /// With the folder, when a node has it, or when that cannot be found out.
    pub(crate) fn hold(&mut self, path: &Path) -> Result<(), String> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let mut locks = path.ancestors().map(|dir| dir.join(LOCK_FILE));
        let Some(lock) = locks.find(|lock| lock.is_file()) else {
            return Ok(());
        };
        if self.0.iter().any(|(held, _)| *held == lock) {
            return Ok(());
        }
        #[allow(clippy::disallowed_methods)] // there is no shard here
        let file = File::open(&lock).map_err(|error| format!("cannot open {}: {error}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => self.0.push((lock, file)),
            Err(TryLockError::WouldBlock) => {
                let data = lock.parent().unwrap_or(&lock).display();
                return Err(format!(
                    "{data} is in use by a running node: run `ceto nodetool scrub`, or stop it first"
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(format!("cannot lock {}: {error}", lock.display()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn a_node_and_a_tool_do_not_have_a_folder_at_the_same_time() {
        let data = std::env::temp_dir().join(format!("ceto-lock-{}", std::process::id()));
        let tables = ["data/ks/a-1", "data/ks/b-2"].map(|table| data.join(table));
        for table in &tables {
            std::fs::create_dir_all(table).expect("a temporary folder");
        }
        let mut held = HeldFolders::default();
        assert_eq!(held.hold(&tables[0]), Ok(()));
        assert!(held.0.is_empty(), "a copy of a table has no lock");
        let node = File::create(data.join(LOCK_FILE)).expect("a temporary file");
        node.try_lock().expect("nobody has it");
        let refused = held.hold(&tables[0]).expect_err("the node has it");
        assert!(refused.contains("in use by a running node"), "{refused}");
        node.unlock().expect("it was locked");
        for table in &tables {
            assert_eq!(held.hold(table), Ok(()));
        }
        assert!(node.try_lock().is_err());
        drop(held);
        node.try_lock().expect("the tool has ended");
        std::fs::remove_dir_all(&data).expect("it is this test's");
    }
}
