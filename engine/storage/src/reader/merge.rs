//! Merging streams.
//!
//! The merge of any number of sources is itself a source. It yields normal form: rows of equal keys merged, what a
//! partition or range deletion shadows removed, deletion changes only where the strongest deletion changes.

use std::cmp::Ordering;

use ceto_env::LocalFuture;
use ceto_model::{DecoratedKey, Deletion, Position, Row};
use smallvec::SmallVec;

use super::{Answer, Flow, Fragment, FragmentSource, Step};
use crate::error::Result;
use crate::sstable::EncodedPartition;
use crate::wait::join_all;

/// Partitions handed over in one go, at most, and bytes after which it ends: between two goes the reader looks at the
/// time and its memory.
const RUN_MAX: usize = 64;
const RUN_BYTES: usize = 64 << 10;

/// The merge of several sources of one table, scanned alike.
pub(crate) struct Merge<'a> {
    inputs: Vec<Input<'a>>,
    reversed: bool,
    state: State,
    /// Inputs that have the current partition.
    active: SmallVec<[usize; 8]>,
    deletion: Option<Deletion>,
    /// The range deletion last announced.
    announced: Option<Deletion>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    BetweenPartitions,
    Static,
    Rows,
    /// In a partition that only this input has: its fragments are in normal form already and go through as they are.
    Alone(usize),
}

struct Input<'a> {
    source: Box<dyn FragmentSource + 'a>,
    head: Head,
    /// Its range deletion that holds at the place reached.
    open: Option<Deletion>,
}

#[derive(Debug)]
enum Head {
    /// To be asked for.
    Unknown,
    /// Asked for, must load.
    Load,
    /// Must load, but has nothing before this.
    Later(Position),
    Fragment(Fragment),
    End,
}

