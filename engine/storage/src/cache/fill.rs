//! Taking into the cache what a reader brings from disk.
//!
//! Follows the reader's stream: each row and each deletion change says that between it and what came before there is
//! nothing else. What the reader did not reach, or skipped, stays unknown.

use std::rc::Rc;

use ceto_model::{ClusteringKey, DecoratedKey, Deletion, Position, ReadTarget, RingPosition, Row, Slice};
use smallvec::SmallVec;

use super::partition::{CachedPartition, Editor, as_bounds};
use super::table::TableCache;
use crate::reader::{Fragment, Scan, after_row, before_row, slices_of};

/// Fills a table's cache from one scan of its sstables.
pub(super) struct Filler<'a> {
    table: Rc<TableCache>,
    /// The table's when the reader began.
    phase: u64,
    scan: Scan<'a>,
    /// Up to where along the ring all is known, of a range scan.
    edge: Option<RingPosition>,
    /// The partition that has begun, before its first row.
    head: Option<Head>,
    current: Option<Filling>,
    has_found: bool,
}

struct Head {
    key: DecoratedKey,
    deletion: Option<Deletion>,
    static_row: Option<Row>,
}

/// A partition that is being filled.
struct Filling {
    partition: Rc<CachedPartition>,
    /// Between bounds, in reading order.
    slices: SmallVec<[Slice; 2]>,
    /// Slices done.
    done: usize,
    reversed: bool,
    /// Up to where inside the slice all is known.
    edge: Position,
    /// The range deletion that holds from there on.
    open: Option<Deletion>,
    rows_max: u64,
}

impl<'a> Filler<'a> {
    /// For a reader that began in this phase of the table and reads `scan` from disk.
    pub(super) fn new(table: Rc<TableCache>, phase: u64, scan: Scan<'a>) -> Filler<'a> {
        let edge = match scan.target {
            ReadTarget::Partition(_) => None,
            ReadTarget::Range(range) => Some(range.start.clone()),
        };
        Filler {
            table,
            phase,
            scan,
            edge,
            head: None,
            current: None,
            has_found: false,
        }
    }

    fn is_valid(&self) -> bool {
        self.table.phase() == self.phase && self.table.is_used()
    }

    /// The reader got this.
    pub(super) fn take(&mut self, fragment: &Fragment) {
        if !self.is_valid() {
            // What was flushed meanwhile is missing in what comes from now on.
            self.head = None;
            self.current = None;
            return;
        }
        match fragment {
            Fragment::PartitionStart(key, deletion) => {
                self.has_found = true;
                self.head = Some(Head {
                    key: key.clone(),
                    deletion: *deletion,
                    static_row: None,
                });
                return;
            }
            Fragment::StaticRow(row) => {
                if let Some(head) = &mut self.head {
                    head.static_row = Some(row.clone());
                }
                return;
            }
            Fragment::Row(..) | Fragment::DeletionChange(..) | Fragment::PartitionEnd => {}
        }
        self.begin_partition();
        let is_end = *fragment == Fragment::PartitionEnd;
        if let Some(current) = &mut self.current
            && !current.take(&self.table, fragment)
        {
            self.current = None;
        }
        if is_end {
            self.current = None;
        }
        self.table.cache.shrink();
    }

    /// The reader passed over the rest of the partition.
    pub(super) fn skip(&mut self) {
        self.current = None;
        // Nobody has seen whether it has a static row.
        if let (Some(head), Some(edge)) = (self.head.take(), &mut self.edge) {
            *edge = RingPosition::AfterKey(head.key);
        }
    }

    /// The reader got to the end of its scan.
    pub(super) fn finish(&mut self) {
        if !self.is_valid() {
            return;
        }
        match self.scan.target {
            ReadTarget::Partition(key) => {
                if !self.has_found && !self.table.contains(key) {
                    self.table.insert_absent(key);
                }
            }
            ReadTarget::Range(range) => {
                if let Some(edge) = &self.edge {
                    self.table.learn_range(edge, &range.end);
                }
            }
        }
        self.table.cache.shrink();
    }

    /// All of the current partition's head is known: makes a place for it.
    fn begin_partition(&mut self) {
        let Some(head) = self.head.take() else { return };
        let partition = self
            .table
            .obtain(&head.key, head.deletion, head.static_row.as_ref());
        if let Some(edge) = &mut self.edge {
            self.table
                .learn_range(edge, &RingPosition::BeforeKey(head.key.clone()));
            *edge = RingPosition::AfterKey(head.key.clone());
        }
        let reversed = self.scan.reversed;
        let mut slices: SmallVec<[Slice; 2]> = slices_of(&self.scan, &head.key)
            .iter()
            .map(as_bounds)
            .filter(|slice| !slice.is_empty())
            .collect();
        if reversed {
            slices.reverse();
        }
        self.current = Some(Filling {
            partition,
            edge: first_bound(slices.first(), reversed),
            slices,
            done: 0,
            reversed,
            open: None,
            rows_max: self.table.rows_max(),
        });
    }
}

/// The bound at which a slice begins, in reading order.
fn first_bound(slice: Option<&Slice>, reversed: bool) -> Position {
    match slice {
        None => Position::before_all(),
        Some(slice) if reversed => slice.end.clone(),
        Some(slice) => slice.start.clone(),
    }
}

impl Filling {
    /// False: nothing more is to be taken.
    fn take(&mut self, table: &TableCache, fragment: &Fragment) -> bool {
        let partition = self.partition.clone();
        let mut editor = partition.edit(&table.cache);
        if editor.state.is_detached {
            return false;
        }
        match fragment {
            Fragment::Row(key, row) => {
                self.advance(&mut editor, &key.0);
                self.row(&mut editor, key, row);
            }
            Fragment::DeletionChange(position, deletion) => {
                self.advance(&mut editor, &position.0);
                self.learn_to(&mut editor, position.clone());
                self.open = *deletion;
            }
            Fragment::PartitionEnd => {
                while self.done < self.slices.len() {
                    self.end_slice(&mut editor);
                }
            }
            Fragment::PartitionStart(..) | Fragment::StaticRow(_) => {}
        }
        true
    }

