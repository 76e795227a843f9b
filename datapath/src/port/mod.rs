//! Where frames enter and leave: local devices ([`LocalPort`]) and the sockets that tunnels ride on ([`Underlay`]).
//!
//! All of them take and give batches, refer to the worker's [`Slab`], and never block. They are shared by `Arc`
//! between control (which opens them) and workers; receiving is done by one worker only, sending by any.
#![allow(unused_variables, missing_docs, clippy::unimplemented)] // bodies follow

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::slab::{Piece, Slab};
use crate::txq::TxQueue;
use crate::vnet::VnetHdr;

/// A frame received from a local port.
#[derive(Debug, Clone, Copy)]
pub struct RxFrame {
    /// The Ethernet frame, a VLAN tag that the kernel had stripped put back.
    pub data: Piece,
    /// Its offload header; offsets count from the frame's first byte (a restored tag is accounted for).
    pub vnet: VnetHdr,
}

/// A packet received on an underlay socket.
#[derive(Debug, Clone, Copy)]
pub struct RxPacket {
    /// From the GRE header on, the outer IP header and any link-layer trailer cut off.
    pub data: Piece,
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Outer TOS or traffic class (its last two bits are ECN).
    pub tos: u8,
}

/// One datagram to send on an underlay.
#[derive(Debug, Clone, Copy)]
pub struct TxPacket {
    /// Where in the buffer: IP header included.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// Outer destination.
    pub dst: IpAddr,
    /// Which port's tunnel it belongs to (for counters and path MTU).
    pub port: crate::snapshot::PortId,
}

/// What became of a batch that was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Taken by the kernel.
    pub ok: usize,
    /// Refused for lack of buffers (ENOBUFS, EAGAIN): congestion.
    pub full: usize,
    /// Refused for another reason (device down, no route, too big).
    pub failed: usize,
}

/// A device of this host.
#[derive(Debug)]
pub enum LocalPort {}

impl LocalPort {
    /// A packet socket on the device, which must exist in the calling thread's network namespace.
    /// Sets promiscuous mode, virtio_net_hdr, auxdata, PACKET_IGNORE_OUTGOING.
    pub fn packet(device: &str) -> io::Result<LocalPort> {
        unimplemented!()
    }
    /// Makes a TAP of that name with virtio_net_hdr and all offloads. It goes when the port is dropped.
    pub fn tap(device: &str) -> io::Result<LocalPort> {
        unimplemented!()
    }
    /// Interface index in the namespace it was opened in.
    pub fn ifindex(&self) -> u32 {
        unimplemented!()
    }
    /// MTU last told by control (0: unknown, no limit).
    pub fn mtu(&self) -> u32 {
        unimplemented!()
    }
    /// Control saw the device's MTU change.
    pub fn set_mtu(&self, mtu: u32) {}
    /// Receives up to `max` (≤ SLOTS) frames into the slab's slots. Clears `out` first. Ok(0): nothing waiting.
    pub fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<usize> {
        unimplemented!()
    }
    /// Sends the queue in order. Never blocks.
    pub fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        unimplemented!()
    }
}

impl AsFd for LocalPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
}

/// A socket that tunnel packets come and go by.
#[derive(Debug)]
pub enum Underlay {}

impl Underlay {
    /// GRE (protocol 47) over IPv4 by a raw socket, sending with our own IP header.
    pub fn gre4() -> io::Result<Underlay> {
        unimplemented!()
    }
    /// GRE over IPv6 by a raw socket.
    pub fn gre6() -> io::Result<Underlay> {
        unimplemented!()
    }
    /// Receives up to `max` (≤ SLOTS) packets. Clears `out` first. Ok(0): nothing waiting.
    pub fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxPacket>) -> io::Result<usize> {
        unimplemented!()
    }
    /// Sends datagrams out of `buf`. Calls `refused` with the port of each that the kernel found too big (EMSGSIZE).
    pub fn tx(
        &self,
        buf: &[u8],
        packets: &[TxPacket],
        refused: &mut dyn FnMut(crate::snapshot::PortId),
    ) -> Sent {
        unimplemented!()
    }
}

impl AsFd for Underlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
}