impl<'a> Merge<'a> {
    /// Merges `sources`, which all scan in the same direction.
    pub(crate) fn new(sources: Vec<Box<dyn FragmentSource + 'a>>, reversed: bool) -> Merge<'a> {
        let inputs = sources.into_iter().map(|source| Input {
            source,
            head: Head::Unknown,
            open: None,
        });
        Merge {
            inputs: inputs.collect(),
            reversed,
            state: State::BetweenPartitions,
            active: SmallVec::new(),
            deletion: None,
            announced: None,
        }
    }

    /// Inputs that have the current partition.
    pub(crate) fn partition_sources(&self) -> usize {
        self.active.len()
    }

    /// Asks the inputs that may have something; false when one must load first.
    fn fill(&mut self) -> Result<bool> {
        let mut is_full = true;
        if self.state == State::BetweenPartitions {
            for input in &mut self.inputs {
                is_full &= input.fill()?;
            }
        } else {
            for at in &self.active {
                is_full &= self.inputs[*at].fill_or_put_off()?;
            }
        }
        Ok(is_full)
    }

    /// The input that is to be asked what it has next, when all others have told and need not load.
    fn only_unknown(&self) -> Option<usize> {
        let mut unknown = None;
        for (at, input) in self.inputs.iter().enumerate() {
            match &input.head {
                Head::Unknown if unknown.is_none() => unknown = Some(at),
                Head::Unknown | Head::Load | Head::Later(_) => return None,
                Head::Fragment(_) | Head::End => {}
            }
        }
        unknown
    }

    /// Lets an input of which nothing is told hand over what it has before the next partition of all others: that is
    /// its alone.
    fn run_one(
        &mut self,
        at: usize,
        before: Option<&DecoratedKey>,
        answer: &mut Answer<'_>,
    ) -> Result<Option<Flow>> {
        let others = self.inputs.iter().filter_map(|input| match &input.head {
            Head::Fragment(Fragment::PartitionStart(key, _)) => Some(key),
            _ => None,
        });
        let before = others.chain(before).min().cloned();
        self.inputs[at].source.run(before.as_ref(), answer)
    }

    /// The input that alone has the next partition, when that lies before a key (None: anywhere) and no input must load
    /// first.
    fn first_alone(&mut self, before: Option<&DecoratedKey>) -> Result<Option<usize>> {
        for input in &mut self.inputs {
            if matches!(input.head, Head::Load) || !input.fill()? {
                return Ok(None);
            }
        }
        let (mut first, mut is_alone) = (before, false);
        let mut found = None;
        for (at, input) in self.inputs.iter().enumerate() {
            let Some(Fragment::PartitionStart(key, _)) = input.fragment() else {
                continue;
            };
            match first.map_or(Ordering::Less, |first| key.cmp(first)) {
                Ordering::Less => (first, is_alone, found) = (Some(key), true, Some(at)),
                Ordering::Equal => is_alone = false,
                Ordering::Greater => {}
            }
        }
        Ok(found.filter(|_| is_alone))
    }

    fn next_partition(&mut self) -> Step {
        let mut first: Option<&DecoratedKey> = None;
        self.active.clear();
        for (at, input) in self.inputs.iter().enumerate() {
            let Head::Fragment(Fragment::PartitionStart(key, _)) = &input.head else {
                continue;
            };
            match first.map_or(Ordering::Less, |first| key.cmp(first)) {
                Ordering::Less => {
                    first = Some(key);
                    self.active.clear();
                    self.active.push(at);
                }
                Ordering::Equal => self.active.push(at),
                Ordering::Greater => {}
            }
        }
        self.deletion = None;
        self.announced = None;
        let mut start = None;
        for at in &self.active {
            let input = &mut self.inputs[*at];
            input.open = None;
            if let Some(Fragment::PartitionStart(key, deletion)) = input.take() {
                self.deletion = Deletion::strongest(self.deletion, deletion);
                start = Some(key);
            }
        }
        self.state = match *self.active {
            [only] => State::Alone(only),
            _ => State::Static,
        };
        match start {
            Some(key) => Step::Fragment(Fragment::PartitionStart(key, self.deletion)),
            None => Step::End,
        }
    }

    /// The next fragment of a partition that one input has.
    fn next_alone(&mut self, at: usize) -> Result<Step> {
        let input = &mut self.inputs[at];
        let step = input.source.step()?;
        (input.head, self.state) = match &step {
            Step::Fragment(Fragment::PartitionEnd) => (Head::Unknown, State::BetweenPartitions),
            Step::Fragment(_) => (Head::Unknown, self.state),
            Step::Load => (Head::Load, self.state),
            // A source that ends ends its partition.
            Step::End => {
                (input.head, self.state) = (Head::End, State::BetweenPartitions);
                return Ok(Step::Fragment(Fragment::PartitionEnd));
            }
        };
        Ok(step)
    }

    fn static_row(&mut self) -> Option<Fragment> {
        let mut merged: Option<Row> = None;
        for at in &self.active {
            let input = &mut self.inputs[*at];
            if matches!(input.head, Head::Fragment(Fragment::StaticRow(_)))
                && let Some(Fragment::StaticRow(row)) = input.take()
            {
                merge_row(&mut merged, row);
            }
        }
        self.state = State::Rows;
        let row = shadowed(merged?, self.deletion)?;
        Some(Fragment::StaticRow(row))
    }

    /// The next row, change or end; None when what came next left nothing to tell.
    fn next_in_partition(&mut self) -> Option<Fragment> {
        let mut first: Option<&[u8]> = None;
        let mut taken: SmallVec<[usize; 8]> = SmallVec::new();
        for at in &self.active {
            let Some(place) = self.inputs[*at].place() else {
                continue;
            };
            let order = match first {
                None => Ordering::Less,
                Some(first) if self.reversed => first.cmp(place),
                Some(first) => place.cmp(first),
            };
            match order {
                Ordering::Less => {
                    first = Some(place);
                    taken.clear();
                    taken.push(*at);
                }
                Ordering::Equal => taken.push(*at),
                Ordering::Greater => {}
            }
        }
        if taken.is_empty() {
            for at in &self.active {
                self.inputs[*at].head = Head::Unknown;
            }
            self.state = State::BetweenPartitions;
            return Some(Fragment::PartitionEnd);
        }
        let mut waits = false;
        for at in &taken {
            let input = &mut self.inputs[*at];
            if matches!(input.head, Head::Later(_)) {
                input.head = Head::Load;
                waits = true;
            }
        }
        if waits {
            return None;
        }
        let mut row = None;
        let mut change = None;
        for at in &taken {
            let input = &mut self.inputs[*at];
            match input.take() {
                Some(Fragment::Row(key, next)) => match &mut row {
                    None => row = Some((key, next)),
                    Some((_, merged)) => merged.merge(next),
                },
                Some(Fragment::DeletionChange(position, deletion)) => {
                    input.open = deletion;
                    change = Some(position);
                }
                _ => {}
            }
        }
        let open = self.open_deletion();
        if let Some((key, row)) = row {
            let row = shadowed(row, Deletion::strongest(open, self.deletion))?;
            return Some(Fragment::Row(key, row));
        }
        if open == self.announced {
            return None;
        }
        self.announced = open;
        change.map(|position| Fragment::DeletionChange(position, open))
    }

    /// The strongest range deletion here, unless the partition's is at least as strong.
    fn open_deletion(&self) -> Option<Deletion> {
        let open = self.active.iter().map(|at| self.inputs[*at].open).max().flatten();
        open.filter(|open| Some(*open) > self.deletion)
    }
}

impl FragmentSource for Merge<'_> {
    fn step(&mut self) -> Result<Step> {
        if let State::Alone(at) = self.state {
            return self.next_alone(at);
        }
        loop {
            if !self.fill()? {
                return Ok(Step::Load);
            }
            let fragment = match self.state {
                State::Alone(at) => return self.next_alone(at),
                State::BetweenPartitions => return Ok(self.next_partition()),
                State::Static => self.static_row(),
                State::Rows => self.next_in_partition(),
            };
            if let Some(fragment) = fragment {
                return Ok(Step::Fragment(fragment));
            }
        }
    }

