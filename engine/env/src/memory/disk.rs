//! The machine's disk: what tests set, see and break.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use super::Random;
use super::executor::{Timers, Yield};
use super::faults::{Fault, Faults, Flaw, Latency, Operation};
use super::files::State;

/// A disk in memory. Whole, without bound and quick until told otherwise.
pub struct MemoryDisk {
    pub(super) this: Weak<MemoryDisk>,
    pub(super) state: RefCell<State>,
    streams: Streams,
    /// Of the process that uses it now.
    timers: RefCell<Option<Timers>>,
    latency: Cell<Option<Latency>>,
    /// Operations that may still begin or end; then the machine stands still until [`MemoryDisk::restart`].
    steps_until_crash: Cell<Option<u64>>,
    crashed: Cell<bool>,
    pub(super) capacity: Cell<u64>,
    faults: RefCell<Faults>,
    /// The operation of this number fails.
    doomed: Cell<Option<(u64, io::ErrorKind)>>,
    /// Part of a path, and of how many of a million reads of such files a bit is flipped.
    rot: RefCell<Option<(String, u32)>>,
    steps: Cell<u64>,
    operations: Cell<u64>,
    failed: RefCell<Vec<(Operation, PathBuf)>>,
}

/// Random numbers by concern.
struct Streams {
    order: Random,
    latency: Random,
    faults: Random,
    rot: Random,
    crash: Random,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Rc<MemoryDisk> {
        let stream = |concern| Random::salted(seed, concern);
        Rc::new_cyclic(|this| MemoryDisk {
            this: this.clone(),
            state: RefCell::default(),
            streams: Streams {
                order: stream("disk order"),
                latency: stream("disk latency"),
                faults: stream("disk faults"),
                rot: stream("disk rot"),
                crash: stream("disk crash"),
            },
            timers: RefCell::default(),
            latency: Cell::default(),
            steps_until_crash: Cell::default(),
            crashed: Cell::default(),
            capacity: Cell::new(u64::MAX),
            faults: RefCell::default(),
            doomed: Cell::default(),
            rot: RefCell::default(),
            steps: Cell::default(),
            operations: Cell::default(),
            failed: RefCell::default(),
        })
    }

    pub(super) fn attach(&self, timers: Timers) {
        *self.timers.borrow_mut() = Some(timers);
    }

    // ---- weaknesses ------------------------------------------------------------------------------------------

    /// Bytes that files may take in all.
    pub fn set_capacity(&self, capacity: u64) {
        self.capacity.set(capacity);
    }

    /// As set.
    pub fn capacity(&self) -> u64 {
        self.capacity.get()
    }

    /// Bytes that files take.
    pub fn used(&self) -> u64 {
        self.state.borrow().used()
    }

    /// How long operations take from now on, on the virtual clock; None: some turns of other tasks, but no time.
    pub fn set_latency(&self, latency: Option<Latency>) {
        self.latency.set(latency);
    }

    /// Adds an error to come.
    pub fn inject(&self, fault: Fault) {
        self.faults.borrow_mut().faults.push(fault);
    }

    /// Adds a weakness.
    pub fn weaken(&self, flaw: Flaw) {
        self.faults.borrow_mut().flaws.push(flaw);
    }

    /// Fails the operation that is the `number`th from the disk's beginning (see [`MemoryDisk::operations`]).
    pub fn fail_operation(&self, number: u64, kind: io::ErrorKind) {
        self.doomed.set(Some((number, kind)));
    }

    /// Flips a bit in what `per_million` of a million reads of files whose path contains this return; the files themselves
    /// stay whole.
    pub fn rot_reads(&self, path_contains: &str, per_million: u32) {
        *self.rot.borrow_mut() = Some((path_contains.to_owned(), per_million));
    }

    /// Forgets errors to come, weaknesses and rot.
    pub fn clear_faults(&self) {
        self.faults.borrow_mut().clear();
        self.doomed.set(None);
        *self.rot.borrow_mut() = None;
    }

    // ---- crashes ---------------------------------------------------------------------------------------------

    /// Stops the machine after so many more beginnings and ends of operations.
    pub fn crash_after(&self, steps: u64) {
        self.steps_until_crash.set(Some(steps));
    }

    /// Stops the machine.
    pub fn crash(&self) {
        self.crashed.set(true);
    }

    /// The machine stands still.
    pub fn has_crashed(&self) -> bool {
        self.crashed.get()
    }

    /// The process died and starts again: what the kernel had is there.
    pub fn restart(&self) {
        self.crashed.set(false);
        self.steps_until_crash.set(None);
        self.state.borrow().end_process(&self.streams.crash);
    }

    /// The machine lost power and starts again: what was not synced is there in part.
    pub fn restart_after_power_loss(&self) {
        self.crashed.set(false);
        self.steps_until_crash.set(None);
        self.state.borrow_mut().lose_power(&self.streams.crash);
    }

