//! One frame in, frames that fit out.

use super::fragment::{MAX_HEAD, Refused, Whole, whole};
use super::segment::{Datagram, TcpPacket, datagrams, number_ip};
use super::{finish, mss, nested};
use crate::counters::DropReason;
use crate::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, VnetHdr};
use crate::wire::{Ip, Version, ipv4, parse, proto, tcp, udp};

/// Where frames for a tunnel are written, each straight into its place behind the outer headers.
pub trait FrameSink {
    /// A slot of exactly `len` bytes for the next inner frame, to be filled completely. It holds whatever was there
    /// before. None: no room (the sink counts it), and the rest of what was to be sent is given up.
    fn slot(&mut self, len: usize) -> Option<&mut [u8]>;
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Written into that many slots.
    Sent(usize),
    /// The sender must be told that its packets may have only `ip_mtu` bytes; see [`super::too_big()`].
    TooBig {
        /// Bytes of IP packet that fit.
        ip_mtu: u16,
    },
    /// Went no further.
    Dropped(DropReason),
}

/// Writes `frame` to `sink` so that no inner frame is longer than `max_frame` bytes, Ethernet header included.
///
/// `frame` is as received from a local port with its offload header, or from another tunnel with the default header.
/// 1. A frame that fits is copied; a partial checksum is finished, the MSS of a SYN clamped.
/// 2. A TCP superframe is segmented so that each segment fits, whatever DF says: the packets are ours to size. So is one
///    that a container's own tunnel carries.
/// 3. A UDP superframe becomes the datagrams it stands for, each of which goes on like a frame of its own.
/// 4. A single TCP packet that is too long is split.
/// 5. Other IPv4 without DF is fragmented; with DF, and IPv6, its sender is to be told. What is no IP is dropped.
///
/// Ethernet padding is carried only in a frame that fits with it.
pub fn fit(frame: &[u8], vnet: &VnetHdr, max_frame: usize, sink: &mut impl FrameSink) -> Fit {
    let Some(parsed) = parse(frame) else { return Fit::Dropped(DropReason::Malformed) };
    match (vnet.gso_type & !GSO_ECN, parsed.ip) {
        (GSO_NONE, ip) if frame.len() <= max_frame => single(frame, ip.as_ref(), vnet, max_frame, sink),
        (GSO_NONE, None) => Fit::Dropped(DropReason::TooBig),
        (kind, Some(ip)) => {
            let frame = frame.get(..ip.end).unwrap_or(frame);
            let packet = Packet { frame, ip, vnet, max_frame };
            match kind {
                GSO_NONE if frame.len() <= max_frame => single(frame, Some(&ip), vnet, max_frame, sink),
                GSO_NONE => packet.too_long(sink),
                _ if ip.fragment || vnet.gso_size.get() == 0 => Fit::Dropped(DropReason::Malformed),
                GSO_TCPV4 | GSO_TCPV6 => packet.tcp_superframe(sink),
                GSO_UDP_L4 => packet.udp_superframe(sink),
                GSO_UDP => packet.ufo(sink),
                _ => Fit::Dropped(DropReason::Malformed),
            }
        }
        (_, None) => Fit::Dropped(DropReason::Malformed),
    }
}

/// A frame that goes as it is, but for checksum and MSS.
fn single(frame: &[u8], ip: Option<&Ip>, vnet: &VnetHdr, max_frame: usize, sink: &mut impl FrameSink) -> Fit {
    let Some(slot) = sink.slot(frame.len()) else { return Fit::Sent(0) };
    slot.copy_from_slice(frame);
    // padding is not summed, nor looked into
    if let Some(packet) = slot.get_mut(..ip.map_or(frame.len(), |ip| ip.end)) {
        finish::finish_checksum(packet, ip, vnet);
        if let Some(ip) = ip {
            mss::clamp(packet, ip, false, || max_frame);
        }
    }
    Fit::Sent(1)
}

/// An IP packet that has to be made into several.
struct Packet<'a> {
    /// Without padding.
    frame: &'a [u8],
    ip: Ip,
    vnet: &'a VnetHdr,
    max_frame: usize,
}

