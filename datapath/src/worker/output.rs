//! Where a batch's frames wait until it ends: a queue for each local port, an outbox for each underlay.

use std::sync::Arc;

use super::forward::Passing;
use super::weight::Weight;
use crate::counters::{DropCell, DropReason, bump};
use crate::offload::{Coalescer, Fit, FrameSink, fit};
use crate::port::{DeviceRoad, LocalPort, Refusal, RxRoad, TxPacket, Underlay};
use crate::slab::{Piece, Slab};
use crate::snapshot::{Port, PortId, PortKind, Snapshot};
use crate::tunnel::carry::{Carry, Freight, Parcels};
use crate::tunnel::encap::Encap;
use crate::tunnel::{Outbox, Tunnel, Way, entropy};
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;
use crate::wire::parse::{Ip, Link};

/// Room that an outbox must have before a frame is fitted into it: a superframe of 64 KiB in segments of 88 bytes, the
/// least that Linux agrees to (TCP_MIN_MSS), with headers. What would become more packets is cut off.
const OUTBOX_BYTES: usize = 224 * 1024;
const OUTBOX_PACKETS: usize = 768;

/// The queue of one local port.
#[derive(Debug)]
struct LocalOutput {
    queue: TxQueue,
    coalescer: Coalescer,
    /// What the coalescer was made for.
    lone_datagrams: bool,
    waiting: bool,
}

/// The outbox of one family and road; the socket is None while no tunnel needs it.
#[derive(Debug)]
struct UnderlayOutput {
    v6: bool,
    road: RxRoad,
    socket: Option<Arc<Underlay>>,
    outbox: Option<Box<Outbox>>,
}

/// What waits for the device road; the road is None while there is none.
#[derive(Debug, Default)]
struct DeviceOutput {
    road: Option<Arc<DeviceRoad>>,
    parcels: Option<Box<Parcels>>,
}

/// Where a frame leaves through a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving<'a> {
    pub(super) port: &'a Port,
    pub(super) tunnel: &'a Tunnel,
    pub(super) way: Way<'a>,
    /// Seconds of the datapath.
    pub(super) now: u32,
}

/// All outputs of one worker.
#[derive(Debug)]
pub(super) struct Outputs {
    worker: usize,
    /// By port id; made when the port is first sent to.
    local: Vec<Option<Box<LocalOutput>>>,
    /// Local ports with something waiting.
    waiting: Vec<PortId>,
    /// One a family and road; few.
    underlays: Vec<UnderlayOutput>,
    device: DeviceOutput,
    scratch: Vec<u8>,
    /// By what leaves.
    pub(super) weight: Weight,
}

/// The outbox that a packet waits in; made when it is first asked for.
fn underlay(outputs: &mut Vec<UnderlayOutput>, v6: bool, road: RxRoad) -> Option<&mut UnderlayOutput> {
    let at = outputs.iter().position(|output| (output.v6, output.road) == (v6, road)).unwrap_or_else(|| {
        outputs.push(UnderlayOutput { v6, road, socket: None, outbox: None });
        outputs.len() - 1
    });
    outputs.get_mut(at)
}

impl Outputs {
    pub(super) fn new(worker: usize) -> Outputs {
        Outputs {
            worker,
            local: Vec::new(),
            waiting: Vec::with_capacity(64),
            underlays: Vec::new(),
            device: DeviceOutput::default(),
            scratch: Vec::new(),
            weight: Weight::default(),
        }
    }

