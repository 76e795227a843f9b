//! The memory of one batch: fixed slots that frames are received into, and a bump area for what the batch itself makes
//! (coalesced headers, refitted frames, ICMP answers).
//!
//! One slab belongs to one worker. A received frame stays where it is until every output of its batch is sent, so a
//! flooded frame is never copied between local ports: each [`crate::txq::TxQueue`] refers to it by [`Piece`].

/// Room for the largest superframe the kernel hands out (64 KiB of IP behind a tagged Ethernet header), with headroom.
pub const SLOT: usize = 65536 + 512;

/// Frames taken from one source before the outputs are flushed.
pub const SLOTS: usize = 64;

/// Bytes of the bump area: room for a whole batch once more, should its superframes leave tagged otherwise than they came by
/// several ports.
pub const SPILL: usize = SLOT * SLOTS + 256 * 1024;

/// A range of bytes in a [`Slab`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Piece {
    /// Offset from the slab's start.
    pub off: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Piece {
    /// The piece as an index range.
    #[inline]
    pub fn range(self) -> std::ops::Range<usize> {
        self.off as usize..self.off as usize + self.len as usize
    }

    /// What is left after `n` bytes at the front; empty when the piece is shorter.
    #[inline]
    pub fn skip(self, n: u32) -> Piece {
        let n = n.min(self.len);
        Piece { off: self.off + n, len: self.len - n }
    }
}

/// The memory of one batch; see the module.
#[derive(Debug)]
pub struct Slab {
    mem: Box<[u8]>,
    bump: usize,
}

impl Slab {
    const BASE: usize = SLOT * SLOTS;

    /// A slab of [`SLOTS`] slots and the bump area. Pages are touched only when used.
    pub fn new() -> Slab {
        Slab { mem: vec![0; Self::BASE + SPILL].into_boxed_slice(), bump: 0 }
    }

    /// Slot `i` whole. `i` must be below [`SLOTS`].
    #[inline]
    pub fn slot(i: usize) -> Piece {
        debug_assert!(i < SLOTS);
        Piece { off: (i * SLOT) as u32, len: SLOT as u32 }
    }

    /// Every byte of the slab.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.mem
    }

    /// Every byte of the slab, to write.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.mem
    }

    /// The bytes of `p`; empty when `p` lies outside.
    #[inline]
    pub fn get(&self, p: Piece) -> &[u8] {
        self.mem.get(p.range()).unwrap_or(&[])
    }

    /// The bytes of `p`, to write; empty when `p` lies outside.
    #[inline]
    pub fn get_mut(&mut self, p: Piece) -> &mut [u8] {
        self.mem.get_mut(p.range()).unwrap_or(&mut [])
    }

    /// `len` bytes of the bump area, or None when this batch has used it up (the caller counts a drop).
    #[inline]
    pub fn alloc(&mut self, len: usize) -> Option<Piece> {
        let off = Self::BASE + self.bump;
        if len > SPILL - self.bump {
            return None;
        }
        self.bump += len.next_multiple_of(16).min(SPILL - self.bump);
        Some(Piece { off: off as u32, len: len as u32 })
    }

    /// Forget what the batch made. Call when every output has been flushed.
    #[inline]
    pub fn reset(&mut self) {
        self.bump = 0;
    }
}

impl Default for Slab {
    fn default() -> Self {
        Self::new()
    }
}
