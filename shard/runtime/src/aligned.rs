//! Page-aligned memory that the kernel reads and writes directly: buffers of O_DIRECT files and of receives.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Alignment of address, offset and length that every O_DIRECT device takes.
pub(crate) const ALIGNMENT: usize = 4096;

/// Buffers that a thread keeps for its next reads, and the largest of them, in bytes.
const SPARES_MAX: usize = 16;
const SPARE_SIZE_MAX: usize = 512 << 10;

thread_local! {
    /// Buffers of this thread that are not in use, the one given back last at the end. A new one costs more than a read
    /// of it does: the kernel and the allocator fill it with zeros.
    static SPARES: RefCell<Vec<AlignedBuffer>> = const { RefCell::new(Vec::new()) };
}

/// Page-aligned memory of a fixed size, all of it initialised.
pub(crate) struct AlignedBuffer {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is owned and plain bytes.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// `size` bytes, rounded up to whole pages; not touched before it is used.
    ///
    /// # Panics
    /// For a size near the address space.
    pub(crate) fn zeroed(size: usize) -> Self {
        let size = size
            .max(1)
            .checked_next_multiple_of(ALIGNMENT)
            .expect("size below the address space");
        let layout = Layout::from_size_align(size, ALIGNMENT).expect("size below the address space");
        // SAFETY: the layout's size is at least one page.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self { memory, layout }
    }

    /// As [`AlignedBuffer::zeroed`], but with any content: a buffer that was given back, when there is one of the size.
    pub(crate) fn spare(size: usize) -> Self {
        let whole = size.max(1).checked_next_multiple_of(ALIGNMENT);
        let spare = SPARES.with_borrow_mut(|spares| {
            let at = spares.iter().rposition(|spare| Some(spare.len()) == whole)?;
            Some(spares.remove(at))
        });
        spare.unwrap_or_else(|| Self::zeroed(size))
    }

    /// Gives the buffer back for a later [`AlignedBuffer::spare`] of this thread.
    fn give_back(self) {
        if self.len() > SPARE_SIZE_MAX {
            return;
        }
        // On a thread that is ending there is nobody to keep it for.
        let _ = SPARES.try_with(|spares| {
            let Ok(mut spares) = spares.try_borrow_mut() else {
                return;
            };
            if spares.len() == SPARES_MAX {
                // The oldest: of a size that is not asked for.
                drop(spares.remove(0));
            }
            spares.push(self);
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is initialised (zeroed at first) and as long as the layout says.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len()) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len()) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// A buffer that was read into: given back when it is no longer used.
pub(crate) struct ReadBuffer(Option<AlignedBuffer>);

impl ReadBuffer {
    pub(crate) fn new(buffer: AlignedBuffer) -> Self {
        Self(Some(buffer))
    }
}

impl AsRef<[u8]> for ReadBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], AlignedBuffer::as_slice)
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            buffer.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_in_their_size_and_are_bounded() {
        let buffer = AlignedBuffer::spare(3 * ALIGNMENT);
        let address = buffer.as_ptr();
        drop(ReadBuffer::new(buffer));
        assert_ne!(AlignedBuffer::spare(2 * ALIGNMENT).as_ptr(), address);
        let again = AlignedBuffer::spare(2 * ALIGNMENT + 1);
        assert_eq!((again.as_ptr(), again.len()), (address, 3 * ALIGNMENT));
        let many: Vec<_> = (0..2 * SPARES_MAX)
            .map(|_| AlignedBuffer::spare(ALIGNMENT))
            .collect();
        many.into_iter().for_each(|buffer| drop(ReadBuffer::new(buffer)));
        drop(ReadBuffer::new(AlignedBuffer::zeroed(2 * SPARE_SIZE_MAX)));
        assert_eq!(SPARES.with_borrow(Vec::len), SPARES_MAX);
    }
}
