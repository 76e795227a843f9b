//! Outward: trains of ESP, cut by the kernel as if they were UDP.

use std::collections::HashMap;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::Arc;

use foldhash::fast::RandomState;
use zerocopy::IntoBytes;

use super::programs;
use crate::port::raw::RawSocket;
use crate::port::{Refusal, Sent, Tally, TxPacket};
use crate::sys;
use crate::sys::bpf::{Link, Map, MapKind};
use crate::sys::cmsg::Control;
use crate::sys::mmsg::{self, Refused};
use crate::sys::packet_socket::PacketSender;
use crate::sys::udp::TRAIN;
use crate::vnet::{F_NEEDS_CSUM, GSO_NONE, GSO_UDP_L4, VNET_LEN, VnetHdr};
use crate::wire::udp::{self, Udp};
use crate::wire::{ethernet, ipv4, proto, put16};

/// Bytes of send buffer.
const BUFFER: usize = 8 << 20;

/// Devices that packets may leave by.
const DEVICES: u32 = 256;

/// Trains that one system call takes.
const BATCH: usize = 32;

/// What goes in front of a train.
const HEAD: usize = VNET_LEN + ethernet::HEADER + ipv4::HEADER + udp::HEADER;
const IP: usize = VNET_LEN + ethernet::HEADER;
const UDP: usize = IP + ipv4::HEADER;

/// The pair of devices that trains are cut between. It lives in a namespace of its own, and goes with this.
#[derive(Debug)]
pub struct Lane {
    socket: PacketSender,
    devices: Map,
    _link: Link,
}

/// The way that packets to a host leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// By this device, which [`Lane::reach`] has been told of.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub from: [u8; 6],
    /// That of the next hop.
    pub to: [u8; 6],
    /// MTU of the path, in bytes of IP packet. Longer packets are left to the raw socket, which says so.
    pub mtu: u32,
}

/// A lane, and who is reached by it: the others are not. Immutable, so that workers read it without a lock.
#[derive(Debug)]
pub struct Hops {
    /// The lane.
    pub lane: Arc<Lane>,
    /// By outer destination.
    pub to: Ways,
}

/// How far ends are reached, by outer destination.
pub type Ways = HashMap<Ipv4Addr, Hop, RandomState>;

impl Lane {
    /// MTU that both devices must have. Longer packets cannot go by the lane: its driver keeps them in a page.
    pub const MTU: u32 = 3000;

    /// Makes a lane of the two ends of a veth pair in the calling thread's network namespace. Nothing leaves yet.
    ///
    /// # Errors
    /// EPERM: CAP_BPF or CAP_SYS_ADMIN is missing, or eBPF is locked down. Others: this kernel is too old.
    pub fn open(near: &str, far: &str) -> io::Result<Lane> {
        let devices =
            Map::new(MapKind::DevMapHash, size_of::<u32>(), size_of::<u32>(), DEVICES, "up_esp_devs")?;
        let link = programs::outward(devices.as_fd())?.attach_in_driver(sys::ifindex(far)?)?;
        Ok(Lane { socket: PacketSender::open(sys::ifindex(near)?, 0, BUFFER)?, devices, _link: link })
    }

    /// Lets packets leave by the device with that index, in the calling thread's network namespace, if they do not already. If the
    /// device goes, so does this.
    ///
    /// # Errors
    /// ENODEV, EINVAL: no such device. E2BIG: there are too many.
    pub fn reach(&self, ifindex: u32) -> io::Result<()> {
        let index = ifindex.to_ne_bytes();
        self.devices.add(&index, &index)
    }
}

impl Hops {
    /// Sends ESP packets, each with its IP header, out of `buf`, in order: by the lane what can go by it, and by `raw` the rest.
    pub(in crate::port) fn tx(
        &self,
        raw: &RawSocket,
        buf: &[u8],
        packets: &[TxPacket],
        refused: &mut dyn FnMut(&TxPacket, Refusal),
    ) -> Sent {
        let mut sent = Sent::default();
        let mut rest = packets;
        while !rest.is_empty() {
            let elsewhere = rest.iter().take_while(|p| hop(&self.to, buf, p).is_none()).count();
            let (others, from_here) = rest.split_at(elsewhere);
            if !others.is_empty() {
                sent.add(raw.tx(buf, others, refused));
            }
            let mut batch = Batch::new(buf, from_here);
            let taken = batch.fill(&self.to);
            sent.add(batch.send(&self.lane, taken, refused));
            rest = from_here.get(taken..).unwrap_or(&[]);
        }
        sent
    }
}

