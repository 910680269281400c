//! What makes a data folder this node's: host id, tokens and cluster name, chosen at the first start and kept in the
//! file `node.json`. Also the lock that keeps two processes out of one folder.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;

use ceto_sstable::LOCK_FILE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::start::StartError;

/// The content of `node.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Version of this file's form.
    format: u32,
    pub(crate) cluster_name: String,
    pub(crate) host_id: Uuid,
    /// Sorted.
    pub(crate) tokens: Vec<i64>,
}

const FORMAT: u32 = 1;

/// Holds the folder until dropped.
pub(crate) struct FolderLock(#[allow(dead_code)] File);

/// Locks the data folder for this process.
pub(crate) fn lock(data: &Path) -> Result<FolderLock, StartError> {
    let path = data.join(LOCK_FILE);
    let file = File::create(&path).map_err(|error| StartError::file("create", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(TryLockError::WouldBlock) => {
            let text = format!(
                "{} is in use by another ceto process; stop it or choose another folder",
                data.display()
            );
            Err(StartError::Failed(text))
        }
        Err(TryLockError::Error(error)) => Err(StartError::file("lock", &path, &error)),
    }
}

impl Identity {
    /// The folder's identity, made when it has none: with the tokens of `initial_token`, or random ones.
    pub(crate) fn load_or_create(
        data: &Path,
        cluster_name: &str,
        num_tokens: u16,
        initial: Option<&[i64]>,
    ) -> Result<Identity, StartError> {
        let path = data.join("node.json");
        match fs::read_to_string(&path) {
            Ok(text) => Self::check(&path, &text, cluster_name),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = Self::create(cluster_name, num_tokens, initial);
                identity.save(data, &path)?;
                Ok(identity)
            }
            Err(error) => Err(StartError::file("read", &path, &error)),
        }
    }

    fn check(path: &Path, text: &str, cluster_name: &str) -> Result<Identity, StartError> {
        let identity: Identity = serde_json::from_str(text).map_err(|error| {
            StartError::Failed(format!(
                "{} is damaged ({error}); restore it from a backup",
                path.display()
            ))
        })?;
        if identity.cluster_name != cluster_name {
            return Err(StartError::Failed(format!(
                "Saved cluster name {} != configured name {cluster_name}; set cluster_name back or choose another folder",
                identity.cluster_name
            )));
        }
        Ok(identity)
    }

    fn create(cluster_name: &str, num_tokens: u16, initial: Option<&[i64]>) -> Identity {
        let random = || Uuid::new_v4().as_u64_pair().0 as i64;
        // A version 4 UUID's first half has six fixed bits: mix two of them.
        let mut tokens: Vec<i64> = match initial {
            Some(initial) => initial.to_vec(),
            None => (0..num_tokens)
                .map(|_| random() ^ random().rotate_left(29))
                .collect(),
        };
        tokens.sort_unstable();
        tokens.dedup();
        Identity {
            format: FORMAT,
            cluster_name: cluster_name.to_owned(),
            host_id: Uuid::new_v4(),
            tokens,
        }
    }

    fn save(&self, data: &Path, path: &Path) -> Result<(), StartError> {
        let text = serde_json::to_string_pretty(self).expect("an identity is plain data");
        let temporary = data.join("node.json.tmp");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            #[allow(clippy::disallowed_methods)] // before any shard runs
            File::open(data)?.sync_all()
        };
        write().map_err(|error| StartError::file("write", path, &error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn an_identity_is_kept_and_another_cluster_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(folder.path(), "a", 16, None).unwrap();
        assert_eq!(first.tokens.len(), 16);
        assert!(first.tokens.is_sorted());
        assert_eq!(
            Identity::load_or_create(folder.path(), "a", 4, Some(&[7])).unwrap(),
            first
        );
        let error = Identity::load_or_create(folder.path(), "b", 16, None)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("Saved cluster name a != configured name b"),
            "{error}"
        );
        fs::write(folder.path().join("node.json"), "{").unwrap();
        let error = Identity::load_or_create(folder.path(), "a", 16, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn a_folder_has_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(
            lock(folder.path())
                .err()
                .unwrap()
                .to_string()
                .contains("is in use")
        );
        drop(held);
        lock(folder.path()).unwrap();
    }
}
