//! Page-aligned memory that the kernel reads and writes directly: buffers of O_DIRECT files and of receives.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of address, offset and length that every O_DIRECT device takes.
pub(crate) const ALIGNMENT: usize = 4096;

/// Zeroed, page-aligned memory of a fixed size.
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
