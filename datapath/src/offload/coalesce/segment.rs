//! One TCP segment or UDP datagram, and how it compares with another.

use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

use crate::slab::{Piece, Slab};
use crate::vnet::{GSO_NONE, GSO_TCPV4, GSO_TCPV6, VnetHdr};
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{Ip, Version, ethernet, get16, ipv6, parse, proto};

/// A TCP or UDP packet in the slab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// The whole frame.
    pub frame: Piece,
    /// Its offload header: none, or one that says that its checksum is not finished, or that a kernel has merged it.
    pub vnet: VnetHdr,
    /// Hash of addresses and ports.
    flow: u64,
    pub ip: Ip,
    /// Where the payload starts in the frame.
    pub data: usize,
    /// Of TCP; 0 with UDP.
    pub seq: u32,
    pub id: u16,
    pub psh: bool,
    /// Of a shape that may be merged at all. Its checksums have not been looked at.
    pub plain: bool,
}

impl Segment {
    /// No segment: what stands in a run that is free.
    pub const EMPTY: Segment = Segment {
        frame: Piece { off: 0, len: 0 },
        vnet: NO_OFFLOAD,
        flow: 0,
        ip: Ip {
            version: Version::V4,
            tos: 0,
            ttl: 0,
            df: false,
            fragment: false,
            later_fragment: false,
            routed: false,
            l3: 0,
            l4: 0,
            proto: 0,
            end: 0,
        },
        data: 0,
        seq: 0,
        id: 0,
        psh: false,
        plain: false,
    };

    /// The segment or datagram that `frame`, with these bytes and this offload header, holds. None: neither.
    pub fn parse(bytes: &[u8], frame: Piece, vnet: &VnetHdr) -> Option<Segment> {
        let ip = parse(bytes)?.ip?;
        if ip.later_fragment {
            return None;
        }
        let transport = bytes.get(ip.l4..ip.end)?;
        let (data, seq, psh, simple) = match ip.proto {
            proto::TCP => {
                let (tcp, _) = Tcp::ref_from_prefix(transport).ok()?;
                let simple = tcp.header_len() >= tcp::HEADER && tcp.flags & !tcp::PSH == tcp::ACK;
                (ip.l4 + tcp.header_len(), tcp.seq.get(), tcp.flags & tcp::PSH != 0, simple)
            }
            proto::UDP => {
                let (udp, _) = Udp::ref_from_prefix(transport).ok()?;
                // whoever takes it apart gives each a checksum
                let alone = udp.checksum.get() == 0 || is_for_frame_readers(bytes, udp)?;
                let simple = !alone && usize::from(udp.len.get()) == transport.len();
                (ip.l4 + udp::HEADER, 0, false, simple)
            }
            _ => return None,
        };
        let (header, id, whole) = match ip.version {
            Version::V4 => {
                let (v4, _) = Ipv4::ref_from_prefix(bytes.get(ip.l3..)?).ok()?;
                (ipv4::HEADER, v4.id.get(), v4.fragment.get() & !ipv4::DF == 0)
            }
            Version::V6 => (ipv6::HEADER, 0, true),
        };
        let plain = simple
            && whole
            && ip.l4 - ip.l3 == header
            && data < ip.end
            && (vnet.flags | vnet.gso_type == 0 || fits(vnet, &ip));
        let flow = flow_hash(ip.addresses(bytes), transport);
        Some(Segment { frame, vnet: *vnet, flow, ip, data, seq, id, psh, plain })
    }

    /// The segment in `frame`, of these bytes, whose headers say what this one's say but for what counts up. None: its lengths are
    /// wrong, or it is of a shape that may not be merged.
    pub fn like(&self, bytes: &[u8], frame: Piece) -> Option<Segment> {
        let Ip { l3, l4, version, .. } = self.ip;
        let (end, id) = match version {
            Version::V4 => (l3 + usize::from(get16(bytes, l3 + 2)?), get16(bytes, l3 + 4)?),
            Version::V6 => (l3 + ipv6::HEADER + usize::from(get16(bytes, l3 + 4)?), 0),
        };
        let transport = bytes.get(l4..end)?;
        let (seq, psh, whole) = if self.is_udp() {
            let (udp, _) = Udp::ref_from_prefix(transport).ok()?;
            (0, false, udp.checksum.get() != 0 && usize::from(udp.len.get()) == transport.len())
        } else {
            let (tcp, _) = Tcp::ref_from_prefix(transport).ok()?;
            (tcp.seq.get(), tcp.flags & tcp::PSH != 0, true)
        };
        let ip = Ip { end, ..self.ip };
        (whole && self.data < end).then_some(Segment { frame, vnet: NO_OFFLOAD, ip, seq, id, psh, ..*self })
    }

    /// Whether a kernel has merged it. How long its segments were nobody knows.
    pub fn is_merged(&self) -> bool {
        self.vnet.gso_type != GSO_NONE
    }

