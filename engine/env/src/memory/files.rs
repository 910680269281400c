//! Files and names as the kernel sees them and as the device has them, and what a crash makes of the difference.
//!
//! - **Bytes.** A file has two contents: *kernel* (what reads see) and *device* (what a power loss leaves). A write
//!   makes 512-byte sectors *dirty*; a sync copies the dirty ones over. A power loss keeps of each dirty sector the new
//!   or the old bytes, and of a grown file some length between old and new.
//! - **Failed syncs** (Linux since 4.13): some of the dirty sectors are written, the others are *dropped*: the kernel
//!   thinks them clean, so no later sync writes them; reads see them until the page is evicted, here at a restart.
//! - **Names.** Changes of names (create, rename, remove, make folder) form a journal; syncing a folder makes the changes
//!   in it durable. A power loss keeps none, all, the first so many, or any subset of the rest, each change
//!   whole.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Random;

const SECTOR: usize = 512;

pub(super) type Inode = Rc<RefCell<File>>;

/// Some sectors of a file, a bit for each: every write of a log goes through here.
#[derive(Default)]
struct Sectors(Vec<u64>);

impl Sectors {
    fn insert(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn remove(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// In ascending order.
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let some = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        some.flat_map(|(at, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at * 64 + bit)
        })
    }
}

/// A file's bytes.
#[derive(Default)]
pub(super) struct File {
    pub(super) kernel: Vec<u8>,
    device: Vec<u8>,
    /// Sectors that the next sync will write.
    dirty: Sectors,
    /// Sectors that no sync will write.
    dropped: Sectors,
    /// Syncs begun so far, and of each sector the one whose bytes the device has: of two that overlap, the later wins.
    syncs: u64,
    synced_by: BTreeMap<usize, u64>,
}

/// What a sync that was begun will write.
pub(super) struct SyncUnderway {
    number: u64,
    length: usize,
    sectors: Vec<(usize, Vec<u8>)>,
}

