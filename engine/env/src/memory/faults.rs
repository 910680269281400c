//! What may go wrong with a disk while the process runs: slow calls, failed calls, rotten bytes.
//!
//! A call of `env` is one or more *operations* ([`Operation`]); each can fail by itself, so that a composite call fails
//! between any two of its parts, as it does on Linux.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Random;

/// One operation on a disk. `env`'s calls are made of these:
///
/// ```text
/// write_file      ::= Create Write Sync Rename SyncFolder       the first three on the temporary name
/// create_segment  ::= Create Reserve SyncFolder
/// recycle_segment ::= Reserve Sync Rename SyncFolder
/// finish          ::= Write Sync                                all others: one operation of the same name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Makes a file.
    Create,
    /// Makes a folder.
    CreateFolder,
    /// Lists a folder.
    List,
    /// Removes a file.
    Remove,
    /// Removes a folder.
    RemoveFolder,
    /// Gives a file another name.
    Rename,
    /// Gives a file a second name.
    Link,
    /// Makes the names in a folder durable.
    SyncFolder,
    /// Asks for the free space.
    FreeSpace,
    /// Opens a file.
    Open,
    /// Reads bytes.
    Read,
    /// Writes bytes.
    Write,
    /// Makes bytes durable.
    Sync,
    /// Reserves space for a commitlog segment.
    Reserve,
}

/// An error to come: hits the next so many operations that fit.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Hits these.
    pub operation: Operation,
    /// Hits only files whose path contains this.
    pub path_contains: String,
    /// What the operation answers.
    pub kind: io::ErrorKind,
    /// How many operations it hits.
    pub count: u32,
}

/// A weakness of the disk: operations that fit fail now and then.
#[derive(Clone, Debug)]
pub struct Flaw {
    /// Hits these.
    pub operations: Vec<Operation>,
    /// Hits only files whose path contains this.
    pub path_contains: String,
    /// What the operation answers.
    pub kind: io::ErrorKind,
    /// How many of a million operations it hits.
    pub per_million: u32,
    /// What failed once fails until the flaws are cleared: a bad sector, not a bad cable.
    pub is_sticky: bool,
}

/// How long operations of one kind take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// At least.
    pub least: Duration,
    /// Most are within this above the least; each doubling of it is half as likely.
    pub usual: Duration,
}

impl Spread {
    /// Doublings at most.
    const DOUBLINGS_MAX: u32 = 8;

    fn draw(self, random: &Random) -> Duration {
        let usual = u64::try_from(self.usual.as_nanos()).unwrap_or(u64::MAX);
        let doublings = random.next().trailing_zeros().min(Self::DOUBLINGS_MAX);
        self.least + Duration::from_nanos(random.below(usual.saturating_add(1)) << doublings)
    }
}

/// How long operations take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// Read, Open, List, FreeSpace.
    pub read: Spread,
    /// Write.
    pub write: Spread,
    /// Sync, SyncFolder, Reserve.
    pub sync: Spread,
    /// Names: create, remove, rename, link.
    pub name: Spread,
    /// How many of a million syncs take `stall`.
    pub stalls_per_million: u32,
    /// A device that cleans up its flash.
    pub stall: Duration,
}

impl Latency {
    /// A solid-state disk.
    pub const SOLID_STATE: Latency = Latency {
        read: spread(60, 40),
        write: spread(10, 20),
        sync: spread(200, 400),
        name: spread(5, 20),
        stalls_per_million: 0,
        stall: Duration::ZERO,
    };

    pub(super) fn draw(&self, operation: Operation, random: &Random) -> Duration {
        use Operation::{FreeSpace, List, Open, Read, Reserve, Sync, SyncFolder, Write};
        match operation {
            Read | Open | List | FreeSpace => self.read.draw(random),
            Write => self.write.draw(random),
            Sync | SyncFolder | Reserve => {
                let usual = self.sync.draw(random);
                if random.below(1_000_000) < u64::from(self.stalls_per_million) {
                    usual + self.stall
                } else {
                    usual
                }
            }
            _ => self.name.draw(random),
        }
    }
}

const fn spread(least_micros: u64, usual_micros: u64) -> Spread {
    Spread {
        least: Duration::from_micros(least_micros),
        usual: Duration::from_micros(usual_micros),
    }
}

/// Errors to come.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) faults: Vec<Fault>,
    pub(super) flaws: Vec<Flaw>,
    /// What sticky flaws have hit.
    stuck: BTreeSet<(Operation, PathBuf)>,
}

impl Faults {
    pub(super) fn clear(&mut self) {
        *self = Faults::default();
    }

    /// The error of this operation, if it is to fail.
    pub(super) fn take(
        &mut self,
        operation: Operation,
        path: &Path,
        random: &Random,
    ) -> Option<io::ErrorKind> {
        let text = path.to_string_lossy();
        let fits = |own: &str| text.contains(own);
        let fault = self
            .faults
            .iter_mut()
            .find(|fault| fault.count > 0 && fault.operation == operation && fits(&fault.path_contains));
        if let Some(fault) = fault {
            fault.count -= 1;
            return Some(fault.kind);
        }
        for flaw in &self.flaws {
            if !flaw.operations.contains(&operation) || !fits(&flaw.path_contains) {
                continue;
            }
            let is_stuck = flaw.is_sticky && self.stuck.contains(&(operation, path.to_path_buf()));
            if is_stuck || random.below(1_000_000) < u64::from(flaw.per_million) {
                if flaw.is_sticky {
                    self.stuck.insert((operation, path.to_path_buf()));
                }
                return Some(flaw.kind);
            }
        }
        None
    }
}
