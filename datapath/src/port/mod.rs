//! Where frames enter and leave: local devices ([`LocalPort`]) and the sockets that tunnels ride on ([`Underlay`]).
//!
//! All of them take and give batches, refer to the worker's [`Slab`], and never block. They are shared by `Arc`
//! between control (which opens them) and workers; receiving is done by one worker only, sending by any.

#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod packet;
mod raw;
mod tap;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::slab::{Piece, SLOTS, Slab};
use crate::snapshot::PortId;
use crate::sys::mmsg::Refused;
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

/// What stands behind the outer IP header of a tunnel's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RxRoad {
    /// GRE, protocol 47.
    Gre,
    /// ESP, protocol 50.
    Esp,
    /// UDP port 4500, and ESP in it (RFC 3948).
    Udp,
}

/// A packet received on an underlay socket.
#[derive(Debug, Clone, Copy)]
pub struct RxPacket {
    /// From the GRE or ESP header on, what stands before it and any link-layer trailer cut off. On the UDP road any
    /// datagram's payload: [`crate::wire::natt`] tells ESP from the rest.
    pub data: Piece,
    /// What it came in.
    pub road: RxRoad,
    /// Outer source.
    pub src: IpAddr,
    /// UDP source port; 0 on other roads.
    pub src_port: u16,
    /// Outer destination.
    pub dst: IpAddr,
    /// Outer TOS or traffic class (its last two bits are ECN).
    pub tos: u8,
}

/// One datagram to send on an underlay.
#[derive(Debug, Clone, Copy)]
pub struct TxPacket {
    /// Where in the buffer. A raw socket's packet begins with its IP header; a UDP socket's has neither IP nor UDP header.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
    /// Bytes of inner frame in it (for counters).
    pub frame: u32,
    /// Outer destination.
    pub dst: IpAddr,
    /// Which port's tunnel it belongs to (for counters and path MTU).
    pub port: PortId,
    /// UDP destination port. This and what follows is for UDP sockets alone: elsewhere it stands in the IP header.
    pub dst_port: u16,
    /// Outer source; None: what the route says.
    pub src: Option<IpAddr>,
    /// Outer TOS or traffic class.
    pub tos: u8,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// May not be fragmented on its way. IPv6 never is.
    pub df: bool,
}

impl TxPacket {
    /// One for a raw socket, whose bytes say the rest. `frame` is left 0.
    pub fn raw(start: u32, len: u32, dst: IpAddr, port: PortId) -> TxPacket {
        TxPacket {
            start,
            len,
            frame: 0,
            dst,
            port,
            dst_port: 0,
            src: None,
            tos: 0,
            ttl: DEFAULT_TTL,
            df: true,
        }
    }
}

/// The TTL or hop limit of outer packets when nothing else says.
pub const DEFAULT_TTL: u8 = 64;

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
pub struct LocalPort {
    device: Device,
    mtu: AtomicU32,
}

#[derive(Debug)]
enum Device {
    Packet(packet::PacketPort),
    Tap(tap::TapPort),
    #[cfg(any(test, feature = "memory"))]
    Memory(memory::MemoryPort),
}

impl From<Device> for LocalPort {
    fn from(device: Device) -> LocalPort {
        LocalPort { device, mtu: AtomicU32::new(0) }
    }
}

impl LocalPort {
    /// A packet socket on the device, which must exist in the calling thread's network namespace.
    /// Sets promiscuous mode, virtio_net_hdr, auxdata, PACKET_IGNORE_OUTGOING.
    ///
    /// # Errors
    /// ENODEV: no such device. EPERM: CAP_NET_RAW is missing. InvalidInput: its frames are not Ethernet.
    pub fn packet(device: &str) -> io::Result<LocalPort> {
        Ok(Device::Packet(packet::PacketPort::open(device)?).into())
    }

    /// Makes a TAP of that name with virtio_net_hdr and all offloads. It goes when the port is dropped.
    ///
    /// # Errors
    /// EBUSY: another process has it. EINVAL: a device of that name is there already and no TAP, or the name is none.
    /// EPERM: CAP_NET_ADMIN is missing. ENOENT: /dev/net/tun is missing.
    pub fn tap(device: &str) -> io::Result<LocalPort> {
        Ok(Device::Tap(tap::TapPort::open(device)?).into())
    }

    /// A port that ends in the handle returned beside it, for tests without devices.
    #[cfg(any(test, feature = "memory"))]
    pub fn memory() -> io::Result<(LocalPort, std::sync::Arc<memory::Far>)> {
        let (port, far) = memory::MemoryPort::open()?;
        Ok((Device::Memory(port).into(), far))
    }

