//! The oracle: knows every write, what was promised about it, and judges what is read.
//!
//! A slot's history is the versions that writes gave it, each with a timestamp of its own; the greatest one that is
//! *there* decides. Of each write the oracle knows whether it is there:
//!
//! ```text
//! open      begun, not answered                         may be there
//! uncertain its outcome was lost, or the power was      may be there
//! applied   acknowledged, or seen by a read             is there; survives power loss only when it is also durable
//! gone      refused, truncated, or found missing        is not there, and never comes back
//! ```
//!
//! A read that finds one version of an uncertain write proves all of it: writes are atomic.
//!
//! Checkers, numbered as everywhere in this project:
//! - 2: no read returns what nobody wrote, or an older value than one that is there;
//! - 4: nothing that was deleted returns while gc grace is kept, nothing that was truncated ever;
//! - 7: after a crash everything acknowledged before is there;
//! - 6, 8 and 0 are the scenario's: answers in time, no maximum exceeded, no error without a cause.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::workload::{Read, Slot, Version, Write};
use crate::oracle::Violation;

/// Number of a write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WriteId(usize);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Open,
    Uncertain,
    Applied,
    Gone,
}

#[derive(Clone, Debug)]
struct Record {
    table: u8,
    partition: u8,
    status: Status,
    is_durable: bool,
    /// When it was known to be applied.
    applied_at: u64,
    /// What it was before the truncation that has not ended: that one and the status.
    before: Option<(usize, Status)>,
    /// A truncation ran between its beginning and its end: who came first is not known.
    is_entangled: bool,
    life: u64,
}

/// A read that was begun.
#[derive(Clone, Copy, Debug)]
pub struct ReadBegun {
    moment: u64,
    /// Second that the read uses.
    pub now: i64,
}

/// How a life of the node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// All is flushed, nothing runs.
    Drained,
    /// The process died.
    Killed,
    /// The machine lost power, or the process died after a sync had failed.
    PowerLost,
}

/// All slots' histories.
#[derive(Debug, Default)]
pub struct Oracle {
    writes: Vec<Record>,
    histories: BTreeMap<Slot, Vec<(WriteId, Version)>>,
    /// Counts what happens, to tell before from after.
    moment: u64,
    /// By table: when a truncation of it last began or ended, and how many run.
    truncations: BTreeMap<u8, (u64, u32)>,
    next_truncation: usize,
    failed_truncations: BTreeSet<usize>,
    life: u64,
}

impl Oracle {
    /// Now.
    pub fn moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// A write was begun: from now on it may be seen.
    pub fn begin(&mut self, write: &Write) -> WriteId {
        let id = WriteId(self.writes.len());
        let truncations = self.truncations.get(&write.table);
        self.writes.push(Record {
            table: write.table,
            partition: write.partition,
            status: Status::Open,
            is_durable: false,
            applied_at: 0,
            before: None,
            is_entangled: truncations.is_some_and(|(_, running)| *running > 0),
            life: self.life,
        });
        for (slot, version) in &write.effects {
            let history = self.histories.entry(*slot).or_default();
            history.push((id, version.clone()));
        }
        id
    }

    /// A write was acknowledged, durably or not.
    pub fn acknowledge(&mut self, id: WriteId, is_durable: bool) {
        let moment = self.moment();
        let write = &mut self.writes[id.0];
        write.is_durable |= is_durable;
        match write.status {
            Status::Open if write.is_entangled => write.status = Status::Uncertain,
            Status::Open => {
                write.status = Status::Applied;
                write.applied_at = moment;
            }
            _ => {}
        }
    }

    /// A write failed and may have happened all the same.
    pub fn lose(&mut self, id: WriteId) {
        let write = &mut self.writes[id.0];
        if write.status == Status::Open {
            write.status = Status::Uncertain;
        }
    }

    /// A write was refused: it did not happen.
    pub fn refuse(&mut self, id: WriteId) -> Option<Violation> {
        let write = &mut self.writes[id.0];
        if write.status == Status::Applied {
            return Some(Violation::new(
                2,
                format!("write {id:?} was refused, but read before"),
            ));
        }
        write.status = Status::Gone;
        None
    }