    /// Whether its checksum is for somebody else to finish, and was right when it was.
    pub fn is_partial(&self) -> bool {
        self.vnet.needs_csum()
    }

    /// Where the payload lies, padding left out. Empty for what has none.
    pub fn payload(&self) -> Piece {
        let off = self.frame.off + self.data as u32;
        Piece { off, len: self.ip.end.saturating_sub(self.data) as u32 }
    }

    /// Whether the other must not overtake it.
    pub fn same_flow(&self, other: &Segment, slab: &Slab) -> bool {
        let (a, b) = (slab.get(self.frame), slab.get(other.frame));
        self.flow == other.flow
            && (self.ip.version, self.ip.proto) == (other.ip.version, other.ip.proto)
            && a.get(..self.ip.l3) == b.get(..other.ip.l3)
            && self.ip.addresses(a) == other.ip.addresses(b)
            && a.get(self.ip.l4..self.ip.l4 + 4) == b.get(other.ip.l4..other.ip.l4 + 4)
    }

    /// Whether everything stands the same in both headers that does not count up. Both are plain, of one flow.
    pub fn same_header(&self, other: &Segment, slab: &Slab) -> bool {
        let (a, b) = (slab.get(self.frame), slab.get(other.frame));
        let Ip { l3, l4, version, tos, ttl, df, .. } = self.ip;
        let same = |from: usize, to: usize| a.get(from..to) == b.get(from..to);
        self.data == other.data
            && (tos, ttl, df) == (other.ip.tos, other.ip.ttl, other.ip.df)
            && (version == Version::V4 || same(l3, l3 + 4)) // flow label
            && (self.is_udp()
                || same(l4 + 8, l4 + 13) // acknowledgment, data offset
                    && same(l4 + 14, l4 + 16) // window
                    && same(l4 + 18, self.data)) // urgent pointer, options
    }

    /// Whether it is a UDP datagram.
    pub fn is_udp(&self) -> bool {
        self.ip.proto == proto::UDP
    }

    /// Whether IPv4 header and transport checksum of a plain segment are right.
    pub fn checksums_ok(&self, slab: &Slab) -> bool {
        if self.is_partial() {
            return true;
        }
        let bytes = slab.get(self.frame);
        let Ip { version, l3, l4, end, .. } = self.ip;
        // the addresses end where the segment begins, and are summed with it
        let addresses = l4.saturating_sub(self.ip.addresses(bytes).len());
        let sum = bytes.get(addresses..end).map_or(Sum::ZERO, Sum::of);
        (version == Version::V6 || bytes.get(l3..l4).is_some_and(ipv4::checksum_ok))
            && (pseudo(&[], self.ip.proto, end.saturating_sub(l4)) + sum).is_valid()
    }
}

/// Whether a datagram may be for a program that reads frames one by one, and not by a UDP socket, which the kernel cuts superframes
/// up for: what goes to a group, and DHCP, whose servers, relays and clients do. None: no frame.
fn is_for_frame_readers(bytes: &[u8], udp: &Udp) -> Option<bool> {
    const DHCP: [u16; 4] = [67, 68, 546, 547];
    let dhcp = [udp.src.get(), udp.dst.get()].iter().any(|port| DHCP.contains(port));
    Some(dhcp || ethernet::is_group(*bytes.first_chunk()?))
}

const NO_OFFLOAD: VnetHdr = VnetHdr {
    flags: 0,
    gso_type: GSO_NONE,
    hdr_len: U16::ZERO,
    gso_size: U16::ZERO,
    csum_start: U16::ZERO,
    csum_offset: U16::ZERO,
};

/// Whether the offload header says of a packet what [`crate::offload::recognize()`] does.
fn fits(vnet: &VnetHdr, ip: &Ip) -> bool {
    let udp = ip.proto == proto::UDP;
    let kind = match vnet.gso_type {
        GSO_NONE => true,
        // how many identifications it stands for is not known
        GSO_TCPV4 => !udp && ip.version == Version::V4 && ip.df,
        GSO_TCPV6 => !udp && ip.version == Version::V6,
        _ => false,
    };
    kind && vnet.needs_csum()
        && usize::from(vnet.csum_start.get()) == ip.l4
        && usize::from(vnet.csum_offset.get()) == if udp { udp::CHECKSUM } else { tcp::CHECKSUM }
}

/// Spreads flows so that those that differ seldom have to be compared. The ports come first in `transport`.
fn flow_hash(addresses: &[u8], transport: &[u8]) -> u64 {
    let ports = transport.first_chunk().map_or(0, |ports| u64::from(u32::from_ne_bytes(*ports)));
    let (words, _) = addresses.as_chunks::<8>();
    words.iter().fold(ports, |hash, word| hash.rotate_left(23) ^ u64::from_ne_bytes(*word))
}
