//! One batch through the bridge, frame by frame.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::output::Leaving;
use super::{Worker, refused, retag};
use crate::bridge::{self, Verdict};
use crate::counters::{DropReason, bump};
use crate::multicast::{Audience, Groups};
use crate::offload::{Fit, MAX_ANSWER, too_big};
use crate::port::{RxPacket, RxRoad};
use crate::slab::Piece;
use crate::slow_path::FrameKind;
use crate::snapshot::{Bridge, Port, PortId, PortKind, Snapshot, StpState, Watch};
use crate::tunnel::decap::Decap;
use crate::vlan::{self, Edit, Inside, Tags};
use crate::vnet::VnetHdr;
use crate::wire::natt::{self, Datagram};
use crate::wire::parse::Link;
use crate::wire::{bfd, cfm, ethernet, loopback};

/// A frame on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passing {
    /// Where it lies in the slab.
    pub(super) data: Piece,
    /// Its offload header.
    pub(super) vnet: VnetHdr,
    /// It came through a tunnel, in a packet of that TOS: its fellows may be merged with it.
    pub(super) tunneled: Option<u8>,
}

/// A frame in the middle of a bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crossing<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Where it came in.
    pub(super) from: &'a Port,
    /// As it came in.
    pub(super) frame: Passing,
    pub(super) inside: Inside,
    /// Whom it is for, where it is flooded.
    pub(super) audience: Audience<'a>,
    pub(super) now: u32,
}

impl Crossing<'_> {
    /// How many packets it stands for.
    pub(super) fn packets(&self) -> u64 {
        self.frame.vnet.packets(self.frame.data.len)
    }

    /// Whether it may leave by `port`.
    pub(super) fn leaves_by(&self, port: &Port) -> bool {
        port.stp == StpState::Forwarding
            && self.audience.has(port.id)
            && !self.from.groups.meet(port.groups)
            && vlan::egress(port.vlan.as_deref(), &self.inside).is_some()
    }
}

/// What was decided about the last frame of a batch. The next one mostly is of the same stream, and then neither learning nor
/// looking up tells anything new.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decided {
    from: PortId,
    link: Link,
    verdict: Verdict,
}

impl Worker {
    /// The frames that a local port just gave.
    pub(super) fn forward_frames(&mut self, from: PortId) {
        let now = self.shared.now();
        let snapshot = Arc::clone(&self.snapshot);
        self.decided = None;
        let frames = std::mem::take(&mut self.frames);
        for frame in &frames {
            let passing = Passing { data: frame.data, vnet: frame.vnet, tunneled: None };
            self.forward(&snapshot, from, passing, now);
        }
        self.frames = frames;
    }

    /// The packets that an underlay socket just gave.
    pub(super) fn forward_packets(&mut self) {
        let now = self.shared.now();
        let snapshot = Arc::clone(&self.snapshot);
        self.decided = None;
        self.trail = None;
        let packets = std::mem::take(&mut self.packets);
        let mut decap = Decap::new(&snapshot, now);
        for packet in &packets {
            if packet.road == RxRoad::Udp && !self.is_esp(packet) {
                continue;
            }
            if let Err(why) = self.forward_packet(&mut decap, &snapshot, packet, now) {
                if why == DropReason::EspNoSa {
                    self.tell_unknown_spi(packet, now);
                }
                self.drops().add(why, 1);
            }
        }
        self.packets = packets;
    }