    /// Ends the slices that lie before a place.
    fn advance(&mut self, editor: &mut Editor<'_>, place: &[u8]) {
        while let Some(slice) = self.slices.get(self.done) {
            let is_past = if self.reversed {
                *slice.start.0 > *place
            } else {
                *slice.end.0 < *place
            };
            if !is_past {
                return;
            }
            self.end_slice(editor);
        }
    }

    fn end_slice(&mut self, editor: &mut Editor<'_>) {
        let Some(slice) = self.slices.get(self.done) else {
            return;
        };
        let last = if self.reversed {
            slice.start.clone()
        } else {
            slice.end.clone()
        };
        self.learn_to(editor, last);
        self.done += 1;
        if let Some(next) = self.slices.get(self.done) {
            self.edge = first_bound(Some(next), self.reversed);
        }
    }

    /// From the edge to `place` is nothing.
    fn learn_to(&mut self, editor: &mut Editor<'_>, place: Position) {
        if self.reversed {
            editor.learn_gap(&place.0, &self.edge.0, self.open);
        } else {
            editor.learn_gap(&self.edge.0, &place.0, self.open);
        }
        self.edge = place;
    }

    fn row(&mut self, editor: &mut Editor<'_>, key: &ClusteringKey, row: &Row) {
        let is_kept = editor.state.rows < self.rows_max && editor.learn_row(key, row, self.open);
        let (near, far) = match (is_kept, self.reversed) {
            (true, _) => (Position(key.0.clone()), None),
            (false, false) => (before_row(key), Some(after_row(key))),
            (false, true) => (after_row(key), Some(before_row(key))),
        };
        self.learn_to(editor, near);
        if let Some(far) = far {
            self.edge = far;
        }
    }
}
