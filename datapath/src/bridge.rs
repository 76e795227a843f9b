//! A learning bridge: note where the source is, find where the destination is.

use crate::counters::DropReason;
use crate::snapshot::{Bridge, PortId};
use crate::wire::ethernet;
use crate::wire::parse::Link;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the port that its destination was learned on.
    Unicast(PortId),
    /// To every port but the one it came in by: a group address, or an unknown one.
    Flood,
    /// Nowhere.
    Discard(DropReason),
}

/// Decides about a frame that came in by `from` at `now` (seconds).
///
/// 1. A source that is a group address or zero is nobody's: discard (IEEE 802.1D 7.8).
/// 2. Reserved group addresses stay on their link (IEEE 802.1D 7.12.6), unless the bridge is told to forward them.
/// 3. Learn the source.
/// 4. Look the destination up; a frame never leaves by the port that it came in by.
#[inline]
pub fn decide(bridge: &Bridge, from: PortId, frame: &Link, now: u32) -> Verdict {
    if !ethernet::is_source(frame.src) {
        return Verdict::Discard(DropReason::BadSource);
    }
    if ethernet::is_reserved(frame.dst) && !bridge.forward_bpdu {
        return Verdict::Discard(DropReason::ReservedGroup);
    }
    let vlan = frame.vlan.map_or(0, |tci| tci.vid());
    bridge.fdb.learn(vlan, frame.src, from, now);
    if ethernet::is_group(frame.dst) {
        return Verdict::Flood;
    }
    match bridge.fdb.lookup(vlan, frame.dst, now) {
        None => Verdict::Flood,
        Some(port) if port == from => Verdict::Discard(DropReason::SamePort),
        Some(port) => Verdict::Unicast(port),
    }
}
