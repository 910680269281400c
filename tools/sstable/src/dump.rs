//! An sstable as JSON lines, one for each partition, in the shape of Cassandra's `sstabledump -l`.
//!
//! A partition's line is written row by row, so a large one needs no memory. A counter shows its value and, beside it,
//! what each leader has counted.

use std::io::{self, Write};

use ceto_model::comparable::{BOUND_AFTER, BOUND_BEFORE, decode_component, decode_prefix};
use ceto_model::counter::counter_value;
use ceto_model::{
    Cell, CellState, Collection, ColumnData, ColumnId, ColumnKind, CqlType, DecoratedKey, Deletion, Expiry,
    Row, Timestamp, UnixSeconds,
};
use ceto_storage::offline::{SstableFiles, Visit};
use ceto_storage::{Fragment, SerializationHeader};
use uuid::Uuid;

use crate::json::{Json, Times, hex, put_value, value_text};

/// What to show.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpOptions {
    /// Keys only.
    pub keys_only: bool,
    /// These partitions only; empty: all.
    pub keys: Vec<String>,
    /// All but these.
    pub excluded: Vec<String>,
    /// Times as numbers.
    pub raw_times: bool,
}

/// Writes the partitions of an sstable, as of a time: what is expired by then is marked so.
pub async fn dump(
    files: &SstableFiles,
    options: &DumpOptions,
    now: UnixSeconds,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    let header = files.statistics().header.as_deref();
    let mut dumper = Dumper {
        columns: Columns::of(header),
        options,
        times: Times {
            raw: options.raw_times,
        },
        now,
        line: String::new(),
        has_rows: false,
        open: None,
    };
    let mut failed = None;
    let visited = files
        .visit_all(|fragment| {
            let visit = dumper.fragment(fragment);
            if dumper.line.is_empty() {
                return visit;
            }
            let written = out.write_all(dumper.line.as_bytes());
            dumper.line.clear();
            match written {
                Ok(()) => visit,
                Err(error) => {
                    failed = Some(error);
                    Visit::Stop
                }
            }
        })
        .await;
    match failed {
        Some(error) => Err(DumpError::Output(error)),
        None => visited.map_err(DumpError::Storage),
    }
}

/// Why a dump ended early.
#[derive(Debug)]
pub enum DumpError {
    /// The sstable cannot be read.
    Storage(ceto_storage::Error),
    /// Nobody takes the output.
    Output(io::Error),
}

/// Columns as rows name them.
struct Columns<'a> {
    header: Option<&'a SerializationHeader>,
    partition_key: Vec<CqlType>,
    clustering: Vec<(CqlType, bool)>,
}

impl<'a> Columns<'a> {
    fn of(header: Option<&'a SerializationHeader>) -> Columns<'a> {
        let types = |kind| -> Option<Vec<(CqlType, bool)>> {
            header?.columns_of(kind).map(|column| column.cql_type()).collect()
        };
        let partition_key = types(ColumnKind::PartitionKey).unwrap_or_default();
        Columns {
            header,
            partition_key: partition_key.into_iter().map(|(cql_type, _)| cql_type).collect(),
            clustering: types(ColumnKind::Clustering).unwrap_or_default(),
        }
    }

    fn name(&self, id: ColumnId) -> String {
        match self.header.and_then(|header| header.column(id)) {
            Some(column) => column.name.to_string(),
            None => format!("column {}", id.0),
        }
    }

    fn cql_type(&self, id: ColumnId) -> Option<CqlType> {
        let column = self.header?.column(id)?;
        Some(column.cql_type()?.0)
    }

    /// The components of a partition key as texts.
    fn key(&self, key: &DecoratedKey) -> Vec<String> {
        match key.key.components(self.partition_key.len()) {
            Some(components) if !self.partition_key.is_empty() => components
                .iter()
                .zip(&self.partition_key)
                .map(|(component, cql_type)| value_text(Some(cql_type), component))
                .collect(),
            _ => vec![hex(&key.key.0)],
        }
    }

    /// The components of a clustering key or bound as JSON, with stars for those that a bound leaves open.
    fn put_clustering(&self, place: &[u8], name: &str, to: &mut Json<'_>) {
        let mut array = Json::array(to.field(name));
        match decode_prefix(&self.clustering, place) {
            Ok((components, _)) if !self.clustering.is_empty() => {
                for (component, (cql_type, _)) in components.iter().zip(&self.clustering) {
                    put_value(Some(cql_type), component, array.element());
                }
                for _ in components.len()..self.clustering.len() {
                    array.element().push_str("\"*\"");
                }
            }
            // A table without clustering columns has one row, whose key is one byte.
            _ if place.len() == 1 => {}
            _ => put_value(None, place, array.element()),
        }
        array.end();
    }
}

struct Dumper<'a> {
    columns: Columns<'a>,
    options: &'a DumpOptions,
    times: Times,
    now: UnixSeconds,
    /// What is not written yet.
    line: String,
    has_rows: bool,
    /// The range deletion that holds.
    open: Option<Deletion>,
}

