//! Segments that follow each other, and the superframe they become.

use zerocopy::FromBytes;

use super::segment::Segment;
use super::track::Track;
use crate::slab::{Piece, Slab};
use crate::txq::{MAX_PIECES, TxQueue};
use crate::vnet::{F_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr};
use crate::wire::checksum::pseudo;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::Udp;
use crate::wire::{Version, ethernet, put16, udp};

/// Longest IP packet.
pub(super) const MAX_PACKET: usize = 65535;

/// Longest header of a superframe: Ethernet, IPv6, TCP.
pub(super) const MAX_HEAD: usize = ethernet::MAX_HEADER + ipv6::HEADER + tcp::MAX_HEADER;

/// What became of a segment that found its flow's run.
pub(super) enum Joined {
    /// It joined.
    Open,
    /// It joined as the last.
    Full,
    /// It does not follow on.
    Refused,
}

/// Segments that follow each other.
#[derive(Debug)]
pub(super) struct Run {
    pub first: Segment,
    /// The first one's checksums were right. Looked at when a second one comes.
    verified: bool,
    psh: bool,
    /// Payload bytes in all.
    len: usize,
    /// Segments.
    count: usize,
    /// The second one's checksum is partial, and so is that of all that follow.
    partial: bool,
    /// Laid once there is a second one.
    track: Track,
    /// A place for the header, then the payloads.
    pieces: [Piece; MAX_PIECES],
}

impl Run {
    pub const EMPTY: Run = Run {
        first: Segment::EMPTY,
        verified: false,
        psh: false,
        len: 0,
        count: 0,
        partial: false,
        track: Track::EMPTY,
        pieces: [Piece { off: 0, len: 0 }; MAX_PIECES],
    };

    pub fn start(&mut self, first: Segment) {
        let payload = first.payload();
        self.first = first;
        self.verified = false;
        self.psh = false;
        self.len = payload.len as usize;
        self.count = 1;
        self.track.clear();
        if let Some(place) = self.pieces.get_mut(1) {
            *place = payload;
        }
    }

    /// Payload bytes of every segment but the last.
    fn size(&self) -> usize {
        if self.first.is_merged() {
            usize::from(self.first.vnet.gso_size.get())
        } else {
            self.first.ip.end - self.first.data
        }
    }

    /// Becomes a run that begins with `merged`, if that ends where this one, a single segment with PSH, begins. Both are of one flow.
    pub fn follow(&mut self, slab: &Slab, merged: &Segment) -> bool {
        let last = self.first;
        if self.count != 1 || !last.psh || !merged.plain || merged.psh {
            return false;
        }
        self.start(*merged);
        let joined = matches!(self.join(slab, &last), Joined::Full);
        if !joined {
            self.start(last);
        }
        joined
    }

    /// Takes the segment in if it follows on. Both are of one flow.
    pub fn join(&mut self, slab: &Slab, next: &Segment) -> Joined {
        if !self.continues(next) || !self.first.same_header(next, slab) {
            return Joined::Refused;
        }
        // each sum is computed once, and only for segments that found company
        self.verified = self.verified || self.first.checksums_ok(slab);
        if !self.verified {
            return Joined::Refused;
        }
        let joined = self.take(slab, next);
        if self.count == 2 && !self.first.is_merged() {
            self.track.lay(slab.get(self.first.frame), &self.first);
        }
        joined
    }

    /// Takes `frame` in if its headers are as the track of this run has them, and it follows on. What else is to know of it need
    /// not be looked at. If not, all is as before.
    pub fn follow_track(&mut self, slab: &Slab, frame: Piece) -> Joined {
        let bytes = slab.get(frame);
        let next =
            if self.count > 1 && self.track.leads(bytes) { self.first.like(bytes, frame) } else { None };
        match next {
            Some(next) if self.continues(&next) => self.take(slab, &next),
            _ => Joined::Refused,
        }
    }

    /// Whether numbers and lengths say that the segment comes next. Both are of one flow.
    fn continues(&self, next: &Segment) -> bool {
        let (payload, merged) = (next.payload(), self.first.is_merged());
        next.plain
            && !self.first.psh
            && (next.is_udp() || next.seq == self.first.seq.wrapping_add(self.len as u32))
            && (next.ip.df || next.id == self.first.id.wrapping_add(self.count as u16))
            && (payload.len as usize <= self.size() || merged)
            && (self.count == 1 || next.is_partial() == self.partial)
            && self.first.data - self.first.ip.l3 + self.len + payload.len as usize <= MAX_PACKET
    }

