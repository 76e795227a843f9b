//! Sockets that tunnels ride on, and the packets that they carry.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::esp_device::Hops;
use super::{Refusal, Sent, raw, udp};
use crate::slab::{Piece, SLOTS, Slab};
use crate::snapshot::PortId;

/// What stands behind the outer IP header of a tunnel's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RxRoad {
    /// GRE, protocol 47.
    Gre,
    /// ESP, protocol 50.
    Esp,
    /// UDP port 4500, and ESP in it (RFC 3948). What [`super::esp_device`] has put a UDP header on comes there, too, and is
    /// [`RxRoad::Esp`].
    Udp,
    /// A tunnel's own header in UDP.
    InUdp(InUdp),
}

/// What a tunnel in UDP puts before the frame, and the port that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InUdp {
    /// GRE (RFC 8086), to port 4754.
    Gre,
    /// VXLAN (RFC 7348), to that port.
    Vxlan(u16),
    /// Geneve (RFC 8926), to that port.
    Geneve(u16),
}

impl InUdp {
    /// The UDP port that its packets go to.
    #[inline]
    pub fn port(self) -> u16 {
        match self {
            InUdp::Gre => GRE_UDP_PORT,
            InUdp::Vxlan(port) | InUdp::Geneve(port) => port,
        }
    }
}

/// A packet received on an underlay socket.
#[derive(Debug, Clone, Copy)]
pub struct RxPacket {
    /// From the tunnel's or the ESP header on, what stands before it and any link-layer trailer cut off. On the UDP road any
    /// datagram's payload: [`crate::wire::natt`] tells ESP from the rest.
    pub data: Piece,
    /// What it came in.
    pub road: RxRoad,
    /// Outer source.
    pub src: IpAddr,
    /// UDP source port; 0 where there is none.
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
    /// How many packets it stands for (for counters): more than one where the kernel cuts it.
    pub packets: u32,
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
    /// Which of the road's source ports it leaves by (less than [`SOURCE_PORTS`]); 0 where there is one.
    pub entropy: u8,
    /// Has a UDP checksum. Over IPv6 it has one in any case, as has what knows nothing else; only with one it can go in a train.
    pub checksum: bool,
}

impl TxPacket {
    /// One for a raw socket, whose bytes say the rest. `frame` is left 0.
    pub fn raw(start: u32, len: u32, dst: IpAddr, port: PortId) -> TxPacket {
        TxPacket {
            start,
            len,
            frame: 0,
            packets: 1,
            dst,
            port,
            dst_port: 0,
            src: None,
            tos: 0,
            ttl: DEFAULT_TTL,
            df: true,
            entropy: 0,
            checksum: true,
        }
    }
}

/// The UDP port that GRE is sent to (RFC 8086 section 3.2.2).
pub const GRE_UDP_PORT: u16 = 4754;

/// The UDP port of VXLAN (RFC 7348 section 5) where nothing else is said.
pub const VXLAN_PORT: u16 = 4789;

/// The UDP port of Geneve (RFC 8926 section 3.3) where nothing else is said.
pub const GENEVE_PORT: u16 = 6081;

/// From how many ports tunnels in UDP send: enough for links and receive queues on the way to share the flows, and few
/// enough for each port to be a socket.
pub const SOURCE_PORTS: u8 = 16;

/// The TTL or hop limit of outer packets when nothing else says.
pub const DEFAULT_TTL: u8 = 64;

/// A socket that tunnel packets come and go by.
#[derive(Debug)]
pub struct Underlay {
    socket: Socket,
    /// Of ESP over IPv4: who is reached by a lane, and not by the socket.
    hops: ArcSwapOption<Hops>,
}

#[derive(Debug)]
enum Socket {
    Raw(raw::RawSocket),
    Udp(udp::UdpSocket),
}

impl From<raw::RawSocket> for Underlay {
    fn from(socket: raw::RawSocket) -> Underlay {
        Underlay { socket: Socket::Raw(socket), hops: ArcSwapOption::empty() }
    }
}

impl From<udp::UdpSocket> for Underlay {
    fn from(socket: udp::UdpSocket) -> Underlay {
        Underlay { socket: Socket::Udp(socket), hops: ArcSwapOption::empty() }
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

    /// Tunnels of that kind in UDP over IPv4.
    ///
    /// # Errors
    /// AddrInUse: another program, or the kernel, has their port. EPERM: CAP_NET_RAW is missing.
    pub fn in_udp4(kind: InUdp) -> io::Result<Underlay> {
        Ok(udp::UdpSocket::tunnel_v4(kind)?.into())
    }

    /// Tunnels of that kind in UDP over IPv6.
    ///
    /// # Errors
    /// As [`Underlay::in_udp4`]. EAFNOSUPPORT: the kernel has no IPv6.
    pub fn in_udp6(kind: InUdp) -> io::Result<Underlay> {
        Ok(udp::UdpSocket::tunnel_v6(kind)?.into())
    }

    /// What its packets travel in.
    pub fn road(&self) -> RxRoad {
        match &self.socket {
            Socket::Raw(s) => s.road(),
            Socket::Udp(s) => s.road(),
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
            Socket::Raw(s) => match &*self.hops.load() {
                Some(hops) => hops.tx(s, buf, packets, refused),
                None => s.tx(buf, packets, refused),
            },
            Socket::Udp(s) => s.tx(buf, packets, refused),
        }
    }

    /// Whom to reach by a lane from now on; for ESP over IPv4. All others, and what does not fit there, go by the socket.
    pub fn set_hops(&self, hops: Option<Arc<Hops>>) {
        if self.road() == RxRoad::Esp && !self.is_ipv6() {
            self.hops.store(hops);
        }
    }

    /// Whom it reaches by a lane.
    pub fn hops(&self) -> Option<Arc<Hops>> {
        self.hops.load_full()
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
