//! Reading what is nearest to a vector: rows that a graph finds, each looked at before it is believed.

use std::rc::Rc;

use bytes::Bytes;
use ceto_model::index::Entry;
use ceto_model::read::{ColumnSelection, IndexSearch, ReadLimits};
use ceto_model::{ClusteringKey, Index, ReadCommand, ReadResult, Row};

use super::IndexStore;
use super::read::{Hit, Hits};
use super::vector::Place;
use crate::database::Database;
use crate::error::Result;
use crate::table::TableStore;

/// Searches that one read makes at most. After each the rows that it refuted are out of the graph.
const SEARCHES_MAX: usize = 16;

impl Database {
    /// Reads the `count` rows (of those that the command asks for) whose vectors are nearest to `vector`, in the order of
    /// the ring; None when the graph cannot be used. When the answer is cut short, the next one is of a search behind its end:
    /// together they have the nearest rows, and maybe others.
    pub(super) async fn read_nearest(
        &self,
        table: &Rc<TableStore>,
        index: &Rc<IndexStore>,
        search: &IndexSearch,
        (vector, count): (&Bytes, u32),
        command: &ReadCommand,
    ) -> Result<Option<ReadResult>> {
        let Some(graph) = &index.vectors else {
            return Ok(None);
        };
        let definition = index.definition();
        let mut searches = 0;
        loop {
            searches += 1;
            let filter = Hits::known(index.clone(), search, command, []);
            let found = graph.borrow().nearest(vector, count as usize, |place| {
                filter.is_wanted(&Entry {
                    value: Bytes::new(),
                    key: place.key.clone(),
                    row: place.row.clone(),
                })
            });
            let hits_of = |command| {
                let hits = found.iter().filter_map(|found| hit(&definition, found));
                Hits::known(index.clone(), search, command, hits)
            };
            let mut hits = hits_of(command);
            let result = self.read_hits(table, &mut hits, command).await?;
            let mut refuted = hits.refuted.get();
            if refuted == 0 && result.resume.is_some() {
                // A hit behind the end may be refuted, too, and another row before the end be in its place.
                let test = ReadCommand {
                    columns: ColumnSelection::Only(definition.column().into_iter().collect()),
                    limits: ReadLimits::NONE,
                    ..command.clone()
                };
                let mut hits = hits_of(&test);
                hits.only_tests = true;
                self.read_hits(table, &mut hits, &test).await?;
                refuted = hits.refuted.get();
            }
            if refuted == 0 || searches == SEARCHES_MAX {
                return Ok(Some(result));
            }
        }
    }
}

fn hit(definition: &Index, (place, vector): &(Place, Bytes)) -> Option<Hit> {
    Some(Hit {
        at: ClusteringKey(Bytes::new()),
        entry: Entry {
            value: definition.encode_value(std::slice::from_ref(vector))?,
            key: place.key.clone(),
            row: place.row.clone(),
        },
        reasons: Row::default(),
        vector: vector.clone(),
    })
}
