//! The places of a cached partition, in clustering order.
//!
//! A place is the key of a row or a bound between rows. Between two neighbouring places there is a gap, and each place
//! says what is known of the gap before it. So forgetting a row is forgetting its place and the gap after it, and
//! memory is in proportion to the places kept, however they were learned and forgotten.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use ceto_model::key::{BOUND_AFTER, BOUND_BEFORE, KEY_END};
use ceto_model::{CellState, ColumnData, Deletion, Row};

use super::eviction::SlotNumber;

/// Places kept in a sorted vector; more move to a B-tree.
const FEW: usize = 32;
/// Most uses that are counted.
const USES_MAX: u8 = 3;

/// What is known of the places between two neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gap {
    /// There may be rows and deletions on disk.
    Unknown,
    /// No row, and this range deletion from end to end.
    Known(Option<Deletion>),
}

/// One place.
#[derive(Debug)]
pub(super) struct Entry {
    /// The gap between the place before (or the partition's start) and this one.
    pub(super) gap: Gap,
    /// The range deletion that covers this very place. Only of keys.
    pub(super) covering: Option<Deletion>,
    /// The row. None at a bound, and at a key of which it is known that there is no row.
    pub(super) row: Option<Row>,
    /// Where it stands in the order of eviction.
    pub(super) slot: SlotNumber,
    pub(super) uses: Cell<u8>,
}

impl Entry {
    /// Notes that it was read.
    pub(super) fn note_use(&self) {
        note_use(&self.uses);
    }
}

/// Counts one use.
pub(super) fn note_use(uses: &Cell<u8>) {
    uses.set(USES_MAX.min(uses.get() + 1));
}

/// Places in order.
pub(super) enum Entries {
    /// Sorted.
    Few(Vec<(Bytes, Entry)>),
    Many(BTreeMap<Bytes, Entry>),
}