    /// Interface index in the namespace it was opened in.
    pub fn ifindex(&self) -> u32 {
        match &self.device {
            Device::Packet(p) => p.ifindex(),
            Device::Tap(p) => p.ifindex(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => 0,
        }
    }

    /// MTU last told by control (0: unknown, no limit).
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// Control saw the device's MTU change.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }

    /// Receives up to `max` (≤ SLOTS) frames into the slab's slots. Clears `out` first. Ok(0): nothing waiting, or what
    /// waited could not be taken (see [`LocalPort::lost`]).
    ///
    /// # Errors
    /// The device is gone for good. A device that is merely down is silent instead.
    pub fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxFrame>) -> io::Result<usize> {
        out.clear();
        match &self.device {
            Device::Packet(p) => p.rx(slab, max, out)?,
            Device::Tap(p) => p.rx(slab, max, out)?,
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.rx(slab, max, out)?,
        }
        Ok(out.len())
    }

    /// Sends the queue in order. Never blocks.
    pub fn tx(&self, slab: &Slab, queue: &TxQueue) -> Sent {
        match &self.device {
            Device::Packet(p) => p.tx(slab, queue),
            Device::Tap(p) => p.tx(slab, queue),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.tx(slab, queue),
        }
    }

    /// Frames that arrived and could not be received, since the port was opened: longer than a slot, of a kind of offload
    /// that virtio_net_hdr cannot tell, or finding the socket's buffer full. One system call.
    pub fn lost(&self) -> u64 {
        match &self.device {
            Device::Packet(p) => p.lost(),
            Device::Tap(p) => p.lost(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => 0,
        }
    }

    /// The device has been removed, or moved to another namespace. `rx` says so only when that happens to a device that is
    /// up; this finds out about the others. One system call.
    pub fn is_gone(&self) -> bool {
        match &self.device {
            Device::Packet(p) => p.is_gone(),
            Device::Tap(p) => p.is_gone(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(_) => false,
        }
    }
}

impl AsFd for LocalPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.device {
            Device::Packet(p) => p.as_fd(),
            Device::Tap(p) => p.as_fd(),
            #[cfg(any(test, feature = "memory"))]
            Device::Memory(p) => p.as_fd(),
        }
    }
}

/// A socket that tunnel packets come and go by.
#[derive(Debug)]
pub struct Underlay {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Raw(raw::RawSocket),
    Udp(udp::UdpSocket),
}

impl From<raw::RawSocket> for Underlay {
    fn from(socket: raw::RawSocket) -> Underlay {
        Underlay { socket: Socket::Raw(socket) }
    }
}

impl From<udp::UdpSocket> for Underlay {
    fn from(socket: udp::UdpSocket) -> Underlay {
        Underlay { socket: Socket::Udp(socket) }
    }
}

impl Underlay {
    /// GRE (protocol 47) over IPv4 by a raw socket, sending with our own IP header.
    ///
    /// # Errors
    /// EPERM: CAP_NET_RAW is missing.
    pub fn gre4() -> io::Result<Underlay> {
        Ok(raw::RawSocket::v4(RxRoad::Gre)?.into())
    }

    /// GRE over IPv6 by a raw socket.
    ///
    /// # Errors
    /// EPERM: CAP_NET_RAW is missing. EAFNOSUPPORT: the kernel has no IPv6.
    pub fn gre6() -> io::Result<Underlay> {
        Ok(raw::RawSocket::v6(RxRoad::Gre)?.into())
    }

    /// ESP (protocol 50) over IPv4 by a raw socket, sending with our own IP header.
    ///
    /// # Errors
    /// As [`Underlay::gre4`].
    pub fn esp4() -> io::Result<Underlay> {
        Ok(raw::RawSocket::v4(RxRoad::Esp)?.into())
    }

    /// ESP over IPv6 by a raw socket.
    ///
    /// # Errors
    /// As [`Underlay::gre6`].
    pub fn esp6() -> io::Result<Underlay> {
        Ok(raw::RawSocket::v6(RxRoad::Esp)?.into())
    }

    /// ESP and IKE in UDP over IPv4 (RFC 3948), at `port`: 4500 but in tests.
    ///
    /// # Errors
    /// AddrInUse: another program has the port, which is another IKE daemon. EPERM: CAP_NET_RAW is missing.
    pub fn udp4(port: u16) -> io::Result<Underlay> {
        Ok(udp::UdpSocket::v4(port)?.into())
    }

    /// ESP and IKE in UDP over IPv6, at `port`.
    ///
    /// # Errors
    /// As [`Underlay::udp4`]. EAFNOSUPPORT: the kernel has no IPv6.
    pub fn udp6(port: u16) -> io::Result<Underlay> {
        Ok(udp::UdpSocket::v6(port)?.into())
    }

    /// What its packets travel in.
    pub fn road(&self) -> RxRoad {
        match &self.socket {
            Socket::Raw(s) => s.road(),
            Socket::Udp(_) => RxRoad::Udp,
        }
    }

    /// Whether its packets are IPv6.
    pub fn is_ipv6(&self) -> bool {
        match &self.socket {
            Socket::Raw(s) => s.is_v6(),
            Socket::Udp(s) => s.is_v6(),
        }
    }

