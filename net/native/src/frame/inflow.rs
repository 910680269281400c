//! Received bytes that are not decoded yet.
//!
//! Two pieces in order: `pending`, which the inflow owns and appends to, and `chunk`, the last piece that was handed
//! over whole. What lies whole in either of them is cut out without a copy; only what spans them is copied.

use bytes::{Buf, Bytes, BytesMut};

/// Least bytes to reserve when the buffer must grow: one page holds many small requests.
const RESERVE: usize = 4096;

/// The buffer of what was longer is not used again.
const KEPT: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Inflow {
    pending: BytesMut,
    chunk: Bytes,
}

impl Inflow {
    /// Appends a copy of `bytes`.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.settle();
        if self.pending.capacity() - self.pending.len() < bytes.len() {
            self.pending.reserve(bytes.len().max(RESERVE));
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Appends `bytes` without a copy.
    pub(super) fn feed_bytes(&mut self, bytes: Bytes) {
        self.settle();
        self.chunk = bytes;
    }

    /// Moves the chunk behind the pending bytes.
    fn settle(&mut self) {
        if !self.chunk.is_empty() {
            self.pending.extend_from_slice(&self.chunk);
        }
        self.chunk = Bytes::new();
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.chunk.len()
    }

    /// The next `N` bytes, which stay.
    pub(super) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(array) = self.pending.first_chunk::<N>() {
            return Some(*array);
        }
        if self.pending.is_empty() {
            return self.chunk.first_chunk::<N>().copied();
        }
        let mut array = [0; N];
        let (head, tail) = array.split_at_mut(self.pending.len());
        head.copy_from_slice(&self.pending);
        tail.copy_from_slice(self.chunk.get(..tail.len())?);
        Some(array)
    }

    /// The next `length` bytes, if all of them are there.
    pub(super) fn take(&mut self, length: usize) -> Option<Bytes> {
        if self.len() < length {
            return None;
        }
        if self.pending.is_empty() {
            return Some(self.chunk.split_to(length));
        }
        if let Some(missing) = length.checked_sub(self.pending.len()) {
            let rest = self.chunk.split_to(missing);
            self.pending.extend_from_slice(&rest);
        }
        let taken = self.pending.split_to(length).freeze();
        if length > KEPT && self.pending.is_empty() {
            // Else the buffer of one large request would stay with a connection that only had one.
            self.pending = BytesMut::new();
        }
        Some(taken)
    }

    /// Drops up to `length` bytes; returns how many.
    pub(super) fn discard(&mut self, length: u64) -> u64 {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let from_pending = wanted.min(self.pending.len());
        self.pending.advance(from_pending);
        let from_chunk = (wanted - from_pending).min(self.chunk.len());
        self.chunk.advance(from_chunk);
        (from_pending + from_chunk) as u64
    }
}
