//! UDP port 500, opened while there is somebody to talk to. (Port 4500 is the datapath's, which passes up what is IKE.)

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ikev2::{NAT_PORT, PORT, Path};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::devices::reason;

/// Bytes that may wait each way: neither must a burst of strangers crowd out a peer, nor messages that wait for hosts which
/// do not answer ARP.
const BUFFERS: usize = 1 << 20;
/// The longest UDP datagram.
pub const LONGEST: usize = 65535;
/// How long sockets stay open behind the last tunnel, for the messages that tell its peer.
const LINGER: Duration = Duration::from_secs(3);

/// The sockets of both families: IPv4 and IPv6, in this order wherever there are two of something.
#[derive(Debug, Default)]
pub struct Sockets([Family; 2]);

#[derive(Debug, Default)]
struct Family {
    /// A tunnel wants it.
    wanted: bool,
    needed: bool,
    needed_until: Option<Instant>,
    socket: Option<Rc<IkeSocket>>,
    /// Why there is no port 500, and no port 4500, in words for rows.
    trouble: Option<String>,
    nat_trouble: Option<String>,
}

impl Sockets {
    /// Opens and closes sockets; also tries again those that could not be had.
    pub fn keep_for(&mut self, needed: [bool; 2], now: Instant) {
        for ((family, needed), v6) in self.0.iter_mut().zip(needed).zip([false, true]) {
            // from now on, however long ago the last look was
            let was = std::mem::replace(&mut family.wanted, needed);
            if needed || was {
                family.needed_until = Some(now + LINGER);
            }
            family.needed = family.needed_until.is_some_and(|until| now < until);
            if !family.needed {
                *family = Family::default();
            } else if family.socket.is_none() {
                match IkeSocket::open(v6) {
                    Ok(socket) => (family.socket, family.trouble) = (Some(Rc::new(socket)), None),
                    Err(e) => complain(&mut family.trouble, v6, PORT, &e),
                }
            }
        }
    }

    /// Whether each family needs sockets.
    pub fn needed(&self) -> [bool; 2] {
        self.0.each_ref().map(|family| family.needed)
    }

    /// The sockets that are open.
    pub fn open(&self) -> [Option<Rc<IkeSocket>>; 2] {
        self.0.each_ref().map(|family| family.socket.clone())
    }

    /// Notes whether port 4500 could be had.
    pub fn nat_port(&mut self, v6: bool, opened: &io::Result<()>) {
        let [v4_family, v6_family] = &mut self.0;
        let family = if v6 { v6_family } else { v4_family };
        match opened {
            Ok(()) => family.nat_trouble = None,
            Err(e) => complain(&mut family.nat_trouble, v6, NAT_PORT, e),
        }
    }

    /// Why hosts of that family cannot be talked to, in words for a row.
    pub fn trouble(&self, v6: bool) -> Option<&str> {
        let [v4_family, v6_family] = &self.0;
        let family = if v6 { v6_family } else { v4_family };
        family.trouble.as_ref().or(family.nat_trouble.as_ref()).map(String::as_str)
    }
}

fn complain(trouble: &mut Option<String>, v6: bool, port: u16, error: &io::Error) {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let text = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program has UDP port {port} ({family}): stop the IKE daemon of this host (strongSwan's charon, \
             libreswan's pluto), and this tunnel comes up by itself"
        ),
        ErrorKind::PermissionDenied => {
            format!("cannot open UDP port {port} ({family}): this process lacks CAP_NET_BIND_SERVICE")
        }
        _ => format!("cannot open UDP port {port} ({family}): {}", reason(error)),
    };
    if trouble.as_ref() != Some(&text) {
        tracing::error!("{text}");
        *trouble = Some(text);
    }
}

/// A socket on port 500 that knows to which address of this host a datagram came, and answers from there.
#[derive(Debug)]
pub struct IkeSocket {
    socket: UdpSocket,
    v6: bool,
}

impl IkeSocket {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// AddrInUse: another IKE daemon has the port. PermissionDenied: CAP_NET_BIND_SERVICE is missing.
    pub fn open(v6: bool) -> io::Result<IkeSocket> {
        IkeSocket::at(v6, PORT)
    }

