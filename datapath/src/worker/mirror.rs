//! Copies of frames for those who watch.

use super::Worker;
use super::forward::{Crossing, Passing};
use super::retag;
use crate::bridge::Verdict;
use crate::counters::{DropReason, bump};
use crate::mirror::{Mirror, MirrorOutput};
use crate::offload::Fit;
use crate::snapshot::{Bridge, Port, PortId};
use crate::vlan::{self, Inside};
use crate::vnet::VnetHdr;
use crate::wire::ethernet::{self, TAG};
use crate::wire::parse::Link;

impl Worker {
    /// Copies the frame for each mirror that selects it. What a port of the bridge did not take is not seen, but for what a bond did
    /// not: those who watch a bond see all its wires, as in Open vSwitch.
    #[cold]
    pub(super) fn mirror(&mut self, crossing: &Crossing<'_>, bridge: &Bridge, verdict: Verdict) {
        if matches!(
            verdict,
            Verdict::Punt(_)
                | Verdict::Discard(
                    DropReason::NotForwarding
                        | DropReason::VlanIn
                        | DropReason::MirrorOutput
                        | DropReason::StormBroadcast
                        | DropReason::StormMulticast
                        | DropReason::StormUnknownUnicast
                )
        ) {
            return;
        }
        for (at, mirror) in bridge.mirrors.iter().enumerate() {
            if !selects(mirror, crossing, bridge, verdict) {
                continue;
            }
            let cell = mirror.counters.cell(self.index);
            bump(&cell.tx_packets, crossing.packets());
            bump(&cell.tx_bytes, u64::from(crossing.frame.data.len));
            // who watches at one output for two mirrors wants to see the frame once
            let same = |other: &&Mirror| other.output == mirror.output;
            let mut before = bridge.mirrors.iter().take(at).filter(same);
            if !before.any(|other| selects(other, crossing, bridge, verdict)) {
                self.copy_out(mirror, crossing, bridge);
            }
        }
    }

    fn copy_out(&mut self, mirror: &Mirror, crossing: &Crossing<'_>, bridge: &Bridge) {
        let port = |id: &PortId| crossing.snapshot.port(*id);
        match mirror.output {
            MirrorOutput::Port(id) => {
                if let Some(port) = port(&id) {
                    self.copy_to(port, mirror, crossing, &crossing.inside);
                }
            }
            MirrorOutput::Vlan(vid) => {
                let link = Link::parse(self.slab.get(crossing.frame.data));
                // what is in that VLAN has its own way there, and what is for one link must not go further
                if crossing.inside.vid == vid || link.is_none_or(|link| ethernet::is_reserved(link.dst)) {
                    return;
                }
                let inside = crossing.inside.in_vlan(vid);
                for port in bridge.flood.iter().filter_map(port) {
                    let apart = crossing.from.groups.meet(port.groups);
                    if !apart && vlan::egress(port.vlan.as_deref(), &inside).is_some() {
                        self.copy_to(port, mirror, crossing, &inside);
                    }
                }
            }
        }
    }

    /// One copy, tagged as the port shows frames that are so inside.
    fn copy_to(&mut self, port: &Port, mirror: &Mirror, crossing: &Crossing<'_>, inside: &Inside) {
        let edit = vlan::shown_by(port.vlan.as_deref(), inside);
        // most of a superframe need not be copied only to be cut off; what is cut off at last is behind the tag
        let enough = mirror.snaplen.map(|len| len.saturating_add(TAG as u32));
        let Some(copy) = retag::copy(&mut self.slab, cut(crossing.frame, enough), edit) else {
            return self.refuse(port, crossing.packets(), DropReason::NoRoom);
        };
        match self.queue(crossing.snapshot, port, cut(copy, mirror.snaplen), crossing.now) {
            Fit::Sent(_) => self.note_copy(port, copy),
            Fit::Dropped(why) => self.refuse(port, crossing.packets(), why),
            Fit::TooBig { .. } => self.refuse(port, crossing.packets(), DropReason::TooBig),
        }
    }
}

/// The start of a frame. Half a superframe is none: nobody could cut it into packets, nor finish its checksum.
fn cut(frame: Passing, snaplen: Option<u32>) -> Passing {
    let whole = Passing { tunneled: None, ..frame };
    match snaplen {
        Some(len) if len < frame.data.len => {
            let data = crate::slab::Piece { len, ..frame.data };
            Passing { data, vnet: VnetHdr::default(), ..whole }
        }
        _ => whole,
    }
}

/// Whether a mirror wants a frame because of its VLAN and where it came in, or where it goes.
fn selects(mirror: &Mirror, crossing: &Crossing<'_>, bridge: &Bridge, verdict: Verdict) -> bool {
    if !mirror.watches(crossing.inside.vid) {
        return false;
    }
    let leaves = |to: PortId| {
        mirror.destinations.contains(to)
            && crossing.snapshot.port(to).is_some_and(|port| crossing.leaves_by(port))
    };
    mirror.sources.contains(crossing.from.id)
        || match verdict {
            Verdict::Unicast(to) => leaves(to),
            Verdict::Flood => {
                bridge.hearing(crossing.audience).any(|to| to != crossing.from.id && leaves(to))
            }
            Verdict::Punt(_) | Verdict::Discard(_) => false,
        }
}