    /// Takes up a new snapshot. Nothing waits between batches.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        self.local.resize_with(snapshot.ports.len(), || None);
        for (output, port) in self.local.iter_mut().zip(&snapshot.ports) {
            let lone = match port.as_deref() {
                Some(Port { kind: PortKind::Local(_), lone_datagrams, .. }) => Some(*lone_datagrams),
                _ => None,
            };
            *output = output.take().filter(|output| Some(output.lone_datagrams) == lone);
        }
        self.device.road = snapshot.device.clone();
        for output in &mut self.underlays {
            output.socket = None;
        }
        for socket in &snapshot.underlays {
            let output = underlay(&mut self.underlays, socket.is_ipv6(), socket.road());
            if let Some(output) = output.filter(|output| output.socket.is_none()) {
                output.socket = Some(Arc::clone(socket));
            }
        }
        self.underlays.retain(|output| output.socket.is_some());
    }

    /// Queues a frame for a local port.
    pub(super) fn local(&mut self, port: &Port, device: &LocalPort, slab: &mut Slab, frame: Passing) -> Fit {
        let Some(entry) = self.local.get_mut(usize::from(port.id.0)) else {
            return Fit::Dropped(DropReason::NoBridge);
        };
        let output = entry.get_or_insert_with(|| {
            let lone_datagrams = port.lone_datagrams;
            let joins = !lone_datagrams && device.takes_datagrams();
            let coalescer = if joins { Coalescer::new() } else { Coalescer::of_tcp() };
            Box::new(LocalOutput { queue: TxQueue::new(), coalescer, lone_datagrams, waiting: false })
        });
        if !std::mem::replace(&mut output.waiting, true) {
            self.waiting.push(port.id);
        }
        let limit = device.max_frame(slab.get(frame.data));
        if !frame.vnet.is_gso() && frame.data.len as usize > limit {
            // rare: the devices of this bridge differ in MTU
            output.coalescer.give_way(slab, frame.data, &mut output.queue);
            self.scratch.clear();
            self.scratch.extend_from_slice(slab.get(frame.data));
            let mut sink = Spill { slab, queue: &mut output.queue, full: false };
            let fitted = fit(&self.scratch, &frame.vnet, limit, &mut sink);
            return if sink.full { Fit::Dropped(DropReason::NoRoom) } else { fitted };
        }
        if frame.tunneled.is_some() {
            output.coalescer.push_offloaded(slab, frame.data, &frame.vnet, &mut output.queue);
        } else {
            output.coalescer.give_way(slab, frame.data, &mut output.queue);
            output.queue.push(frame.vnet, &[frame.data]);
        }
        Fit::Sent(1)
    }

    /// Queues a frame for a local port if it follows on the one that was queued there last. False: it waits for
    /// [`Outputs::local`].
    #[inline]
    pub(super) fn follow(&mut self, to: PortId, slab: &mut Slab, data: Piece) -> bool {
        let output = self.local.get_mut(usize::from(to.0)).and_then(Option::as_mut);
        output.is_some_and(|output| output.coalescer.follow(slab, data, &mut output.queue))
    }

    /// Makes a frame that lies in the slab into a tunnel's packets.
    pub(super) fn tunnel(
        &mut self,
        leaving: Leaving<'_>,
        slab: &Slab,
        data: Piece,
        vnet: &VnetHdr,
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Fit {
        let Leaving { port, tunnel, way, now } = leaving;
        self.weight.carry(vnet, data.len);
        let frame = slab.get(data);
        let inner = Link::parse(frame).and_then(|link| Ip::parse(frame, &link));
        // what is no IP the kernel does not know how to hang behind other headers; no flow is torn by its going another way
        if let (Way::Plain, Some(ip)) = (way, &inner)
            && let Some(fitted) =
                self.device.carry(&leaving, &Freight { slab, data, vnet, ip }, self.worker, refused)
        {
            return fitted;
        }
        let v6 = tunnel.config.remote.is_ipv6();
        let Some(underlay) = underlay(&mut self.underlays, v6, way.road()) else {
            return Fit::Dropped(DropReason::UnderlayTx);
        };
        if underlay.outbox.as_ref().is_some_and(|o| o.short_of(OUTBOX_BYTES, OUTBOX_PACKETS)) {
            underlay.flush(refused);
        }
        let outbox = underlay.outbox.get_or_insert_default();
        let Some(mut encap) = Encap::new(tunnel, port.id, way, inner.as_ref(), now, outbox) else {
            return Fit::Dropped(DropReason::UnderlayTx);
        };
        if tunnel.config.in_udp.is_some() {
            encap = encap.with_entropy(entropy::of(frame, inner.as_ref()));
        }
        let fitted = fit(frame, vnet, tunnel.max_frame(way.road()), &mut encap);
        encap.finish();
        let cell = port.counters.cell(self.worker);
        bump(&cell.tx_packets, encap.packets);
        bump(&cell.tx_bytes, encap.bytes);
        encap.refused.map_or(fitted, Fit::Dropped)
    }

    /// Sends everything that waits.
    pub(super) fn flush(
        &mut self,
        slab: &mut Slab,
        snapshot: &Snapshot,
        drops: &DropCell,
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) {
        self.underlays.iter_mut().for_each(|output| output.flush(refused));
        self.device.flush(slab, refused);
        for id in self.waiting.drain(..) {
            let output = self.local.get_mut(usize::from(id.0)).and_then(Option::as_mut);
            let Some((output, port)) = output.zip(snapshot.port(id)) else { continue };
            if let PortKind::Local(device) = &port.kind {
                output.flush(slab, port, device, self.worker, drops, &mut self.weight);
            }
        }
    }
}

