//! One frame in, frames that fit out.

use crate::counters::Drop;
use crate::vnet::VnetHdr;

/// Where frames for a tunnel are written, each straight into its place behind the outer headers.
pub trait FrameSink {
    /// A slot of exactly `len` bytes for the next inner frame, to be filled completely. It holds whatever was there
    /// before. None: no room (the sink counts it), and the rest of what was to be sent is given up.
    fn slot(&mut self, len: usize) -> Option<&mut [u8]>;
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Written into that many slots.
    Sent(usize),
    /// The sender must be told that its packets may have only `ip_mtu` bytes; see `too_big`.
    TooBig {
        /// Bytes of IP packet that fit.
        ip_mtu: u16,
    },
    /// Went no further.
    Dropped(Drop),
}

/// Writes `frame` to `sink` so that no inner frame is longer than `max_frame` bytes, Ethernet header included.
///
/// `frame` is as received from a local port with its offload header, or from another tunnel with the default header.
pub fn fit(frame: &[u8], vnet: &VnetHdr, max_frame: usize, sink: &mut impl FrameSink) -> Fit {
    if vnet.is_gso() || frame.len() > max_frame {
        return Fit::Dropped(Drop::TooBig);
    }
    match sink.slot(frame.len()) {
        Some(slot) => {
            slot.copy_from_slice(frame);
            Fit::Sent(1)
        }
        None => Fit::Sent(0),
    }
}