    /// How many messages to ask for at a time: what they hold should be worth a batch, and no more.
    pub fn batch(&self) -> usize {
        match &self.socket {
            Socket::Raw(_) => SLOTS,
            Socket::Udp(_) => udp::TRAINS,
        }
    }

    /// Receives up to `max` (≤ SLOTS) messages, and from them any number of packets: a UDP message may hold many. Clears `out`
    /// first. Returns how many messages came; Ok(0): nothing waiting.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxPacket>) -> io::Result<usize> {
        out.clear();
        match &self.socket {
            Socket::Raw(s) => s.rx(slab, max, out),
            Socket::Udp(s) => s.rx(slab, max, out),
        }
    }

    /// Packets that found the socket's buffer full since the last call. One system call.
    pub fn take_lost(&self) -> u64 {
        match &self.socket {
            Socket::Raw(s) => s.take_lost(),
            Socket::Udp(s) => s.take_lost(),
        }
    }

    /// Sends packets out of `buf`, in order. Calls `refused` with each that did not go, and why.
    pub fn tx(&self, buf: &[u8], packets: &[TxPacket], refused: &mut dyn FnMut(&TxPacket, Refusal)) -> Sent {
        match &self.socket {
            Socket::Raw(s) => s.tx(buf, packets, refused),
            Socket::Udp(s) => s.tx(buf, packets, refused),
        }
    }

    /// Sends an IKE message on a UDP socket, the non-ESP marker before it; longer than the path takes it goes in fragments.
    /// Any thread may, at any time.
    ///
    /// # Errors
    /// What the kernel says: no route, no room. Unsupported on a raw socket.
    pub fn send_ike(&self, src: IpAddr, remote: SocketAddr, message: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Raw(_) => Err(io::ErrorKind::Unsupported.into()),
            Socket::Udp(s) => s.send_ike(src, remote, message),
        }
    }

    /// Sends the byte that keeps a NAT's mapping alive (RFC 3948 section 2.3) on a UDP socket. Any thread may, at any time.
    ///
    /// # Errors
    /// What the kernel says. Unsupported on a raw socket.
    pub fn send_keepalive(&self, src: IpAddr, remote: SocketAddr) -> io::Result<()> {
        match &self.socket {
            Socket::Raw(_) => Err(io::ErrorKind::Unsupported.into()),
            Socket::Udp(s) => s.send_keepalive(src, remote),
        }
    }
}

impl AsFd for Underlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Raw(s) => s.as_fd(),
            Socket::Udp(s) => s.as_fd(),
        }
    }
}

/// Keeps account of a batch while it is sent.
#[derive(Debug, Default)]
struct Tally {
    sent: Sent,
    /// The device takes nothing more now: what is left of the batch is of this kind, and not tried.
    rest: Option<Refusal>,
}

/// Why something was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Lack of buffers: congestion.
    Full,
    /// Longer than the device or the path takes (EMSGSIZE).
    TooBig,
    /// Another reason.
    Failed,
}

impl Refusal {
    fn of(errno: i32) -> Refusal {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Refusal::Full,
            libc::EMSGSIZE => Refusal::TooBig,
            _ => Refusal::Failed,
        }
    }
}

impl Tally {
    /// One was refused with that error.
    fn refuse(&mut self, errno: i32) -> Refused {
        let refusal = Refusal::of(errno);
        // No room in the socket, or the device is down or gone: the same awaits every other.
        // ENOBUFS is different: the kernel dropped this one (a queue was full), the next may find room.
        if matches!(
            errno,
            libc::EAGAIN | libc::ENETDOWN | libc::ENXIO | libc::ENODEV | libc::EIO | libc::EBADFD
        ) {
            self.rest = Some(refusal);
        }
        self.add(refusal, 1);
        if self.rest.is_none() { Refused::Skip } else { Refused::Stop }
    }

    fn add(&mut self, refusal: Refusal, n: usize) {
        match refusal {
            Refusal::Full => self.sent.full += n,
            Refusal::TooBig | Refusal::Failed => self.sent.failed += n,
        }
    }

    fn refused(&self) -> usize {
        self.sent.full + self.sent.failed
    }

    fn tried(&self) -> usize {
        self.sent.ok + self.refused()
    }

    /// The account of a batch of `all`, those not tried included.
    fn close(mut self, all: usize) -> Sent {
        self.add(self.rest.unwrap_or(Refusal::Failed), all.saturating_sub(self.tried()));
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_of_a_batch_is_accounted_for() {
        let mut t = Tally::default();
        assert_eq!(t.refuse(libc::ENOBUFS), Refused::Skip);
        assert_eq!(t.refuse(libc::EMSGSIZE), Refused::Skip);
        t.sent.ok += 3;
        assert_eq!(t.refuse(libc::EAGAIN), Refused::Stop);
        assert_eq!(t.close(10), Sent { ok: 3, full: 6, failed: 1 });
        let mut t = Tally::default();
        assert_eq!(t.refuse(libc::ENETDOWN), Refused::Stop);
        assert_eq!(t.close(4), Sent { ok: 0, full: 0, failed: 4 });
    }
}