impl LocalOutput {
    fn flush(
        &mut self,
        slab: &mut Slab,
        port: &Port,
        device: &LocalPort,
        worker: usize,
        drops: &DropCell,
        weight: &mut Weight,
    ) {
        self.waiting = false;
        self.coalescer.flush(slab, &mut self.queue);
        self.queue.frames().iter().for_each(|f| weight.carry(&f.vnet, f.len));
        let sent = device.tx(slab, &self.queue);
        let cell = port.counters.cell(worker);
        let taken = self.queue.frames().iter().take(sent.ok);
        let (packets, bytes) =
            taken.fold((0, 0), |(p, b), f| (p + f.vnet.packets(f.len), b + u64::from(f.len)));
        bump(&cell.tx_packets, packets);
        bump(&cell.tx_bytes, bytes);
        if sent.ok < self.queue.frames().len() {
            bump(&cell.tx_dropped, sent.full as u64);
            bump(&cell.tx_errors, sent.failed as u64);
            drops.add(DropReason::PortTx, (sent.full + sent.failed) as u64);
        }
        self.queue.clear();
    }
}

impl UnderlayOutput {
    fn flush(&mut self, refused: &mut dyn FnMut(&TxPacket, Refusal)) {
        let Some(outbox) = &mut self.outbox else { return };
        let (buf, packets) = outbox.packets();
        if packets.is_empty() {
            return;
        }
        match &self.socket {
            Some(socket) => _ = socket.tx(buf, packets, refused),
            None => packets.iter().for_each(|packet| refused(packet, Refusal::Failed)),
        }
        outbox.clear();
    }
}

