//! Frames in the track of the one before.
//!
//! Of a stream in bulk each frame has the headers of the last one, but for what counts up. Whatever was decided about that one
//! by headers alone holds for it, too: where nothing but that was decided, and that one waits in a local port's coalescer, it is
//! put behind it there, and counted.

use super::Worker;
use super::forward::Crossing;
use crate::counters::bump;
use crate::snapshot::{Bridge, Port, PortId, PortKind, Snapshot, StpState};
use crate::tunnel::decap::Unpacked;

/// Where the last frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trail {
    /// A tunnel.
    from: PortId,
    /// A local port.
    to: PortId,
    /// Of the packet that it came in. What this congestion mark has made of that frame it makes of one with the same header.
    tos: u8,
}

impl Worker {
    /// The trail of a frame that has left as it came, by `port` alone. None: something else was done with it that each frame wants
    /// done anew, or not all that its way depends on stands in its headers.
    #[inline]
    pub(super) fn trail_of(&self, crossing: &Crossing<'_>, bridge: &Bridge, port: &Port) -> Option<Trail> {
        let tos = crossing.frame.tunneled?;
        let from = crossing.from;
        let quiet = from.policer.is_none()
            && from.watch.is_none()
            && bridge.sampler.is_none()
            && bridge.mirrors.is_empty()
            && !self.crossings.under_way();
        let local = matches!(port.kind, PortKind::Local(_)) && port.stp == StpState::Forwarding;
        (quiet && local).then_some(Trail { from: from.id, to: port.id, tos })
    }

    /// Sends a frame after the one before. False: it has to go its own way.
    #[inline]
    pub(super) fn follow(&mut self, snapshot: &Snapshot, unpacked: &Unpacked<'_>) -> bool {
        let Some(trail) = self.trail else { return false };
        if (trail.from, trail.tos) != (unpacked.port, unpacked.tos) {
            return false;
        }
        let Some(from) = snapshot.port(trail.from) else { return false };
        if !self.outputs.follow(trail.to, &mut self.slab, unpacked.data) {
            return false;
        }
        self.gait.take(unpacked.data.len);
        let cell = from.counters.cell(self.index);
        bump(&cell.rx_packets, 1);
        bump(&cell.rx_bytes, u64::from(unpacked.data.len));
        true
    }
}
