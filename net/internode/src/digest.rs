//! The digest of a read's answer: equal for equal answers, so that replicas can be compared without sending rows.
//!
//! Covers keys, rows with their tombstones, and the place where the read stopped; not the work done. A 128-bit xxh3,
//! which is fast and not secret: replicas trust each other with the data itself.

use ceto_model::ReadResult;
use xxhash_rust::xxh3::xxh3_128;

use crate::codec::put_read_content;

/// Digest of a [`ReadResult`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest(pub u128);

impl Digest {
    /// The digest of `result`; `scratch` is a buffer to reuse.
    pub fn of(result: &ReadResult, scratch: &mut Vec<u8>) -> Digest {
        scratch.clear();
        put_read_content(scratch, result);
        Digest(xxh3_128(scratch))
    }
}