/// How a packet goes by a lane. None: it cannot.
fn hop<'a>(ways: &'a Ways, buf: &[u8], packet: &TxPacket) -> Option<&'a Hop> {
    let IpAddr::V4(dst) = packet.dst else { return None };
    let hop = ways.get(&dst)?;
    let header = header(buf, packet)?;
    // one that may be fragmented is for the kernel, which can
    let whole = header[6] & (ipv4::DF >> 8) as u8 != 0;
    // and so is one that is too long for the path: it says so, and learns
    let fits = packet.len <= hop.mtu && packet.len as usize + udp::HEADER <= Lane::MTU as usize;
    (whole && fits).then_some(hop)
}

/// Bytes of ESP in a packet.
fn esp_len(packet: &TxPacket) -> usize {
    (packet.len as usize).saturating_sub(ipv4::HEADER)
}

/// The IPv4 header that a packet begins with.
fn header<'a>(buf: &'a [u8], packet: &TxPacket) -> Option<&'a [u8; ipv4::HEADER]> {
    buf.get(packet.start as usize..)?.first_chunk()
}

/// Trains for one system call.
#[derive(Debug)]
pub struct Batch<'a> {
    buf: &'a [u8],
    packets: &'a [TxPacket],
    heads: [[u8; HEAD]; BATCH],
    /// First packet and how many.
    trains: [(usize, usize); BATCH],
    count: usize,
}

impl<'a> Batch<'a> {
    /// For ESP packets, each with its IP header, in `buf`.
    pub fn new(buf: &'a [u8], packets: &'a [TxPacket]) -> Batch<'a> {
        Batch { buf, packets, heads: [[0; HEAD]; BATCH], trains: [(0, 0); BATCH], count: 0 }
    }

    /// Makes trains of the first packets, up to one that cannot go by the lane. Returns how many packets are in them.
    pub fn fill(&mut self, ways: &Ways) -> usize {
        let mut next = 0;
        for (head, train) in self.heads.iter_mut().zip(&mut self.trains) {
            let Some(first) = self.packets.get(next) else { break };
            let (Some(hop), Some(ip)) = (hop(ways, self.buf, first), header(self.buf, first)) else { break };
            let count = train_len(self.buf, self.packets.get(next..).unwrap_or(&[]));
            let bytes = self.packets.iter().skip(next).take(count).map(esp_len).sum();
            *head = front(hop, ip, esp_len(first), bytes, count > 1);
            *train = (next, count);
            next += count;
            self.count += 1;
        }
        next
    }

    /// Sends the trains, which hold the first `all` packets.
    fn send(&self, lane: &Lane, all: usize, refused: &mut dyn FnMut(&TxPacket, Refusal)) -> Sent {
        let mut tally = Tally::default();
        let mut tried = 0;
        mmsg::with_sender(|sender| {
            for (i, (head, (first, count))) in self.heads.iter().zip(self.trains).enumerate().take(self.count)
            {
                let esp = self.packets.iter().skip(first).take(count).map(|p| {
                    let start = p.start as usize;
                    self.buf.get(start + ipv4::HEADER..start + p.len as usize).unwrap_or(&[])
                });
                sender.push(i, None, &Control::EMPTY, iter::once(&head[..]).chain(esp));
            }
            sender.flush(lane.socket.as_fd(), &mut |i, errno| {
                let (first, count) = self.trains.get(i).copied().unwrap_or_default();
                let mut verdict = Refused::Skip;
                for packet in self.packets.iter().skip(first).take(count) {
                    refused(packet, Refusal::of(errno));
                    verdict = tally.refuse(errno);
                }
                tried = first + count;
                verdict
            });
        });
        let end = if tally.rest.is_some() { tried } else { all };
        let rest = tally.rest.unwrap_or(Refusal::Failed);
        self.packets.iter().take(all).skip(end).for_each(|packet| refused(packet, rest));
        tally.sent.ok = end.saturating_sub(tally.refused());
        tally.close(all)
    }
}

/// How many of the first packets the kernel can cut out of one train: with the same IP header, and as long as the first; only
/// the last may be shorter. At least 1.
fn train_len(buf: &[u8], packets: &[TxPacket]) -> usize {
    let [first, rest @ ..] = packets else { return 0 };
    let Some(ip) = header(buf, first) else { return 1 };
    let mut bytes = ipv4::HEADER + udp::HEADER + esp_len(first);
    let mut last = first.len;
    let same = |p: &&TxPacket| {
        let more = esp_len(p);
        let fits = last == first.len && p.len <= first.len && bytes + more <= usize::from(u16::MAX);
        (bytes, last) = (bytes + more, p.len);
        fits && header(buf, p).is_some_and(|other| alike(ip, other))
    };
    1 + rest.iter().take(TRAIN - 1).take_while(same).count()
}

