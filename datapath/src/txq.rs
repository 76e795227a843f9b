//! What a worker will send to one local port when its batch ends: frames as lists of pieces of the slab.

use crate::slab::Piece;
use crate::vnet::VnetHdr;

/// Pieces that one frame may be gathered from: a header and the payloads of a full superframe.
pub const MAX_PIECES: usize = 64;

/// One frame to send: its offload header, and which of [`TxQueue::pieces`] it is made of, in order.
#[derive(Debug, Clone, Copy)]
pub struct TxFrame {
    /// The virtio_net_hdr to send in front.
    pub vnet: VnetHdr,
    /// Index of its first piece.
    pub first: u32,
    /// How many pieces; at most [`MAX_PIECES`].
    pub count: u32,
    /// Bytes in all.
    pub len: u32,
}

/// Frames for one local port, in order.
#[derive(Debug, Default)]
pub struct TxQueue {
    frames: Vec<TxFrame>,
    pieces: Vec<Piece>,
}

impl TxQueue {
    /// An empty queue with room for a batch, so that pushing does not allocate in steady state.
    pub fn new() -> TxQueue {
        TxQueue { frames: Vec::with_capacity(128), pieces: Vec::with_capacity(256) }
    }

    /// Queue one frame gathered from `pieces` (the caller keeps to [`MAX_PIECES`]).
    #[inline]
    pub fn push(&mut self, vnet: VnetHdr, pieces: &[Piece]) {
        debug_assert!(pieces.len() <= MAX_PIECES);
        let first = self.pieces.len() as u32;
        self.pieces.extend_from_slice(pieces);
        let len = pieces.iter().map(|p| p.len).sum();
        self.frames.push(TxFrame { vnet, first, count: pieces.len() as u32, len });
    }

    /// The frames queued.
    #[inline]
    pub fn frames(&self) -> &[TxFrame] {
        &self.frames
    }

    /// The pieces of one queued frame.
    #[inline]
    pub fn pieces(&self, f: &TxFrame) -> &[Piece] {
        self.pieces.get(f.first as usize..(f.first + f.count) as usize).unwrap_or(&[])
    }

    /// Nothing queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forget all.
    #[inline]
    pub fn clear(&mut self) {
        self.frames.clear();
        self.pieces.clear();
    }
}
