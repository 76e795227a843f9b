//! One TCP segment or UDP datagram, and how it compares with another.

use zerocopy::FromBytes;

use crate::slab::{Piece, Slab};
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{Ip, Version, ethernet, ipv6, parse, proto};

/// A TCP or UDP packet in the slab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// The whole frame.
    pub frame: Piece,
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

    /// The segment or datagram that `frame`, with these bytes, holds. None: neither.
    pub fn parse(bytes: &[u8], frame: Piece) -> Option<Segment> {
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
                // whoever takes it apart gives each a checksum; and what goes to a group may be for somebody who reads frames one by one
                let alone = udp.checksum.get() == 0 || ethernet::is_group(*bytes.first_chunk()?);
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
        let plain = simple && whole && ip.l4 - ip.l3 == header && data < ip.end;
        let flow = flow_hash(ip.addresses(bytes), transport);
        Some(Segment { frame, flow, ip, data, seq, id, psh, plain })
    }

    /// Where the payload lies, padding left out. Empty for what has none.
    pub fn payload(&self) -> Piece {
        let off = self.frame.off + self.data as u32;
        Piece { off, len: self.ip.end.saturating_sub(self.data) as u32 }
    }

    /// Whether a run may start with it.
    pub fn may_be_followed(&self) -> bool {
        self.plain && !self.psh
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

    /// Whether IPv4 header and transport checksum are right.
    pub fn checksums_ok(&self, slab: &Slab) -> bool {
        let bytes = slab.get(self.frame);
        let segment = bytes.get(self.ip.l4..self.ip.end).unwrap_or(&[]);
        let header = bytes.get(self.ip.l3..self.ip.l4).unwrap_or(&[]);
        (self.ip.version == Version::V6 || ipv4::checksum_ok(header))
            && (pseudo(self.ip.addresses(bytes), self.ip.proto, segment.len()) + Sum::of(segment)).is_valid()
    }
}

/// Spreads flows so that those that differ seldom have to be compared. The ports come first in `transport`.
fn flow_hash(addresses: &[u8], transport: &[u8]) -> u64 {
    let ports = transport.first_chunk().map_or(0, |ports| u64::from(u32::from_ne_bytes(*ports)));
    let (words, _) = addresses.as_chunks::<8>();
    words.iter().fold(ports, |hash, word| hash.rotate_left(23) ^ u64::from_ne_bytes(*word))
}
