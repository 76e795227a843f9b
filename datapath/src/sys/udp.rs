//! UDP sockets that pass trains: many datagrams of one size in one message, cut and joined by the kernel.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, MsgHdr, SockAddr, SockFilter, Socket, Type};

use super::cmsg::Control;
use super::{mmsg, set_buffers, set_option};

// linux/udp.h
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;
const UDP_NO_CHECK6_RX: c_int = 102;

/// Datagrams in one message, at most (UDP_MAX_SEGMENTS of kernels before 6.9; later ones take 128).
pub const TRAIN: usize = 64;
/// Bytes of one message, at most: an IPv4 packet's worth.
pub const TRAIN_BYTES: usize = 65535 - 20 - 8;

/// Where sockets that only send are bound to: of this host, and not used.
const EXIT: Ipv4Addr = Ipv4Addr::new(127, 85, 80, 0);

/// A UDP socket that never fragments, and tells of each message whom it was sent to, and how.
#[derive(Debug)]
pub struct Udp {
    socket: Socket,
    v6: bool,
}

impl Udp {
    /// Bound to `port` of every IPv4 address. `ttl` is what messages go with when nothing beside them says another.
    ///
    /// # Errors
    /// EADDRINUSE: another program has the port. EACCES: it is below 1024, and CAP_NET_BIND_SERVICE is missing.
    pub fn v4(port: u16, ttl: u8, buffers: usize) -> io::Result<Udp> {
        Udp::unbound_v4(ttl)?.bind((Ipv4Addr::UNSPECIFIED, port).into(), buffers)
    }

    /// One that sends from the port of this one, which is for IPv4, and takes nothing in. What it sends must say from which
    /// address.
    ///
    /// Each time that a packet of a socket has left, the kernel wakes whoever waits for that socket: not the one that only
    /// sends. It is bound to an address that nothing comes to from elsewhere, and shares the port only with its other half.
    /// None: there can be none, as while the loopback device is down.
    ///
    /// # Errors
    /// This socket's port could not be closed to others again.
    pub fn exit_v4(&self, ttl: u8, buffers: usize) -> io::Result<Option<Udp>> {
        let share = |socket: &Udp, on| socket.socket.set_reuse_port(on);
        let bound = || {
            let port = self.socket.local_addr()?.as_socket().map_or(0, |a| a.port());
            let exit = Udp::unbound_v4(ttl)?;
            share(&exit, true)?;
            share(self, true)?;
            exit.bind((EXIT, port).into(), buffers).and_then(Udp::deaf)
        };
        let bound = bound();
        share(self, false)?;
        Ok(bound.ok().filter(|exit| share(exit, false).is_ok()))
    }

