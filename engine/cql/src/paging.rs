//! Paging states: where a page ended, as opaque bytes that a client hands back.
//!
//! ```text
//! | version u8 = 1 | flags u8 | remaining u64 | in partition u64 | key length u32 | key | place | check u64 |
//!
//! flags       1: a place inside the partition follows the key; else the partition is finished
//!             2 (with 1): no living row of the partition was seen yet
//! remaining   rows that LIMIT still allows
//! in partition  rows of this partition that are already in the answer, for PER PARTITION LIMIT
//! place       the last row's clustering key, or a bound of clustering keys
//! check       FNV-1a of all before it: against mistakes, not against malice
//! ```
//!
//! A state holds keys only, so another node, or this one after a restart, can go on. Forged states do no harm: they name
//! a place to read from that the query could have named itself.

use crate::CqlError;
use bytes::Bytes;
use ceto_model::{DecoratedKey, PartitionKey, Position};

const VERSION: u8 = 1;
const HAS_PLACE: u8 = 1;
const SAW_NO_ROW: u8 = 2;
const CHECK_SIZE: usize = 8;

/// Where a page ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PagingState {
    /// Partition of the last row.
    pub(crate) key: DecoratedKey,
    /// The last row's key, or the bound before which a page of tombstones ended; None: the partition is finished.
    pub(crate) place: Option<Position>,
    /// Rows that LIMIT still allows.
    pub(crate) remaining: u64,
    /// Rows of this partition so far.
    pub(crate) in_partition: u64,
    /// Some row of the partition was alive, in the answer or not: its static row does not stand alone.
    pub(crate) saw_row: bool,
}

impl PagingState {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let key = &self.key.key.0;
        let mut out = Vec::with_capacity(64 + key.len());
        out.push(VERSION);
        out.push(match (&self.place, self.saw_row) {
            (None, _) => 0,
            (Some(_), true) => HAS_PLACE,
            (Some(_), false) => HAS_PLACE | SAW_NO_ROW,
        });
        out.extend_from_slice(&self.remaining.to_be_bytes());
        out.extend_from_slice(&self.in_partition.to_be_bytes());
        out.extend_from_slice(&(key.len() as u32).to_be_bytes());
        out.extend_from_slice(key);
        if let Some(place) = &self.place {
            out.extend_from_slice(&place.0);
        }
        out.extend_from_slice(&fnv1a(&out).to_be_bytes());
        out
    }

    /// Error: these are not bytes that [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CqlError> {
        Self::parse(bytes).ok_or_else(|| CqlError::invalid("Invalid value for the paging state"))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_SIZE)?)?;
        if fnv1a(body).to_be_bytes() != *check {
            return None;
        }
        let (&[version, flags], rest) = body.split_first_chunk::<2>()?;
        let (remaining, rest) = rest.split_first_chunk::<8>()?;
        let (in_partition, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (key, place) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let has_place = match flags {
            0 if place.is_empty() => false,
            _ if flags & !SAW_NO_ROW == HAS_PLACE && !place.is_empty() => true,
            _ => return None,
        };
        (version == VERSION).then(|| Self {
            key: DecoratedKey::new(PartitionKey(Bytes::copy_from_slice(key))),
            place: has_place.then(|| Position(Bytes::copy_from_slice(place))),
            remaining: u64::from_be_bytes(*remaining),
            in_partition: u64::from_be_bytes(*in_partition),
            saw_row: flags & SAW_NO_ROW == 0,
        })
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(place: Option<&'static [u8]>, saw_row: bool) -> PagingState {
        PagingState {
            key: DecoratedKey::new(PartitionKey(Bytes::from_static(b"key"))),
            place: place.map(|bytes| Position(Bytes::from_static(bytes))),
            remaining: 99,
            in_partition: 3,
            saw_row,
        }
    }

    #[test]
    fn states_round_trip() {
        let row: &[u8] = b"\x40\x01\x38";
        for state in [state(None, true), state(Some(row), true), state(Some(row), false)] {
            assert_eq!(PagingState::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn a_changed_or_cut_state_is_invalid() {
        let bytes = state(Some(b"\x40\x01\x38"), true).encode();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            assert!(PagingState::decode(&changed).is_err(), "byte {index}");
            assert!(PagingState::decode(&bytes[..index]).is_err(), "length {index}");
        }
    }
}
