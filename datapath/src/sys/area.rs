//! Memory whose pages the kernel may be told to write packets into (see [`super::xsk`]).

use std::alloc::{Layout, handle_alloc_error};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;

/// Zeroed memory in pages of its own, which are touched only when used. References are made to the bytes that are asked for and to no
/// others: those next to them may be the kernel's to write at that moment.
#[derive(Debug)]
pub struct Area {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: nobody else has the memory; bytes are read through `&self` and written through `&mut self` alone.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// `len` bytes, as many as there are pages for at least. Aborts, as any allocation does, when there is no memory.
    pub fn new(len: usize) -> Area {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: no address is asked for, so no mapping is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Area { start, len },
            None => handle_alloc_error(Layout::new::<u8>()),
        }
    }

    /// Bytes in all.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins, page-aligned.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    #[inline]
    fn has(&self, range: &Range<usize>) -> bool {
        range.start <= range.end && range.end <= self.len
    }

    /// Those bytes; None when some lie outside.
    #[inline]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        // SAFETY: the range lies in the mapping, which lives as long as self and is borrowed with it.
        self.has(&range).then(|| unsafe {
            slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start)
        })
    }

    /// Those bytes, to write; None when some lie outside.
    #[inline]
    pub fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        // SAFETY: as above, and borrowed mutably.
        self.has(&range).then(|| unsafe {
            slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.end - range.start)
        })
    }

    /// Copies the bytes of `from` to where `to` is, which may overlap. False: some lie outside, and nothing is copied.
    pub fn copy_within(&mut self, from: Range<usize>, to: usize) -> bool {
        let len = from.end.saturating_sub(from.start);
        let inside = self.has(&from) && to.checked_add(len).is_some_and(|end| end <= self.len);
        if inside {
            let start = self.start.as_ptr();
            // SAFETY: both ranges lie in the mapping, which is borrowed mutably.
            unsafe { ptr::copy(start.add(from.start), start.add(to), len) };
        }
        inside
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives self.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outside_are_nobodys() {
        let mut area = Area::new(5000);
        assert_eq!((area.len(), area.get(0..5000).map(<[u8]>::len)), (5000, Some(5000)));
        area.get_mut(4998..5000).unwrap().copy_from_slice(b"ab");
        assert_eq!(area.get(4997..5000), Some(&[0, b'a', b'b'][..]));
        assert_eq!(area.get(4999..5001), None);
        assert_eq!(area.get_mut(5001..5001), None);
        assert!(area.copy_within(4998..5000, 0) && !area.copy_within(0..2, 4999));
        assert_eq!(area.get(0..3), Some(&[b'a', b'b', 0][..]));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = 7..6;
        assert_eq!(area.get(reversed), None);
    }
}
