//! Where packets for one underlay socket wait for the end of the batch.

use std::net::IpAddr;

use crate::port::TxPacket;
use crate::snapshot::PortId;

/// Packets of one worker that wait for the end of the batch, contiguous in one buffer.
#[derive(Debug)]
pub struct Outbox {
    buf: Box<[u8]>,
    used: usize,
    packets: Vec<TxPacket>,
}

impl Outbox {
    pub(super) const BYTES: usize = 512 * 1024;
    const PACKETS: usize = 1024;

    /// An empty outbox. Its pages are touched only when used.
    pub fn new() -> Outbox {
        Outbox {
            buf: vec![0; Self::BYTES].into_boxed_slice(),
            used: 0,
            packets: Vec::with_capacity(Self::PACKETS),
        }
    }

    /// Whether a frame that may become `bytes` on the wire, or `packets` packets, might not fit any more.
    pub fn short_of(&self, bytes: usize, packets: usize) -> bool {
        self.buf.len() - self.used < bytes || Self::PACKETS - self.packets.len() < packets
    }

    /// What waits.
    pub fn packets(&self) -> (&[u8], &[TxPacket]) {
        (&self.buf, &self.packets)
    }

    /// Forget all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.packets.clear();
    }

    /// Room for one more packet of `len` bytes, behind those that wait; None when full.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.short_of(len, 1) {
            return None;
        }
        self.buf.get_mut(self.used..self.used + len)
    }

    /// The packet in the room behind those that wait has `len` bytes, and waits from now on.
    pub(super) fn push(&mut self, len: usize, dst: IpAddr, port: PortId) -> Option<&mut TxPacket> {
        self.packets.push(TxPacket::raw(self.used as u32, len as u32, dst, port));
        self.used += len;
        self.packets.last_mut()
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}
