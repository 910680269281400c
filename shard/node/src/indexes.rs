//! What the node knows of its secondary indexes: which of them are built on all shards.

use std::collections::BTreeMap;
use std::rc::Rc;

use ceto_model::TableId;

use crate::node::Node;

impl Node {
    /// Builds indexes of a table anew on this shard, while what they have goes on to be used.
    pub async fn rebuild_indexes(self: &Rc<Self>, table: TableId, names: &[String]) -> Result<(), String> {
        let database = self.database().map_err(|failure| failure.message)?;
        let rebuilt = database.rebuild_indexes(table, names).await;
        rebuilt.map_err(|error| error.to_string())
    }

    /// Keyspace and name of each index, with whether it is built on this shard.
    fn index_states(&self) -> Vec<((String, String), bool)> {
        let Ok(database) = self.database() else {
            return Vec::new();
        };
        let schema = self.schema();
        let mut states = Vec::new();
        for table in schema.tables().filter(|table| !table.indexes().is_empty()) {
            let of_table = database.index_states(table.id).unwrap_or_default();
            let named = of_table
                .into_iter()
                .map(|(name, is_built)| ((table.keyspace.to_string(), name.to_string()), is_built));
            states.extend(named);
        }
        states
    }

    /// Keyspace and name of each index that is built on every shard.
    pub(crate) async fn built_indexes_of_all_shards(self: &Rc<Self>) -> Vec<(String, String)> {
        let shards = usize::from(self.shard_count());
        let states = self
            .on_all_shards(|node| Box::pin(async move { node.index_states() }))
            .await;
        let mut built: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (index, _) in states.into_iter().flatten().filter(|(_, is_built)| *is_built) {
            *built.entry(index).or_default() += 1;
        }
        let everywhere = built.into_iter().filter(|(_, count)| *count == shards);
        everywhere.map(|(index, _)| index).collect()
    }
}