/// Whether headers differ in length and checksum alone.
fn alike(a: &[u8; ipv4::HEADER], b: &[u8; ipv4::HEADER]) -> bool {
    a[..2] == b[..2] && a[4..10] == b[4..10] && a[12..] == b[12..]
}

/// What goes in front of a train of packets that have `size` bytes of ESP each, `bytes` in all: the offload header, Ethernet,
/// and the packet's own IP header, as of UDP. The device's index stands where UDP has its ports.
fn front(hop: &Hop, ip: &[u8; ipv4::HEADER], size: usize, bytes: usize, train: bool) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let vnet = if train {
        VnetHdr {
            // UDP is cut only where its checksum is to be filled in, in vain here: nobody does before it is off
            flags: F_NEEDS_CSUM,
            gso_type: GSO_UDP_L4,
            hdr_len: ((HEAD - VNET_LEN) as u16).into(),
            gso_size: (size as u16).into(),
            csum_start: ((UDP - VNET_LEN) as u16).into(),
            csum_offset: (udp::CHECKSUM as u16).into(),
        }
    } else {
        VnetHdr { gso_type: GSO_NONE, ..VnetHdr::default() }
    };
    let [p0, p1, p2, p3] = hop.ifindex.to_be_bytes();
    let udp = Udp {
        src: u16::from_be_bytes([p0, p1]).into(),
        dst: u16::from_be_bytes([p2, p3]).into(),
        len: ((udp::HEADER + bytes) as u16).into(),
        checksum: 0.into(),
    };
    head[..VNET_LEN].copy_from_slice(vnet.as_bytes());
    head[VNET_LEN..VNET_LEN + 6].copy_from_slice(&hop.to);
    head[VNET_LEN + 6..VNET_LEN + 12].copy_from_slice(&hop.from);
    put16(&mut head, IP - 2, ethernet::IPV4);
    head[IP..UDP].copy_from_slice(ip);
    head[IP + 9] = proto::UDP;
    put16(&mut head, IP + 2, (ipv4::HEADER + udp::HEADER + bytes) as u16);
    ipv4::set_checksum(&mut head[IP..UDP]);
    head[UDP..].copy_from_slice(udp.as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PortId;

    /// An outbox of ESP packets with these lengths in all, and what its IP headers differ in.
    fn outbox(packets: &[(u32, u8)]) -> (Vec<u8>, Vec<TxPacket>) {
        let (mut buf, mut list) = (Vec::new(), Vec::new());
        for &(len, tos) in packets {
            list.push(TxPacket::raw(buf.len() as u32, len, [10, 9, 0, 2].into(), PortId(0)));
            let mut packet = vec![0; len as usize];
            packet[..4].copy_from_slice(&[0x45, tos, (len >> 8) as u8, len as u8]);
            packet[6] = 0x40;
            buf.extend(packet);
        }
        (buf, list)
    }

    #[test]
    fn a_train_is_of_one_size_and_one_header() {
        for (packets, want) in [
            (vec![(1000, 0)], 1),
            (vec![(1000, 0), (1000, 0), (1000, 0)], 3),
            (vec![(1000, 0), (600, 0), (600, 0)], 2),
            (vec![(600, 0), (1000, 0)], 1),
            (vec![(1000, 0), (1000, 1)], 1),
            (vec![(1500, 0); 100], (65535 - 28) / 1480),
            (vec![(100, 0); 100], TRAIN),
        ] {
            let (buf, list) = outbox(&packets);
            assert_eq!(train_len(&buf, &list), want, "{packets:?}");
        }
    }

    #[test]
    fn a_train_starts_with_what_the_kernel_cuts_it_by() {
        let hop = Hop { ifindex: 0x0102_0304, from: [2; 6], to: [4; 6], mtu: 1500 };
        let (mut buf, _) = outbox(&[(1500, 7)]);
        buf[16..20].copy_from_slice(&[10, 9, 0, 2]);
        let head = front(&hop, buf.first_chunk().unwrap(), 1480, 44 * 1480, true);
        let (vnet, frame) = head.split_at(VNET_LEN);
        assert_eq!(vnet, [1, 5, 42, 0, 0xc8, 5, 34, 0, 6, 0]);
        assert_eq!(frame[..14], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 8, 0]);
        assert!(ipv4::checksum_ok(&frame[14..34]));
        assert_eq!((frame[15], frame[23], &frame[30..34]), (7, 17, &[10, 9, 0, 2][..]));
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), 28 + 44 * 1480);
        assert_eq!(frame[34..40], [1, 2, 3, 4, 0xfe, 0x68]);
    }
}
