//! A learning bridge: note where the source is, find where the destination is.

use crate::counters::DropReason;
use crate::slow_path::FrameKind;
use crate::snapshot::{Bridge, Port, PortId, StpState};
use crate::wire::ethernet;
use crate::wire::parse::Link;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the port that its destination was learned on.
    Unicast(PortId),
    /// To every port but the one it came in by: a group address, or an unknown one.
    Flood,
    /// Up to control.
    Punt(FrameKind),
    /// Nowhere.
    Discard(DropReason),
}

/// Decides about a frame that came in by `port` at `now` (seconds).
///
/// 1. A source that is a group address or zero is nobody's: discard (IEEE 802.1D 7.8).
/// 2. Reserved group addresses stay on their link (IEEE 802.1D 7.12.6), unless the bridge is told to forward them. BPDUs are
///    control's, if the bridge has a spanning tree.
/// 3. A port that a mirror's copies go to takes nothing in; and no port a frame in none of its VLANs.
/// 4. A port that does not forward lets nothing pass (IEEE 802.1D-2004 7.7).
/// 5. Learn the source.
/// 6. Look the destination up; a frame never leaves by the port that it came in by.
///
/// Addresses are known by VLAN. Where no learning is asked for, frames go to all ports of theirs. `vlan` is None for a frame
/// that the port does not take.
#[inline]
pub fn decide(bridge: &Bridge, port: &Port, frame: &Link, vlan: Option<u16>, now: u32) -> Verdict {
    judge(bridge, port, frame, vlan, now, |vlan| {
        bridge.fdb.learn(vlan, frame.src, port.id, now);
    })
}

/// What [`decide`] would say. Nothing is learned.
pub fn foresee(bridge: &Bridge, port: &Port, frame: &Link, vlan: Option<u16>, now: u32) -> Verdict {
    judge(bridge, port, frame, vlan, now, |_| {})
}

#[inline(always)]
fn judge(
    bridge: &Bridge,
    port: &Port,
    frame: &Link,
    vlan: Option<u16>,
    now: u32,
    learn: impl Fn(u16),
) -> Verdict {
    let from = port.id;
    if !ethernet::is_source(frame.src) {
        return Verdict::Discard(DropReason::BadSource);
    }
    if ethernet::is_reserved(frame.dst)
        && let Some(verdict) = reserved(bridge, port, frame)
    {
        return verdict;
    }
    if bridge.watchers.contains(from) {
        return Verdict::Discard(DropReason::MirrorOutput);
    }
    let Some(vlan) = vlan else { return Verdict::Discard(DropReason::VlanIn) };
    let learns = bridge.flood_vlans.as_ref().is_none_or(|set| !set.contains(vlan));
    if port.stp != StpState::Forwarding {
        if port.stp == StpState::Learning && learns {
            learn(vlan);
        }
        return Verdict::Discard(port.stp.refusal());
    }
    if !learns {
        return Verdict::Flood;
    }
    learn(vlan);
    if ethernet::is_group(frame.dst) {
        return Verdict::Flood;
    }
    match bridge.fdb.lookup(vlan, frame.dst, now) {
        None => Verdict::Flood,
        Some(port) if port == from => Verdict::Discard(DropReason::SamePort),
        Some(port) if bridge.watchers.contains(port) => Verdict::Discard(DropReason::MirrorOutput),
        Some(port) => Verdict::Unicast(port),
    }
}

/// What becomes of a frame to a reserved group address. None: it is like any other.
#[cold]
fn reserved(bridge: &Bridge, port: &Port, frame: &Link) -> Option<Verdict> {
    if bridge.spanning
        && !matches!(port.stp, StpState::Disabled | StpState::Backup)
        && frame.dst == ethernet::BRIDGE_GROUP
        && frame.vlan.is_none()
    {
        return Some(Verdict::Punt(FrameKind::Bpdu));
    }
    (!bridge.forward_bpdu).then_some(Verdict::Discard(DropReason::ReservedGroup))
}