    fn unbound_v4(ttl: u8) -> io::Result<Udp> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), None)?;
        socket.set_ttl_v4(u32::from(ttl))?;
        // No datagram may come without these, so the socket is bound last.
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, &1i32)?;
        socket.set_recv_tos_v4(true)?;
        Ok(Udp { socket, v6: false })
    }

    /// Bound to `port` of every IPv6 address.
    ///
    /// # Errors
    /// As [`Udp::v4`]; EAFNOSUPPORT when the kernel has no IPv6.
    pub fn v6(port: u16, ttl: u8, buffers: usize) -> io::Result<Udp> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.nonblocking().cloexec(), None)?;
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(u32::from(ttl))?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1i32)?;
        socket.set_recv_tclass_v6(true)?;
        Udp { socket, v6: true }.bind((Ipv6Addr::UNSPECIFIED, port).into(), buffers)
    }

    fn bind(self, to: SocketAddr, buffers: usize) -> io::Result<Udp> {
        set_buffers(&self.socket, buffers)?;
        self.set_whole(true)?;
        // A kernel before 5.0 knows no trains, and hands out each datagram by itself.
        let _ = set_option(&self.socket, libc::IPPROTO_UDP, UDP_GRO, &1i32);
        self.socket.bind(&to.into())?;
        Ok(self)
    }

    /// The same socket, which takes nothing in from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn deaf(self) -> io::Result<Udp> {
        // of whatever arrives it takes the first 0 bytes
        self.socket.attach_filter(&[SockFilter::new(libc::BPF_RET as u16, 0, 0, 0)])?;
        Ok(self)
    }

    /// The same socket, for IPv4, whose datagrams have no checksum from now on (RFC 768); nor are there trains of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn without_checksum(self) -> io::Result<Udp> {
        set_option(&self.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, &1i32)?;
        Ok(self)
    }

    /// Over IPv6, also takes datagrams without checksum from now on (RFC 6935).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_without_checksum(&self) -> io::Result<()> {
        set_option(&self.socket, libc::IPPROTO_UDP, UDP_NO_CHECK6_RX, &1i32)
    }

    /// Whether it is for IPv6.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Sends one datagram, of several parts, by itself. Never blocks.
    ///
    /// # Errors
    /// What the kernel says. EMSGSIZE: longer than the path takes.
    pub fn send(&self, to: SocketAddr, control: &Control, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let to = SockAddr::from(to);
        let message = MsgHdr::new().with_addr(&to).with_buffers(parts).with_control(control.as_bytes());
        self.socket.sendmsg(&message, libc::MSG_DONTWAIT).map(drop)
    }

    /// The same for one that may go in fragments, if the path takes it in no other way. Not from two threads at once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send_in_fragments(
        &self,
        to: SocketAddr,
        control: &Control,
        parts: &[IoSlice<'_>],
    ) -> io::Result<()> {
        match self.send(to, control, parts) {
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
                // What another thread sends meanwhile may be fragmented, too, instead of being refused.
                self.set_whole(false)?;
                let sent = self.send(to, control, parts);
                self.set_whole(true)?;
                sent
            }
            sent => sent,
        }
    }

    /// Whether datagrams are refused with EMSGSIZE when they are longer than the path takes; else they go in fragments.
    fn set_whole(&self, whole: bool) -> io::Result<()> {
        let (level, option, value) = match (self.v6, whole) {
            (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
            (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
            (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
        };
        set_option(&self.socket, level, option, &value)
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Where a received message was sent to.
#[inline]
pub fn destination(message: &mmsg::Received<'_>, v6: bool) -> Option<IpAddr> {
    if v6 {
        let address = message.control::<16>(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)?;
        return Some(IpAddr::from(*address));
    }
    // struct in_pktinfo: interface, our address on the way back, the header's destination
    let info = message.control::<12>(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
    info.last_chunk::<4>().map(|address| IpAddr::from(*address))
}

/// The TOS or traffic class of a received message.
#[inline]
pub fn tos(message: &mmsg::Received<'_>, v6: bool) -> Option<u8> {
    if v6 {
        let class = message.control::<4>(libc::IPPROTO_IPV6, libc::IPV6_TCLASS)?;
        return u8::try_from(c_int::from_ne_bytes(*class)).ok();
    }
    message.control::<1>(libc::IPPROTO_IP, libc::IP_TOS).map(|[tos]| *tos)
}

/// If a received message is a train: the length of its datagrams, of which only the last may be shorter.
#[inline]
pub fn segment_size(message: &mmsg::Received<'_>) -> Option<u32> {
    let size = message.control::<4>(libc::IPPROTO_UDP, UDP_GRO)?;
    u32::try_from(c_int::from_ne_bytes(*size)).ok().filter(|size| *size > 0)
}

/// What a message goes with.
impl Control {
    /// From that address of this host. Of the same family as the socket.
    pub fn source(&mut self, source: IpAddr) {
        match source {
            // struct in_pktinfo and in6_pktinfo, whose interface 0 leaves the route as it is
            IpAddr::V4(a) => {
                let [b0, b1, b2, b3] = a.octets();
                let info = [0, 0, 0, 0, b0, b1, b2, b3, 0, 0, 0, 0];
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(a) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&a.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// With that TOS or traffic class.
    pub fn tos(&mut self, tos: u8, v6: bool) {
        let value = c_int::from(tos).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &value);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TOS, &value);
        }
    }

    /// With that TTL or hop limit.
    pub fn ttl(&mut self, ttl: u8, v6: bool) {
        let value = c_int::from(ttl).to_ne_bytes();
        if v6 {
            self.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &value);
        } else {
            self.push(libc::IPPROTO_IP, libc::IP_TTL, &value);
        }
    }

    /// Cut into datagrams of `size` bytes.
    pub fn train(&mut self, size: u16) {
        self.push(libc::IPPROTO_UDP, UDP_SEGMENT, &size.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::{SLOTS, Slab};

    /// What leaves by the exit comes from the port of its other half, which hears all and shares the port with nobody else.
    #[test]
    fn an_exit_sends_and_hears_nothing() {
        let open = |port| Udp::v4(port, 64, 1 << 20);
        let (here, there) = (open(0).unwrap(), open(0).unwrap());
        let exit = here.exit_v4(64, 1 << 20).unwrap().unwrap();
        let port = |udp: &Udp| udp.socket.local_addr().unwrap().as_socket().unwrap().port();
        let (here_port, there_port) = (port(&here), port(&there));
        assert_eq!(port(&exit), here_port);
        assert_eq!(open(here_port).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let localhost = IpAddr::from([127, 0, 0, 1]);
        let mut control = Control::EMPTY;
        control.source(localhost);
        let send = |from: &Udp, to| {
            from.send(SocketAddr::new(localhost, to), &control, &[IoSlice::new(b"x")]).unwrap();
        };
        let received = |at: &Udp| {
            let mut from = Vec::new();
            let wants = mmsg::Wants { name: true, ..mmsg::Wants::default() };
            let each = |_: &mut Slab, m: mmsg::Received<'_>| from.extend(m.source());
            let _ = mmsg::receive(at.as_fd(), &mut Slab::new(), SLOTS, wants, each);
            from
        };
        send(&exit, there_port);
        assert_eq!(received(&there), [SocketAddr::new(localhost, here_port)]);
        send(&there, here_port);
        assert_eq!(received(&here), [SocketAddr::new(localhost, there_port)]);
        assert_eq!(received(&exit), []);
    }
}