impl DeviceOutput {
    /// Makes a frame into parcels. None: it goes by another road.
    fn carry(
        &mut self,
        leaving: &Leaving<'_>,
        freight: &Freight<'_>,
        worker: usize,
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Option<Fit> {
        self.road.as_ref()?;
        if self.parcels.as_ref().is_some_and(|p| p.short_of(OUTBOX_BYTES, OUTBOX_PACKETS)) {
            self.flush(freight.slab, refused);
        }
        let parcels = self.parcels.get_or_insert_default();
        let mut carry = Carry::new(leaving.tunnel, leaving.port.id, freight.ip, parcels)?;
        let fitted = carry.carry(freight);
        let cell = leaving.port.counters.cell(worker);
        bump(&cell.tx_packets, carry.packets);
        bump(&cell.tx_bytes, carry.bytes);
        Some(carry.refused.map_or(fitted, Fit::Dropped))
    }

    fn flush(&mut self, slab: &Slab, refused: &mut dyn FnMut(&TxPacket, Refusal)) {
        let Some(parcels) = &mut self.parcels else { return };
        let (buf, list) = parcels.list();
        if list.is_empty() {
            return;
        }
        match &self.road {
            Some(road) => _ = road.tx(buf, slab, list, refused),
            None => list.iter().for_each(|parcel| refused(&parcel.packet, Refusal::Failed)),
        }
        parcels.clear();
    }
}

/// Puts right what a tunnel counted as sent and the underlay did not take.
pub(super) fn take_back(
    snapshot: &Snapshot,
    worker: usize,
    drops: &DropCell,
    packet: &TxPacket,
    why: Refusal,
) {
    let packets = u64::from(packet.packets);
    drops.add(DropReason::UnderlayTx, packets);
    let Some(port) = snapshot.port(packet.port) else { return };
    let cell = port.counters.cell(worker);
    match why {
        Refusal::Full => bump(&cell.tx_dropped, packets),
        Refusal::TooBig | Refusal::Failed => bump(&cell.tx_errors, packets),
    }
    bump(&cell.tx_packets, packets.wrapping_neg());
    bump(&cell.tx_bytes, u64::from(packet.frame).wrapping_neg());
}

/// Frames refitted for a local port, in the slab's bump area.
struct Spill<'a> {
    slab: &'a mut Slab,
    queue: &'a mut TxQueue,
    full: bool,
}