    fn run(&mut self, before: Option<&DecoratedKey>, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        if self.state != State::BetweenPartitions {
            return Ok(None);
        }
        if let Some(at) = self.only_unknown()
            && let Some(flow) = self.run_one(at, before, answer)?
        {
            return Ok(Some(flow));
        }
        let (mut flow, mut last) = (None, None);
        let enough = answer.memory().saturating_add(RUN_BYTES);
        for _ in 0..RUN_MAX {
            let Some(at) = self.first_alone(before)? else {
                break;
            };
            let Some(Fragment::PartitionStart(key, None)) = self.inputs[at].fragment() else {
                break;
            };
            let key = key.clone();
            let Some(handed) = self.inputs[at].source.hand_over(&key, answer)? else {
                break;
            };
            self.inputs[at].head = Head::Unknown;
            flow = Some(handed);
            if handed == Flow::Stop || answer.memory() >= enough {
                break;
            }
            // Two in a row: perhaps it is ahead for longer.
            if last.replace(at) == Some(at) {
                return Ok(self.run_one(at, before, answer)?.or(flow));
            }
        }
        Ok(flow)
    }

    fn hand_over(&mut self, key: &DecoratedKey, answer: &mut Answer<'_>) -> Result<Option<Flow>> {
        let State::Alone(at) = self.state else {
            return Ok(None);
        };
        let flow = self.inputs[at].source.hand_over(key, answer)?;
        if flow.is_some() {
            self.inputs[at].head = Head::Unknown;
            self.state = State::BetweenPartitions;
        }
        Ok(flow)
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        let mut loads = Vec::new();
        for input in &mut self.inputs {
            if matches!(input.head, Head::Load) {
                input.head = Head::Unknown;
                loads.push(input.source.load());
            }
        }
        Box::pin(join_all(loads))
    }

    fn skip_partition(&mut self) {
        if self.state == State::BetweenPartitions {
            return;
        }
        for at in &self.active {
            let input = &mut self.inputs[*at];
            input.head = Head::Unknown;
            input.source.skip_partition();
        }
        self.state = State::BetweenPartitions;
    }

    fn encoded(&self) -> Option<EncodedPartition<'_>> {
        match self.state {
            State::Alone(at) => self.inputs[at].source.encoded(),
            _ => None,
        }
    }
}

impl Input<'_> {
    fn fill(&mut self) -> Result<bool> {
        if matches!(self.head, Head::Unknown | Head::Load) {
            self.head = match self.source.step()? {
                Step::Fragment(fragment) => Head::Fragment(fragment),
                Step::Load => Head::Load,
                Step::End => {
                    // What it holds open may be let go.
                    self.source = Box::new(Exhausted);
                    Head::End
                }
            };
        }
        Ok(!matches!(self.head, Head::Load))
    }

    /// The same inside a partition: what the input must load may be of use later only.
    fn fill_or_put_off(&mut self) -> Result<bool> {
        if matches!(self.head, Head::Later(_)) {
            return Ok(true);
        }
        let is_asked = matches!(self.head, Head::Unknown);
        if self.fill()? {
            return Ok(true);
        }
        // What was put off before is wanted now.
        if is_asked && let Some(position) = self.source.not_before() {
            self.head = Head::Later(position);
        }
        Ok(!matches!(self.head, Head::Load))
    }

    fn fragment(&self) -> Option<&Fragment> {
        match &self.head {
            Head::Fragment(fragment) => Some(fragment),
            _ => None,
        }
    }

    fn take(&mut self) -> Option<Fragment> {
        match std::mem::replace(&mut self.head, Head::Unknown) {
            Head::Fragment(fragment) => Some(fragment),
            other => {
                self.head = other;
                None
            }
        }
    }

    /// Where the next row or change lies; None at the end of the partition.
    fn place(&self) -> Option<&[u8]> {
        match &self.head {
            Head::Fragment(Fragment::Row(key, _)) => Some(&key.0),
            Head::Fragment(Fragment::DeletionChange(position, _)) | Head::Later(position) => {
                Some(&position.0)
            }
            _ => None,
        }
    }
}

/// In the place of a source that has nothing more.
struct Exhausted;

impl FragmentSource for Exhausted {
    fn step(&mut self) -> Result<Step> {
        Ok(Step::End)
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn skip_partition(&mut self) {}
}

fn merge_row(merged: &mut Option<Row>, row: Row) {
    match merged {
        None => *merged = Some(row),
        Some(merged) => merged.merge(row),
    }
}

fn shadowed(mut row: Row, deletion: Option<Deletion>) -> Option<Row> {
    if let Some(deletion) = deletion {
        row.shadow_by_wider(deletion);
    }
    (!row.is_empty()).then_some(row)
}
