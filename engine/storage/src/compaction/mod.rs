//! Compaction.

use std::rc::Rc;

use crate::database::Database;
use crate::table::TableStore;

#[derive(Default)]
pub(crate) struct Compactions {}

impl Compactions {
    pub(crate) async fn stop(&self, _database: &Database) {}
}

impl Database {
    pub(crate) fn compact_when_due(&self, _table: &Rc<TableStore>) {}
}