impl Dumper<'_> {
    fn fragment(&mut self, fragment: Fragment) -> Visit {
        match fragment {
            Fragment::PartitionStart(key, deletion) => return self.start(&key, deletion),
            Fragment::StaticRow(row) => self.row(None, &row),
            Fragment::Row(key, row) => self.row(Some(&key.0), &row),
            Fragment::DeletionChange(position, deletion) => self.change(&position.0, deletion),
            Fragment::PartitionEnd if self.options.keys_only => {}
            Fragment::PartitionEnd => self.line.push_str("]}\n"),
        }
        Visit::Go
    }

    fn start(&mut self, key: &DecoratedKey, deletion: Option<Deletion>) -> Visit {
        let components = self.columns.key(key);
        let joined = components.join(":");
        let is_wanted = self.options.keys.is_empty() || self.options.keys.contains(&joined);
        if !is_wanted || self.options.excluded.contains(&joined) {
            return Visit::SkipPartition;
        }
        self.has_rows = false;
        self.open = None;
        if self.options.keys_only {
            let mut array = Json::array(&mut self.line);
            components
                .iter()
                .for_each(|component| ceto_model::value::put_json_string(component, array.element()));
            array.end();
            self.line.push('\n');
            return Visit::SkipPartition;
        }
        self.line.push_str("{\"partition\":");
        let mut partition = Json::object(&mut self.line);
        let mut array = Json::array(partition.field("key"));
        for component in &components {
            ceto_model::value::put_json_string(component, array.element());
        }
        array.end();
        partition.raw("token", &key.token.0.to_string());
        if let Some(deletion) = deletion {
            self.times.deletion("deletion_info", deletion, &mut partition);
        }
        partition.end();
        self.line.push_str(",\"rows\":[");
        Visit::Go
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.has_rows, true) {
            self.line.push(',');
        }
    }

    fn row(&mut self, clustering: Option<&[u8]>, row: &Row) {
        self.separate();
        let (columns, times, now) = (&self.columns, self.times, self.now);
        let mut object = Json::object(&mut self.line);
        match clustering {
            None => object.text("type", "static_block"),
            Some(key) => {
                object.text("type", "row");
                columns.put_clustering(key, "clustering", &mut object);
            }
        }
        if let Some(liveness) = &row.liveness {
            let mut info = Json::object(object.field("liveness_info"));
            info.text("tstamp", &times.timestamp(liveness.timestamp));
            if let Some(expiry) = liveness.expiry {
                put_expiry(times, now, expiry, &mut info);
            }
            info.end();
        }
        if let Some(deletion) = row.deletion {
            times.deletion("deletion_info", deletion, &mut object);
        }
        let mut cells = Json::array(object.field("cells"));
        let row_timestamp = row.liveness.map(|liveness| liveness.timestamp);
        let context = CellContext {
            times,
            now,
            row_timestamp,
        };
        for (id, data) in &row.columns {
            let (name, cql_type) = (columns.name(*id), columns.cql_type(*id));
            match data {
                ColumnData::Cell(cell) => {
                    let mut object = Json::object(cells.element());
                    object.text("name", &name);
                    context.put_cell(cell, cql_type.as_ref(), &mut object);
                    object.end();
                }
                ColumnData::Collection(collection) if cql_type == Some(CqlType::Counter) => {
                    context.put_counter(&name, collection, &mut cells);
                }
                ColumnData::Collection(collection) => {
                    context.put_collection(&name, cql_type.as_ref(), collection, &mut cells);
                }
            }
        }
        cells.end();
        object.end();
    }

    fn change(&mut self, position: &[u8], deletion: Option<Deletion>) {
        self.separate();
        let ended = std::mem::replace(&mut self.open, deletion);
        let kind = match (ended, deletion) {
            (Some(_), Some(_)) => "range_tombstone_boundary",
            _ => "range_tombstone_bound",
        };
        let mut object = Json::object(&mut self.line);
        object.text("type", kind);
        let last = position.last().copied();
        for (name, deletion, inclusive) in [("start", deletion, BOUND_BEFORE), ("end", ended, BOUND_AFTER)] {
            let Some(deletion) = deletion else { continue };
            let mut bound = Json::object(object.field(name));
            let kind = if last == Some(inclusive) {
                "inclusive"
            } else {
                "exclusive"
            };
            bound.text("type", kind);
            self.columns.put_clustering(position, "clustering", &mut bound);
            self.times.deletion("deletion_info", deletion, &mut bound);
            bound.end();
        }
        object.end();
    }
}

