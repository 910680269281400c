//! The vectors of a column on one shard, as a graph that finds the nearest ones to a given vector, about.
//!
//! The graph (a hierarchical navigable small world) is `usearch`'s, one for each index and shard, used by one thread. Here is
//! what it does not know: which row each vector is of, and which of several writes to a row counts.
//!
//! ```text
//! places   row -> number      rows in the order of the ring, so that a deleted partition or range is a range of them
//! points   number -> row, timestamp
//! graph    number -> vector
//! ```
//!
//! Invariants:
//! - Every row whose newest write (by timestamp, as cells merge) has a vector is in the graph with that vector, from the
//!   step on in which the write comes into the memtable; what is built from the table comes to the same, in whatever order.
//! - The opposite is not true: an expired vector, or one that an older deletion shadows, is found and must be refuted by its
//!   row ([`VectorGraph::refute`]).
//! - Nothing random: the same writes in the same order make the same graph.
//! - It never has more memory than it was given: when that does not do it is given up, and says so.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;
use ceto_model::index::Entry;
use ceto_model::schema::{Similarity, floats};
use ceto_model::{
    Cell, CellState, ClusteringKey, ColumnData, ColumnId, DecoratedKey, Mutation, Row, Slice, Timestamp,
};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// Neighbours of each vector.
const CONNECTIVITY: usize = 16;
/// Candidates looked at when a vector is added, and at least when one is searched for.
const EXPANSION_ADD: usize = 128;
const EXPANSION_SEARCH: usize = 128;
/// So few vectors are compared all: that takes no longer than a walk, and misses none.
const COMPARED_MAX: usize = 1000;
/// Room for so many vectors at first; later for half as many again.
const CAPACITY_MIN: usize = 64;
/// Memory of a place beside its keys: two shares of tree nodes and counted pointers, in bytes.
const PLACE_OVERHEAD: usize = 160;
/// A vector is as good as zero when all its numbers are this small.
const NEARLY_ZERO: f32 = 1e-6;

/// A row; None: the static row of its partition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) key: DecoratedKey,
    pub(super) row: Option<ClusteringKey>,
}

struct Point {
    place: Rc<Place>,
    timestamp: Timestamp,
    /// Of two cells of one timestamp the one that expires counts.
    expires: bool,
}

/// The graph of one index on one shard.
pub(crate) struct VectorGraph {
    column: ColumnId,
    dimension: usize,
    similarity: Similarity,
    memory_max: usize,
    /// None: empty, or given up.
    graph: Option<Index>,
    places: BTreeMap<Rc<Place>, u64>,
    points: Vec<Option<Point>>,
    free: Vec<u64>,
    keys_memory: usize,
    is_given_up: bool,
}

impl VectorGraph {
    /// For a column of so many floats.
    pub(super) fn new(
        column: ColumnId,
        dimension: usize,
        similarity: Similarity,
        memory_max: usize,
    ) -> VectorGraph {
        VectorGraph {
            column,
            dimension,
            similarity,
            memory_max,
            graph: None,
            places: BTreeMap::new(),
            points: Vec::new(),
            free: Vec::new(),
            keys_memory: 0,
            is_given_up: false,
        }
    }

    /// Bytes in use.
    pub(crate) fn memory(&self) -> usize {
        let graph = self.graph.as_ref().map_or(0, Index::memory_usage);
        graph + self.keys_memory + self.points.capacity() * size_of::<Option<Point>>()
    }