    /// What was there at `since` survives power loss from now on, in partitions that `is_covered` (by table and
    /// partition) picks; `own_only`: what this life wrote.
    pub fn make_durable(&mut self, since: u64, own_only: bool, is_covered: impl Fn(u8, u8) -> bool) {
        let life = self.life;
        for write in &mut self.writes {
            if write.status == Status::Applied
                && write.applied_at < since
                && (!own_only || write.life == life)
                && is_covered(write.table, write.partition)
            {
                write.is_durable = true;
            }
        }
    }

    /// A truncation of a table's partitions that `is_covered` picks was begun.
    pub fn begin_truncation(&mut self, table: u8, is_covered: impl Fn(u8) -> bool) -> usize {
        let moment = self.moment();
        let entry = self.truncations.entry(table).or_default();
        *entry = (moment, entry.1 + 1);
        self.next_truncation += 1;
        let number = self.next_truncation;
        let failed = &self.failed_truncations;
        for write in &mut self.writes {
            if write.table == table
                && is_covered(write.partition)
                && write.status != Status::Gone
                && write.before.is_none_or(|(earlier, _)| failed.contains(&earlier))
            {
                write.before = Some((number, write.status));
                write.is_entangled |= write.status == Status::Open;
                if write.status == Status::Applied {
                    write.status = Status::Uncertain;
                }
            }
        }
        number
    }

    /// It was done: what was there before is gone.
    pub fn end_truncation(&mut self, table: u8, number: usize) {
        self.note_truncation(table);
        for write in &mut self.writes {
            if let Some((own, before)) = write.before
                && own == number
            {
                write.before = None;
                // What was not answered when it began may have come after it.
                if before != Status::Open {
                    write.status = Status::Gone;
                }
            }
        }
    }

    /// It failed: what is there is not known before the next start.
    pub fn fail_truncation(&mut self, table: u8, number: usize) {
        self.note_truncation(table);
        self.failed_truncations.insert(number);
    }

    /// It was refused before it began: all is there as it was.
    pub fn refuse_truncation(&mut self, table: u8, number: usize) {
        self.note_truncation(table);
        let moment = self.moment();
        for write in &mut self.writes {
            if let Some((own, before)) = write.before
                && own == number
            {
                write.before = None;
                if before == Status::Applied && write.status == Status::Uncertain {
                    write.status = Status::Applied;
                    write.applied_at = moment;
                }
            }
        }
    }

    fn note_truncation(&mut self, table: u8) {
        let moment = self.moment();
        let entry = self.truncations.entry(table).or_default();
        *entry = (moment, entry.1.saturating_sub(1));
    }

    /// The node is no more; what it was about to do is uncertain.
    pub fn end_life(&mut self, end: End) {
        self.life += 1;
        self.truncations.clear();
        let moment = self.moment();
        for write in &mut self.writes {
            let is_durable = write.is_durable;
            let after = |status| match status {
                Status::Open => Status::Uncertain,
                Status::Applied if end == End::PowerLost && !is_durable => Status::Uncertain,
                status => status,
            };
            write.status = after(write.status);
            if let Some((_, before)) = &mut write.before {
                *before = after(*before);
            }
            if end == End::Drained && write.status == Status::Applied {
                write.is_durable = true;
            }
            write.applied_at = write.applied_at.min(moment);
        }
    }

    /// A read begins, at this second.
    pub fn begin_read(&mut self, now: i64) -> ReadBegun {
        ReadBegun {
            moment: self.moment(),
            now,
        }
    }

