//! The other way to lay rows out for scans: as the rows of large partitions, in the order of their clustering keys.

use bytes::Bytes;
use ceto_model::comparable::encode_clustering;
use ceto_model::schema::TableBuilder;
use ceto_model::{
    Cell as DataCell, ClusteringKey, ColumnData, ColumnId, ColumnKind, CqlType, Liveness, Mutation,
    ReadTarget, Row, Slice, Table, TableId, Timestamp,
};
use ceto_storage::Applied;
use uuid::Uuid;

use super::{Client, Outcome, decorated, set_options, value_of};
use crate::cost::Moment;
use crate::protocol::{PARTITION_ROWS, Report, Setup};
use crate::rows::{Dice, Values, key};

/// The table: a partition key, a clustering key of the 16 bytes that are a row's key elsewhere, the value.
const TABLE: TableId = TableId(Uuid::from_u128(0xbe7d));
const VALUE: ColumnId = ColumnId(2);
/// Numbers of partitions begin here: no other table's keys.
const FIRST: u64 = 1 << 40;

pub(super) fn table(setup: &Setup) -> Table {
    let mut builder = TableBuilder::new(TABLE, "perf", "partitions");
    builder.add_column("p", ColumnKind::PartitionKey, CqlType::Blob);
    builder.add_column("k", ColumnKind::Clustering, CqlType::Blob);
    builder.add_column("v", ColumnKind::Regular, CqlType::Blob);
    set_options(&mut builder, setup);
    builder.build()
}

/// Writes the rows of all partitions, in random order.
pub(super) async fn load(client: &Client, partitions: u64, since: Moment) -> Outcome<Report> {
    let mut values = Values::new(client.setup.value_size, 1);
    let mut value = Vec::new();
    let rows = partitions * PARTITION_ROWS;
    for row in 0..rows {
        values.fill(row, &mut value);
        let timestamp = Timestamp(client.timestamp.replace(client.timestamp.get() + 1));
        let mut mutation = Mutation::new(TABLE, decorated(FIRST + row % partitions));
        let cell = DataCell::live(timestamp, Bytes::copy_from_slice(&value));
        let content = Row {
            liveness: Some(Liveness {
                timestamp,
                expiry: None,
            }),
            deletion: None,
            columns: vec![(VALUE, ColumnData::Cell(cell))],
        };
        let clustering = encode_clustering(&[(CqlType::Blob, false)], &[key(row)]);
        let clustering = ClusteringKey(clustering.map_err(|error| error.to_string())?);
        mutation.partition.rows.push((clustering, content));
        match client
            .database
            .apply(mutation)
            .map_err(|error| error.to_string())?
        {
            Applied::Done => {}
            Applied::Later(done) => done.await.map_err(|error| error.to_string())?,
        }
        client.give_way().await;
    }
    client.settle().await?;
    Ok(Report {
        operations: rows,
        accepted_seconds: since.cost().seconds,
        ..Report::default()
    })
}

/// Reads partitions chosen at random.
pub(super) async fn scan(
    client: &Client,
    (operations, partitions): (u64, u64),
    seed: u64,
) -> Outcome<Report> {
    let mut command = client.command();
    command.table = TABLE;
    command.slices = [Slice::full()].into_iter().collect();
    command.columns = ceto_model::read::ColumnSelection::Only(vec![VALUE]);
    let (mut dice, mut found) = (Dice::new(seed), 0);
    for _ in 0..operations {
        command.target = ReadTarget::Partition(decorated(FIRST + dice.below(partitions)));
        let result = client.database.read(&command).await;
        let result = result.map_err(|error| error.to_string())?;
        for (_, row) in result.partitions.iter().flat_map(|answer| &answer.partition.rows) {
            if value_of(row)?.len() != client.setup.value_size {
                return Err("a scanned row has a value of another size".to_owned());
            }
            found += 1;
        }
        client.give_way().await;
    }
    if found != operations * PARTITION_ROWS {
        return Err(format!("{operations} partitions had {found} rows"));
    }
    Ok(Report {
        operations: found,
        ..Report::default()
    })
}
