//! The record of a table's truncation on one shard.
//!
//! Written before anything is removed: from then on the sstables up to its generation and the commitlog entries before
//! its position count no more, whatever a crash leaves of them. Once these sstables' files are gone the generation is
//! set to 0: what somebody copies back under an old number then counts.
//!
//! ```text
//! ceto-truncated-<shard> ::= generation:u64 segment:u64 offset:u32 truncated_at:i64 last_number:u64 crc32:u32
//!                                                                                             little-endian
//! ```

use std::path::{Path, PathBuf};

use ceto_env::Disk;

use crate::commitlog::ReplayPosition;
use crate::error::{Error, Result};
use crate::sstable::Generation;
use crate::table::TableStore;

const SIZE: usize = 40;

/// What a truncation made void.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Truncation {
    /// Sstables up to it.
    pub(crate) generation: Generation,
    /// Commitlog entries before it.
    pub(crate) position: ReplayPosition,
    /// When, in microseconds.
    pub(crate) truncated_at: i64,
    /// The last number that had been given out then: none up to it is given out again.
    pub(crate) last_number: u64,
}

impl Truncation {
    const NEVER: Truncation = Truncation {
        generation: Generation(0),
        position: ReplayPosition {
            segment: 0,
            offset: 0,
        },
        truncated_at: 0,
        last_number: 0,
    };

    /// The same when the files of its sstables are gone.
    pub(crate) fn without_files(self) -> Truncation {
        Truncation {
            generation: Generation(0),
            ..self
        }
    }

    fn path(dir: &Path, shard: u16) -> PathBuf {
        dir.join(format!("ceto-truncated-{shard}"))
    }

    /// The shard in a record's file name.
    pub(crate) fn parse_file_name(name: &str) -> Option<u16> {
        name.strip_prefix("ceto-truncated-")?.parse().ok()
    }

    /// The last truncation of a table on a shard.
    pub(crate) async fn read(disk: &dyn Disk, dir: &Path, shard: u16) -> Result<Truncation> {
        let path = Truncation::path(dir, shard);
        let bytes = match disk.read_file(&path, SIZE as u64).await {
            Err(error) if error.is_not_found() => return Ok(Truncation::NEVER),
            bytes => bytes?,
        };
        Truncation::decode(&bytes)
            .ok_or_else(|| Error::corrupt(&path, 0, "truncation record is not what it should be"))
    }

    /// Writes the record, durably.
    pub(crate) async fn write(&self, disk: &dyn Disk, dir: &Path, shard: u16) -> Result<()> {
        Ok(disk
            .write_file(&Truncation::path(dir, shard), &self.encode())
            .await?)
    }

    /// Removes the record.
    pub(crate) async fn remove(disk: &dyn Disk, dir: &Path, shard: u16) -> Result<()> {
        Ok(disk.remove_file(&Truncation::path(dir, shard)).await?)
    }

    fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&self.generation.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.segment.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.position.offset.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.truncated_at.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.last_number.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Truncation> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        if crc32fast::hash(&bytes[..36]).to_le_bytes() != bytes[36..] {
            return None;
        }
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Truncation {
            generation: Generation(long(0)),
            position: ReplayPosition {
                segment: long(8),
                offset: u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes")),
            },
            truncated_at: long(20) as i64,
            last_number: long(28),
        })
    }
}

impl TableStore {
    /// Waits until nobody else writes the table's record, and keeps others from it until
    /// [`TableStore::give_record_back`].
    pub(crate) async fn take_record(&self) {
        loop {
            let recorded = self.recorded.listen();
            if !self.is_recording.replace(true) {
                return;
            }
            recorded.await;
        }
    }

    /// Others may write the record.
    pub(crate) fn give_record_back(&self) {
        self.is_recording.set(false);
        self.recorded.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_round_trips_and_damage_is_noticed() {
        let truncation = Truncation {
            generation: Generation(7),
            position: ReplayPosition {
                segment: 1 << 50,
                offset: 48,
            },
            truncated_at: -1,
            last_number: 9,
        };
        let bytes = truncation.encode();
        assert_eq!(Truncation::decode(&bytes), Some(truncation));
        for at in 0..SIZE {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            assert_eq!(Truncation::decode(&damaged), None);
            assert_eq!(Truncation::decode(&bytes[..at]), None);
        }
    }
}