    /// Judges the answer to a read that ended at second `until`.
    pub fn check_read(
        &mut self,
        read: &Read,
        begun: ReadBegun,
        until: i64,
        found: &[(Slot, i64, Bytes)],
    ) -> Vec<Violation> {
        let mut violations = self.check_known(found);
        // While a table is truncated nobody knows what a read should see.
        if let Some((moment, running)) = self.truncations.get(&read.table)
            && (*running > 0 || *moment >= begun.moment)
        {
            return violations;
        }
        let found: BTreeMap<Slot, (i64, &Bytes)> = found
            .iter()
            .map(|(slot, at, value)| (*slot, (*at, value)))
            .collect();
        for (slot, (timestamp, _)) in &found {
            self.prove(*slot, *timestamp);
        }
        for slot in super::workload::slots_of(read.table) {
            if read.covers(&slot)
                && let Some(violation) = self.judge(slot, begun, until, found.get(&slot).copied(), false)
            {
                violations.push(violation);
            }
        }
        violations
    }

    /// Everything after a start: what was uncertain is settled by it.
    pub fn check_start(&mut self, table: u8, now: i64, found: &[(Slot, i64, Bytes)]) -> Vec<Violation> {
        let mut violations = self.check_known(found);
        let begun = self.begin_read(now);
        let found: BTreeMap<Slot, (i64, &Bytes)> = found
            .iter()
            .map(|(slot, at, value)| (*slot, (*at, value)))
            .collect();
        for (slot, (timestamp, _)) in &found {
            self.prove(*slot, *timestamp);
        }
        self.settle_truncations(table);
        for slot in super::workload::slots_of(table) {
            self.settle(slot, now, found.get(&slot).map(|(timestamp, _)| *timestamp));
        }
        let begun = ReadBegun {
            moment: self.moment().max(begun.moment),
            ..begun
        };
        for slot in super::workload::slots_of(table) {
            violations.extend(self.judge(slot, begun, now, found.get(&slot).copied(), true));
        }
        self.forget(table);
        violations
    }

    fn check_known(&self, found: &[(Slot, i64, Bytes)]) -> Vec<Violation> {
        let unknown = found.iter().filter(|(slot, timestamp, value)| {
            let history = self.histories.get(slot);
            let known = history.into_iter().flatten();
            !known
                .clone()
                .any(|(_, version)| version.timestamp == *timestamp && version.value.as_ref() == Some(value))
        });
        unknown
            .map(|(slot, timestamp, value)| {
                let newest = self.histories.get(slot).into_iter().flatten();
                let newest = newest.map(|(_, version)| version.timestamp).max();
                let checker = if newest > Some(*timestamp) { 4 } else { 2 };
                let text = format!(
                    "{slot:?} holds {:?} at {timestamp}, which nobody wrote or which is long replaced (newest {newest:?})",
                    text_of(value)
                );
                Violation::new(checker, text)
            })
            .collect()
    }

    /// A write was seen.
    fn prove(&mut self, slot: Slot, timestamp: i64) {
        let moment = self.moment();
        let history = self.histories.get(&slot);
        let seen = history
            .into_iter()
            .flatten()
            .find(|(_, version)| version.timestamp == timestamp);
        if let Some((id, _)) = seen {
            let write = &mut self.writes[id.0];
            if matches!(write.status, Status::Open | Status::Uncertain) {
                write.status = Status::Applied;
                write.applied_at = moment;
            }
        }
    }

    /// A truncation that a crash interrupted happened in full or not at all.
    fn settle_truncations(&mut self, table: u8) {
        let survived: Vec<usize> = self
            .writes
            .iter()
            .filter(|write| write.table == table && write.status == Status::Applied)
            .filter_map(|write| match write.before {
                // One that was open then may have come after it.
                Some((number, Status::Applied | Status::Uncertain)) => Some(number),
                _ => None,
            })
            .collect();
        let moment = self.moment();
        for write in self.writes.iter_mut().filter(|write| write.table == table) {
            if let Some((number, before)) = write.before.take()
                && before == Status::Applied
                && survived.contains(&number)
            {
                write.status = Status::Applied;
                write.applied_at = moment;
            }
        }
    }

