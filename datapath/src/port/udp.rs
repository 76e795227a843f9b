//! ESP and IKE in UDP (RFC 3948), and tunnels in UDP: GRE (RFC 8086), VXLAN (RFC 7348), Geneve (RFC 8926). Packets of one tunnel and one size that follow each other in the outbox travel as one
//! message, which the kernel cuts and joins: a train. It costs little more than a single datagram.

mod batch;
mod clear_df;
mod train;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::{DEFAULT_TTL, InUdp, Refusal, RxPacket, RxRoad, SOURCE_PORTS, Sent, TxPacket};
use crate::slab::{Piece, Slab};
use crate::sys;
use crate::sys::cmsg::Control;
use crate::sys::mmsg::{self, Received, Wants};
use crate::sys::udp::{Udp, destination, segment_size, tos};
use crate::wire::natt::{KEEPALIVE, NON_ESP_MARKER};

use batch::Batch;
use clear_df::ClearDf;

/// Bytes of socket buffer each way, as for raw sockets.
const BUFFERS: usize = 8 << 20;

/// Messages received at a time: some hundred datagrams in trains, a megabyte at most.
pub(super) const TRAINS: usize = 16;

/// How often one call tries again after an error that had been pending on the socket.
const RETRIES: usize = 8;

/// Datagrams taken out of one message. The kernel joins no more than 128.
const MOST: u32 = 128;

/// Calls that send without trains after the kernel refused one for no fault of its packets: a device that does not compute
/// checksums takes none.
const PAUSE: u32 = 1024;

/// Which socket a packet leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// The one that it would come by.
    Own,
    /// One of the exits.
    Of(u8),
    /// One of those without checksum.
    Bare(u8),
}

#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: Udp,
    road: RxRoad,
    port: u16,
    /// By what packets leave, each with its port: those of tunnels by several, ESP from our port (RFC 3948). Empty: by `socket`.
    exits: Vec<(Udp, u16)>,
    /// By what those leave that have no UDP checksum; IPv4 alone. Empty: all have one.
    bare: Vec<(Udp, u16)>,
    /// For packets that routers may fragment; IPv4 alone.
    clear_df: Option<ClearDf>,
    /// Calls left that send without trains.
    pause: AtomicU32,
    /// What the kernel's count of dropped packets was when last asked.
    drops: AtomicU32,
    /// Held while an IKE message is sent.
    ike: Mutex<()>,
}

impl UdpSocket {
    pub(super) fn v4(port: u16) -> io::Result<UdpSocket> {
        let socket = UdpSocket::unexited_v4(RxRoad::Udp, port)?;
        // without one, what packets come by they leave by
        let exit = socket.socket.exit_v4(DEFAULT_TTL, BUFFERS)?;
        Ok(UdpSocket { exits: exit.into_iter().map(|exit| (exit, port)).collect(), ..socket })
    }

    fn unexited_v4(road: RxRoad, port: u16) -> io::Result<UdpSocket> {
        let socket = Udp::v4(port, DEFAULT_TTL, BUFFERS).map_err(|e| explain(e, road, port))?;
        Ok(UdpSocket::new(socket, road, port, Some(ClearDf::open()?)))
    }

    pub(super) fn v6(port: u16) -> io::Result<UdpSocket> {
        UdpSocket::unexited_v6(RxRoad::Udp, port)
    }

    fn unexited_v6(road: RxRoad, port: u16) -> io::Result<UdpSocket> {
        let socket = Udp::v6(port, DEFAULT_TTL, BUFFERS).map_err(|e| explain(e, road, port))?;
        Ok(UdpSocket::new(socket, road, port, None))
    }

    pub(super) fn tunnel_v4(kind: InUdp) -> io::Result<UdpSocket> {
        let socket = UdpSocket::unexited_v4(RxRoad::InUdp(kind), kind.port())?;
        let open = |port| Udp::v4(port, DEFAULT_TTL, BUFFERS);
        let bare = match kind {
            InUdp::Gre => Vec::new(),
            InUdp::Vxlan(_) | InUdp::Geneve(_) => exits(|port| open(port)?.without_checksum())?,
        };
        Ok(UdpSocket { exits: exits(open)?, bare, ..socket })
    }

