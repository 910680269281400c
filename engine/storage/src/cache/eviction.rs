//! What the cache forgets first.
//!
//! Everything that can be forgotten (a place of a partition, or the head of a partition without places) stands in one
//! of two queues. What is new stands in the *small* one, a tenth of the cache. At its end, what was used since it came
//! goes on to the *main* one; the rest is forgotten, and only a print of it remains. At the end of the main queue, what
//! was used goes back to its beginning, once for each use; the rest is forgotten. What comes again soon after it was
//! forgotten (its print is there) begins in the main queue.
//!
//! So what is read once, as by a scan, passes through a tenth of the cache and leaves the rest as it is; and a hit costs
//! one count, no change of any list. (The rule is known as S3-FIFO.) A partition of which nothing is kept, read from disk
//! while the cache is full, does not even pass through, unless it is read a second time before long
//! ([`crate::admission`]).

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use bytes::Bytes;
use rustc_hash::FxHasher;

use super::partition::CachedPartition;

/// Number of a slot.
pub(super) type SlotNumber = u32;

const NONE: u32 = u32::MAX;
/// The small queue's part of the cache.
const SMALL_PART: usize = 10;
/// Bytes of cache for each print kept of what was forgotten.
const BYTES_PER_PRINT: usize = 512;
const PRINTS_MIN: usize = 256;
const PRINTS_MAX: usize = 1 << 22;

/// Memory of a slot, in bytes.
pub(super) const SLOT_SIZE: usize = size_of::<Slot>();

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum QueueName {
    Small,
    Main,
}

struct Slot {
    owner: Option<Rc<CachedPartition>>,
    /// None: the partition's head.
    place: Option<Bytes>,
    newer: u32,
    older: u32,
    size: u32,
    queue: QueueName,
}

#[derive(Clone, Copy)]
struct Queue {
    newest: u32,
    oldest: u32,
    bytes: usize,
}

/// The order of eviction of one shard's cache.
pub(super) struct Evictions {
    slots: Vec<Slot>,
    free: Vec<u32>,
    small: Queue,
    main: Queue,
    /// What was forgotten lately: each print at the index that it determines.
    prints: Vec<u32>,
}

/// What is at the end of the queue that is to give something up.
pub(super) struct Candidate {
    pub(super) slot: SlotNumber,
    pub(super) owner: Rc<CachedPartition>,
    pub(super) place: Option<Bytes>,
}

impl Evictions {
    /// For a cache of `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Evictions {
        let prints = (capacity / BYTES_PER_PRINT)
            .clamp(PRINTS_MIN, PRINTS_MAX)
            .next_power_of_two();
        let empty = Queue {
            newest: NONE,
            oldest: NONE,
            bytes: 0,
        };
        Evictions {
            slots: Vec::new(),
            free: Vec::new(),
            small: empty,
            main: empty,
            prints: vec![0; prints],
        }
    }

    /// Bytes of everything that stands in the queues.
    pub(super) fn bytes(&self) -> usize {
        self.small.bytes + self.main.bytes
    }

    /// Takes something new.
    pub(super) fn add(
        &mut self,
        owner: Rc<CachedPartition>,
        place: Option<Bytes>,
        size: usize,
    ) -> SlotNumber {
        let queue = if self.take_print(print_of(&owner, place.as_deref())) {
            QueueName::Main
        } else {
            QueueName::Small
        };
        let slot = Slot {
            owner: Some(owner),
            place,
            newer: NONE,
            older: NONE,
            size: clamp(size),
            queue,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.link(number);
        number
    }

    /// Something changed its size.
    pub(super) fn resize(&mut self, number: SlotNumber, size: usize) {
        let slot = &mut self.slots[number as usize];
        let (old, new) = (slot.size as usize, clamp(size));
        slot.size = new;
        let queue = match slot.queue {
            QueueName::Small => &mut self.small,
            QueueName::Main => &mut self.main,
        };
        queue.bytes = queue.bytes - old + new as usize;
    }

    /// Something is no longer there.
    pub(super) fn remove(&mut self, number: SlotNumber) {
        self.unlink(number);
        let slot = &mut self.slots[number as usize];
        slot.owner = None;
        slot.place = None;
        self.free.push(number);
        if self.free.len() == self.slots.len() {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
    }

    /// What is next to be asked whether it was used.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        let is_small_due = self.small.bytes * SMALL_PART > self.bytes();
        let number = match (is_small_due, self.small.oldest, self.main.oldest) {
            (true, small, _) if small != NONE => small,
            (_, small, NONE) => small,
            (_, _, main) => main,
        };
        let slot = self.slots.get(number as usize)?;
        Some(Candidate {
            slot: number,
            owner: slot.owner.clone()?,
            place: slot.place.clone(),
        })
    }

    /// A candidate was used: it stays, at the beginning of the main queue. Says whether a use is spent on that.
    pub(super) fn keep(&mut self, number: SlotNumber) {
        self.unlink(number);
        self.slots[number as usize].queue = QueueName::Main;
        self.link(number);
    }

    /// A candidate was not used: it is forgotten, but for its print. (The owner removes it.)
    pub(super) fn note_forgotten(&mut self, candidate: &Candidate) {
        if self.slots[candidate.slot as usize].queue == QueueName::Small {
            let print = print_of(&candidate.owner, candidate.place.as_deref());
            let at = self.print_index(print);
            self.prints[at] = print;
        }
    }

    /// Memory of the lists themselves, beside what stands in them, in bytes.
    pub(super) fn overhead(&self) -> usize {
        self.prints.len() * size_of::<u32>() + self.free.len() * SLOT_SIZE
    }

    fn print_index(&self, print: u32) -> usize {
        // The low bits choose the index, the rest tells prints of one index apart.
        print as usize & (self.prints.len() - 1)
    }

    fn take_print(&mut self, print: u32) -> bool {
        let at = self.print_index(print);
        let is_there = self.prints[at] == print;
        if is_there {
            self.prints[at] = 0;
        }
        is_there
    }

    fn queue_mut(&mut self, number: SlotNumber) -> &mut Queue {
        match self.slots[number as usize].queue {
            QueueName::Small => &mut self.small,
            QueueName::Main => &mut self.main,
        }
    }

    fn link(&mut self, number: SlotNumber) {
        let size = self.slots[number as usize].size as usize;
        let queue = self.queue_mut(number);
        let older = std::mem::replace(&mut queue.newest, number);
        queue.bytes += size;
        if older == NONE {
            queue.oldest = number;
        } else {
            self.slots[older as usize].newer = number;
        }
        let slot = &mut self.slots[number as usize];
        slot.older = older;
        slot.newer = NONE;
    }

    fn unlink(&mut self, number: SlotNumber) {
        let slot = &self.slots[number as usize];
        let (newer, older, size) = (slot.newer, slot.older, slot.size as usize);
        let queue = self.queue_mut(number);
        queue.bytes -= size;
        if newer == NONE {
            queue.newest = older;
        }
        if older == NONE {
            queue.oldest = newer;
        }
        if newer != NONE {
            self.slots[newer as usize].older = older;
        }
        if older != NONE {
            self.slots[older as usize].newer = newer;
        }
    }
}

fn clamp(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Never 0, which stands for none.
fn print_of(owner: &CachedPartition, place: Option<&[u8]>) -> u32 {
    let mut hasher = FxHasher::default();
    owner.key().token.0.hash(&mut hasher);
    place.hash(&mut hasher);
    let hash = hasher.finish();
    ((hash ^ (hash >> 32)) as u32).max(1)
}