    /// Uncertain writes that would decide here, and do not, are gone.
    fn settle(&mut self, slot: Slot, now: i64, found: Option<i64>) {
        let Some(history) = self.histories.get(&slot) else {
            return;
        };
        let writes = &mut self.writes;
        let required = history
            .iter()
            .filter(|(id, _)| writes[id.0].status == Status::Applied)
            .map(|(_, version)| version.timestamp)
            .max();
        // An uncertain deletion may hide what is older.
        let hidden = history
            .iter()
            .filter(|(id, version)| writes[id.0].status == Status::Uncertain && !is_visible(version, now))
            .map(|(_, version)| version.timestamp)
            .max();
        for (id, version) in history {
            let decides = match found {
                Some(found) => version.timestamp > found,
                None => is_visible(version, now) && required.max(hidden) < Some(version.timestamp),
            };
            if decides && writes[id.0].status == Status::Uncertain {
                writes[id.0].status = Status::Gone;
            }
        }
    }

    fn judge(
        &self,
        slot: Slot,
        begun: ReadBegun,
        until: i64,
        found: Option<(i64, &Bytes)>,
        is_start: bool,
    ) -> Option<Violation> {
        let history = self.histories.get(&slot)?;
        let is_there = |id: &WriteId| {
            let write = &self.writes[id.0];
            write.status == Status::Applied && write.applied_at < begun.moment
        };
        let required = history
            .iter()
            .filter(|(id, _)| is_there(id))
            .max_by_key(|(_, version)| version.timestamp);
        let floor = required.map(|(_, version)| version.timestamp);
        let possible = history.iter().filter(|(id, version)| {
            self.writes[id.0].status != Status::Gone && floor.is_none_or(|floor| version.timestamp > floor)
        });
        let mut may_be_nothing = required.is_none();
        let mut is_possible = false;
        for (_, version) in possible.chain(required) {
            let is_found = found.is_some_and(|(timestamp, _)| timestamp == version.timestamp);
            is_possible |= is_found && is_visible(version, begun.now);
            // Whether something that expires meanwhile is seen is open.
            may_be_nothing |= !is_visible(version, begun.now) || !is_visible(version, until + 1);
        }
        if is_possible || found.is_none() && may_be_nothing {
            return None;
        }
        let required_is_deletion = required.is_some_and(|(_, version)| version.value.is_none());
        let was_gone = found.is_some_and(|(timestamp, _)| {
            history.iter().any(|(id, version)| {
                version.timestamp == timestamp && self.writes[id.0].status == Status::Gone
            })
        });
        let checker = match found {
            Some(_) if required_is_deletion || was_gone => 4,
            _ if is_start => 7,
            _ => 2,
        };
        let is_durable = required.map(|(id, _)| self.writes[id.0].is_durable);
        let found = found.map(|(timestamp, value)| format!("{} at {timestamp}", text_of(value)));
        let required = required.map(|(id, version)| {
            let value = version.value.as_ref().map(text_of);
            format!(
                "{id:?} {value:?} at {}, expires {:?}",
                version.timestamp, version.expires_at
            )
        });
        let text = format!(
            "{slot:?} at second {}: found {found:?}, but {required:?} is there (durable: {is_durable:?})",
            begun.now
        );
        Some(Violation::new(checker, text))
    }

    /// Forgets versions that can never decide again.
    fn forget(&mut self, table: u8) {
        let writes = &self.writes;
        for (slot, history) in &mut self.histories {
            if slot.table != table {
                continue;
            }
            let is_sure = |id: &WriteId| {
                let write = &writes[id.0];
                write.status == Status::Applied && write.is_durable
            };
            let floor = history
                .iter()
                .filter(|(id, _)| is_sure(id))
                .map(|(_, version)| version.timestamp)
                .max();
            history.retain(|(_, version)| floor.is_none_or(|floor| version.timestamp >= floor));
        }
    }
}

fn is_visible(version: &Version, now: i64) -> bool {
    version.value.is_some() && version.expires_at.is_none_or(|expires_at| expires_at > now)
}

/// What tells a value from others.
fn text_of(value: &Bytes) -> String {
    let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}
