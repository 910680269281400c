//! Where a partition lies, for people: its key is text, and so are the answers.

use std::net::IpAddr;

use ceto_model::value::json::{Json, from_json};
use ceto_model::{CqlType, DecoratedKey, PartitionKey, Table};

use crate::node::Node;

/// Between the components of a key of several columns.
const SEPARATOR: char = ':';

impl Node {
    /// The addresses of a partition's replicas, the primary one first. Components of the key stand between colons.
    ///
    /// # Errors
    /// With what is not there, or is no key.
    pub fn endpoints(&self, keyspace: &str, table: &str, key: &str) -> Result<Vec<IpAddr>, String> {
        let schema = self.schema();
        let map = self.replication(keyspace);
        let (Some(_), Some(map)) = (schema.keyspace(keyspace), map) else {
            return Err(format!("Unknown keyspace '{keyspace}'"));
        };
        let Some(definition) = schema.table(keyspace, table) else {
            return Err(format!("Unknown table '{table}' in keyspace '{keyspace}'"));
        };
        let token = DecoratedKey::new(partition_key(definition, key)?).token;
        let topology = self.topology();
        let address = |replica: &ceto_cluster::Replica| match topology.peer(replica.host) {
            Some(peer) => peer.internode.ip(),
            None => self.options.broadcast_address,
        };
        Ok(map.replicas(token).natural().iter().map(address).collect())
    }
}

fn partition_key(table: &Table, text: &str) -> Result<PartitionKey, String> {
    let columns = table.partition_key();
    let parts: Vec<&str> = match columns {
        [_] => vec![text],
        _ => text.split(SEPARATOR).collect(),
    };
    if parts.len() != columns.len() {
        return Err(format!(
            "'{text}' has {} of the key's {} columns; write them with a {SEPARATOR} between",
            parts.len(),
            columns.len()
        ));
    }
    let components = columns.iter().zip(parts).map(|(column, part)| {
        wire(&column.cql_type, part).map_err(|why| format!("'{part}' is no {}: {why}", column.name))
    });
    let components: Vec<Vec<u8>> = components.collect::<Result<_, String>>()?;
    Ok(PartitionKey::from_components(&components))
}

/// A value as people write it, without quotes; a blob also without its 0x.
fn wire(cql_type: &CqlType, text: &str) -> Result<Vec<u8>, String> {
    let text = match cql_type {
        CqlType::Blob if !text.starts_with("0x") => format!("0x{text}"),
        _ => text.to_owned(),
    };
    let value = from_json(cql_type, &Json::String(text)).map_err(|error| error.to_string())?;
    let value = value.ok_or("it is null")?;
    value.to_wire(cql_type).map_err(|error| error.to_string())
}