fn put_expiry(times: Times, now: UnixSeconds, expiry: Expiry, to: &mut Json<'_>) {
    to.raw("ttl", &expiry.ttl.0.to_string());
    to.text("expires_at", &times.second(expiry.expires_at));
    to.raw("expired", if expiry.is_expired(now) { "true" } else { "false" });
}

struct CellContext {
    times: Times,
    now: UnixSeconds,
    /// Cells of the same timestamp do not repeat it.
    row_timestamp: Option<Timestamp>,
}

impl CellContext {
    fn put_cell(&self, cell: &Cell, cql_type: Option<&CqlType>, to: &mut Json<'_>) {
        let mut expiry = None;
        match &cell.state {
            CellState::Live(value) => put_value(cql_type, value, to.field("value")),
            CellState::Expiring { value, expiry: own } => {
                put_value(cql_type, value, to.field("value"));
                expiry = Some(*own);
            }
            CellState::Tombstone { deleted_at } => {
                let mut info = Json::object(to.field("deletion_info"));
                info.text("local_delete_time", &self.times.second(*deleted_at));
                info.end();
            }
        }
        self.put_timestamp(cell.timestamp, to);
        if let Some(expiry) = expiry {
            put_expiry(self.times, self.now, expiry, to);
        }
    }

    fn put_timestamp(&self, timestamp: Timestamp, to: &mut Json<'_>) {
        if self.row_timestamp != Some(timestamp) {
            to.text("tstamp", &self.times.timestamp(timestamp));
        }
    }

    fn put_collection_deletion(&self, name: &str, collection: &Collection, to: &mut Json<'_>) {
        if let Some(deletion) = collection.deletion {
            let mut object = Json::object(to.element());
            object.text("name", name);
            self.times.deletion("deletion_info", deletion, &mut object);
            object.end();
        }
    }

    fn put_collection(
        &self,
        name: &str,
        cql_type: Option<&CqlType>,
        collection: &Collection,
        to: &mut Json<'_>,
    ) {
        self.put_collection_deletion(name, collection, to);
        for (path, cell) in &collection.cells {
            let mut object = Json::object(to.element());
            object.text("name", name);
            let mut array = Json::array(object.field("path"));
            ceto_model::value::put_json_string(&path_text(cql_type, path), array.element());
            array.end();
            self.put_cell(cell, element_type(cql_type, path).as_ref(), &mut object);
            object.end();
        }
    }

    fn put_counter(&self, name: &str, counter: &Collection, to: &mut Json<'_>) {
        self.put_collection_deletion(name, counter, to);
        let mut object = Json::object(to.element());
        object.text("name", name);
        if let Some(value) = counter_value(counter, self.now) {
            object.raw("value", &value.to_string());
        }
        let mut leaders = Json::array(object.field("leaders"));
        for (path, cell) in &counter.cells {
            let mut leader = Json::object(leaders.element());
            let id = Uuid::from_slice(path).map_or_else(|_| hex(path), |id| id.to_string());
            leader.text("id", &id);
            self.put_cell(cell, Some(&CqlType::Bigint), &mut leader);
            leader.end();
        }
        leaders.end();
        object.end();
    }
}

/// The element of a collection, or field of a user type, that a path means.
fn path_text(cql_type: Option<&CqlType>, path: &[u8]) -> String {
    let component = |cql_type: &CqlType| {
        let mut rest = path;
        let wire = decode_component(cql_type, false, &mut rest).ok()?;
        Some(value_text(Some(cql_type), &wire))
    };
    let text = match cql_type {
        Some(CqlType::Set { element, .. }) => component(element),
        Some(CqlType::Map { key, .. }) => component(key),
        Some(CqlType::List { .. }) => Uuid::from_slice(path).ok().map(|id| id.to_string()),
        Some(CqlType::Udt { definition, .. }) => {
            field_of(path).and_then(|at| Some(definition.fields.get(at)?.name.to_string()))
        }
        _ => None,
    };
    text.unwrap_or_else(|| hex(path))
}

fn field_of(path: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(path.try_into().ok()?)))
}

/// The type of the value under a path.
fn element_type(cql_type: Option<&CqlType>, path: &[u8]) -> Option<CqlType> {
    match cql_type? {
        CqlType::List { element, .. } => Some((**element).clone()),
        CqlType::Map { value, .. } => Some((**value).clone()),
        CqlType::Udt { definition, .. } => Some(definition.fields.get(field_of(path)?)?.cql_type.clone()),
        // An element of a set has no value beside its path.
        _ => None,
    }
}
