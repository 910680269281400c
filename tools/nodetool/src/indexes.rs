//! `rebuild_index`.

use crate::api::Done;
use crate::arguments::RebuildIndexArguments;
use crate::client::Client;
use crate::run::fetch;

/// Builds indexes anew; returns when that is done.
pub(crate) fn rebuild(client: &Client, arguments: &RebuildIndexArguments) -> Result<(), String> {
    let [keyspace, table, indexes @ ..] = arguments.names.as_slice() else {
        return Err("rebuild_index requires ks, cf and idx args".to_owned());
    };
    if indexes.is_empty() {
        return Err("rebuild_index requires ks, cf and idx args".to_owned());
    }
    let indexes = indexes.join(",");
    let query = [
        ("keyspace", keyspace.as_str()),
        ("table", table.as_str()),
        ("indexes", indexes.as_str()),
    ];
    fetch(client.post::<Done>("/v1/indexes/rebuild", &query)).map(|_| ())
}
