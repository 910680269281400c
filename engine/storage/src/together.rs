//! Writes of several tables that are one: all of them or none, also after a crash.
//!
//! They stand in one entry of the commitlog, and a memtable that has a part of one is made an sstable only when that entry
//! is on the device: else a power loss could leave a part in an sstable, and no entry for the rest.
//!
//! Never: puts parts of one entry into two memtables of one table; the one flushed first would say of the entry that all of
//! it is in sstables.

use std::rc::Rc;

use ceto_model::Mutation;

use crate::commitlog::Appended;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::table::TableStore;

impl Database {
    /// Applies mutations all or none, and waits until they survive power loss. Together they may be as large as half a
    /// segment. After an error they may be there, all or none.
    pub async fn write_together(&self, mutations: Vec<Mutation>) -> Result<()> {
        if mutations.is_empty() {
            return Ok(());
        }
        let mut mutations = Some(mutations);
        self.when_room(|| {
            let parts = mutations.as_ref().expect("what found room is not tried again");
            let tables = parts.iter().map(|part| self.writable(part.table));
            let tables: Vec<Rc<TableStore>> = tables.collect::<Result<_>>()?;
            if let Some(table) = tables.iter().find(|table| !table.is_durable.get()) {
                let text = format!(
                    "{} is not durable: no write can be one with others there",
                    table.name()
                );
                return Err(Error::Layout(text.into()));
            }
            let Appended::At(position) = self.commitlog.append(parts)? else {
                return Ok(None);
            };
            for (table, part) in tables.iter().zip(mutations.take().into_iter().flatten()) {
                table.active().note_part();
                self.insert_only(table, part, Some(position));
            }
            self.balance_when_due();
            self.flush_when_due();
            Ok(Some(()))
        })
        .await?;
        self.commitlog.sync().await
    }
}