    /// It needed more memory than it may have: it holds nothing, and takes nothing.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.graph = None;
        self.places = BTreeMap::new();
        self.points = Vec::new();
        self.free = Vec::new();
        self.keys_memory = 0;
    }

    /// Takes vectors again after it was given up.
    pub(super) fn try_again(&mut self) {
        self.is_given_up = false;
    }

    fn give_up(&mut self, cause: &str) {
        tracing::warn!(
            vectors = self.places.len(),
            memory_max = self.memory_max,
            "an index of vectors is given up, its queries compare all rows instead: {cause}"
        );
        self.clear();
        self.is_given_up = true;
    }

    /// Takes in what a write does to its rows.
    pub(super) fn apply(&mut self, mutation: &Mutation) {
        if self.is_given_up {
            return;
        }
        let (key, content) = (&mutation.key, &mutation.partition);
        if let Some(deletion) = content.deletion {
            self.delete(key, None, deletion.timestamp);
        }
        for tombstone in content.range_tombstones.iter() {
            self.delete(key, Some(&tombstone.slice), tombstone.deletion.timestamp);
        }
        if !content.static_row.columns.is_empty() {
            self.apply_row(key, None, &content.static_row);
        }
        for (row, content) in &content.rows {
            self.apply_row(key, Some(row), content);
        }
        if self.memory() > self.memory_max {
            self.give_up("it needs more than half of the shard's memory (memory_limit)");
        }
    }

    fn apply_row(&mut self, key: &DecoratedKey, row: Option<&ClusteringKey>, content: &Row) {
        let cell = match content.column(self.column) {
            Some(ColumnData::Cell(cell)) => Some(cell),
            _ => None,
        };
        if content.deletion.is_none() && cell.is_none() {
            return;
        }
        let place = Place {
            key: key.clone(),
            row: row.cloned(),
        };
        if let Some(deletion) = content.deletion {
            self.delete_place(&place, deletion.timestamp);
        }
        match cell.map(|cell| (cell, &cell.state)) {
            Some((cell, CellState::Live(value) | CellState::Expiring { value, .. })) => {
                self.insert(place, cell, value);
            }
            Some((cell, CellState::Tombstone { .. })) => self.delete_place(&place, cell.timestamp),
            None => {}
        }
    }

    /// Deletes rows that are not newer, of a partition or a slice of it.
    fn delete(&mut self, key: &DecoratedKey, slice: Option<&Slice>, timestamp: Timestamp) {
        let first = Place {
            key: key.clone(),
            row: None,
        };
        let range = (Bound::Included(first), Bound::Unbounded);
        let of_partition = self
            .places
            .range(range)
            .take_while(|(place, _)| place.key == *key);
        let is_in_slice = |place: &Place| match (slice, &place.row) {
            (None, _) => true,
            (Some(slice), Some(row)) => slice.contains(row),
            (Some(_), None) => false,
        };
        let hit: Vec<u64> = of_partition
            .filter(|(place, _)| is_in_slice(place))
            .map(|(_, number)| *number)
            .collect();
        for number in hit {
            self.remove_if_older(number, timestamp);
        }
    }

    fn delete_place(&mut self, place: &Place, timestamp: Timestamp) {
        if let Some(number) = self.places.get(place).copied() {
            self.remove_if_older(number, timestamp);
        }
    }

    fn remove_if_older(&mut self, number: u64, timestamp: Timestamp) {
        let point = self.points.get(number as usize).and_then(Option::as_ref);
        if point.is_some_and(|point| point.timestamp <= timestamp) {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(point) = self.points.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        self.places.remove(&point.place);
        self.keys_memory -= keys_memory(&point.place);
        self.free.push(number);
        if let Some(graph) = &self.graph
            && let Err(error) = graph.remove(number)
        {
            self.give_up(&error.to_string());
        }
    }

    fn insert(&mut self, place: Place, cell: &Cell, value: &[u8]) {
        let expires = cell.expiry().is_some();
        if let Some(number) = self.places.get(&place).copied()
            && let Some(Some(own)) = self.points.get(number as usize)
        {
            let order = (cell.timestamp, expires).cmp(&(own.timestamp, own.expires));
            let order = order.then_with(|| value.cmp(&self.value(number)));
            if order.is_le() {
                return;
            }
            self.remove(number);
        }
        let Some(vector) = floats(value, self.dimension).filter(|vector| self.takes(vector)) else {
            return;
        };
        let number = self.free.pop().unwrap_or(self.points.len() as u64);
        if let Err(error) = self.add(number, &vector) {
            return self.give_up(&error.to_string());
        }
        let place = Rc::new(place);
        self.keys_memory += keys_memory(&place);
        self.places.insert(place.clone(), number);
        let point = Point {
            place,
            timestamp: cell.timestamp,
            expires,
        };
        match self.points.get_mut(number as usize) {
            Some(slot) => *slot = Some(point),
            None => self.points.push(Some(point)),
        }
    }

    /// It can be compared with others.
    fn takes(&self, vector: &[f32]) -> bool {
        let is_finite = vector.iter().all(|number| number.is_finite());
        let is_zero = || vector.iter().all(|number| number.abs() <= NEARLY_ZERO);
        is_finite && (self.similarity != Similarity::Cosine || !is_zero())
    }

    fn add(&mut self, number: u64, vector: &[f32]) -> Result<(), Box<dyn std::error::Error>> {
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => none.insert(new_graph(self.dimension, self.similarity)?),
        };
        if graph.size() >= graph.capacity() {
            let capacity = graph.capacity();
            graph.reserve_capacity_and_threads((capacity + capacity / 2).max(CAPACITY_MIN), 1)?;
        }
        Ok(graph.add(number, vector)?)
    }

    /// A vector as on the wire; empty when it is not there.
    fn value(&self, number: u64) -> Vec<u8> {
        let mut vector = vec![0f32; self.dimension];
        match self.graph.as_ref().map(|graph| graph.get(number, &mut vector)) {
            Some(Ok(1..)) => vector.iter().flat_map(|number| number.to_be_bytes()).collect(),
            _ => Vec::new(),
        }
    }

    /// The rows whose vectors are nearest to `vector`, of those that are wanted, each with its vector as on the wire; in the
    /// order of the ring.
    pub(super) fn nearest(
        &self,
        vector: &[u8],
        count: usize,
        is_wanted: impl Fn(&Place) -> bool,
    ) -> Vec<(Place, Bytes)> {
        let (Some(graph), Some(vector)) = (&self.graph, floats(vector, self.dimension)) else {
            return Vec::new();
        };
        let place_of = |number: u64| {
            let point = self.points.get(usize::try_from(number).ok()?)?.as_ref()?;
            Some(&point.place)
        };
        let count = count.min(self.places.len());
        if self.places.len() <= COMPARED_MAX {
            return self.compare_all(&vector, count, is_wanted);
        }
        graph.change_expansion_search(EXPANSION_SEARCH.max(2 * count));
        let found = graph.filtered_search(&vector, count, |number| {
            place_of(number).is_some_and(|place| is_wanted(place))
        });
        let numbers = match found {
            Ok(matches) => matches.keys,
            Err(error) => {
                tracing::error!("a search for the nearest vectors failed: {error}");
                Vec::new()
            }
        };
        let mut nearest: Vec<(Place, Bytes)> = numbers
            .into_iter()
            .filter_map(|number| Some(((**place_of(number)?).clone(), self.value(number).into())))
            .collect();
        nearest.sort_unstable();
        nearest
    }

    fn compare_all(
        &self,
        vector: &[f32],
        count: usize,
        is_wanted: impl Fn(&Place) -> bool,
    ) -> Vec<(Place, Bytes)> {
        let wanted = self.places.iter().filter(|(place, _)| is_wanted(place));
        let mut all: Vec<(f32, Place, Bytes)> = wanted
            .filter_map(|(place, number)| {
                let value = self.value(*number);
                let likeness = self.similarity.of(&floats(&value, self.dimension)?, vector)?;
                Some((likeness, (**place).clone(), value.into()))
            })
            .collect();
        all.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        all.truncate(count);
        let mut nearest: Vec<(Place, Bytes)> =
            all.into_iter().map(|(_, place, value)| (place, value)).collect();
        nearest.sort_unstable();
        nearest
    }

    /// The row that the entry points at does not have that vector: it has `cell`, or none.
    pub(super) fn refute(&mut self, entry: &Entry, vector: &[u8], cell: Option<&Cell>) {
        let place = Place {
            key: entry.key.clone(),
            row: entry.row.clone(),
        };
        let Some(number) = self.places.get(&place).copied() else {
            return;
        };
        // A write may have come while the row was read.
        if self.value(number) != vector {
            return;
        }
        self.remove(number);
        if let Some(cell) = cell
            && let CellState::Live(value) | CellState::Expiring { value, .. } = &cell.state
        {
            self.insert(place, cell, value);
        }
    }
}

fn new_graph(dimension: usize, similarity: Similarity) -> Result<Index, Box<dyn std::error::Error>> {
    let options = IndexOptions {
        dimensions: dimension,
        metric: match similarity {
            Similarity::Cosine => MetricKind::Cos,
            Similarity::DotProduct => MetricKind::IP,
            Similarity::Euclidean => MetricKind::L2sq,
        },
        quantization: ScalarKind::F32,
        connectivity: CONNECTIVITY,
        expansion_add: EXPANSION_ADD,
        expansion_search: EXPANSION_SEARCH,
        multi: false,
    };
    Ok(Index::new(&options)?)
}

fn keys_memory(place: &Place) -> usize {
    PLACE_OVERHEAD
        + size_of::<Place>()
        + place.key.key.0.len()
        + place.row.as_ref().map_or(0, |row| row.0.len())
}