    /// Takes in what follows on, if its checksums are right.
    fn take(&mut self, slab: &Slab, next: &Segment) -> Joined {
        if !next.checksums_ok(slab) {
            return Joined::Refused;
        }
        let (payload, merged) = (next.payload(), self.first.is_merged());
        let Some(place) = self.pieces.get_mut(self.count + 1) else { return Joined::Refused };
        *place = payload;
        self.count += 1;
        self.len += payload.len as usize;
        self.psh = next.psh;
        self.partial = next.is_partial();
        let short = (payload.len as usize) < self.size() && !merged;
        let last = next.psh || short || self.count + 1 == MAX_PIECES;
        if last { Joined::Full } else { Joined::Open }
    }

    /// Queues the run: a single segment as it came, more as a superframe.
    pub fn emit(&mut self, slab: &mut Slab, out: &mut TxQueue) {
        if self.count == 1 {
            return out.push(self.first.vnet, &[self.first.frame]);
        }
        match self.write_header(slab) {
            Some(header) => {
                let [place, ..] = &mut self.pieces;
                *place = header;
                out.push(self.vnet(), self.pieces.get(..self.count + 1).unwrap_or(&[]));
            }
            // no memory for a header: the segments still stand behind their own, of the same length as the first's
            None => {
                let head = self.first.data as u32;
                let partial = VnetHdr { gso_type: GSO_NONE, gso_size: 0.into(), ..self.vnet() };
                let rest = if self.partial { partial } else { VnetHdr::default() };
                for (i, payload) in self.pieces.iter().skip(1).take(self.count).enumerate() {
                    let frame = Piece { off: payload.off - head, len: payload.len + head };
                    out.push(if i == 0 { self.first.vnet } else { rest }, &[frame]);
                }
            }
        }
    }

    /// The superframe's header in the slab: the first segment's, with the lengths of all and a partial checksum.
    fn write_header(&self, slab: &mut Slab) -> Option<Piece> {
        let Segment { ip, data, .. } = self.first;
        let mut header = [0; MAX_HEAD];
        let header = header.get_mut(..data)?;
        header.copy_from_slice(slab.get(self.first.frame).get(..data)?);
        let segment = data - ip.l4 + self.len;
        let pseudo = pseudo(ip.addresses(header), ip.proto, segment).fold();

        let network = header.get_mut(ip.l3..ip.l4)?;
        match ip.version {
            Version::V4 => {
                Ipv4::mut_from_prefix(network).ok()?.0.total_len.set((ip.l4 - ip.l3 + segment) as u16);
                ipv4::set_checksum(network);
            }
            Version::V6 => Ipv6::mut_from_prefix(network).ok()?.0.payload_len.set(segment as u16),
        }
        let transport = header.get_mut(ip.l4..)?;
        put16(transport, self.checksum(), pseudo);
        if self.first.is_udp() {
            Udp::mut_from_prefix(transport).ok()?.0.len.set(segment as u16);
        }
        if self.psh {
            Tcp::mut_from_prefix(transport).ok()?.0.flags |= tcp::PSH;
        }
        let place = slab.alloc(data)?;
        slab.get_mut(place).copy_from_slice(header);
        Some(place)
    }

    /// Where the checksum stands in the transport header.
    fn checksum(&self) -> usize {
        if self.first.is_udp() { udp::CHECKSUM } else { tcp::CHECKSUM }
    }

    fn vnet(&self) -> VnetHdr {
        let gso_type = match self.first.ip.version {
            _ if self.first.is_udp() => GSO_UDP_L4,
            Version::V4 => GSO_TCPV4,
            Version::V6 => GSO_TCPV6,
        };
        VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type,
            hdr_len: (self.first.data as u16).into(),
            gso_size: (self.size() as u16).into(),
            csum_start: (self.first.ip.l4 as u16).into(),
            csum_offset: (self.checksum() as u16).into(),
        }
    }
}
