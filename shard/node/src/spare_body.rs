//! The buffer of one answer's body, used again by the next: most answers are made and sent before another is begun.

use std::cell::Cell;

use bytes::BytesMut;

/// Capacity of a buffer at its start, bytes.
const START_CAPACITY: usize = 512;
/// A larger buffer is not kept, bytes.
const KEPT_CAPACITY_MAX: usize = 64 << 10;

/// At most one buffer.
#[derive(Default)]
pub(crate) struct SpareBody(Cell<BytesMut>);

impl SpareBody {
    /// An empty buffer.
    pub(crate) fn take(&self) -> BytesMut {
        let spare = self.0.take();
        match spare.capacity() {
            0 => BytesMut::with_capacity(START_CAPACITY),
            _ => spare,
        }
    }

    /// A buffer that is needed no more.
    pub(crate) fn give(&self, mut body: BytesMut) {
        if body.capacity() <= KEPT_CAPACITY_MAX {
            body.clear();
            self.0.set(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_unless_it_has_grown_large() {
        let spare = SpareBody::default();
        let mut body = spare.take();
        body.extend_from_slice(&[7; 1000]);
        let (place, capacity) = (body.as_ptr(), body.capacity());
        spare.give(body);
        let again = spare.take();
        assert_eq!(
            (again.as_ptr(), again.capacity(), again.len()),
            (place, capacity, 0)
        );
        spare.give(BytesMut::with_capacity(KEPT_CAPACITY_MAX + 1));
        assert_eq!(spare.take().capacity(), START_CAPACITY);
    }
}