    fn at(v6: bool, port: u16) -> io::Result<IkeSocket> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Beyond what the host allows to everybody, where we may
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFERS);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFERS);
        let any: IpAddr = match v6 {
            true => {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                Ipv6Addr::UNSPECIFIED.into()
            }
            false => {
                setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
                Ipv4Addr::UNSPECIFIED.into()
            }
        };
        socket.bind(&SocketAddr::new(any, port).into())?;
        Ok(IkeSocket { socket: UdpSocket::from_std(socket.into())?, v6 })
    }

    /// Returns when there may be something to receive.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram and its length. None: nothing waits, or what waited was of no use.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(Path, usize)>> {
        let received = self.socket.try_io(Interest::READABLE, || match self.v6 {
            true => self.receive_from::<SockaddrIn6>(buffer, |s| SocketAddr::V6((*s).into())),
            false => self.receive_from::<SockaddrIn>(buffer, |s| SocketAddr::V4((*s).into())),
        });
        match received {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other,
        }
    }

    fn receive_from<S: SockaddrLike>(
        &self,
        buffer: &mut [u8],
        address: impl Fn(&S) -> SocketAddr,
    ) -> io::Result<Option<(Path, usize)>> {
        let mut space = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<S>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let to = message.cmsgs()?.find_map(|c| match c {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
            _ => None,
        });
        let from = message.address.as_ref().map(address);
        let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
        Ok(to.zip(from).filter(|_| !truncated).map(|(to, remote)| {
            let path = Path { local: SocketAddr::new(to, PORT), remote };
            (path, message.bytes)
        }))
    }

    /// Sends from the address that `path` names.
    pub fn send(&self, path: &Path, datagram: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(datagram)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        match (path.local.ip(), path.remote) {
            (IpAddr::V4(from), SocketAddr::V4(to)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(to);
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
            }
            (IpAddr::V6(from), SocketAddr::V6(to)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                    ipi6_ifindex: 0,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(*to.ip(), to.port(), 0, to.scope_id()));
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::{eventually, in_namespace, ip};
    use nix::sys::socket::getsockopt;

    #[test]
    fn sockets_come_when_needed_and_linger() {
        in_namespace(async {
            let now = Instant::now();
            let mut sockets = Sockets::default();
            let open = |sockets: &Sockets| sockets.open().map(|s| s.is_some());
            sockets.keep_for([false, false], now);
            assert_eq!((open(&sockets), sockets.needed()), ([false, false], [false, false]));
            let other = std::net::UdpSocket::bind("0.0.0.0:500").unwrap();
            sockets.keep_for([true, false], now);
            assert_eq!((open(&sockets), sockets.needed()), ([false, false], [true, false]));
            assert!(sockets.trouble(false).unwrap().contains("UDP port 500 (IPv4)"));
            drop(other);
            // A program that another test starts just now may hold a copy of it
            eventually("the port is free", || {
                sockets.keep_for([true, false], now);
                (open(&sockets), sockets.trouble(false)) == ([true, false], None)
            })
            .await;
            sockets.nat_port(false, &Err(ErrorKind::AddrInUse.into()));
            assert!(sockets.trouble(false).unwrap().contains("UDP port 4500"));
            sockets.nat_port(false, &Ok(()));
            // they linger from when they are no longer needed, and not from the last look before that
            let now = now + 2 * LINGER;
            sockets.keep_for([false, false], now);
            assert_eq!((open(&sockets), sockets.trouble(false)), ([true, false], None));
            sockets.keep_for([false, false], now + LINGER / 2);
            assert_eq!((open(&sockets), sockets.needed()), ([true, false], [true, false]));
            sockets.keep_for([false, false], now + LINGER);
            assert_eq!((open(&sockets), sockets.needed()), ([false, false], [false, false]));
        });
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        in_namespace(async {
            ip("addr add 192.0.2.7/32 dev lo
                addr add 2001:db8::7/128 nodad dev lo");
            for (v6, asked, other) in
                [(false, "192.0.2.7:500", "127.0.0.1:0"), (true, "[2001:db8::7]:500", "[::1]:0")]
            {
                let socket = IkeSocket::open(v6).unwrap();
                let buffers = [
                    getsockopt(&socket.socket, sockopt::RcvBuf).unwrap(),
                    getsockopt(&socket.socket, sockopt::SndBuf).unwrap(),
                ];
                // the kernel doubles what is asked for
                assert_eq!(buffers, [2 * BUFFERS; 2]);
                let client = UdpSocket::bind(other).await.unwrap();
                // Again if need be: an IPv6 address just added is not always there at once
                let mut buffer = [0; 100];
                while client.send_to(b"hello", asked).await.is_err()
                    || tokio::time::timeout(Duration::from_millis(50), socket.readable()).await.is_err()
                {
                }
                let (path, len) = socket.receive(&mut buffer).unwrap().unwrap();
                assert_eq!(path.local, asked.parse().unwrap());
                assert_eq!((path.remote, &buffer[..len]), (client.local_addr().unwrap(), &b"hello"[..]));
                while socket.receive(&mut [0; 100]).unwrap().is_some() {}
                socket.send(&path, b"there").unwrap();
                let (len, from) = client.recv_from(&mut buffer).await.unwrap();
                assert_eq!((from, &buffer[..len]), (path.local, &b"there"[..]));
                let busy = IkeSocket::open(v6).unwrap_err();
                assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
            }
        });
    }
}