impl Packet<'_> {
    /// A single packet, longer than fits.
    fn too_long(&self, sink: &mut impl FrameSink) -> Fit {
        // new checksums would hide damage
        if self.ip.version == Version::V4
            && !self.frame.get(self.ip.l3..self.ip.l4).is_some_and(ipv4::checksum_ok)
        {
            return Fit::Dropped(DropReason::BadChecksum);
        }
        match self.splittable() {
            Some((tcp, size)) if self.vnet.needs_csum() || tcp.checksum_ok() => {
                Fit::Sent(tcp.segment(self.vnet, size, sink))
            }
            Some(_) => Fit::Dropped(DropReason::BadChecksum),
            None if self.ip.df => self.tell(),
            None => {
                let patch = finish::unfinished(self.frame, Some(&self.ip), self.vnet);
                match whole(self.frame, &self.ip, patch) {
                    Some(packet) => self.fragments(&packet, usize::MAX, sink),
                    None => Fit::Dropped(DropReason::Malformed),
                }
            }
        }
    }

    /// The packet as TCP data that may be split, and the payload size of the parts. They are of equal size, not one
    /// full and one short, so that a stream of them is one run to the receiver that coalesces.
    fn splittable(&self) -> Option<(TcpPacket<'_>, usize)> {
        if self.ip.proto != proto::TCP || self.ip.fragment || (self.ip.routed && !self.vnet.needs_csum()) {
            return None;
        }
        let tcp = TcpPacket::new(self.frame, &self.ip)?;
        let room = tcp.room(self.max_frame)?;
        let payload = tcp.payload.len();
        tcp.may_be_split().then(|| (tcp, payload.div_ceil(payload.div_ceil(room))))
    }

    fn tcp_superframe(&self, sink: &mut impl FrameSink) -> Fit {
        let tcp = if nested::is_nested(&self.ip, self.vnet) {
            let inner = nested::inner(self.frame, self.vnet, self.vnet.gso_type & !GSO_ECN);
            inner.and_then(|ip| Some(TcpPacket::new(self.frame, &ip)?.within(self.ip)))
        } else if self.ip.proto == proto::TCP {
            TcpPacket::new(self.frame, &self.ip)
        } else {
            None
        };
        let Some(tcp) = tcp else { return Fit::Dropped(DropReason::Malformed) };
        // a SYN takes a sequence number itself, and RST has no data: nobody makes superframes of them
        if tcp.flags & (tcp::SYN | tcp::RST) != 0 {
            return Fit::Dropped(DropReason::Malformed);
        }
        match tcp.room(self.max_frame) {
            Some(room) => {
                Fit::Sent(tcp.segment(self.vnet, room.min(usize::from(self.vnet.gso_size.get())), sink))
            }
            None => self.tell(),
        }
    }

    fn udp_superframe(&self, sink: &mut impl FrameSink) -> Fit {
        // cut here, one that a tunnel carries would be cut through its own headers
        if self.ip.proto != proto::UDP || nested::is_nested(&self.ip, self.vnet) {
            return Fit::Dropped(DropReason::Malformed);
        }
        let size = usize::from(self.vnet.gso_size.get());
        let Some(datagrams) = datagrams(self.frame, &self.ip, size) else {
            return Fit::Dropped(DropReason::Malformed);
        };
        let Some(head) = self.frame.get(..self.ip.l4) else { return Fit::Dropped(DropReason::Malformed) };
        let mut sent = 0;
        for datagram in datagrams {
            let len = head.len() + udp::HEADER + datagram.payload.len();
            let fit = if len <= self.max_frame {
                self.datagram(head, &datagram, sink)
            } else if self.ip.df {
                // the first is the longest: nothing has been sent yet
                self.tell()
            } else {
                self.datagram_fragments(head, &datagram, sink)
            };
            match fit {
                Fit::Sent(0) => break,
                Fit::Sent(count) => sent += count,
                refused => return refused,
            }
        }
        Fit::Sent(sent)
    }

    fn datagram(&self, head: &[u8], datagram: &Datagram<'_>, sink: &mut impl FrameSink) -> Fit {
        let len = udp::HEADER + datagram.payload.len();
        let Some(slot) = sink.slot(head.len() + len) else { return Fit::Sent(0) };
        let Some((slot_head, body)) = slot.split_at_mut_checked(head.len()) else { return Fit::Sent(0) };
        slot_head.copy_from_slice(head);
        number_ip(slot_head, &self.ip, datagram.index, len);
        if let Some((header, payload)) = body.split_first_chunk_mut() {
            *header = datagram.header;
            payload.copy_from_slice(datagram.payload);
        }
        Fit::Sent(1)
    }

    fn datagram_fragments(&self, head: &[u8], datagram: &Datagram<'_>, sink: &mut impl FrameSink) -> Fit {
        let mut numbered = [0; MAX_HEAD];
        let Some(numbered) = numbered.get_mut(..head.len()) else { return Fit::Dropped(DropReason::TooBig) };
        numbered.copy_from_slice(head);
        number_ip(numbered, &self.ip, datagram.index, udp::HEADER + datagram.payload.len());
        let payload = [&datagram.header[..], datagram.payload];
        self.fragments(&Whole { head: numbered, l3: self.ip.l3, payload, patch: None }, usize::MAX, sink)
    }

    /// A datagram that its sender wants fragmented, so DF has no say. Linux made such superframes until 4.14 and passes
    /// on what guests make; we ask no device for them, and the IPv6 kind, which needs a new header, is dropped.
    fn ufo(&self, sink: &mut impl FrameSink) -> Fit {
        if self.ip.proto != proto::UDP {
            return Fit::Dropped(DropReason::Malformed);
        }
        if self.frame.len() <= self.max_frame {
            return single(self.frame, Some(&self.ip), self.vnet, self.max_frame, sink);
        }
        if self.ip.version == Version::V6 {
            return Fit::Dropped(DropReason::TooBig);
        }
        let patch = finish::unfinished(self.frame, Some(&self.ip), self.vnet);
        let size = usize::from(self.vnet.gso_size.get());
        match whole(self.frame, &self.ip, patch) {
            Some(packet) => self.fragments(&packet, size, sink),
            None => Fit::Dropped(DropReason::Malformed),
        }
    }

    fn fragments(&self, packet: &Whole<'_>, max_payload: usize, sink: &mut impl FrameSink) -> Fit {
        match packet.fragment(self.max_frame, max_payload, sink) {
            Ok(count) => Fit::Sent(count),
            Err(Refused::NoRoom) => Fit::Dropped(DropReason::TooBig),
            Err(Refused::Malformed) => Fit::Dropped(DropReason::Malformed),
        }
    }

    fn tell(&self) -> Fit {
        let ip_mtu = self.max_frame.saturating_sub(self.ip.l3);
        Fit::TooBig { ip_mtu: u16::try_from(ip_mtu).unwrap_or(u16::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::testing::*;
    use crate::vnet::F_NEEDS_CSUM;
    use crate::wire::{ethernet, get16, put16, sctp};

    fn fitted(frame: &[u8], vnet: &VnetHdr, max_frame: usize) -> (Fit, Vec<Vec<u8>>) {
        let mut sink = Frames::new();
        (fit(frame, vnet, max_frame, &mut sink), sink.frames)
    }

    proptest! {
        #[test]
        fn partial_checksums_are_finished(spec in spec(1400), padding in 0usize..20) {
            let (mut frame, vnet) = spec.offloaded(0);
            frame.resize(frame.len() + padding, 0xdd);
            let (fit, frames) = fitted(&frame, &vnet, 1514);
            prop_assert_eq!(fit, Fit::Sent(1));
            assert_checksums(&frames[0]);
            prop_assert_eq!(frames[0].len(), frame.len());
            prop_assert_eq!(payload_of(&frames[0]), spec.payload());
        }

        #[test]
        fn what_fits_is_not_touched(spec in spec(1400), damage in any::<u8>()) {
            let mut frame = spec.frame();
            if let Some(last) = frame.last_mut() {
                *last ^= damage;
            }
            prop_assert_eq!(fitted(&frame, &VnetHdr::default(), frame.len()), (Fit::Sent(1), vec![frame.clone()]));
        }

        /// Whatever the bytes and whatever the header: no panic, and nothing longer than the path takes.
        #[test]
        fn any_bytes(frame in proptest::collection::vec(any::<u8>(), 0..200), header in any::<[u8; 10]>(),
                     max_frame in 0usize..250) {
            let vnet: VnetHdr = zerocopy::transmute!(header);
            let (fit, frames) = fitted(&frame, &vnet, max_frame);
            prop_assert!(frames.iter().all(|frame| frame.len() <= max_frame));
            if let Fit::Sent(count) = fit {
                prop_assert_eq!(count, frames.len());
            }
        }

        /// The same, with frames that are nearly right.
        #[test]
        fn any_change_to_a_good_frame(spec in spec(600), gso_size in prop_oneof![Just(0u16), any::<u16>()],
                                      changes in proptest::collection::vec(any::<(u8, u8)>(), 0..6),
                                      header in proptest::collection::vec((0usize..10, any::<u8>()), 0..4),
                                      cut in 0usize..700, max_frame in 0usize..700, room in 0usize..50) {
            let (mut frame, vnet) = spec.offloaded(gso_size);
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            frame.truncate(cut.max(1));
            let mut bytes: [u8; 10] = zerocopy::transmute!(vnet);
            for (at, value) in header {
                bytes[at] = value;
            }
            let mut sink = Frames { room, ..Frames::new() };
            let fit = fit(&frame, &zerocopy::transmute!(bytes), max_frame, &mut sink);
            prop_assert!(sink.frames.iter().all(|frame| frame.len() <= max_frame));
            if let Fit::Sent(count) = fit {
                prop_assert_eq!(count, sink.frames.len());
            }
        }
    }

    #[test]
    fn what_is_no_ip() {
        let mut arp = [0; 60];
        put16(&mut arp, 12, ethernet::ARP);
        assert_eq!(fitted(&arp, &VnetHdr::default(), 60), (Fit::Sent(1), vec![arp.to_vec()]));
        assert_eq!(fitted(&arp, &VnetHdr::default(), 59), (Fit::Dropped(DropReason::TooBig), vec![]));
        assert_eq!(
            fitted(&arp[..13], &VnetHdr::default(), 59),
            (Fit::Dropped(DropReason::Malformed), vec![])
        );
        let gso = VnetHdr { gso_type: GSO_TCPV4, gso_size: 8.into(), ..VnetHdr::default() };
        assert_eq!(fitted(&arp, &gso, 60), (Fit::Dropped(DropReason::Malformed), vec![]));
    }

    /// No kernel makes them, so somebody is trying something.
    #[test]
    fn superframes_that_are_none() {
        let spec = Spec { df: false, ..Spec::tcp(3000) };
        let (frame, vnet) = spec.offloaded(1000);
        assert_eq!(fitted(&frame, &vnet, 1400).0, Fit::Sent(3));
        let mut fragment = frame.clone();
        put16(&mut fragment, 14 + 6, 0x2000);
        let no_size = VnetHdr { gso_size: 0.into(), ..vnet };
        let no_kind = VnetHdr { gso_type: 2, ..vnet };
        let not_udp = VnetHdr { gso_type: GSO_UDP_L4, ..vnet };
        let not_udp_either = VnetHdr { gso_type: GSO_UDP, ..vnet };
        for (frame, vnet) in [
            (&fragment, vnet),
            (&frame, no_size),
            (&frame, no_kind),
            (&frame, not_udp),
            (&frame, not_udp_either),
        ] {
            assert_eq!(fitted(frame, &vnet, 1400), (Fit::Dropped(DropReason::Malformed), vec![]), "{vnet:?}");
        }
        let (datagram, vnet) = Spec { tcp: false, ..spec }.offloaded(1000);
        let not_tcp = VnetHdr { gso_type: GSO_TCPV4, ..vnet };
        assert_eq!(fitted(&datagram, &not_tcp, 1400), (Fit::Dropped(DropReason::Malformed), vec![]));
    }

    #[test]
    fn padding_gives_way() {
        let spec = Spec::udp(2);
        let frame = spec.frame();
        let mut padded = frame.clone();
        padded.resize(60, 0);
        assert_eq!(fitted(&padded, &VnetHdr::default(), 60), (Fit::Sent(1), vec![padded.clone()]));
        assert_eq!(fitted(&padded, &VnetHdr::default(), 59), (Fit::Sent(1), vec![frame]));
    }

    #[test]
    fn syn_is_clamped_on_its_way() {
        let spec =
            Spec { v6: true, tags: 1, flags: tcp::SYN, options: vec![2, 4, 0x05, 0xa0], ..Spec::tcp(0) };
        for (frame, vnet) in [spec.offloaded(0), (spec.frame(), VnetHdr::default())] {
            let (fit, frames) = fitted(&frame, &vnet, 1476);
            assert_eq!(fit, Fit::Sent(1));
            assert_checksums(&frames[0]);
            let option = ip_of(&frame).l4 + tcp::HEADER + 2;
            assert_eq!(get16(&frames[0], option), Some(1476 - 18 - 40 - 20));
        }
    }

    /// SCTP leaves the kernel with an unfinished CRC32c, marked in the same way as an Internet checksum.
    #[test]
    fn sctp_gets_its_crc() {
        let spec = Spec::udp(40);
        let mut frame = spec.frame();
        frame[14 + 9] = proto::SCTP;
        ipv4_checksum(&mut frame);
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: 34.into(),
            csum_offset: (sctp::CHECKSUM as u16).into(),
            ..VnetHdr::default()
        };
        let (fit, frames) = fitted(&frame, &vnet, 1500);
        assert_eq!(fit, Fit::Sent(1));
        assert_eq!(frames[0][42..46], sctp::checksum(&frame[34..]));
        assert_eq!((&frames[0][..42], &frames[0][46..]), (&frame[..42], &frame[46..]));
    }

    fn ipv4_checksum(frame: &mut [u8]) {
        crate::wire::ipv4::set_checksum(&mut frame[14..34]);
    }
}
