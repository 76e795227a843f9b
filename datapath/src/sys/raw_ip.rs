//! Raw IP sockets for GRE and ESP: we write the outer IP header ourselves.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};

use libc::c_int;
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{mmsg, set_buffers, set_option};

/// A raw socket that receives every packet of one protocol to this host, and sends packets with the IP header that they bring.
#[derive(Debug)]
pub struct RawIp {
    socket: Socket,
}

impl RawIp {
    /// For an IP protocol over IPv4. Received packets start with their IP header.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn v4(protocol: u8, buffers: usize) -> io::Result<RawIp> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW.nonblocking().cloexec(),
            Some(Protocol::from(c_int::from(protocol))),
        )?;
        socket.set_header_included_v4(true)?;
        // The header that we write is left as it is, so DF is ours to decide. DO makes the kernel hold packets with DF
        // against the path MTU that it knows, not the device's alone, and refuse what is longer with EMSGSIZE.
        // Without IP_RECVERR no ICMP error is ever pending on the socket; path MTUs are learned all the same.
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO)?;
        set_buffers(&socket, buffers)?;
        Ok(RawIp { socket })
    }

    /// One that only sends: IPv4 packets of any protocol.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW.
    pub fn sender_v4(buffers: usize) -> io::Result<RawIp> {
        let raw = RawIp::v4(libc::IPPROTO_RAW as u8, buffers)?;
        // of what arrives with that protocol number, it takes the first 0 bytes: nothing
        raw.socket.attach_filter(&[SockFilter::new(libc::BPF_RET as u16, 0, 0, 0)])?;
        Ok(raw)
    }

    /// For an IP protocol over IPv6. Received packets start behind their IP headers; source, destination and traffic class stand beside.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; EAFNOSUPPORT when the kernel has no IPv6.
    pub fn v6(protocol: u8, buffers: usize) -> io::Result<RawIp> {
        let socket = Socket::new(
            Domain::IPV6,
            Type::RAW.nonblocking().cloexec(),
            Some(Protocol::from(c_int::from(protocol))),
        )?;
        socket.set_header_included_v6(true)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DO)?;
        // Other than with IPv4, the kernel learns path MTUs from packets of an unconnected raw socket only if it wants to hear
        // of errors. They must be taken then: see `drain_errors`.
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1i32)?;
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1i32)?;
        socket.set_recv_tclass_v6(true)?;
        set_buffers(&socket, buffers)?;
        Ok(RawIp { socket })
    }

    /// Sends one packet, of several parts. Never blocks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, to: Ipv4Addr, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(to, 0));
        let message = MsgHdr::new().with_addr(&to).with_buffers(parts);
        self.socket.sendmsg(&message, libc::MSG_DONTWAIT).map(drop)
    }

    /// Takes up to 64 ICMP errors off the socket's error queue, unseen. False: there may be more.
    pub fn drain_errors(&self) -> bool {
        let take = || self.socket.recv_with_flags(&mut [], libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
        (0..64).any(|_| take().is_err())
    }
}

impl AsFd for RawIp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The destination of a received IPv6 packet (RFC 3542 section 6.2).
#[inline]
pub fn destination_v6(message: &mmsg::Received<'_>) -> Option<[u8; 16]> {
    message.control::<16>(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO).copied()
}

/// The traffic class of a received IPv6 packet (RFC 3542 section 6.5).
#[inline]
pub fn traffic_class(message: &mmsg::Received<'_>) -> Option<u8> {
    let bytes = message.control::<4>(libc::IPPROTO_IPV6, libc::IPV6_TCLASS)?;
    u8::try_from(c_int::from_ne_bytes(*bytes)).ok()
}