    // ---- looking ---------------------------------------------------------------------------------------------

    /// Beginnings and ends of operations so far.
    pub fn calls(&self) -> u64 {
        self.steps.get()
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.get()
    }

    /// How many operations were made to fail so far.
    pub fn failed_operations(&self) -> u64 {
        self.failed.borrow().len() as u64
    }

    /// The operations that were made to fail so far.
    pub fn failures(&self) -> Vec<(Operation, PathBuf)> {
        self.failed.borrow().clone()
    }

    /// All files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.borrow().files().keys().cloned().collect()
    }

    /// Content of a file.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        let file = state.files().get(path)?;
        Some(file.borrow().kernel.clone())
    }

    /// Replaces the content of a file, on the device too.
    pub fn set_content(&self, path: &Path, content: Vec<u8>) {
        self.state.borrow_mut().set_content(path, content);
    }

    /// Removes a file, on the device too.
    pub fn delete(&self, path: &Path) {
        self.state.borrow_mut().delete(path);
    }

    /// Flips bits of one byte of a file.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) {
        let mut content = self.content(path).expect("the file to be damaged exists");
        content[offset] ^= mask;
        self.set_content(path, content);
    }

    /// Flips a random bit of a random file whose path contains this; what it was, for [`MemoryDisk::flip`] to undo. None
    /// when there is no such file.
    pub fn rot_file(&self, path_contains: &str) -> Option<(PathBuf, usize, u8)> {
        let random = &self.streams.rot;
        let files = self.files();
        let fits = |path: &&PathBuf| path.to_string_lossy().contains(path_contains);
        let files: Vec<&PathBuf> = files.iter().filter(fits).collect();
        let path = *files.get(random.below(files.len() as u64) as usize)?;
        let size = self.content(path)?.len() as u64;
        if size == 0 {
            return None;
        }
        let (offset, mask) = (random.below(size) as usize, 1 << random.below(8));
        self.flip(path, offset, mask);
        Some((path.clone(), offset, mask))
    }

    // ---- operations ------------------------------------------------------------------------------------------

    /// Half of an operation, where a crash may hit.
    async fn step(&self) {
        self.steps.set(self.steps.get() + 1);
        match self.steps_until_crash.get() {
            Some(0) => self.crashed.set(true),
            Some(steps) => self.steps_until_crash.set(Some(steps - 1)),
            None => {}
        }
        self.stand_still_after_crash().await;
    }

    async fn stand_still_after_crash(&self) {
        if self.crashed.get() {
            pending::<()>().await;
        }
    }

    /// Does `action` some time from now, unless a crash comes first; or `spoil`, when it is to fail.
    pub(super) async fn perform_or<T>(
        &self,
        operation: Operation,
        path: &Path,
        action: impl FnOnce(&mut State) -> io::Result<T>,
        spoil: impl FnOnce(&mut State, &Random),
    ) -> io::Result<T> {
        let number = self.operations.get();
        self.operations.set(number + 1);
        self.step().await;
        Yield::turns(self.streams.order.below(4)).await;
        if let Some(wait) = self.latency_of(operation) {
            wait.await;
        }
        self.stand_still_after_crash().await;
        let result = match self.take_fault(number, operation, path) {
            Some(kind) => {
                self.failed.borrow_mut().push((operation, path.to_path_buf()));
                spoil(&mut self.state.borrow_mut(), &self.streams.faults);
                Err(kind.into())
            }
            None => action(&mut self.state.borrow_mut()),
        };
        self.step().await;
        result
    }

    pub(super) async fn perform<T>(
        &self,
        operation: Operation,
        path: &Path,
        action: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.perform_or(operation, path, action, |_, _| ()).await
    }

    fn latency_of(&self, operation: Operation) -> Option<super::executor::Sleep> {
        let duration = self.latency.get()?.draw(operation, &self.streams.latency);
        self.timers.borrow().as_ref().map(|timers| timers.sleep(duration))
    }

    fn take_fault(&self, number: u64, operation: Operation, path: &Path) -> Option<io::ErrorKind> {
        match self.doomed.get() {
            Some((doomed, kind)) if doomed == number => Some(kind),
            _ => self
                .faults
                .borrow_mut()
                .take(operation, path, &self.streams.faults),
        }
    }

    /// What a read of this file returns of these bytes.
    pub(super) fn read_back(&self, path: &Path, mut bytes: Vec<u8>) -> Vec<u8> {
        let random = &self.streams.rot;
        if let Some((part, per_million)) = &*self.rot.borrow()
            && !bytes.is_empty()
            && path.to_string_lossy().contains(part)
            && random.below(1_000_000) < u64::from(*per_million)
        {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        bytes
    }

    pub(super) fn reserve(&self, state: &State, bytes: usize) -> io::Result<()> {
        if state.used().saturating_add(bytes as u64) > self.capacity.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}
