//! What goes wrong in a run, and when: picked by the seed, so that each kind of trouble is also seen alone.

use std::io::ErrorKind;
use std::time::Duration;

use ceto_cluster::Random;
use ceto_env::memory::{Flaw, Latency, MemoryDisk, Operation};

/// Kinds of trouble with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Operations take time, syncs now and then very long.
    Slow,
    /// Now and then a read fails.
    FailedReads,
    /// Now and then a write, or a change of names, fails.
    FailedWrites,
    /// Now and then a sync fails, and drops what it should have written.
    FailedSyncs,
    /// What failed once goes on failing.
    BadSectors,
    /// The disk is full now and then.
    Full,
    /// Now and then a read of an sstable returns a flipped bit.
    Rot,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Trouble; 7] = [
        Self::Slow,
        Self::FailedReads,
        Self::FailedWrites,
        Self::FailedSyncs,
        Self::BadSectors,
        Self::Full,
        Self::Rot,
    ];
}

/// Makes trouble.
#[derive(Debug)]
pub struct Nemesis {
    random: Random,
    kinds: Vec<Trouble>,
    /// It is the only kind, comes in every life and often.
    is_alone: bool,
}

impl Nemesis {
    /// Of `seed`: a third of all runs knows no trouble but crashes. With `only`, that kind alone, and as much of it as
    /// leaves a node something to do.
    pub fn new(seed: u64, only: Option<Trouble>) -> Nemesis {
        let mut random = Random::salted(seed, "storage nemesis");
        if let Some(kind) = only {
            return Nemesis {
                random,
                kinds: vec![kind],
                is_alone: true,
            };
        }
        let share = if random.chance(1, 3) { 0 } else { 1 };
        let kinds = Trouble::ALL.into_iter().filter(|_| random.chance(share, 3));
        let kinds: Vec<Trouble> = kinds.collect();
        Nemesis {
            random,
            kinds,
            is_alone: false,
        }
    }

    /// This kind is in this run.
    pub fn has(&self, kind: Trouble) -> bool {
        self.kinds.contains(&kind)
    }

    /// Errors may come that no crash explains.
    pub fn may_fail(&self) -> bool {
        self.kinds
            .iter()
            .any(|kind| !matches!(kind, Trouble::Slow | Trouble::Full))
    }

    /// Weakens the disk for a while of load. Only its latency stays for the starts between.
    pub fn begin(&mut self, disk: &MemoryDisk) {
        self.mend(disk);
        if self.has(Trouble::Slow) {
            disk.set_latency(Some(Latency {
                stalls_per_million: 5_000,
                stall: Duration::from_millis(self.random.between(50..=4000)),
                ..Latency::SOLID_STATE
            }));
        }
        // Not in every life, or nothing would ever be well.
        for kind in self.kinds.clone() {
            if self.is_alone || self.random.chance(1, 2) {
                self.weaken(kind, disk);
            }
        }
    }

    fn weaken(&mut self, kind: Trouble, disk: &MemoryDisk) {
        use Operation::*;
        let often = if self.is_alone { 10 } else { 1 };
        let rate = often * self.random.between(100..=3_000) as u32;
        let flaw = |operations: &[Operation], path_contains: &str, kind, per_million| {
            disk.weaken(Flaw {
                operations: operations.to_vec(),
                path_contains: path_contains.to_owned(),
                kind,
                per_million,
                is_sticky: self.kinds.contains(&Trouble::BadSectors),
            });
        };
        let places = ["CommitLog", "/data/", ""];
        match kind {
            Trouble::FailedReads => {
                flaw(&[Read, Open, List], "/data/", ErrorKind::Other, rate);
                flaw(&[Read], "/data/", ErrorKind::UnexpectedEof, rate);
            }
            Trouble::FailedWrites => {
                let names = [Create, Write, Remove, Rename, Reserve, Link];
                let place = self.random.pick(&places).copied().unwrap_or_default();
                flaw(&names, place, ErrorKind::Other, rate);
            }
            Trouble::FailedSyncs => {
                let place = self.random.pick(&places).copied().unwrap_or_default();
                flaw(&[Sync, SyncFolder], place, ErrorKind::Other, rate);
            }
            Trouble::Rot => disk.rot_reads("/data/ks/", rate * 10),
            Trouble::Slow | Trouble::BadSectors | Trouble::Full => {}
        }
    }

    /// Takes or gives back the disk's free space.
    pub fn turn_space(&mut self, disk: &MemoryDisk) {
        if disk.capacity() == u64::MAX && self.random.chance(1, 2) {
            disk.set_capacity(disk.used() + self.random.below(60_000));
        } else {
            disk.set_capacity(u64::MAX);
        }
    }

    /// When to look at the space again.
    pub fn until_space_turns(&mut self) -> Duration {
        Duration::from_millis(self.random.between(500..=6000))
    }

    /// All is well again.
    pub fn mend(&self, disk: &MemoryDisk) {
        disk.clear_faults();
        disk.set_capacity(u64::MAX);
    }
}
