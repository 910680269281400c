//! A stream without what other sstables shadow: for compactions that take less than all that overlaps.
//!
//! What shadows is not carried over, it stays where it is; so nothing is lost when it is purged there later: that
//! happens only when there is nothing left for it to shadow.

use std::cmp::Ordering;

use ceto_env::LocalFuture;
use ceto_model::{Deletion, Row};

use super::options::Shadowing;
use crate::error::Result;
use crate::reader::{Fragment, FragmentSource, Merge, Step};

/// What is read, without what the other sources shadow.
pub(super) struct Shadowed<'a> {
    main: Merge<'a>,
    main_head: Option<Fragment>,
    others: Merge<'a>,
    others_head: Head,
    how: Shadowing,
    /// The others have the current partition; their deletion of it.
    is_shared: bool,
    partition_deletion: Option<Deletion>,
    /// Their range deletion that holds at the place reached.
    open: Option<Deletion>,
    must_load: Loads,
}

#[derive(Debug)]
enum Head {
    Unknown,
    Fragment(Fragment),
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Loads {
    Main,
    Others,
}

impl<'a> Shadowed<'a> {
    /// `main` without what `others` shadow.
    pub(super) fn new(main: Merge<'a>, others: Merge<'a>, how: Shadowing) -> Shadowed<'a> {
        Shadowed {
            main,
            main_head: None,
            others,
            others_head: Head::Unknown,
            how,
            is_shared: false,
            partition_deletion: None,
            open: None,
            must_load: Loads::Main,
        }
    }

    /// Inputs of the main stream that have the current partition.
    pub(super) fn partition_sources(&self) -> usize {
        self.main.partition_sources()
    }

    /// Asks the others for their next fragment; false when they must load.
    fn fill_others(&mut self) -> Result<bool> {
        if matches!(self.others_head, Head::Unknown) {
            self.others_head = match self.others.step()? {
                Step::Fragment(fragment) => Head::Fragment(fragment),
                Step::End => Head::End,
                Step::Load => {
                    self.must_load = Loads::Others;
                    return Ok(false);
                }
            };
        }
        Ok(true)
    }

    /// Brings the others to the place of the main stream's next fragment; false when they must load first.
    fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.fill_others()? {
                return Ok(false);
            }
            let (Some(main), Head::Fragment(other)) = (&self.main_head, &self.others_head) else {
                return Ok(true);
            };
            let is_behind = match (main, other) {
                (Fragment::PartitionStart(key, _), Fragment::PartitionStart(other, _)) => {
                    match other.cmp(key) {
                        Ordering::Less => {
                            self.others.skip_partition();
                            true
                        }
                        Ordering::Equal | Ordering::Greater => false,
                    }
                }
                // The rest of the partition before.
                (Fragment::PartitionStart(..), _) => true,
                (Fragment::Row(key, _), other) if self.is_shared => is_before(other, &key.0),
                (Fragment::DeletionChange(position, _), other) if self.is_shared => {
                    is_before(other, &position.0)
                }
                _ => false,
            };
            if !is_behind {
                return Ok(true);
            }
            if let Head::Fragment(Fragment::DeletionChange(_, deletion)) =
                std::mem::replace(&mut self.others_head, Head::Unknown)
            {
                self.open = deletion;
            }
        }
    }

    /// What is left of the main stream's fragment.
    fn shadow(&mut self, fragment: Fragment) -> Option<Fragment> {
        match fragment {
            Fragment::PartitionStart(key, deletion) => {
                self.open = None;
                self.partition_deletion = None;
                self.is_shared = matches!(&self.others_head, Head::Fragment(Fragment::PartitionStart(other, _)) if *other == key);
                if self.is_shared
                    && let Head::Fragment(Fragment::PartitionStart(_, theirs)) =
                        std::mem::replace(&mut self.others_head, Head::Unknown)
                {
                    self.partition_deletion = theirs;
                }
                Some(Fragment::PartitionStart(key, deletion))
            }
            Fragment::StaticRow(row) if self.is_shared => {
                let theirs = match &self.others_head {
                    Head::Fragment(Fragment::StaticRow(theirs)) => Some(theirs),
                    _ => None,
                };
                let row = remove_shadowed(row, theirs, self.partition_deletion, self.how)?;
                Some(Fragment::StaticRow(row))
            }
            Fragment::Row(key, row) if self.is_shared => {
                let theirs = match &self.others_head {
                    Head::Fragment(Fragment::Row(other, theirs)) if *other == key => Some(theirs),
                    _ => None,
                };
                let wider = Deletion::strongest(self.partition_deletion, self.open);
                let row = remove_shadowed(row, theirs, wider, self.how)?;
                Some(Fragment::Row(key, row))
            }
            other => Some(other),
        }
    }
}

/// A fragment of a partition that lies before a place of it.
fn is_before(fragment: &Fragment, place: &[u8]) -> bool {
    match fragment {
        Fragment::StaticRow(_) => true,
        Fragment::Row(key, _) => key.0[..] < *place,
        Fragment::DeletionChange(position, _) => position.0[..] <= *place,
        Fragment::PartitionStart(..) | Fragment::PartitionEnd => false,
    }
}

fn remove_shadowed(
    mut row: Row,
    theirs: Option<&Row>,
    wider: Option<Deletion>,
    how: Shadowing,
) -> Option<Row> {
    let deletion = Deletion::strongest(wider, theirs.and_then(|theirs| theirs.deletion));
    if let Some(deletion) = deletion {
        row.shadow_by_wider(deletion);
    }
    if let (Shadowing::Cell, Some(theirs)) = (how, theirs) {
        row.remove_overwritten(theirs);
    }
    (!row.is_empty()).then_some(row)
}

impl FragmentSource for Shadowed<'_> {
    fn step(&mut self) -> Result<Step> {
        loop {
            if self.main_head.is_none() {
                self.main_head = match self.main.step()? {
                    Step::Fragment(fragment) => Some(fragment),
                    Step::End => return Ok(Step::End),
                    Step::Load => {
                        self.must_load = Loads::Main;
                        return Ok(Step::Load);
                    }
                };
            }
            let needs_others = match &self.main_head {
                Some(Fragment::PartitionEnd) | None => false,
                Some(Fragment::PartitionStart(..)) => true,
                Some(_) => self.is_shared,
            };
            if needs_others && !self.advance()? {
                return Ok(Step::Load);
            }
            let fragment = self.main_head.take();
            if let Some(kept) = fragment.and_then(|fragment| self.shadow(fragment)) {
                return Ok(Step::Fragment(kept));
            }
        }
    }

    fn load(&mut self) -> LocalFuture<'_, Result<()>> {
        match self.must_load {
            Loads::Main => self.main.load(),
            Loads::Others => self.others.load(),
        }
    }

    fn skip_partition(&mut self) {
        self.main_head = None;
        self.main.skip_partition();
    }
}
