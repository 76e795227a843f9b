//! GRE and ESP by raw IP sockets. The kernel has reassembled outer fragments before a packet comes here, and fragments none that
//! go: one that does not fit is refused with EMSGSIZE.

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::{Refusal, RxPacket, RxRoad, Sent, Tally, TxPacket};
use crate::slab::Slab;
use crate::sys;
use crate::sys::cmsg::Control;
use crate::sys::mmsg::{self, Received, Refused, Sender, Wants};
use crate::sys::raw_ip::{RawIp, destination_v6, traffic_class};
use crate::wire::proto;

/// Bytes of socket buffer each way: some 3,500 packets of 1,500 bytes while the worker is elsewhere.
const BUFFERS: usize = 8 << 20;

/// How often one call tries again after an error that had been pending on the socket.
const RETRIES: usize = 8;

#[derive(Debug)]
pub(super) struct RawSocket {
    socket: RawIp,
    /// What sends. Each time that a packet of a socket has left, the kernel looks for whoever waits for that socket: nobody waits for
    /// this one. IPv4 alone.
    exit: Option<RawIp>,
    road: RxRoad,
    v6: bool,
    /// An error came up that may have been an ICMP error pending on the socket: its like waits in the error queue, and keeps
    /// the socket in an error state until taken.
    errors: AtomicBool,
    /// What the kernel's count of dropped packets was when last asked.
    drops: AtomicU32,
}

impl RawSocket {
    pub(super) fn v4(road: RxRoad) -> io::Result<RawSocket> {
        let socket = RawSocket::new(RawIp::v4(protocol(road), BUFFERS)?, road, false);
        Ok(RawSocket { exit: Some(RawIp::sender_v4(BUFFERS)?), ..socket })
    }

    pub(super) fn v6(road: RxRoad) -> io::Result<RawSocket> {
        Ok(RawSocket::new(RawIp::v6(protocol(road), BUFFERS)?, road, true))
    }

    fn new(socket: RawIp, road: RxRoad, v6: bool) -> RawSocket {
        let (errors, drops) = (AtomicBool::new(false), AtomicU32::new(0));
        RawSocket { socket, exit: None, road, v6, errors, drops }
    }

    pub(super) fn road(&self) -> RxRoad {
        self.road
    }

    pub(super) fn take_lost(&self) -> u64 {
        let Some(now) = sys::drops(self) else { return 0 };
        u64::from(now.wrapping_sub(self.drops.swap(now, Relaxed)))
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(super) fn rx(&self, slab: &mut Slab, max: usize, out: &mut Vec<RxPacket>) -> io::Result<usize> {
        let wants = Wants { vnet: false, name: self.v6, control: self.v6 };
        let parse = if self.v6 { parse_v6 } else { parse_v4 };
        for _ in 0..RETRIES {
            if self.errors.swap(false, Relaxed) && !self.socket.drain_errors() {
                self.errors.store(true, Relaxed);
            }
            let got = mmsg::receive(self.as_fd(), slab, max, wants, |slab, message| {
                out.extend(parse(self.road, slab, &message).filter(|_| !message.truncated));
            });
            match got.map_err(|e| (e.raw_os_error(), e)) {
                Ok(_) if out.is_empty() => {}
                Ok(n) => return Ok(n),
                Err((Some(libc::EAGAIN | libc::EINTR), _)) => break,
                Err((Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL), error)) => {
                    return Err(error);
                }
                // An ICMP error about something sent earlier: being told has cleared it.
                Err(_) => self.errors.store(true, Relaxed),
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
        let mut report = Report { packets, refused, tally: Tally::default(), suspect: None };
        mmsg::with_sender(|sender| {
            for (i, packet) in packets.iter().enumerate() {
                if sender.is_full() && !self.flush(sender, &mut report) {
                    return;
                }
                let start = packet.start as usize;
                let bytes = buf.get(start..start + packet.len as usize);
                if !bytes.is_some_and(|b| {
                    sender.push(i, Some(SocketAddr::new(packet.dst, 0)), &Control::EMPTY, iter::once(b))
                }) {
                    report.refuse(i, libc::EINVAL);
                }
            }
            self.flush(sender, &mut report);
        });
        report.close()
    }

    /// False: the socket takes no more.
    fn flush(&self, sender: &mut Sender<'_, '_>, report: &mut Report<'_>) -> bool {
        let exit = self.exit.as_ref().unwrap_or(&self.socket);
        let taken = sender.flush(exit.as_fd(), &mut |i, errno| {
            self.errors.store(true, Relaxed);
            report.judge(i, errno)
        });
        report.tally.sent.ok += taken;
        report.tally.rest.is_none()
    }
}

/// The IP protocol of a road that is one.
fn protocol(road: RxRoad) -> u8 {
    match road {
        RxRoad::Gre => proto::GRE,
        RxRoad::Esp => proto::ESP,
        RxRoad::Udp | RxRoad::InUdp(_) => proto::UDP,
    }
}

/// What becomes of a batch while it is sent.
struct Report<'a> {
    packets: &'a [TxPacket],
    refused: &'a mut dyn FnMut(&TxPacket, Refusal),
    tally: Tally,
    /// The packet that met an error last, and is tried once more.
    suspect: Option<usize>,
}

impl Report<'_> {
    /// Packet `i` met an error. It may have been pending from an earlier one, so it is believed when it comes twice.
    fn judge(&mut self, i: usize, errno: i32) -> Refused {
        if Refusal::of(errno) != Refusal::Full && self.suspect.replace(i) != Some(i) {
            return Refused::Again;
        }
        self.refuse(i, errno)
    }

    fn refuse(&mut self, i: usize, errno: i32) -> Refused {
        if let Some(packet) = self.packets.get(i) {
            (self.refused)(packet, Refusal::of(errno));
        }
        self.tally.refuse(errno)
    }

    /// The account of the whole batch; those behind the one that ended it were not tried.
    fn close(self) -> Sent {
        let rest = self.tally.rest.unwrap_or(Refusal::Failed);
        for packet in self.packets.iter().skip(self.tally.tried()) {
            (self.refused)(packet, rest);
        }
        self.tally.close(self.packets.len())
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The packet begins with its IPv4 header (RFC 791 section 3.1).
fn parse_v4(road: RxRoad, slab: &Slab, message: &Received<'_>) -> Option<RxPacket> {
    let bytes = slab.get(message.data);
    let header = bytes.first_chunk::<20>()?;
    let [version_ihl, tos, l0, l1, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = u32::from(version_ihl & 0xf) * 4;
    let total = u32::from(u16::from_be_bytes([l0, l1])).min(message.data.len);
    if version_ihl >> 4 != 4 || header_len < 20 || total < header_len {
        return None;
    }
    let mut data = message.data;
    data.len = total;
    Some(RxPacket {
        data: data.skip(header_len),
        road,
        src_port: 0,
        src: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        dst: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        tos,
    })
}

/// The packet begins behind its IP headers; the addresses stand beside it.
fn parse_v6(road: RxRoad, _: &Slab, message: &Received<'_>) -> Option<RxPacket> {
    Some(RxPacket {
        data: message.data,
        road,
        src_port: 0,
        src: message.source()?.ip(),
        dst: IpAddr::V6(Ipv6Addr::from(destination_v6(message)?)),
        tos: traffic_class(message)?,
    })
}
