//! The rows most like a vector, of all that come.
//!
//! Holds at most twice as many rows as are wanted, whatever the number that is read. Rows without a vector have no place in
//! the order and are not in the result. Rows that are alike come in the order in which they were read.

use super::row_view::RowView;
use crate::CqlError;
use crate::expression::RowSource;
use crate::prepare::nearest::Nearest;
use bytes::Bytes;
use ceto_model::schema::{Similarity, floats};

/// Rows held beyond those that are wanted, before the worst are let go.
const SPARE: usize = 64;

/// The best rows so far.
#[derive(Debug)]
pub(super) struct Ranking {
    column: usize,
    similarity: Similarity,
    /// What rows are to be like, as on the wire.
    pub(super) wire: Bytes,
    vector: Vec<f32>,
    wanted: usize,
    rows: Vec<(f32, Vec<Option<Bytes>>)>,
    /// Rows that are less like it are not wanted.
    least: f32,
}

impl Ranking {
    pub(super) fn new(nearest: &Nearest, (wire, vector): (Bytes, Vec<f32>), wanted: u64) -> Ranking {
        Ranking {
            column: nearest.column,
            similarity: nearest.similarity,
            wire,
            vector,
            wanted: usize::try_from(wanted).unwrap_or(usize::MAX),
            rows: Vec::new(),
            least: f32::NEG_INFINITY,
        }
    }

    /// How like the vector a row is; None when it is not wanted.
    pub(super) fn likeness(&self, view: &RowView<'_>) -> Result<Option<f32>, CqlError> {
        let Some(wire) = view.value(self.column)? else {
            return Ok(None);
        };
        let likeness =
            floats(&wire, self.vector.len()).and_then(|own| self.similarity.of(&own, &self.vector));
        Ok(likeness.filter(|likeness| *likeness > self.least))
    }

    /// Takes a row.
    pub(super) fn take(&mut self, likeness: f32, values: &[Option<Bytes>]) {
        self.rows.push((likeness, values.to_vec()));
        if self.rows.len() >= self.wanted.saturating_mul(2).saturating_add(SPARE) {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        self.rows.truncate(self.wanted);
        if let Some((least, _)) = self.rows.last().filter(|_| self.rows.len() == self.wanted) {
            self.least = *least;
        }
    }

    /// Rows held.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.least = f32::NEG_INFINITY;
    }

    /// The rows, the best first.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = Vec<Option<Bytes>>> + use<> {
        self.trim();
        std::mem::take(&mut self.rows)
            .into_iter()
            .map(|(_, values)| values)
    }
}