impl FrameSink for Spill<'_> {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        let Some(piece) = self.slab.alloc(len) else {
            self.full = true;
            return None;
        };
        self.queue.push(VnetHdr::default(), &[piece]);
        Some(self.slab.get_mut(piece))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::counters::PortStats;
    use crate::esp::testing::{config, outbound};
    use crate::port::InUdp;
    use crate::port::memory::Far;
    use crate::snapshot::BridgeId;
    use crate::tunnel::TunnelConfig;
    use crate::vnet::{F_NEEDS_CSUM, GSO_TCPV4};

    /// The outputs of a worker for one port, and that port.
    fn outputs(kind: PortKind) -> (Outputs, Snapshot, Arc<Port>) {
        let port = Arc::new(Port::new(PortId(0), BridgeId(0), 1, "p", kind));
        let snapshot = Snapshot { ports: vec![Some(Arc::clone(&port))], ..Snapshot::default() };
        let mut outputs = Outputs::new(0);
        outputs.update(&snapshot);
        (outputs, snapshot, port)
    }

    fn memory() -> (Arc<LocalPort>, Arc<Far>) {
        let (port, far) = LocalPort::memory().unwrap();
        (Arc::new(port), far)
    }

    fn tunnel() -> Arc<Tunnel> {
        let config = TunnelConfig {
            csum: true,
            seq: true,
            out_key: Some(7),
            ..TunnelConfig::to([10, 9, 0, 2].into())
        };
        Arc::new(Tunnel::new(config, None, 1500))
    }

    fn leaving<'a>(port: &'a Port, tunnel: &'a Tunnel, way: Way<'a>) -> Leaving<'a> {
        Leaving { port, tunnel, way, now: 0 }
    }

    /// `len` bytes of a TCP stream from `seq` on.
    fn tcp(seq: u32, len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.tcp(1, 2, seq, 9).ack(3).write(&mut frame, &vec![7; len]).unwrap();
        frame
    }

    /// Sends `frame` through the tunnel.
    fn tunnel_frame(
        outputs: &mut Outputs,
        leaving: Leaving<'_>,
        frame: &[u8],
        vnet: &VnetHdr,
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Fit {
        let mut slab = Slab::new();
        let data = passing(&mut slab, 0, frame, *vnet).data;
        outputs.tunnel(leaving, &slab, data, vnet, refused)
    }

    /// Frame `i` of a batch, out of a tunnel.
    fn passing(slab: &mut Slab, i: usize, frame: &[u8], vnet: VnetHdr) -> Passing {
        let data = Piece { len: frame.len() as u32, ..Slab::slot(i) };
        slab.get_mut(data).copy_from_slice(frame);
        Passing { data, vnet, tunneled: Some(0) }
    }

    /// Kernels merge some packets of a flow and hand out others as they came.
    #[test]
    fn no_frame_of_a_flow_overtakes_another_however_it_comes() {
        let merged = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 54.into(),
            gso_size: 1000.into(),
            csum_start: 34.into(),
            csum_offset: 16.into(),
        };
        // the third is longer than the device takes, and split
        for (mtu, vnet, third) in [(1500, merged, 3000), (1040, VnetHdr::default(), 1100)] {
            let (local, far) = memory();
            local.set_mtu(mtu);
            let (mut outputs, snapshot, port) = outputs(PortKind::Local(Arc::clone(&local)));
            let mut slab = Slab::new();
            let stream =
                [(0, 1000, VnetHdr::default()), (1000, 1000, VnetHdr::default()), (2000, third, vnet)];
            for (i, (seq, len, vnet)) in stream.into_iter().enumerate() {
                let frame = passing(&mut slab, i, &tcp(seq, len), vnet);
                assert!(matches!(outputs.local(&port, &local, &mut slab, frame), Fit::Sent(_)));
            }
            outputs.flush(&mut slab, &snapshot, &DropCell::new(), &mut |_, _| {});
            let mut next = 0;
            while let Some((_, frame)) = far.recv() {
                assert_eq!(u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]), next);
                next += frame.len() as u32 - 54;
            }
            assert_eq!(next as usize, 2000 + third);
        }
    }

    #[test]
    fn what_the_underlay_does_not_take_was_not_sent() {
        let tunnel = tunnel();
        let sa = outbound(config());
        for way in [Way::Plain, Way::InUdp(InUdp::Gre), Way::Protected(&sa)] {
            // there is no socket
            let (mut outputs, snapshot, port) = outputs(PortKind::Tunnel(Arc::clone(&tunnel)));
            let (drops, mut slab) = (DropCell::new(), Slab::new());
            let mut refused = |packet: &TxPacket, why| take_back(&snapshot, 0, &drops, packet, why);
            for len in [10, 1000] {
                let leaving = leaving(&port, &tunnel, way);
                tunnel_frame(&mut outputs, leaving, &tcp(0, len), &VnetHdr::default(), &mut refused);
            }
            let made = port.counters.sum();
            assert_eq!((made.tx_packets, made.tx_bytes), (2, 1010 + 2 * 54));
            outputs.flush(&mut slab, &snapshot, &drops, &mut refused);
            assert_eq!(port.counters.sum(), PortStats { tx_errors: 2, ..PortStats::default() });
            assert_eq!(drops.get(DropReason::UnderlayTx), 2);
        }
    }

    #[test]
    fn the_smallest_segments_find_room_however_full_the_outbox() {
        let tunnel = tunnel();
        let (mut outputs, _, port) = outputs(PortKind::Tunnel(Arc::clone(&tunnel)));
        let vnet = VnetHdr { gso_type: GSO_TCPV4, gso_size: 88.into(), ..VnetHdr::default() };
        let (small, big) = (tcp(0, 1), tcp(0, 65_535 - 40));
        let sa = outbound(config());
        for (way, smalls) in [Way::Plain, Way::InUdp(InUdp::Gre), Way::Protected(&sa)]
            .into_iter()
            .flat_map(|w| [0, 200, 300, 500].map(|n| (w, n)))
        {
            for _ in 0..smalls {
                let leaving = leaving(&port, &tunnel, way);
                let fit = tunnel_frame(&mut outputs, leaving, &small, &VnetHdr::default(), &mut |_, _| {});
                assert_eq!(fit, Fit::Sent(1));
            }
            let fit = tunnel_frame(&mut outputs, leaving(&port, &tunnel, way), &big, &vnet, &mut |_, _| {});
            assert_eq!(fit, Fit::Sent(65_495usize.div_ceil(88)), "behind {smalls} others");
        }
    }
}