impl File {
    fn sector(content: &[u8], at: usize) -> &[u8] {
        let start = (at * SECTOR).min(content.len());
        &content[start..(start + SECTOR).min(content.len())]
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.kernel.len() < end {
            self.kernel.resize(end, 0);
        }
        self.kernel[offset..end].copy_from_slice(bytes);
        for at in offset / SECTOR..=(end - 1) / SECTOR {
            self.dirty.insert(at);
            self.dropped.remove(at);
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.write(self.kernel.len(), bytes);
    }

    /// All zeros, of this size, not synced.
    pub(super) fn zero(&mut self, size: usize) {
        self.kernel.clear();
        self.write(0, &vec![0; size]);
    }

    /// Of this size, the first `head` bytes zeros, the others what they were (zeros where it grew); not synced.
    pub(super) fn recycle(&mut self, size: usize, head: usize) {
        let old = self.kernel.len();
        self.kernel.truncate(size);
        if old < size {
            self.write(old, &vec![0; size - old]);
        }
        self.write(0, &vec![0; head.min(size)]);
    }

    /// On the device as the kernel has it.
    pub(super) fn settle(&mut self) {
        self.device.clone_from(&self.kernel);
        self.dirty.clear();
        self.dropped.clear();
    }

    /// A sync writes what was written before it began; what comes while it runs is for the next.
    pub(super) fn begin_sync(&mut self) -> SyncUnderway {
        self.syncs += 1;
        let sectors = self.dirty.iter();
        SyncUnderway {
            number: self.syncs,
            length: self.kernel.len(),
            sectors: sectors
                .map(|at| (at, Self::sector(&self.kernel, at).to_vec()))
                .collect(),
        }
    }

    pub(super) fn end_sync(&mut self, sync: SyncUnderway) {
        self.device.resize(sync.length.max(self.device.len()), 0);
        self.device.truncate(self.kernel.len().max(sync.length));
        for (at, bytes) in sync.sectors {
            if self.synced_by.get(&at).is_some_and(|by| *by > sync.number) {
                continue;
            }
            self.synced_by.insert(at, sync.number);
            self.write_device(at, &bytes);
            if Self::sector(&self.kernel, at) == bytes {
                self.dirty.remove(at);
            }
        }
    }

    pub(super) fn fail_sync(&mut self, sync: SyncUnderway, random: &Random) {
        for (at, bytes) in sync.sectors {
            if self.synced_by.get(&at).is_some_and(|by| *by > sync.number) {
                continue;
            }
            if random.toss() {
                self.synced_by.insert(at, sync.number);
                let end = at * SECTOR + bytes.len();
                self.device.resize(self.device.len().max(end), 0);
                self.write_device(at, &bytes);
            } else {
                self.dropped.insert(at);
            }
            self.dirty.remove(at);
        }
    }

    fn write_device(&mut self, at: usize, bytes: &[u8]) {
        let start = at * SECTOR;
        if let Some(place) = self.device.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Pages that a failed sync left clean may be read from the device again.
    fn evict(&mut self, random: &Random) {
        if self.dropped.is_empty() || random.toss() {
            return;
        }
        for at in std::mem::take(&mut self.dropped).iter() {
            self.restore(at);
        }
    }

    /// The kernel's sector becomes the device's.
    fn restore(&mut self, at: usize) {
        let start = (at * SECTOR).min(self.kernel.len());
        let end = (start + SECTOR).min(self.kernel.len());
        let mut old = Self::sector(&self.device, at).to_vec();
        old.resize(end - start, 0);
        self.kernel[start..end].copy_from_slice(&old);
    }

    fn lose_power(&mut self, fate: Fate, random: &Random) {
        for at in std::mem::take(&mut self.dropped).iter() {
            self.restore(at);
        }
        let is_touched = !self.dirty.is_empty();
        for at in std::mem::take(&mut self.dirty).iter() {
            let is_lost = match fate {
                Fate::Nothing => true,
                Fate::Everything => false,
                Fate::Some => random.toss(),
            };
            if is_lost {
                self.restore(at);
            }
        }
        // A file that grew may have its old size, or one between.
        let (old, new) = (self.device.len(), self.kernel.len());
        if is_touched && old < new {
            match fate {
                Fate::Nothing => self.kernel.truncate(old),
                Fate::Everything => {}
                Fate::Some => match random.below(3) {
                    0 => self.kernel.truncate(old),
                    1 => self
                        .kernel
                        .truncate(old + random.below((new - old) as u64) as usize),
                    _ => {}
                },
            }
        }
        self.settle();
    }
}

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    Some,
}

impl Fate {
    fn draw(random: &Random) -> Fate {
        match random.below(4) {
            0 => Fate::Nothing,
            1 => Fate::Everything,
            _ => Fate::Some,
        }
    }
}

/// One change of names.
#[derive(Clone)]
enum Change {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Inode),
    MakeDir(PathBuf),
    RemoveDir(PathBuf),
}

impl Change {
    fn is_in(&self, folder: &Path) -> bool {
        let is_in = |path: &Path| path.parent() == Some(folder);
        match self {
            Change::Link(path, _) | Change::Unlink(path) => is_in(path),
            Change::MakeDir(path) | Change::RemoveDir(path) => is_in(path),
            Change::Rename(from, to, _) => is_in(from) || is_in(to),
        }
    }
}

/// Which name leads to which file, and which folders there are.
#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, Inode>,
    dirs: BTreeSet<PathBuf>,
}

impl Names {
    fn change(&mut self, change: Change) {
        match change {
            Change::Link(path, file) => {
                self.files.insert(path, file);
            }
            Change::Unlink(path) => {
                self.files.remove(&path);
            }
            Change::Rename(from, to, file) => {
                self.files.remove(&from);
                self.files.insert(to, file);
            }
            Change::MakeDir(path) => {
                self.dirs.insert(path);
            }
            Change::RemoveDir(path) => {
                self.dirs.remove(&path);
            }
        }
    }

    /// What is in a folder that is not there is not there.
    fn drop_orphans(&mut self) {
        let whole: BTreeSet<PathBuf> = self
            .dirs
            .iter()
            .filter(|dir| {
                dir.ancestors()
                    .all(|a| a.parent().is_none() || self.dirs.contains(a))
            })
            .cloned()
            .collect();
        self.dirs = whole;
        let dirs = &self.dirs;
        self.files.retain(|path, _| is_reachable(dirs, path));
    }
}

/// The root folder needs no making.
fn is_reachable(dirs: &BTreeSet<PathBuf>, path: &Path) -> bool {
    match path.parent() {
        Some(parent) => parent.parent().is_none() || dirs.contains(parent),
        None => true,
    }
}

