//! The process's allocator: mimalloc, called by its shortest way.
//!
//! The crate `mimalloc` asks for an alignment in every call, which costs about 75 instructions more per allocation than
//! a plain call. A plain call aligns to [`PLAIN_ALIGNMENT`] whatever is at least as large; nearly everything is.
//!
//! Freed memory goes back to the kernel after [`PURGE_DELAY`]: with mimalloc's own second a node under 96 MiB that writes
//! 16 MiB/s has 14 MiB more resident (75 instead of 61), and is no faster.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What mimalloc aligns blocks to that are at least so large (`MI_MAX_ALIGN_SIZE`); smaller ones to their size.
const PLAIN_ALIGNMENT: usize = 16;

/// Milliseconds for which freed memory is kept, in case it is wanted again. The variable MIMALLOC_PURGE_DELAY overrides
/// it.
const PURGE_DELAY: i64 = 100;
/// What mimalloc has for it; also the proof that [`OPTION_PURGE_DELAY`] is the option that it is taken for.
const MIMALLOC_PURGE_DELAY: i64 = 1000;
/// `mi_option_purge_delay`
const OPTION_PURGE_DELAY: i32 = 15;

unsafe extern "C" {
    // Both are behind a feature that brings another dependency.
    fn mi_option_set_default(option: i32, value: std::ffi::c_long);
    fn mi_option_get(option: i32) -> std::ffi::c_long;
    // The crate declares it behind a feature that brings another dependency.
    fn mi_collect(force: bool);
}

/// Gives memory that this thread has freed back to the kernel. Walks the thread's pages: for idle moments.
pub(crate) fn give_back_freed() {
    // SAFETY: may be called at any time by any thread; without blocks of mimalloc's it does nothing.
    unsafe { mi_collect(true) }
}

/// Sets how long freed memory is kept. Once, at the start of the process.
pub fn set_up_allocator() {
    // SAFETY: plain calls with an option that there is; they change and read one number.
    unsafe {
        // What it is by default tells whether the environment has set it; a number that is none of ours is left alone.
        if mi_option_get(OPTION_PURGE_DELAY) == MIMALLOC_PURGE_DELAY {
            mi_option_set_default(OPTION_PURGE_DELAY, PURGE_DELAY);
        }
    }
}

/// mimalloc.
pub struct Allocator;

fn is_plain(size: usize, align: usize) -> bool {
    align <= PLAIN_ALIGNMENT && align <= size
}

// SAFETY: mimalloc's blocks are as large and as aligned as asked, valid until freed, and may be freed by any thread.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if is_plain(size, align) {
            // SAFETY: any size may be asked for.
            return unsafe { mi_malloc(size) }.cast();
        }
        // SAFETY: the alignment is a power of two.
        unsafe { mi_malloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if is_plain(size, align) {
            // SAFETY: any size may be asked for.
            return unsafe { mi_zalloc(size) }.cast();
        }
        // SAFETY: the alignment is a power of two.
        unsafe { mi_zalloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: the caller's pointer is one of this allocator's blocks, all of which mimalloc frees alike.
        unsafe { mi_free(pointer.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        if is_plain(size, align) {
            // SAFETY: the caller's pointer is one of this allocator's blocks.
            return unsafe { mi_realloc(pointer.cast::<c_void>(), size) }.cast();
        }
        // SAFETY: the same, and the alignment is a power of two.
        unsafe { mi_realloc_aligned(pointer.cast::<c_void>(), size, align) }.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purge_delay_is_set() {
        set_up_allocator();
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            // SAFETY: reads a number.
            assert_eq!(unsafe { mi_option_get(OPTION_PURGE_DELAY) }, PURGE_DELAY);
        }
    }

    #[test]
    fn giving_back_leaves_blocks_that_are_used_alone() {
        let layout = Layout::from_size_align(1 << 20, 8).expect("a layout");
        // SAFETY: the block is used within its size and freed once, with the layout it has.
        unsafe {
            let block = Allocator.alloc(layout);
            block.write_bytes(7, layout.size());
            give_back_freed();
            assert!((0..layout.size()).all(|at| *block.add(at) == 7));
            Allocator.dealloc(block, layout);
        }
        give_back_freed();
    }

    #[test]
    fn blocks_are_aligned_as_asked_and_keep_their_content() {
        for align in [1, 2, 8, 16, 32, 64, 4096] {
            for size in [1, 3, 8, 15, 16, 24, 100, 4096, 1 << 20] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: the block is used within its size and freed once, with the layout it has.
                unsafe {
                    let block = Allocator.alloc_zeroed(layout);
                    assert!(
                        !block.is_null() && block.addr().is_multiple_of(align),
                        "{size} {align}"
                    );
                    assert!((0..size).all(|at| *block.add(at) == 0));
                    block.write_bytes(7, size);
                    let larger = Allocator.realloc(block, layout, size * 3);
                    assert!(larger.addr().is_multiple_of(align), "{size} {align} grown");
                    assert!((0..size).all(|at| *larger.add(at) == 7));
                    let layout = Layout::from_size_align(size * 3, align).expect("a layout");
                    Allocator.dealloc(larger, layout);
                    let other = Allocator.alloc(layout);
                    assert!(other.addr().is_multiple_of(align), "{size} {align} again");
                    Allocator.dealloc(other, layout);
                }
            }
        }
    }
}
