//! What planning needs to know of the world: time, randomness and the options of the request.

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;
use ceto_model::{Timestamp, UnixSeconds};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use uuid::Uuid;

use super::ExpirationOverflow;

/// 64 random bits at a time, not for secrets; seeded in the simulator.
pub trait RandomSource {
    /// The next bits.
    fn next_u64(&self) -> u64;
}

/// Runs the bodies of user-defined functions.
pub trait FunctionRunner {
    /// The result of `function` over wire bytes of its argument types; None is null. Wire bytes of the result are such of
    /// its return type.
    ///
    /// # Errors
    /// What went wrong, for the client: a body that fails, takes too long or gives a value of another type.
    fn run(
        &self,
        function: &Arc<FunctionDefinition>,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, String>;
}

/// Between the first day of the Gregorian calendar, where version 1 UUIDs start to count, and the Unix epoch, in units
/// of 100 nanoseconds.
pub(crate) const GREGORIAN_OFFSET: i64 = 0x01B2_1DD2_1381_4000;

/// Bytes of a page unless the node says otherwise.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// The circumstances of one execution. Not shared between threads.
pub struct PlanContext<'a> {
    /// Microseconds since the Unix epoch by the server's clock; best strictly growing within a shard.
    pub now_micros: i64,
    /// The second that decides what has expired: of the request (protocol v5), else of the clock.
    pub now_seconds: UnixSeconds,
    /// The timestamp that the request sets for its writes; else `now_micros`.
    pub timestamp: Option<Timestamp>,
    /// Rows per page; None: everything at once.
    pub page_size: Option<u32>,
    /// Bytes of cells at which a page ends, whatever its size in rows.
    pub page_bytes_max: u64,
    /// Where an earlier page ended, as that page's result said.
    pub paging_state: Option<&'a [u8]>,
    /// What becomes of writes that would expire too late.
    pub expiration_overflow: ExpirationOverflow,
    /// Randomness.
    pub random: &'a dyn RandomSource,
    /// Runs user-defined functions; without, a call of one fails.
    pub functions: Option<&'a dyn FunctionRunner>,
    /// What the client should be told.
    warnings: RefCell<Vec<String>>,
    /// Counts what must be told apart within one execution: time UUIDs and list elements.
    sequence: Cell<u32>,
}

impl<'a> PlanContext<'a> {
    /// Without paging, with the server's timestamps.
    pub fn new(now_micros: i64, random: &'a dyn RandomSource) -> Self {
        Self {
            now_micros,
            now_seconds: UnixSeconds(now_micros.div_euclid(1_000_000)),
            timestamp: None,
            page_size: None,
            page_bytes_max: PAGE_BYTES_MAX,
            paging_state: None,
            expiration_overflow: ExpirationOverflow::default(),
            random,
            functions: None,
            warnings: RefCell::default(),
            sequence: Cell::new(0),
        }
    }

    /// Tells the client something.
    pub(crate) fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// What the client should be told of the plans made so far.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// The timestamp of a write that names none itself.
    pub(crate) fn write_timestamp(&self) -> Timestamp {
        self.timestamp.unwrap_or(Timestamp(self.now_micros))
    }

    fn next_sequence(&self) -> u32 {
        let sequence = self.sequence.get();
        self.sequence.set(sequence.wrapping_add(1));
        sequence
    }

    /// A version 4 UUID.
    pub(crate) fn random_uuid(&self) -> Uuid {
        let bits = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// A version 1 UUID of the present time; no two calls within one execution give the same.
    pub(crate) fn time_uuid(&self) -> Uuid {
        let ticks = self
            .now_micros
            .wrapping_mul(10)
            .wrapping_add(i64::from(self.next_sequence()));
        // Variant bits, and the multicast bit that marks a node number as made up.
        let low = self.random.next_u64() & 0x3fff_ffff_ffff_ffff | 0x8000_0100_0000_0000;
        time_uuid_from(ticks, low)
    }

    /// The path of a new element at the end of a list.
    ///
    /// ```text
    /// | time key u64 | sequence u32 | random u32 |    big-endian, so that paths order as bytes
    /// ```
    /// The time key of an appended element is 2^63 + microseconds, of a prepended one 2^63 - microseconds - 1; the
    /// sequence orders the elements of one execution.
    pub(crate) fn append_path(&self) -> Bytes {
        self.list_path(self.now_micros, self.next_sequence())
    }

    /// Paths of `count` new elements at the start of a list, in order.
    pub(crate) fn prepend_paths(&self, count: usize) -> Vec<Bytes> {
        let mut paths: Vec<Bytes> = (0..count)
            .map(|_| self.list_path(-self.now_micros - 1, u32::MAX - self.next_sequence()))
            .collect();
        paths.reverse();
        paths
    }

    fn list_path(&self, micros: i64, sequence: u32) -> Bytes {
        let time_key = micros.cast_unsigned() ^ (1 << 63);
        let mut path = [0; 16];
        path[..8].copy_from_slice(&time_key.to_be_bytes());
        path[8..12].copy_from_slice(&sequence.to_be_bytes());
        path[12..].copy_from_slice(&(self.random.next_u64() as u32).to_be_bytes());
        Bytes::copy_from_slice(&path)
    }
}

/// The version 1 UUID of a time in units of 100 nanoseconds since the Unix epoch, with `low` as its last 8 bytes.
pub(crate) fn time_uuid_from(ticks: i64, low: u64) -> Uuid {
    let ticks = ticks.wrapping_add(GREGORIAN_OFFSET).cast_unsigned();
    let time_low = ticks & 0xffff_ffff;
    let time_mid = ticks >> 32 & 0xffff;
    let time_high = ticks >> 48 & 0x0fff;
    let high = time_low << 32 | time_mid << 16 | 0x1000 | time_high;
    Uuid::from_u128(u128::from(high) << 64 | u128::from(low))
}

/// The time of a version 1 UUID in units of 100 nanoseconds since the Unix epoch.
pub(crate) fn ticks_of_time_uuid(uuid: Uuid) -> i64 {
    let high = (uuid.as_u128() >> 64) as u64;
    let ticks = (high & 0x0fff) << 48 | (high >> 16 & 0xffff) << 32 | high >> 32;
    ticks.cast_signed().wrapping_sub(GREGORIAN_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(Cell<u64>);
    impl RandomSource for Counter {
        fn next_u64(&self) -> u64 {
            self.0.set(
                self.0
                    .get()
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1),
            );
            self.0.get()
        }
    }

    #[test]
    fn time_uuids_carry_their_time_and_never_repeat() {
        let random = Counter(Cell::new(7));
        let context = PlanContext::new(1_700_000_000_123_456, &random);
        let (first, second) = (context.time_uuid(), context.time_uuid());
        assert_eq!(ticks_of_time_uuid(first), 17_000_000_001_234_560);
        assert_eq!(ticks_of_time_uuid(second), 17_000_000_001_234_561);
        assert_eq!(
            (first.get_version_num(), context.random_uuid().get_version_num()),
            (1, 4)
        );
    }

    #[test]
    fn list_paths_order_as_the_elements() {
        let random = Counter(Cell::new(7));
        let (early, late) = (PlanContext::new(1_000, &random), PlanContext::new(2_000, &random));
        let mut expected = late.prepend_paths(2);
        expected.extend(early.prepend_paths(1));
        expected.extend([early.append_path(), early.append_path(), late.append_path()]);
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
    }
}
