//! The allocator of the plugin: the host's, with Rust's alignment kept.
//!
//! Official builds of Fluent Bit export jemalloc as `malloc`, configured with `--with-lg-quantum=3`: blocks of 17–24,
//! 33–40 and 49–56 bytes are then only 8-aligned, while Rust's `System` uses plain `malloc` for alignments up to 16.
//! Blocks whose size is a multiple of 16 are 16-aligned in every jemalloc and glibc, so sizes are rounded up where an
//! alignment above 8 is requested.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// `System`, with the sizes of 16-aligned blocks rounded up to multiples of 16.
pub struct Aligned;

#[global_allocator]
static ALLOCATOR: Aligned = Aligned;

fn rounded(layout: Layout) -> Layout {
    if layout.align() <= 8 { layout } else { layout.pad_to_align() }
}

// SAFETY: every call goes to `System` with a layout of the same alignment and at least the size that was asked for, and
// always with the same one for the same block, since `rounded` depends on the layout alone.
unsafe impl GlobalAlloc for Aligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise (a size above 0) holds for the rounded size too.
        unsafe { System.alloc(rounded(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(rounded(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` with this layout, hence from `System` with the rounded one.
        unsafe { System.dealloc(block, rounded(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return std::ptr::null_mut();
        };
        // SAFETY: as in `dealloc`; the new size, rounded, is what a later `dealloc` will compute from it.
        unsafe { System.realloc(block, rounded(layout), rounded(new).size()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_aligned_blocks_are_multiples_of_their_alignment() {
        for size in 1..200 {
            for align in [1, 2, 4, 8, 16, 32, 64] {
                let layout = rounded(Layout::from_size_align(size, align).unwrap());
                assert!(layout.size() >= size && layout.align() == align);
                assert!(align <= 8 || layout.size().is_multiple_of(16));
            }
        }
    }
}
