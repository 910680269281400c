//! Removing large files a step at a time.
//!
//! A file system that is mounted with `discard` tells the device of all blocks that a commit of its journal has freed,
//! and many devices serve nobody else meanwhile: the inputs of one compaction of 76 MiB, freed at once, held up reads for
//! 4 to 12 ms. So the name of a file goes at once, and what it occupied in steps that are committed one by one, with
//! pauses between them in which reads are served.
//!
//! Never touched: the content of a file that has another name (a snapshot's link).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::blocking::{BlockingPool, BlockingThreads};

/// Bytes freed in one step: 0.2 ms of discarding where this was measured.
const STEP: u64 = 1 << 20;
/// Between two steps. With it less than 1 GiB is freed each second, more than compactions of one core let go of.
const PAUSE: Duration = Duration::from_millis(1);

/// The one thread that frees: two at a time would be twice the discards.
#[derive(Clone)]
pub(crate) struct Freeing {
    pub(super) pool: BlockingPool,
    is_ending: Arc<AtomicBool>,
}

/// The thread, to be joined after the last [`Freeing`] is gone.
pub(crate) struct FreeingThread {
    threads: BlockingThreads,
    is_ending: Arc<AtomicBool>,
}

impl Freeing {
    pub(crate) fn start() -> io::Result<(Self, FreeingThread)> {
        let (pool, threads) = BlockingPool::start("free", 1)?;
        let is_ending = Arc::new(AtomicBool::new(false));
        let thread = FreeingThread {
            threads,
            is_ending: Arc::clone(&is_ending),
        };
        Ok((Self { pool, is_ending }, thread))
    }

    /// Frees what a file without a name occupies. To be called on the pool's thread.
    pub(super) fn free(&self, file: &File) {
        let mut size = file.metadata().map_or(0, |metadata| metadata.len());
        while size > STEP && !self.is_ending.load(Ordering::Relaxed) {
            size -= STEP;
            // What fails here is done at once by the file's close.
            if file.set_len(size).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl FreeingThread {
    /// Ends it: what is not freed yet, the kernel frees at once.
    pub(crate) fn join(self) {
        self.is_ending.store(true, Ordering::Relaxed);
        self.threads.join();
    }
}

/// Takes a file's name away. What is returned is to be freed step by step.
pub(super) fn remove(path: &Path) -> io::Result<Option<File>> {
    let is_large = |metadata: &fs::Metadata| metadata.is_file() && metadata.len() > STEP;
    let large = match fs::symlink_metadata(path) {
        // A file that may not be written to is removed as it always was.
        Ok(metadata) if is_large(&metadata) => OpenOptions::new().write(true).open(path).ok(),
        _ => None,
    };
    fs::remove_file(path)?;
    Ok(large.filter(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_another_name_keeps_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let (name, link) = (folder.path().join("name"), folder.path().join("link"));
        fs::write(&name, vec![7; 3 * STEP as usize]).expect("room for it");
        fs::hard_link(&name, &link).expect("the same file system");
        assert!(remove(&name).expect("it is there").is_none());
        assert!(!name.exists());
        assert!(remove(&name).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        let large = remove(&link).expect("it is there").expect("nothing else has it");
        assert!(!link.exists());

        let (freeing, thread) = Freeing::start().expect("a thread");
        freeing.free(&large);
        let left = large.metadata().expect("it is open").len();
        assert!((1..=STEP).contains(&left), "{left}");
        drop(freeing);
        thread.join();
    }

    #[test]
    fn an_end_does_not_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("name");
        let file = File::create(&name).expect("room for it");
        file.set_len(1 << 40).expect("a hole takes no room");
        drop(file);
        let large = remove(&name).expect("it is there").expect("nothing else has it");
        let (freeing, thread) = Freeing::start().expect("a thread");
        let copy = freeing.clone();
        freeing.pool.run(move || copy.free(&large));
        drop(freeing);
        // A tebibyte would take twenty minutes.
        thread.join();
    }
}