impl Default for Entries {
    fn default() -> Entries {
        Entries::Few(Vec::new())
    }
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        match self {
            Entries::Few(entries) => entries.len(),
            Entries::Many(entries) => entries.len(),
        }
    }

    /// They are few, and all gaps before them are known.
    pub(super) fn are_few_and_known(&self) -> bool {
        match self {
            Entries::Few(entries) => entries.iter().all(|(_, entry)| entry.gap != Gap::Unknown),
            Entries::Many(_) => false,
        }
    }

    /// The only place, when there is one and it is that of a row that no range deletion covers or adjoins.
    pub(super) fn only_row(&self) -> Option<(&Bytes, &Entry)> {
        match self {
            Entries::Few(entries) => match &entries[..] {
                [(place, entry)]
                    if entry.row.is_some() && entry.covering.is_none() && entry.gap == Gap::Known(None) =>
                {
                    Some((place, entry))
                }
                _ => None,
            },
            Entries::Many(_) => None,
        }
    }

    /// Looks at a byte of each value of the first place.
    pub(super) fn touch(&self) -> usize {
        let Entries::Few(entries) = self else { return 0 };
        let columns = entries.first().and_then(|(_, entry)| entry.row.as_ref());
        let cells = columns.into_iter().flat_map(|row| &row.columns);
        let bytes = cells.map(|(_, data)| match data {
            ColumnData::Cell(ceto_model::Cell {
                state: CellState::Live(value) | CellState::Expiring { value, .. },
                ..
            }) => value.first().map_or(0, |byte| usize::from(*byte)),
            _ => 0,
        });
        bytes.sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, place: &[u8]) -> Option<&Entry> {
        match self {
            Entries::Few(entries) => {
                let at = entries.binary_search_by(|(own, _)| (**own).cmp(place)).ok()?;
                entries.get(at).map(|(_, entry)| entry)
            }
            Entries::Many(entries) => entries.get(place),
        }
    }

    pub(super) fn get_mut(&mut self, place: &[u8]) -> Option<&mut Entry> {
        match self {
            Entries::Few(entries) => {
                let at = entries.binary_search_by(|(own, _)| (**own).cmp(place)).ok()?;
                entries.get_mut(at).map(|(_, entry)| entry)
            }
            Entries::Many(entries) => entries.get_mut(place),
        }
    }

    /// Adds a place that is not there yet.
    pub(super) fn insert(&mut self, place: Bytes, entry: Entry) {
        match self {
            Entries::Few(entries) if entries.len() < FEW => {
                if entries.is_empty() {
                    // Most partitions have one row; a vector's own first step is to four.
                    entries.reserve_exact(1);
                }
                let at = entries.partition_point(|(own, _)| *own < place);
                entries.insert(at, (place, entry));
            }
            Entries::Few(entries) => {
                let mut many: BTreeMap<_, _> = std::mem::take(entries).into_iter().collect();
                many.insert(place, entry);
                *self = Entries::Many(many);
            }
            Entries::Many(entries) => {
                entries.insert(place, entry);
            }
        }
    }

    pub(super) fn remove(&mut self, place: &[u8]) -> Option<Entry> {
        match self {
            Entries::Few(entries) => {
                let at = entries.binary_search_by(|(own, _)| (**own).cmp(place)).ok()?;
                Some(entries.remove(at).1)
            }
            Entries::Many(entries) => entries.remove(place),
        }
    }

    /// The last place.
    pub(super) fn last_place(&self) -> Option<Bytes> {
        match self {
            Entries::Few(entries) => entries.last().map(|(place, _)| place.clone()),
            Entries::Many(entries) => entries.last_key_value().map(|(place, _)| place.clone()),
        }
    }

    /// Places behind `place`, in order.
    pub(super) fn after(&self, place: &[u8]) -> Places<'_> {
        match self {
            Entries::Few(entries) => {
                let at = entries.partition_point(|(own, _)| **own <= *place);
                Places::Few(entries.get(at..).unwrap_or_default().iter())
            }
            Entries::Many(entries) => {
                Places::Many(entries.range::<[u8], _>((Bound::Excluded(place), Bound::Unbounded)))
            }
        }
    }

    /// Places before `place`, in order.
    pub(super) fn before(&self, place: &[u8]) -> Places<'_> {
        match self {
            Entries::Few(entries) => {
                let at = entries.partition_point(|(own, _)| **own < *place);
                Places::Few(entries.get(..at).unwrap_or_default().iter())
            }
            Entries::Many(entries) => {
                Places::Many(entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(place))))
            }
        }
    }

    /// The first place behind `place`.
    pub(super) fn next_mut(&mut self, place: &[u8]) -> Option<(&Bytes, &mut Entry)> {
        match self {
            Entries::Few(entries) => {
                let at = entries.partition_point(|(own, _)| **own <= *place);
                entries.get_mut(at).map(|(own, entry)| (&*own, entry))
            }
            Entries::Many(entries) => entries
                .range_mut::<[u8], _>((Bound::Excluded(place), Bound::Unbounded))
                .next(),
        }
    }

    /// Calls `visit` for each place behind `start` and not behind `end`, in order.
    pub(super) fn for_each_within(
        &mut self,
        start: &[u8],
        end: &[u8],
        mut visit: impl FnMut(&Bytes, &mut Entry),
    ) {
        match self {
            Entries::Few(entries) => {
                let first = entries.partition_point(|(own, _)| **own <= *start);
                let last = entries.partition_point(|(own, _)| **own <= *end);
                for (place, entry) in entries.get_mut(first..last).unwrap_or_default() {
                    visit(place, entry);
                }
            }
            Entries::Many(entries) if start < end => {
                for (place, entry) in
                    entries.range_mut::<[u8], _>((Bound::Excluded(start), Bound::Included(end)))
                {
                    visit(place, entry);
                }
            }
            Entries::Many(_) => {}
        }
    }
}

/// Places of a range, from both ends.
pub(super) enum Places<'a> {
    Few(std::slice::Iter<'a, (Bytes, Entry)>),
    Many(std::collections::btree_map::Range<'a, Bytes, Entry>),
}

impl<'a> Iterator for Places<'a> {
    type Item = (&'a Bytes, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(entries) => entries.next().map(|(place, entry)| (place, entry)),
            Self::Many(entries) => entries.next(),
        }
    }
}

impl DoubleEndedIterator for Places<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(entries) => entries.next_back().map(|(place, entry)| (place, entry)),
            Self::Many(entries) => entries.next_back(),
        }
    }
}

/// The place is that of a row.
pub(super) fn is_key(place: &[u8]) -> bool {
    place.last() == Some(&KEY_END)
}

/// No key lies between `bound` and the key after it.
pub(super) fn is_just_before(bound: &[u8], key: &[u8]) -> bool {
    is_beside(bound, key, BOUND_BEFORE)
}

/// No key lies between `key` and the bound after it.
pub(super) fn is_just_after(bound: &[u8], key: &[u8]) -> bool {
    is_beside(bound, key, BOUND_AFTER)
}

fn is_beside(bound: &[u8], key: &[u8], last: u8) -> bool {
    match (bound.split_last(), key.split_last()) {
        (Some((bound_end, bound)), Some((key_end, key))) => {
            *bound_end == last && *key_end == KEY_END && bound == key
        }
        _ => false,
    }
}