/// All files.
#[derive(Default)]
pub(super) struct State {
    kernel: Names,
    device: Names,
    /// Changes of names that the device does not have yet, oldest first.
    journal: Vec<Change>,
}

impl State {
    pub(super) fn used(&self) -> u64 {
        // A file with two names takes its space once.
        let mut seen = BTreeSet::new();
        let files = self.kernel.files.values();
        let once = files.filter(|file| seen.insert(Rc::as_ptr(file)));
        once.map(|file| file.borrow().kernel.len() as u64).sum()
    }

    pub(super) fn files(&self) -> &BTreeMap<PathBuf, Inode> {
        &self.kernel.files
    }

    pub(super) fn dirs(&self) -> &BTreeSet<PathBuf> {
        &self.kernel.dirs
    }

    fn change(&mut self, change: Change) {
        self.journal.push(change.clone());
        self.kernel.change(change);
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Inode> {
        let file = self.kernel.files.get(path).cloned();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_folder(&self, path: &Path) -> io::Result<()> {
        if is_reachable(&self.kernel.dirs, path) {
            return Ok(());
        }
        Err(io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Inode> {
        self.check_folder(path)?;
        let file = Inode::default();
        self.change(Change::Link(path.to_path_buf(), file.clone()));
        Ok(file)
    }

    pub(super) fn create_dirs(&mut self, path: &Path) {
        let mut missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|dir| !self.kernel.dirs.contains(*dir))
            .map(Path::to_path_buf)
            .collect();
        missing.reverse();
        for dir in missing {
            if dir.parent().is_none() {
                self.kernel.dirs.insert(dir.clone());
                self.device.dirs.insert(dir);
            } else {
                self.change(Change::MakeDir(dir));
            }
        }
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let is_inside = |other: &Path| other != path && other.starts_with(path);
        let names = &self.kernel;
        if names.files.keys().any(|file| is_inside(file)) || names.dirs.iter().any(|dir| is_inside(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if !names.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::RemoveDir(path.to_path_buf()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.change(Change::Unlink(path.to_path_buf()));
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_folder(to)?;
        let file = self.file(from)?;
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), file));
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_folder(to)?;
        let file = self.file(from)?;
        if self.kernel.files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(Change::Link(to.to_path_buf(), file));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, folder: &Path) -> io::Result<()> {
        if folder.parent().is_some() && !self.kernel.dirs.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (now, later): (Vec<Change>, Vec<Change>) = std::mem::take(&mut self.journal)
            .into_iter()
            .partition(|change| change.is_in(folder));
        self.journal = later;
        now.into_iter().for_each(|change| self.device.change(change));
        Ok(())
    }

    /// A file put there by hand, durably.
    pub(super) fn set_content(&mut self, path: &Path, content: Vec<u8>) {
        let file = self.kernel.files.entry(path.to_path_buf()).or_default().clone();
        self.journal
            .retain(|change| !matches!(change, Change::Link(own, _) | Change::Unlink(own) if own == path));
        self.device.files.insert(path.to_path_buf(), file.clone());
        file.borrow_mut().kernel = content;
        file.borrow_mut().settle();
    }

    /// A file taken away by hand, durably.
    pub(super) fn delete(&mut self, path: &Path) {
        self.kernel.files.remove(path);
        self.device.files.remove(path);
        self.journal
            .retain(|change| !matches!(change, Change::Link(own, _) | Change::Unlink(own) if own == path));
    }

    /// The process ended; the kernel lives.
    pub(super) fn end_process(&self, random: &Random) {
        let files = self.kernel.files.values();
        files.for_each(|file| file.borrow_mut().evict(random));
    }

    /// The machine lost power.
    pub(super) fn lose_power(&mut self, random: &Random) {
        let journal = std::mem::take(&mut self.journal);
        let kept = match random.below(5) {
            0 => 0,
            1 => journal.len(),
            _ => random.below(journal.len() as u64 + 1) as usize,
        };
        let takes_any = random.below(3) == 0;
        for (at, change) in journal.into_iter().enumerate() {
            if if takes_any { random.toss() } else { at < kept } {
                self.device.change(change);
            }
        }
        self.device.drop_orphans();
        self.kernel = self.device.clone();
        let mut seen = BTreeSet::new();
        let fate = Fate::draw(random);
        for file in self.kernel.files.values() {
            if seen.insert(Rc::as_ptr(file)) {
                file.borrow_mut().lose_power(fate, random);
            }
        }
    }
}
