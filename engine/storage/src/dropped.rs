//! Tables that were dropped while the commitlog may still hold writes of theirs.
//!
//! Who creates a table again under its id (a snapshot's schema does) must not get back what was there before the drop, so
//! a replay passes over a table's entries before the position of its drop. A position is known until no segment before
//! it is left; it is written before the table's files go, and a table whose position could not be written is not created
//! again until it can.
//!
//! ```text
//! DATA/dropped-tables-<shard> ::= count:u32 (table:uuid segment:u64 offset:u32)* crc32:u32          little-endian
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ceto_env::Disk;
use ceto_model::TableId;
use uuid::Uuid;

use crate::commitlog::ReplayPosition;
use crate::error::{Error, Result};
use crate::wait::Event;

const PREFIX: &str = "dropped-tables-";
/// Bytes of a table.
const ENTRY: usize = 28;
/// Bytes of the count, and of the checksum.
const COUNT: usize = 4;
/// Largest file that is read, in bytes: a million of tables within one commitlog.
const SIZE_MAX: u64 = 32 << 20;

/// Where in a shard's commitlog its dropped tables end.
pub(crate) struct DroppedTables {
    path: PathBuf,
    ends: RefCell<BTreeMap<TableId, ReplayPosition>>,
    /// Counts changes; and the last one that is on the disk.
    changes: Cell<u64>,
    written: Cell<u64>,
    is_writing: Cell<bool>,
    has_written: Event,
}

impl DroppedTables {
    /// Reads what earlier processes have noted.
    pub(crate) async fn read(disk: &dyn Disk, data_dir: &Path, shard: u16) -> Result<DroppedTables> {
        let path = data_dir.join(format!("{PREFIX}{shard}"));
        let ends = match disk.read_file(&path, SIZE_MAX).await {
            Err(error) if error.is_not_found() => BTreeMap::new(),
            bytes => decode(&bytes?)
                .ok_or_else(|| Error::corrupt(&path, 0, "file of dropped tables is not what it should be"))?,
        };
        Ok(DroppedTables {
            path,
            ends: RefCell::new(ends),
            changes: Cell::new(0),
            written: Cell::new(0),
            is_writing: Cell::new(false),
            has_written: Event::default(),
        })
    }

    /// The files of all shards, as their numbers.
    pub(crate) async fn shards(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<u16>> {
        let entries = disk.list_dir(data_dir).await?;
        let shard = |name: &str| name.strip_prefix(PREFIX)?.parse().ok();
        Ok(entries.iter().filter_map(|entry| shard(&entry.name)).collect())
    }

    /// Removes the file: there is no commitlog any more that it could mean.
    pub(crate) async fn remove(self, disk: &dyn Disk) -> Result<()> {
        match disk.remove_file(&self.path).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether an entry is from before the table's last drop.
    pub(crate) fn covers(&self, table: TableId, position: ReplayPosition) -> bool {
        let ends = self.ends.borrow();
        ends.get(&table).is_some_and(|end| position < *end)
    }

    /// Notes, durably, that tables end here. Those that lie before `oldest_segment`, the first that is left of the
    /// commitlog, are forgotten.
    ///
    /// # Errors
    /// When it cannot be written; it is known all the same, until the process ends.
    pub(crate) async fn note(
        &self,
        disk: &dyn Disk,
        tables: impl IntoIterator<Item = (TableId, ReplayPosition)>,
        oldest_segment: u64,
    ) -> Result<()> {
        {
            let mut ends = self.ends.borrow_mut();
            ends.retain(|_, end| end.segment >= oldest_segment);
            ends.extend(tables);
        }
        self.changes.set(self.changes.get() + 1);
        self.write(disk).await
    }

    /// Whether a table was dropped. Call it before the table is created.
    ///
    /// # Errors
    /// When that could not be written yet and cannot be now.
    pub(crate) async fn check(&self, disk: &dyn Disk, table: TableId) -> Result<bool> {
        let was_dropped = self.ends.borrow().contains_key(&table);
        if was_dropped {
            self.write(disk).await?;
        }
        Ok(was_dropped)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ends.borrow().len()
    }

    async fn write(&self, disk: &dyn Disk) -> Result<()> {
        loop {
            // Another may have written it with his own.
            if self.written.get() == self.changes.get() {
                return Ok(());
            }
            let has_written = self.has_written.listen();
            if !self.is_writing.replace(true) {
                break;
            }
            has_written.await;
        }
        let _turn = Turn(self);
        let change = self.changes.get();
        let bytes = encode(&self.ends.borrow());
        disk.write_file(&self.path, &bytes).await?;
        self.written.set(change);
        Ok(())
    }
}

/// Who writes the file.
struct Turn<'a>(&'a DroppedTables);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.is_writing.set(false);
        self.0.has_written.notify();
    }
}

fn encode(ends: &BTreeMap<TableId, ReplayPosition>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(COUNT + ends.len() * ENTRY + COUNT);
    bytes.extend_from_slice(&(ends.len() as u32).to_le_bytes());
    for (table, end) in ends {
        bytes.extend_from_slice(table.0.as_bytes());
        bytes.extend_from_slice(&end.segment.to_le_bytes());
        bytes.extend_from_slice(&end.offset.to_le_bytes());
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<TableId, ReplayPosition>> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    let (count, entries) = content.split_first_chunk::<4>()?;
    if crc32fast::hash(content).to_le_bytes() != *crc
        || entries.len() != (u32::from_le_bytes(*count) as usize).checked_mul(ENTRY)?
    {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (table, position) = entry.split_first_chunk::<16>()?;
        let (segment, offset) = position.split_first_chunk::<8>()?;
        let end = ReplayPosition {
            segment: u64::from_le_bytes(*segment),
            offset: u32::from_le_bytes(offset.try_into().ok()?),
        };
        Some((TableId(Uuid::from_bytes(*table)), end))
    };
    entries.chunks_exact(ENTRY).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_round_trips_and_damage_is_noticed() {
        let end = |segment, offset| ReplayPosition { segment, offset };
        let ends = BTreeMap::from([
            (TableId(Uuid::from_u128(1)), end(1 << 50, 48)),
            (TableId(Uuid::from_u128(u128::MAX)), end(7, u32::MAX)),
        ]);
        assert_eq!(decode(&encode(&BTreeMap::new())), Some(BTreeMap::new()));
        let bytes = encode(&ends);
        assert_eq!(decode(&bytes), Some(ends));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }
}
