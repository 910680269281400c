//! Prepared statements of one shard.
//!
//! PREPARE on any connection makes the statement known on every shard before it is answered, so that EXECUTE may come
//! on any connection. A statement is prepared again when it is used after a schema change. When the columns of its table
//! have changed, or the types of them, its client gets Unprepared instead and prepares it again itself, as in Cassandra:
//! only so does it hear of other bind variables. Where the result looks different for another reason, clients whose
//! protocol cannot be told so get that too.
//!
//! Bound: `prepared_statements_cache_entries`; the least recently used go.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ceto_cql::{ColumnSpecification, Prepared};
use ceto_native::{ColumnSpec, EncodedColumns, ProtocolVersion};
use rustc_hash::FxHashMap;

/// Identity of a statement: MD5 of keyspace and text, as in Cassandra.
pub(crate) type StatementId = [u8; 16];

/// Least bytes that an answer is taken to have.
const ANSWER_BYTES_MIN: usize = 2 << 10;

/// A prepared statement with what executing it again and again needs.
pub(crate) struct Entry {
    /// The statement.
    pub statement: Arc<Prepared>,
    /// As given by the client.
    pub text: Arc<str>,
    /// The keyspace it was prepared in.
    pub keyspace: Option<Arc<str>>,
    /// Identity of the result's columns.
    pub result_metadata_id: StatementId,
    /// The result's columns for the wire, by version.
    columns: [OnceCell<EncodedColumns>; ProtocolVersion::ALL.len()],
    last_used: Cell<u64>,
    /// See [`Entry::answer_bytes`].
    answer_bytes: Cell<usize>,
}

impl Entry {
    /// Around a statement.
    pub(crate) fn new(statement: Arc<Prepared>, text: Arc<str>, keyspace: Option<Arc<str>>) -> Entry {
        let result_metadata_id = ceto_cql::result_metadata_id(statement.result_columns());
        Entry {
            statement,
            text,
            keyspace,
            result_metadata_id,
            columns: Default::default(),
            last_used: Cell::new(0),
            answer_bytes: Cell::new(0),
        }
    }

    /// Bytes of the statement's larger answers of late; 0: not executed yet.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.answer_bytes.get()
    }

    /// Takes note of an answer: at once of a larger one, by and by of smaller ones.
    pub(crate) fn learn_answer_bytes(&self, bytes: usize) {
        let before = self.answer_bytes.get();
        let less = before.saturating_sub(bytes) / 8;
        self.answer_bytes
            .set((before - less).max(bytes).max(ANSWER_BYTES_MIN));
    }

    /// The result's columns as `version` writes them.
    pub(crate) fn encoded_columns(&self, version: ProtocolVersion) -> &EncodedColumns {
        let at = usize::from(version.number() - ProtocolVersion::LOWEST.number());
        self.columns[at]
            .get_or_init(|| EncodedColumns::encode(version, &column_specs(self.statement.result_columns())))
    }
}

/// Columns or bind variables as the protocol's metadata.
pub(crate) fn column_specs(columns: &[ColumnSpecification]) -> Vec<ColumnSpec> {
    let spec = |column: &ColumnSpecification| ColumnSpec {
        keyspace: column.keyspace.clone(),
        table: column.table.clone(),
        name: column.name.clone(),
        cql_type: column.cql_type.clone(),
    };
    columns.iter().map(spec).collect()
}

/// The statements of a shard.
pub(crate) struct PreparedCache {
    entries: RefCell<FxHashMap<StatementId, Rc<Entry>>>,
    max: usize,
    clock: Cell<u64>,
}

impl PreparedCache {
    /// Holds up to `max` statements.
    pub(crate) fn new(max: usize) -> PreparedCache {
        PreparedCache {
            entries: RefCell::default(),
            max: max.max(1),
            clock: Cell::new(0),
        }
    }

    /// Finds a statement.
    pub(crate) fn get(&self, id: &[u8]) -> Option<Rc<Entry>> {
        let id: StatementId = id.try_into().ok()?;
        let entry = self.entries.borrow().get(&id)?.clone();
        entry.last_used.set(self.tick());
        Some(entry)
    }

    /// Adds or replaces a statement; true when another had to go.
    pub(crate) fn insert(&self, id: StatementId, entry: Entry) -> bool {
        entry.last_used.set(self.tick());
        let mut entries = self.entries.borrow_mut();
        let is_full = entries.len() >= self.max && !entries.contains_key(&id);
        if is_full
            && let Some(oldest) = entries
                .iter()
                .min_by_key(|(_, entry)| entry.last_used.get())
                .map(|(id, _)| *id)
        {
            entries.remove(&oldest);
        }
        entries.insert(id, Rc::new(entry));
        is_full
    }

    /// Forgets a statement.
    pub(crate) fn remove(&self, id: &[u8]) {
        if let Ok(id) = StatementId::try_from(id) {
            self.entries.borrow_mut().remove(&id);
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }
}
