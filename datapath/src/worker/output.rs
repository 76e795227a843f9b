//! Where a batch's frames wait until it ends: a queue for each local port, an outbox for each underlay.

use std::sync::Arc;

use super::forward::Passing;
use crate::counters::{DropCell, DropReason, bump};
use crate::offload::{Coalescer, Fit, FrameSink, fit};
use crate::port::{LocalPort, Underlay};
use crate::slab::Slab;
use crate::snapshot::{Port, PortId, PortKind, Snapshot};
use crate::tunnel::Tunnel;
use crate::tunnel::encap::{Encap, Outbox};
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;
use crate::wire::parse::{Ip, Link};

/// Room that an outbox must have before a frame is fitted into it: a superframe of 64 KiB in packets of the smallest
/// MTU that IPv4 knows of in practice (576), with headers.
const OUTBOX_BYTES: usize = 96 * 1024;
const OUTBOX_PACKETS: usize = 160;

/// The queue of one local port.
#[derive(Debug)]
struct LocalOutput {
    queue: TxQueue,
    coalescer: Coalescer,
    waiting: bool,
}

/// One underlay's outbox; the socket is None while no tunnel needs it.
#[derive(Debug, Default)]
struct UnderlayOutput {
    socket: Option<Arc<Underlay>>,
    outbox: Option<Box<Outbox>>,
}

/// All outputs of one worker.
#[derive(Debug)]
pub(super) struct Outputs {
    worker: usize,
    /// By port id; made when the port is first sent to.
    local: Vec<Option<Box<LocalOutput>>>,
    /// Local ports with something waiting.
    waiting: Vec<PortId>,
    v4: UnderlayOutput,
    v6: UnderlayOutput,
    scratch: Vec<u8>,
}

impl Outputs {
    pub(super) fn new(worker: usize) -> Outputs {
        Outputs {
            worker,
            local: Vec::new(),
            waiting: Vec::with_capacity(64),
            v4: UnderlayOutput::default(),
            v6: UnderlayOutput::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes up a new snapshot. Nothing waits between batches.
    pub(super) fn update(&mut self, snapshot: &Snapshot) {
        self.local.resize_with(snapshot.ports.len(), || None);
        for (output, port) in self.local.iter_mut().zip(&snapshot.ports) {
            if !matches!(port.as_deref(), Some(Port { kind: PortKind::Local(_), .. })) {
                *output = None;
            }
        }
        let first = |v6| snapshot.underlays.iter().find(|u| u.is_ipv6() == v6).cloned();
        self.v4.socket = first(false);
        self.v6.socket = first(true);
    }

    /// Queues a frame for a local port.
    pub(super) fn local(&mut self, port: &Port, device: &LocalPort, slab: &mut Slab, frame: Passing) -> Fit {
        let Some(entry) = self.local.get_mut(usize::from(port.id.0)) else {
            return Fit::Dropped(DropReason::NoBridge);
        };
        let output = entry.get_or_insert_with(|| {
            Box::new(LocalOutput { queue: TxQueue::new(), coalescer: Coalescer::new(), waiting: false })
        });
        if !std::mem::replace(&mut output.waiting, true) {
            self.waiting.push(port.id);
        }
        let limit = max_frame(device, slab.get(frame.data));
        if !frame.vnet.is_gso() && frame.data.len as usize > limit {
            // rare: the devices of this bridge differ in MTU
            self.scratch.clear();
            self.scratch.extend_from_slice(slab.get(frame.data));
            let mut sink = Spill { slab, queue: &mut output.queue, full: false };
            let fitted = fit(&self.scratch, &frame.vnet, limit, &mut sink);
            return if sink.full { Fit::Dropped(DropReason::NoRoom) } else { fitted };
        }
        if frame.tunneled {
            output.coalescer.push(slab, frame.data, &mut output.queue);
        } else {
            output.queue.push(frame.vnet, &[frame.data]);
        }
        Fit::Sent(1)
    }

    /// Fits a frame into a tunnel's packets.
    pub(super) fn tunnel(
        &mut self,
        port: &Port,
        tunnel: &Tunnel,
        frame: &[u8],
        vnet: &VnetHdr,
        drops: &DropCell,
        refused: &mut dyn FnMut(PortId),
    ) -> Fit {
        let underlay = if tunnel.config.remote.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if underlay.outbox.as_ref().is_some_and(|o| o.short_of(OUTBOX_BYTES, OUTBOX_PACKETS)) {
            underlay.flush(drops, refused);
        }
        let outbox = underlay.outbox.get_or_insert_default();
        let inner = Link::parse(frame).and_then(|link| Ip::parse(frame, &link));
        let Some(mut encap) = Encap::new(tunnel, port.id, inner.as_ref(), outbox) else {
            return Fit::Dropped(DropReason::UnderlayTx);
        };
        let fitted = fit(frame, vnet, tunnel.max_frame(), &mut encap);
        encap.finish();
        let cell = port.counters.cell(self.worker);
        bump(&cell.tx_packets, encap.packets);
        bump(&cell.tx_bytes, encap.bytes);
        if encap.full { Fit::Dropped(DropReason::NoRoom) } else { fitted }
    }

    /// Sends everything that waits.
    pub(super) fn flush(
        &mut self,
        slab: &mut Slab,
        snapshot: &Snapshot,
        drops: &DropCell,
        refused: &mut dyn FnMut(PortId),
    ) {
        self.v4.flush(drops, refused);
        self.v6.flush(drops, refused);
        for id in self.waiting.drain(..) {
            let output = self.local.get_mut(usize::from(id.0)).and_then(Option::as_mut);
            let Some((output, port)) = output.zip(snapshot.port(id)) else { continue };
            if let PortKind::Local(device) = &port.kind {
                output.flush(slab, port, device, self.worker, drops);
            }
        }
    }
}

impl LocalOutput {
    fn flush(&mut self, slab: &mut Slab, port: &Port, device: &LocalPort, worker: usize, drops: &DropCell) {
        self.waiting = false;
        self.coalescer.flush(slab, &mut self.queue);
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
    fn flush(&mut self, drops: &DropCell, refused: &mut dyn FnMut(PortId)) {
        let Some(outbox) = &mut self.outbox else { return };
        let (buf, packets) = outbox.packets();
        if packets.is_empty() {
            return;
        }
        let sent = self.socket.as_ref().map(|s| s.tx(buf, packets, refused)).unwrap_or_default();
        if sent.ok < packets.len() {
            drops.add(DropReason::UnderlayTx, (packets.len() - sent.ok) as u64);
        }
        outbox.clear();
    }
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

/// The longest frame that the device sends as it is: its MTU does not count the Ethernet header with its tags.
fn max_frame(device: &LocalPort, frame: &[u8]) -> usize {
    match device.mtu() {
        0 => usize::MAX,
        mtu => mtu as usize + Link::parse(frame).map_or(0, |link| link.len),
    }
}
