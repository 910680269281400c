//! Putting views right, row by row: what a crash left half done, and what a build finds.

use std::collections::BTreeMap;
use std::rc::Rc;

use ceto_model::codec::Decoder;
use ceto_model::comparable::decode_clustering;
use ceto_model::view::{ViewRow, ViewUpdates, effective_row};
use ceto_model::{
    ClusteringKey, ColumnData, DecoratedKey, PartitionKey, Row, Slice, TableId, Timestamp, UnixSeconds, View,
};
use uuid::Uuid;

use super::split::split;
use super::write::ViewRowKey;
use crate::node::Node;
use crate::system::definitions::{SYSTEM, VIEW_UPDATES};

/// Rows of notes by base table and partition.
type Notes = BTreeMap<(TableId, DecoratedKey), (Vec<ClusteringKey>, Vec<ViewRowKey>)>;

impl Node {
    /// Finishes the view updates that a crash interrupted on this shard. Called when all shards have recovered, before
    /// clients are served.
    pub async fn replay_view_updates(self: &Rc<Self>) -> Result<(), String> {
        let schema = self.schema();
        let Some(table) = schema.table(SYSTEM, VIEW_UPDATES) else {
            return Ok(());
        };
        let mut notes = Notes::new();
        let mut last = Timestamp::MIN;
        for (key, partition) in self.read_whole_table(table.id).await? {
            for (clustering, row) in partition.rows {
                last = last.max(row.liveness.map_or(Timestamp::MIN, |liveness| liveness.timestamp));
                let base = decode_clustering(table.clustering_types(), &clustering.0).ok();
                let base = base.and_then(|components| Uuid::from_slice(components.first()?).ok());
                let base = base.ok_or("system.view_updates has a malformed key")?;
                let note = notes.entry((TableId(base), key.clone())).or_default();
                note.1.extend(noted_rows(&row, UnixSeconds(0)));
                note.0.push(clustering);
            }
        }
        self.note_timestamp(last);
        if !notes.is_empty() {
            tracing::info!(
                writes = notes.len(),
                "finishing the view updates that were under way when the node ended"
            );
        }
        for ((base, key), (clusterings, rows)) in notes {
            self.views.replayed.increment();
            self.put_right(base, &key, rows).await?;
            self.delete_note_rows(&key, &clusterings, last).await;
        }
        Ok(())
    }

    /// Makes view rows what the base's rows say, whatever they are.
    async fn put_right(
        self: &Rc<Self>,
        base: TableId,
        key: &DecoratedKey,
        rows: Vec<ViewRowKey>,
    ) -> Result<(), String> {
        let schema = self.schema();
        let (Some(base), Some(views)) = (schema.table_by_id(base), schema.views_of(base)) else {
            return Ok(());
        };
        let now = UnixSeconds(self.env.clock().unix_seconds());
        let _guard = self.views.locks.lock(base.id, key.clone()).await;
        let mut updates = ViewUpdates::default();
        for (id, view_key, clustering) in rows {
            let Some(view) = views.iter().find(|view| view.table.id == id) else {
                continue;
            };
            let Some((_, row)) = view.base_row_of(base, &view_key, &clustering) else {
                continue;
            };
            let slices = std::iter::once(Slice::of_row(&row)).collect();
            let content = self.read_for_views(base.id, key, slices).await;
            let content = effective_row(&content.map_err(|failure| failure.message)?, &row);
            let Some(base_key) = View::base_key(base, key, &row) else {
                continue;
            };
            match self.views.project(view, &base_key, &content) {
                Some(projected) if (&projected.key, &projected.clustering) == (&view_key, &clustering) => {
                    view.restore(projected, &mut updates);
                }
                projected => {
                    let stored = self.stored_view_row(id, &view_key, &clustering).await?;
                    let ended = ViewRow {
                        key: view_key,
                        clustering,
                        row: stored,
                    };
                    if !ended.row.is_empty() {
                        view.end(&ended, now, &mut updates);
                    }
                    if let Some(projected) = projected {
                        view.restore(projected, &mut updates);
                    }
                }
            }
        }
        self.write_all_to_views(updates).await
    }

    /// Applies changes of views; an error when one of them is refused.
    pub(super) async fn write_all_to_views(self: &Rc<Self>, updates: ViewUpdates) -> Result<(), String> {
        let max = self.mutation_max() / 2;
        let updates = updates.into_mutations().into_iter();
        let failed = self
            .write_to_views(updates.flat_map(|mutation| split(mutation, max)).collect())
            .await;
        match failed.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{} mutations of materialized views were refused",
                failed.len()
            )),
        }
    }

    /// A row of a view as it is, tombstones too.
    async fn stored_view_row(
        self: &Rc<Self>,
        view: TableId,
        key: &DecoratedKey,
        clustering: &ClusteringKey,
    ) -> Result<Row, String> {
        let shard = key.token.shard(self.shard_count());
        let (key, row) = (key.clone(), clustering.clone());
        let work = move |node: Rc<Node>| -> ceto_env::LocalFuture<'static, Result<Row, String>> {
            Box::pin(async move {
                let slices = std::iter::once(Slice::of_row(&row)).collect();
                let read = node.read_for_views(view, &key, slices).await;
                let partition = read.map_err(|failure| failure.message)?;
                let found = partition.rows.into_iter().find(|(own, _)| *own == row);
                Ok(found.map(|(_, row)| row).unwrap_or_default())
            })
        };
        self.on_shard(shard, work).await
    }
}

/// The view rows of one row of a note.
fn noted_rows(row: &Row, now: UnixSeconds) -> Vec<ViewRowKey> {
    let cell = row.columns.iter().find_map(|(_, data)| match data {
        ColumnData::Cell(cell) => cell.value(now),
        ColumnData::Collection(_) => None,
    });
    let mut decoder = Decoder::new(cell.unwrap_or_default());
    let mut rows = Vec::new();
    while decoder.remaining() > 0 {
        let (view, key, clustering) = (
            decoder.bytes("view"),
            decoder.bytes("key"),
            decoder.bytes("clustering"),
        );
        let (Ok(view), Ok(key), Ok(clustering)) = (view, key, clustering) else {
            break;
        };
        let Ok(view) = Uuid::from_slice(&view) else { break };
        let key = DecoratedKey::new(PartitionKey(key));
        rows.push((TableId(view), key, ClusteringKey(clustering)));
    }
    rows
}