    fn forward_packet<'a>(
        &mut self,
        decap: &mut Decap<'a>,
        snapshot: &'a Snapshot,
        packet: &RxPacket,
        now: u32,
    ) -> Result<(), DropReason> {
        let unpacked = decap.unpack(&mut self.slab, packet)?;
        if !self.follow(snapshot, &unpacked) {
            let vnet = decap.finish(&mut self.slab, &unpacked)?;
            let passing = Passing { data: unpacked.data, vnet, tunneled: Some(unpacked.tos) };
            self.forward(snapshot, unpacked.port, passing, now);
        }
        Ok(())
    }

    /// Whether a datagram on the ESP port is ESP. What is not is taken care of here.
    fn is_esp(&self, packet: &RxPacket) -> bool {
        match natt::classify(self.slab.get(packet.data)) {
            Datagram::Esp => return true,
            Datagram::Ike(message) => {
                let remote = SocketAddr::new(packet.src, packet.src_port);
                let peer = self.peers.contains(&packet.src);
                if !self.shared.punt(|punts| punts.ike(packet.dst, remote, message, peer)) {
                    self.drops().add(DropReason::IkeFull, 1);
                }
            }
            Datagram::Keepalive => {}
            Datagram::Malformed => self.drops().add(DropReason::Malformed, 1),
        }
        false
    }

    /// Tells control of a packet that no security association is there for, if a tunnel leads to where it came from.
    fn tell_unknown_spi(&mut self, packet: &RxPacket, now: u32) {
        if let Some(spi) = self.slab.get(packet.data).first_chunk().copied()
            && self.peers.contains(&packet.src)
            && self.unknown_spis.take(packet.src, now)
        {
            self.shared.punt(|punts| punts.unknown_spi(packet.src, u32::from_be_bytes(spi)));
        }
    }

    fn forward(&mut self, snapshot: &Snapshot, from: PortId, frame: Passing, now: u32) {
        self.gait.take(frame.data.len);
        self.enter(snapshot, from, frame, now);
        self.cross(snapshot, now);
        if self.sampling.under_way() {
            self.sampling.pass_up();
        }
    }

    /// A frame comes into a bridge.
    pub(super) fn enter(&mut self, snapshot: &Snapshot, from: PortId, frame: Passing, now: u32) {
        self.trail = None;
        let Some(port) = snapshot.port(from) else { return self.drops().add(DropReason::NoBridge, 1) };
        let packets = frame.vnet.packets(frame.data.len);
        let cell = port.counters.cell(self.index);
        bump(&cell.rx_packets, packets);
        bump(&cell.rx_bytes, u64::from(frame.data.len));
        if let Some(watch) = &port.watch
            && self.lift_watched(port, watch, frame)
        {
            return;
        }
        if let Some(policer) = &port.policer
            && let Err(why) = policer.admit(u64::from(frame.data.len), packets)
        {
            bump(&cell.rx_dropped, packets);
            return self.drops().add(why, packets);
        }
        let bytes = self.slab.get(frame.data);
        let link = Link::parse(bytes);
        let verdict = match (&link, snapshot.bridge(port.bridge)) {
            (Some(link), Some(bridge)) => {
                if ethernet::is_group(link.dst) {
                    bump(&cell.rx_multicast, packets);
                }
                let inside = vlan::ingress(port.vlan.as_deref(), Tags::read(bytes, link, bridge.vlan_limit));
                let mut verdict = self.decide(bridge, port, link, inside.map(|inside| inside.vid), now);
                if link.ethertype == loopback::ETHERTYPE {
                    verdict = self.probe(bridge, port, frame, link, verdict);
                }
                if let (Verdict::Flood, Some(policer)) = (verdict, &port.policer)
                    && let Err(why) = policer.admit_flood(link.dst, packets)
                {
                    verdict = Verdict::Discard(why);
                }
                let audience = match (verdict, &bridge.groups) {
                    (Verdict::Flood, Some(groups)) if ethernet::is_group(link.dst) => {
                        self.audience(groups, bridge, port, frame, link, inside)
                    }
                    _ => Audience::All,
                };
                if let Some(sampler) = &bridge.sampler {
                    self.sample(sampler, port, frame, verdict);
                }
                let crossing = |inside| Crossing { snapshot, from: port, frame, inside, audience, now };
                if !bridge.mirrors.is_empty()
                    && let Some(inside) = inside
                {
                    self.mirror(&crossing(inside), bridge, verdict);
                }
                match (verdict, inside) {
                    (Verdict::Unicast(to), Some(inside)) => {
                        return self.send_to(&crossing(inside), bridge, to);
                    }
                    (Verdict::Flood, Some(inside)) => return self.flood(&crossing(inside), bridge),
                    (Verdict::Punt(kind), _) => {
                        if self.shared.lift(kind, from, self.slab.get(frame.data)) {
                            return;
                        }
                        DropReason::BpduFull
                    }
                    (Verdict::Discard(why), _) => why,
                    (_, None) => DropReason::VlanIn,
                }
            }
            (None, _) => DropReason::Malformed,
            (_, None) => DropReason::NoBridge,
        };
        bump(&cell.rx_dropped, packets);
        self.drops().add(verdict, packets);
    }

    /// A probe of the bridge's own that has come back, where frames pass or would but for its loop, is control's, and goes no
    /// further; of another's control gets a copy.
    #[cold]
    fn probe(&self, bridge: &Bridge, port: &Port, frame: Passing, link: &Link, verdict: Verdict) -> Verdict {
        let bytes = self.slab.get(frame.data);
        let (Some(own), Some(sender)) = (bridge.probe, loopback::sender(bytes, link)) else { return verdict };
        match verdict {
            Verdict::Flood | Verdict::Discard(DropReason::NotForwarding) if own == sender => {
                Verdict::Punt(FrameKind::Probe)
            }
            Verdict::Flood => {
                self.shared.lift(FrameKind::OthersProbe, port.id, bytes);
                verdict
            }
            _ => verdict,
        }
    }

    /// Passes up what is for those who watch the port, whatever its spanning tree says. False: it is for others.
    #[cold]
    fn lift_watched(&self, port: &Port, watch: &Watch, frame: Passing) -> bool {
        let frame = self.slab.get(frame.data);
        let (kind, bytes, full) = if watch.cfm.is_some_and(|to| cfm::is_for(frame, to)) {
            (FrameKind::Cfm, frame.get(..cfm::BEGINNING).unwrap_or(frame), DropReason::CfmFull)
        } else if watch.bfd.is_some_and(|to| bfd::is_control(frame, &to)) {
            (FrameKind::Bfd, frame, DropReason::BfdFull)
        } else {
            return false;
        };
        if !self.shared.lift(kind, port.id, bytes) {
            bump(&port.counters.cell(self.index).rx_dropped, 1);
            self.drops().add(full, 1);
        }
        true
    }

    /// Whom a frame to a group is for, where multicast is snooped. Control gets a copy of what tells.
    #[inline(never)]
    fn audience<'a>(
        &self,
        groups: &'a Groups,
        bridge: &Bridge,
        port: &Port,
        frame: Passing,
        link: &Link,
        inside: Option<Inside>,
    ) -> Audience<'a> {
        let Some(inside) = inside else { return Audience::All };
        let bytes = self.slab.get(frame.data);
        let told = groups.look(bytes, link, bridge.vlan_limit.tags(), inside.vid);
        if told.membership && !self.shared.lift(FrameKind::Membership, port.id, bytes) {
            self.drops().add(DropReason::MembershipFull, 1);
        }
        told.audience
    }

    pub(super) fn decide(
        &mut self,
        bridge: &Bridge,
        port: &Port,
        link: &Link,
        vlan: Option<u16>,
        now: u32,
    ) -> Verdict {
        // the same header on the same port is in the same VLAN
        if let Some(last) = &self.decided
            && (last.from, last.link) == (port.id, *link)
        {
            return last.verdict;
        }
        let verdict = bridge::decide(bridge, port, link, vlan, now);
        self.decided = Some(Decided { from: port.id, link: *link, verdict });
        verdict
    }

    /// Sends a frame to the one port that its destination is on.
    fn send_to(&mut self, crossing: &Crossing<'_>, bridge: &Bridge, to: PortId) {
        let Crossing { snapshot, frame, .. } = *crossing;
        let Some(port) = snapshot.port(to) else { return self.drops().add(DropReason::NoBridge, 1) };
        if crossing.from.groups.meet(port.groups) {
            return self.drops().add(DropReason::Apart, crossing.packets());
        }
        let edit = match vlan::egress(port.vlan.as_deref(), &crossing.inside) {
            Some(Edit::Keep) => {
                self.send(crossing, port, frame);
                self.trail = self.trail_of(crossing, bridge, port);
                return;
            }
            Some(edit) => edit,
            None => return self.drops().add(DropReason::VlanOut, crossing.packets()),
        };
        if self.crossings.under_way() {
            // ports of another bridge may wait to send it as it is
            self.copies.clear();
            return match self.tagged_copy(frame, edit) {
                Some(tagged) => self.send(crossing, port, tagged),
                None => self.refuse(port, crossing.packets(), DropReason::NoRoom),
            };
        }
        match retag::in_place(&mut self.slab, frame, edit) {
            Some((tagged, undo)) => {
                if let Some(ip_mtu) = self.try_send(crossing, port, tagged) {
                    retag::undo(&mut self.slab, &undo);
                    self.too_big(crossing, port, ip_mtu);
                }
            }
            None => self.refuse(port, 1, DropReason::Malformed),
        }
    }

    /// Sends a frame to every port of its VLAN but the one that it came in by, and those that are kept apart from that.
    fn flood(&mut self, crossing: &Crossing<'_>, bridge: &Bridge) {
        self.copies.clear();
        for to in bridge.hearing(crossing.audience).filter(|to| *to != crossing.from.id) {
            let Some(port) = crossing.snapshot.port(to) else {
                self.drops().add(DropReason::NoBridge, 1);
                continue;
            };
            let frame = match vlan::egress(port.vlan.as_deref(), &crossing.inside) {
                _ if crossing.from.groups.meet(port.groups) => continue,
                None => continue,
                Some(Edit::Keep) => Some(crossing.frame),
                Some(edit) => self.tagged_copy(crossing.frame, edit),
            };
            match frame {
                Some(frame) => self.send(crossing, port, frame),
                None => self.refuse(port, crossing.packets(), DropReason::NoRoom),
            }
        }
    }

    /// One copy does for all ports that show a frame with the same tags.
    fn tagged_copy(&mut self, frame: Passing, edit: Edit) -> Option<Passing> {
        if let Some((_, made)) = self.copies.iter().find(|(of, _)| *of == edit) {
            return Some(*made);
        }
        let made = retag::copy(&mut self.slab, frame, edit)?;
        self.copies.push((edit, made));
        Some(made)
    }

    /// Queues the frame for `port`, or answers its sender when it cannot pass.
    fn send(&mut self, crossing: &Crossing<'_>, port: &Port, frame: Passing) {
        if let Some(ip_mtu) = self.try_send(crossing, port, frame) {
            self.too_big(crossing, port, ip_mtu);
        }
    }

    /// Queues the frame for `port`. Some: the IP MTU that it exceeds.
    fn try_send(&mut self, crossing: &Crossing<'_>, port: &Port, frame: Passing) -> Option<u16> {
        let packets = frame.vnet.packets(frame.data.len);
        // learned there while it still forwarded
        if port.stp != StpState::Forwarding {
            self.drops().add(port.stp.refusal(), packets);
            return None;
        }
        match self.queue(crossing.snapshot, port, frame, crossing.now) {
            Fit::Sent(_) => self.note_copy(port, frame),
            Fit::Dropped(why) => self.refuse(port, packets, why),
            Fit::TooBig { ip_mtu } => return Some(ip_mtu),
        }
        None
    }

    /// Tells the sender of a frame that does not pass through `port`, at times.
    fn too_big(&mut self, crossing: &Crossing<'_>, port: &Port, ip_mtu: u16) {
        let Crossing { snapshot, from, frame, now, .. } = *crossing;
        let source = Link::parse(self.slab.get(frame.data)).map_or([0; 6], |link| link.src);
        let answered = self.answers.take(source, now) && self.answer(snapshot, from, frame.data, ip_mtu, now);
        let why = if answered { DropReason::TooBigAnswered } else { DropReason::TooBig };
        self.refuse(port, crossing.packets(), why);
    }

    pub(super) fn queue(&mut self, snapshot: &Snapshot, port: &Port, frame: Passing, now: u32) -> Fit {
        match &port.kind {
            PortKind::Local(local) => self.outputs.local(port, local, &mut self.slab, frame),
            PortKind::Tunnel(tunnel) => {
                let leaving = match snapshot.way(tunnel) {
                    Ok(way) => Leaving { port, tunnel, way, now },
                    Err(why) => return Fit::Dropped(why),
                };
                let mut refused = refused(&self.shared, snapshot, self.index);
                self.outputs.tunnel(leaving, &self.slab, frame.data, &frame.vnet, &mut refused)
            }
            PortKind::Patch(patch) => self.leave(port, patch, frame),
        }
    }

    /// What control has for this worker to send.
    pub(super) fn injected(&self) -> VecDeque<(PortId, Vec<u8>)> {
        self.shared.workers.get(self.index).map(|own| own.injections.take()).unwrap_or_default()
    }

    /// Sends it.
    pub(super) fn send_injected(&mut self, waiting: &VecDeque<(PortId, Vec<u8>)>) {
        if waiting.is_empty() {
            return;
        }
        let (now, snapshot) = (self.shared.now(), Arc::clone(&self.snapshot));
        for (to, frame) in waiting {
            let Some(port) = snapshot.port(*to) else {
                self.drops().add(DropReason::NoBridge, 1);
                continue;
            };
            let piece = self.slab.alloc(frame.len()).or_else(|| {
                self.flush();
                self.slab.alloc(frame.len())
            });
            let Some(data) = piece else {
                self.refuse(port, 1, DropReason::NoRoom);
                continue;
            };
            self.slab.get_mut(data).copy_from_slice(frame);
            let passing = Passing { data, vnet: VnetHdr::default(), tunneled: None };
            match self.queue(&snapshot, port, passing, now) {
                Fit::Sent(_) => {}
                Fit::Dropped(why) => self.refuse(port, 1, why),
                Fit::TooBig { .. } => self.refuse(port, 1, DropReason::TooBig),
            }
            self.cross(&snapshot, now);
        }
        self.flush();
    }

    pub(super) fn refuse(&self, port: &Port, packets: u64, why: DropReason) {
        bump(&port.counters.cell(self.index).tx_dropped, packets);
        self.drops().add(why, packets);
    }

    /// Tells the sender of `frame`, back through the port that it came in by, which size would have passed.
    fn answer(&mut self, snapshot: &Snapshot, from: &Port, frame: Piece, ip_mtu: u16, now: u32) -> bool {
        let mut answer = [0; MAX_ANSWER];
        let Some(len) = too_big(self.slab.get(frame), ip_mtu, &mut answer) else { return false };
        let (Some(data), Some(answer)) = (self.slab.alloc(len), answer.get(..len)) else { return false };
        self.slab.get_mut(data).copy_from_slice(answer);
        let passing = Passing { data, vnet: VnetHdr::default(), tunneled: None };
        matches!(self.queue(snapshot, from, passing, now), Fit::Sent(_))
    }
}
