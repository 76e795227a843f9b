//! One batch through the bridge, frame by frame.

use std::net::SocketAddr;
use std::sync::Arc;

use super::output::Leaving;
use super::{Worker, refused};
use crate::bridge::{self, Verdict};
use crate::counters::{DropReason, bump};
use crate::offload::{Fit, MAX_ANSWER, too_big};
use crate::port::{RxPacket, RxRoad};
use crate::slab::Piece;
use crate::snapshot::{Bridge, Port, PortId, PortKind, Snapshot, StpState};
use crate::tunnel::decap::decap;
use crate::vnet::VnetHdr;
use crate::wire::ethernet;
use crate::wire::natt::{self, Datagram};
use crate::wire::parse::Link;

/// A frame on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passing {
    /// Where it lies in the slab.
    pub(super) data: Piece,
    /// Its offload header.
    pub(super) vnet: VnetHdr,
    /// It came through a tunnel, as one finished packet: its fellows may be merged with it.
    pub(super) tunneled: bool,
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
            let passing = Passing { data: frame.data, vnet: frame.vnet, tunneled: false };
            self.forward(&snapshot, from, passing, now);
        }
        self.frames = frames;
    }

    /// The packets that an underlay socket just gave.
    pub(super) fn forward_packets(&mut self) {
        let now = self.shared.now();
        let snapshot = Arc::clone(&self.snapshot);
        self.decided = None;
        let packets = std::mem::take(&mut self.packets);
        for packet in &packets {
            if packet.road == RxRoad::Udp && !self.is_esp(packet) {
                continue;
            }
            match decap(&snapshot, &mut self.slab, packet, now) {
                Ok((from, data, vnet)) => {
                    let passing = Passing { data, vnet, tunneled: vnet == VnetHdr::default() };
                    self.forward(&snapshot, from, passing, now);
                }
                Err(why) => {
                    if why == DropReason::EspNoSa {
                        self.tell_unknown_spi(packet, now);
                    }
                    self.drops().add(why, 1);
                }
            }
        }
        self.packets = packets;
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
        let Some(port) = snapshot.port(from) else { return self.drops().add(DropReason::NoBridge, 1) };
        let packets = frame.vnet.packets(frame.data.len);
        let cell = port.counters.cell(self.index);
        bump(&cell.rx_packets, packets);
        bump(&cell.rx_bytes, u64::from(frame.data.len));
        let link = Link::parse(self.slab.get(frame.data));
        let verdict = match (&link, snapshot.bridge(port.bridge)) {
            (Some(link), Some(bridge)) => {
                if ethernet::is_group(link.dst) {
                    bump(&cell.rx_multicast, packets);
                }
                match self.decide(bridge, port, link, now) {
                    Verdict::Unicast(to) => return self.send(snapshot, port, to, frame, now),
                    Verdict::Flood => return self.flood(snapshot, bridge, port, frame, now),
                    Verdict::Punt(kind) => {
                        if self.shared.lift(kind, from, self.slab.get(frame.data)) {
                            return;
                        }
                        DropReason::BpduFull
                    }
                    Verdict::Discard(why) => why,
                }
            }
            (None, _) => DropReason::Malformed,
            (_, None) => DropReason::NoBridge,
        };
        bump(&cell.rx_dropped, packets);
        self.drops().add(verdict, packets);
    }

    fn decide(&mut self, bridge: &Bridge, port: &Port, link: &Link, now: u32) -> Verdict {
        if let Some(last) = &self.decided
            && (last.from, last.link) == (port.id, *link)
        {
            return last.verdict;
        }
        let verdict = bridge::decide(bridge, port, link, now);
        self.decided = Some(Decided { from: port.id, link: *link, verdict });
        verdict
    }

    fn flood(&mut self, snapshot: &Snapshot, bridge: &Bridge, from: &Port, frame: Passing, now: u32) {
        for &to in bridge.flood.iter().filter(|&&to| to != from.id) {
            self.send(snapshot, from, to, frame, now);
        }
    }

    /// Queues the frame for port `to`, or answers its sender when it cannot pass.
    fn send(&mut self, snapshot: &Snapshot, from: &Port, to: PortId, frame: Passing, now: u32) {
        let Some(port) = snapshot.port(to) else { return self.drops().add(DropReason::NoBridge, 1) };
        let packets = frame.vnet.packets(frame.data.len);
        // learned there while it still forwarded
        if port.stp != StpState::Forwarding {
            return self.drops().add(DropReason::NotForwarding, packets);
        }
        match self.queue(snapshot, port, frame, now) {
            Fit::Sent(_) => {}
            Fit::Dropped(why) => self.refuse(port, packets, why),
            Fit::TooBig { ip_mtu } => {
                let source = Link::parse(self.slab.get(frame.data)).map_or([0; 6], |link| link.src);
                let answered =
                    self.answers.take(source, now) && self.answer(snapshot, from, frame.data, ip_mtu, now);
                self.refuse(
                    port,
                    packets,
                    if answered { DropReason::TooBigAnswered } else { DropReason::TooBig },
                );
            }
        }
    }

    fn queue(&mut self, snapshot: &Snapshot, port: &Port, frame: Passing, now: u32) -> Fit {
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
        }
    }

    /// Sends what control has for this worker.
    pub(super) fn send_injected(&mut self) {
        let Some(own) = self.shared.workers.get(self.index) else { return };
        let waiting = own.injections.take();
        let (now, snapshot) = (self.shared.now(), Arc::clone(&self.snapshot));
        for (to, frame) in &waiting {
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
            let passing = Passing { data, vnet: VnetHdr::default(), tunneled: false };
            match self.queue(&snapshot, port, passing, now) {
                Fit::Sent(_) => {}
                Fit::Dropped(why) => self.refuse(port, 1, why),
                Fit::TooBig { .. } => self.refuse(port, 1, DropReason::TooBig),
            }
        }
        if !waiting.is_empty() {
            self.flush();
        }
    }

    fn refuse(&self, port: &Port, packets: u64, why: DropReason) {
        bump(&port.counters.cell(self.index).tx_dropped, packets);
        self.drops().add(why, packets);
    }

    /// Tells the sender of `frame`, back through the port that it came in by, which size would have passed.
    fn answer(&mut self, snapshot: &Snapshot, from: &Port, frame: Piece, ip_mtu: u16, now: u32) -> bool {
        let mut answer = [0; MAX_ANSWER];
        let Some(len) = too_big(self.slab.get(frame), ip_mtu, &mut answer) else { return false };
        let (Some(data), Some(answer)) = (self.slab.alloc(len), answer.get(..len)) else { return false };
        self.slab.get_mut(data).copy_from_slice(answer);
        let passing = Passing { data, vnet: VnetHdr::default(), tunneled: false };
        matches!(self.queue(snapshot, from, passing, now), Fit::Sent(_))
    }
}