    pub(super) fn tunnel_v6(kind: InUdp) -> io::Result<UdpSocket> {
        let socket = UdpSocket::unexited_v6(RxRoad::InUdp(kind), kind.port())?;
        if !matches!(kind, InUdp::Gre) {
            socket.socket.take_without_checksum()?;
        }
        Ok(UdpSocket { exits: exits(|port| Udp::v6(port, DEFAULT_TTL, BUFFERS))?, ..socket })
    }

    fn new(socket: Udp, road: RxRoad, port: u16, clear_df: Option<ClearDf>) -> UdpSocket {
        let (pause, drops) = (AtomicU32::new(0), AtomicU32::new(0));
        let (exits, bare, ike) = (Vec::new(), Vec::new(), Mutex::default());
        UdpSocket { socket, road, port, exits, bare, clear_df, pause, drops, ike }
    }

    pub(super) fn road(&self) -> RxRoad {
        self.road
    }

    pub(super) fn is_v6(&self) -> bool {
        self.socket.is_v6()
    }

    pub(super) fn take_lost(&self) -> u64 {
        let Some(now) = sys::drops(self) else { return 0 };
        u64::from(now.wrapping_sub(self.drops.swap(now, Relaxed)))
    }

    pub(super) fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxPacket>) -> io::Result<usize> {
        let wants = Wants { vnet: false, name: true, control: true };
        for _ in 0..RETRIES {
            let got = mmsg::receive(self.as_fd(), slab, max, wants, |_, message| {
                if !message.truncated {
                    packets(&message, self.road, self.is_v6(), out);
                }
            });
            match got.map_err(|e| (e.raw_os_error(), e)) {
                Ok(n) => return Ok(n),
                Err((Some(libc::EAGAIN | libc::EINTR), _)) => break,
                Err((Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL), error)) => {
                    return Err(error);
                }
                // It was pending on the socket; being told has cleared it.
                Err(_) => {}
            }
        }
        Ok(0)
    }

    pub(super) fn tx(
        &self,
        buf: &[u8],
        packets: &[TxPacket],
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Sent {
        let pause = self.pause.load(Relaxed);
        if pause > 0 {
            self.pause.store(pause - 1, Relaxed);
        }
        Batch::new(self, buf, packets, pause == 0).send(refused)
    }

    /// One datagram by itself.
    fn send(&self, packet: &TxPacket, bytes: &[u8]) -> io::Result<()> {
        let (exit, port) = self.exit(self.exit_of(packet));
        match &self.clear_df {
            Some(socket) if !packet.df => socket.send(port, packet, bytes),
            _ => exit.send(remote(packet), &self.control(packet), &[IoSlice::new(bytes)]),
        }
    }

    /// Which exit a packet leaves by. An exit from our own port is bound to an address that is no source for a packet which does
    /// not name one.
    fn exit_of(&self, packet: &TxPacket) -> Exit {
        match self.road {
            RxRoad::InUdp(_) if !packet.checksum && !self.bare.is_empty() => Exit::Bare(packet.entropy),
            RxRoad::InUdp(_) => Exit::Of(packet.entropy),
            _ if packet.src.is_some() => Exit::Of(packet.entropy),
            _ => Exit::Own,
        }
    }

    /// That exit, and from which port it sends.
    fn exit(&self, exit: Exit) -> (&Udp, u16) {
        let found = match exit {
            Exit::Own => None,
            Exit::Of(i) => self.exits.get(usize::from(i)),
            Exit::Bare(i) => self.bare.get(usize::from(i)),
        };
        found.map_or((&self.socket, self.port), |(socket, port)| (socket, *port))
    }

    /// What goes beside a packet.
    fn control(&self, packet: &TxPacket) -> Control {
        let mut control = Control::EMPTY;
        if let Some(source) = packet.src {
            control.source(source);
        }
        if packet.tos != 0 {
            control.tos(packet.tos, self.is_v6());
        }
        if packet.ttl != DEFAULT_TTL {
            // the kernel sends none with 0
            control.ttl(packet.ttl.max(1), self.is_v6());
        }
        control
    }

    pub(super) fn send_keepalive(&self, src: IpAddr, remote: SocketAddr) -> io::Result<()> {
        let mut control = Control::EMPTY;
        control.source(src);
        self.socket.send(remote, &control, &[IoSlice::new(&[KEEPALIVE])])
    }

    pub(super) fn send_ike(&self, src: IpAddr, remote: SocketAddr, message: &[u8]) -> io::Result<()> {
        let _guard = self.ike.lock().unwrap_or_else(PoisonError::into_inner);
        let mut control = Control::EMPTY;
        control.source(src);
        let parts = [IoSlice::new(&NON_ESP_MARKER), IoSlice::new(message)];
        self.socket.send_in_fragments(remote, &control, &parts)
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The lowest port that is not registered: RFC 8086 section 3.2.1 wants source ports from here on.
const EPHEMERAL: u16 = 49152;
/// How far the first choices of source ports lie apart: odd, for the sake of hashes that look at the last bits alone.
const STRIDE: u16 = 1021;

/// Sockets that send, and take nothing in: each from a port of its own, the next one where another program has the first choice.
fn exits(open: impl Fn(u16) -> io::Result<Udp>) -> io::Result<Vec<(Udp, u16)>> {
    let exit = |first: u16| {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in first..first + STRIDE {
            match open(port) {
                Ok(socket) => return socket.deaf().map(|socket| (socket, port)),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    };
    (0..u16::from(SOURCE_PORTS)).map(|i| exit(EPHEMERAL + i * STRIDE)).collect()
}

/// Says who may have the port.
fn explain(error: io::Error, road: RxRoad, port: u16) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let who = match road {
        RxRoad::InUdp(InUdp::Gre) => "the kernel (ip fou) or another program take GRE in UDP",
        RxRoad::InUdp(InUdp::Vxlan(_)) => {
            "a vxlan device of the kernel (ip -d link) or another program take VXLAN"
        }
        RxRoad::InUdp(InUdp::Geneve(_)) => {
            "a geneve device of the kernel (ip -d link) or another program take Geneve"
        }
        _ => "another IKE daemon (charon, pluto, racoon) run",
    };
    io::Error::new(io::ErrorKind::AddrInUse, format!("UDP port {port} is taken: does {who} here?"))
}

fn remote(packet: &TxPacket) -> SocketAddr {
    SocketAddr::new(packet.dst, packet.dst_port)
}

/// What a datagram on the ESP port is that came from that port: from 0, which no sender has, what [`super::esp_device`] has put a
/// UDP header on. Whoever forges it says that this is ESP of protocol 50, which is opened like any other, and teaches nobody a port.
fn marked(road: RxRoad, source: u16) -> RxRoad {
    if road == RxRoad::Udp && source == 0 { RxRoad::Esp } else { road }
}

/// The datagrams of a message: one, or as many as the kernel has joined.
fn packets(message: &Received<'_>, road: RxRoad, v6: bool, out: &mut Vec<RxPacket>) {
    let (Some(source), Some(dst), Some(tos)) = (message.source(), destination(message, v6), tos(message, v6))
    else {
        return;
    };
    let len = message.data.len;
    let size = segment_size(message).unwrap_or(len).max(1);
    let packet = |i: u32| RxPacket {
        data: Piece { off: message.data.off + i * size, len: size.min(len - i * size) },
        road: marked(road, source.port()),
        src: source.ip(),
        src_port: source.port(),
        dst,
        tos,
    };
    out.extend((0..len.div_ceil(size).clamp(1, MOST)).map(packet));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_port_0_marks_protocol_50() {
        assert_eq!(marked(RxRoad::Udp, 0), RxRoad::Esp);
        assert_eq!(marked(RxRoad::Udp, 4500), RxRoad::Udp);
        assert_eq!(marked(RxRoad::Udp, 50), RxRoad::Udp);
        assert_eq!(marked(RxRoad::InUdp(InUdp::Gre), 0), RxRoad::InUdp(InUdp::Gre));
    }
}
