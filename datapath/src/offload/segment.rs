//! Cutting TCP segments and UDP superframes into packets of their own.

use zerocopy::FromBytes;

use super::FrameSink;
use super::nested::number_outer;
use crate::vnet::VnetHdr;
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{Ip, Version};

/// A TCP packet, superframe or not, with its headers told from its payload.
#[derive(Debug)]
pub(super) struct TcpPacket<'a> {
    frame: &'a [u8],
    ip: Ip,
    /// The packet that carries this one, if it is nested.
    outer: Option<Ip>,
    /// Every header: Ethernet, IP, TCP with options.
    head: &'a [u8],
    /// What the segments share out between them.
    pub payload: &'a [u8],
    /// The header's flags.
    pub flags: u8,
}

impl<'a> TcpPacket<'a> {
    /// None: the TCP header does not fit the packet.
    pub fn new(frame: &'a [u8], ip: &Ip) -> Option<TcpPacket<'a>> {
        let (tcp, _) = Tcp::ref_from_prefix(frame.get(ip.l4..ip.end)?).ok()?;
        if tcp.header_len() < tcp::HEADER {
            return None;
        }
        let (head, payload) = frame.get(..ip.end)?.split_at_checked(ip.l4 + tcp.header_len())?;
        Some(TcpPacket { frame, ip: *ip, outer: None, head, payload, flags: tcp.flags })
    }

    /// The same, carried by the packet `outer`; its headers are among ours.
    pub fn within(self, outer: Ip) -> TcpPacket<'a> {
        TcpPacket { outer: Some(outer), ..self }
    }

    /// Payload bytes that a frame of `max_frame` bytes has room for. None: not even one.
    pub fn room(&self, max_frame: usize) -> Option<usize> {
        max_frame.checked_sub(self.head.len()).filter(|room| *room > 0)
    }

    /// Whether the packet may be split though its sender did not ask for it: plain data, no flag that counts for the
    /// packet as a whole, no signature.
    pub fn may_be_split(&self) -> bool {
        let header = self.head.get(self.ip.l4..).unwrap_or(&[]);
        self.flags & (tcp::SYN | tcp::RST | tcp::URG) == 0
            && !self.payload.is_empty()
            && !tcp::is_signed(header)
    }

    /// Whether the checksum of a packet that is not partial is right.
    pub fn checksum_ok(&self) -> bool {
        let segment = self.frame.get(self.ip.l4..self.ip.end).unwrap_or(&[]);
        (pseudo(self.ip.addresses(self.frame), self.ip.proto, segment.len()) + Sum::of(segment)).is_valid()
    }

    /// Writes segments of `size` payload bytes, the last perhaps shorter, and returns how many there was room for:
    /// 1. every header is the original's, with its own lengths, sequence number and IPv4 identification;
    /// 2. CWR stays on the first only (RFC 3168 section 6.1.2), FIN and PSH on the last;
    /// 3. the payload is copied and summed in one pass, and the checksum written whole.
    pub fn segment(&self, vnet: &VnetHdr, size: usize, sink: &mut impl FrameSink) -> usize {
        let pseudo = self.pseudo(vnet);
        let count = self.payload.len().div_ceil(size.max(1)).max(1);
        let mut rest = self.payload;
        for index in 0..count {
            let (payload, after) = rest.split_at(size.min(rest.len()));
            let Some(slot) = sink.slot(self.head.len() + payload.len()) else { return index };
            let Some((head, body)) = slot.split_at_mut_checked(self.head.len()) else { return index };
            head.copy_from_slice(self.head);
            let sum = Sum::copy(payload, body);
            let len = self.head.len() - self.ip.l4 + payload.len();
            number_ip(head, &self.ip, index, len);

            let Some(header) = head.get_mut(self.ip.l4..) else { return index };
            let Ok((tcp, _)) = Tcp::mut_from_prefix(header) else { return index };
            tcp.seq.set(tcp.seq.get().wrapping_add((index * size) as u32));
            if index > 0 {
                tcp.flags &= !tcp::CWR;
            }
            if index + 1 < count {
                tcp.flags &= !(tcp::FIN | tcp::PSH);
            }
            tcp.checksum.set(0);
            let sum = sum + pseudo.word(len as u16) + Sum::of(header);
            crate::wire::put16(header, tcp::CHECKSUM, sum.checksum());
            if let Some(outer) = &self.outer {
                number_outer(slot, outer, index);
            }
            rest = after;
        }
        count
    }

    /// The pseudo header's sum without the length. With a routing header the final destination is not the header's:
    /// then a partial checksum knows it, and nothing else does.
    fn pseudo(&self, vnet: &VnetHdr) -> Sum {
        let segment = self.frame.get(self.ip.l4..self.ip.end).unwrap_or(&[]);
        match Tcp::ref_from_prefix(segment) {
            Ok((tcp, _)) if self.ip.routed && vnet.needs_csum() => {
                Sum::ZERO.word(tcp.checksum.get()).without(segment.len() as u16)
            }
            _ => pseudo(self.ip.addresses(self.frame), self.ip.proto, 0),
        }
    }
}

/// One datagram of a UDP superframe.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    /// Its place in the superframe.
    pub index: usize,
    /// Its header, finished.
    pub header: [u8; udp::HEADER],
    /// Its payload.
    pub payload: &'a [u8],
}

/// The datagrams of a UDP superframe with `size` payload bytes each, the last perhaps shorter. None: no UDP header, or
/// nothing behind it.
pub(super) fn datagrams<'a>(
    frame: &'a [u8],
    ip: &'a Ip,
    size: usize,
) -> Option<impl ExactSizeIterator<Item = Datagram<'a>>> {
    let (udp, payload) = Udp::ref_from_prefix(frame.get(ip.l4..ip.end)?).ok()?;
    if payload.is_empty() {
        return None;
    }
    let pseudo = pseudo(ip.addresses(frame), ip.proto, 0);
    Some(payload.chunks(size.max(1)).enumerate().map(move |(index, payload)| {
        let len = (udp::HEADER + payload.len()) as u16;
        let mut udp = Udp { len: len.into(), checksum: 0.into(), ..*udp };
        // the length counts twice: in the pseudo header and in the header
        let sum = (pseudo + Sum::of(payload)).word(len).word(len).word(udp.src.get()).word(udp.dst.get());
        udp.checksum.set(sum.udp_checksum());
        Datagram { index, header: zerocopy::transmute!(udp), payload }
    }))
}

/// Makes the IP header in `head` that of packet `index` of a superframe, with `len` bytes behind IP header and
/// extensions: lengths, IPv4 identification and header checksum.
pub(super) fn number_ip(head: &mut [u8], ip: &Ip, index: usize, len: usize) {
    let Some(header) = head.get_mut(ip.l3..ip.l4) else { return };
    let len = ip.l4 - ip.l3 + len;
    match ip.version {
        Version::V4 => {
            if let Ok((v4, _)) = Ipv4::mut_from_prefix(header) {
                v4.total_len.set(len as u16);
                v4.id.set(v4.id.get().wrapping_add(index as u16));
            }
            ipv4::set_checksum(header);
        }
        Version::V6 => {
            if let Ok((v6, _)) = Ipv6::mut_from_prefix(header) {
                v6.payload_len.set((len - ipv6::HEADER) as u16);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::counters::DropReason;
    use crate::offload::testing::*;
    use crate::offload::{Fit, fit};
    use crate::vnet::VnetHdr;
    use crate::wire::tcp;

    /// What must hold of the packets that a TCP packet was made into.
    fn check_segments(spec: &Spec, frames: &[Vec<u8>], max_frame: usize) {
        let whole = spec.frame();
        let original = tcp_of(&whole);
        let mut seq = spec.seq;
        for (index, frame) in frames.iter().enumerate() {
            assert!(frame.len() <= max_frame);
            assert_checksums(frame);
            let (ip, tcp) = (ip_of(frame), tcp_of(frame));
            let (first, last) = (index == 0, index + 1 == frames.len());
            assert_eq!(ip.end, frame.len());
            assert_eq!(frame[..ip.l3], whole[..ip.l3]);
            assert_eq!((ip.tos, ip.ttl), (spec.tos, 63));
            assert_eq!(tcp.sequence_number, seq);
            assert_eq!((tcp.fin, tcp.psh), (last && original.fin, last && original.psh));
            assert_eq!((tcp.cwr, tcp.ece), (first && original.cwr, original.ece));
            assert_eq!((tcp.acknowledgment_number, tcp.window_size), (77, 513));
            assert_eq!(tcp.options, original.options);
            if !spec.v6 {
                let v4 = ipv4_of(frame);
                assert_eq!(v4.identification, spec.id.wrapping_add(index as u16));
                assert_eq!((v4.dont_fragment, v4.more_fragments), (spec.df, false));
            }
            seq = seq.wrapping_add(payload_of(frame).len() as u32);
        }
        assert_eq!(
            frames.iter().flat_map(|frame| payload_of(frame).to_vec()).collect::<Vec<_>>(),
            spec.payload()
        );
    }

    proptest! {
        #[test]
        fn tcp_superframes(spec in tcp_spec(20_000), gso_size in 300u16..3000, max_frame in 200usize..2000,
                           padding in 0usize..10) {
            let (mut frame, vnet) = spec.offloaded(gso_size);
            let head = ip_of(&frame).end - spec.len;
            frame.resize(frame.len() + padding, 0xdd);
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, max_frame, &mut sink), Fit::Sent(sink.frames.len()));
            check_segments(&spec, &sink.frames, max_frame);
            let size = (max_frame - head).min(gso_size.into());
            prop_assert_eq!(sink.frames.len(), spec.len.div_ceil(size));
            prop_assert!(sink.frames.iter().rev().skip(1).all(|frame| payload_of(frame).len() == size));
        }

        #[test]
        fn tcp_packets_are_split(spec in tcp_spec(9000), partial in any::<bool>(), shorter in 1usize..8000) {
            let (frame, vnet) = match partial {
                true => spec.offloaded(0),
                false => (spec.frame(), VnetHdr::default()),
            };
            let head = frame.len() - spec.len;
            let max_frame = frame.len().saturating_sub(shorter).max(head + 10);
            prop_assume!(max_frame < frame.len());
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, max_frame, &mut sink), Fit::Sent(sink.frames.len()));
            check_segments(&spec, &sink.frames, max_frame);
            let lens: Vec<_> = sink.frames.iter().map(|frame| payload_of(frame).len()).collect();
            prop_assert_eq!(lens.len(), spec.len.div_ceil(max_frame - head), "no more packets than needed");
            prop_assert!(lens.iter().rev().skip(1).all(|len| *len == lens[0]) && lens[lens.len() - 1] <= lens[0]);
        }

        #[test]
        fn udp_superframes(spec in udp_spec(20_000), gso_size in 100u16..1400) {
            let (frame, vnet) = spec.offloaded(gso_size);
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Sent(sink.frames.len()));
            prop_assert_eq!(sink.frames.len(), spec.len.div_ceil(gso_size.into()));
            let mut data: Vec<u8> = Vec::new();
            for (index, frame) in sink.frames.iter().enumerate() {
                assert_checksums(frame);
                let udp = udp_of(frame);
                prop_assert_eq!((udp.source_port, udp.destination_port), (40000, 53));
                prop_assert!(udp.checksum != 0);
                let len = payload_of(frame).len();
                prop_assert!(len == usize::from(gso_size) || index + 1 == sink.frames.len());
                if !spec.v6 {
                    prop_assert_eq!(ipv4_of(frame).identification, spec.id.wrapping_add(index as u16));
                    prop_assert_eq!(ipv4_of(frame).dont_fragment, spec.df);
                }
                data.extend(payload_of(frame));
            }
            prop_assert_eq!(data, spec.payload());
        }
    }

    /// The packet of a container at MTU 1500 over an underlay at MTU 1500.
    #[test]
    fn one_full_packet_becomes_two_halves() {
        let mut sink = Frames::new();
        assert_eq!(fit(&Spec::tcp(1460).frame(), &VnetHdr::default(), 1476, &mut sink), Fit::Sent(2));
        assert_eq!(sink.frames.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 40 + 730, 14 + 40 + 730]);
        check_segments(&Spec::tcp(1460), &sink.frames, 1476);
    }

    #[test]
    fn damage_is_not_healed_by_splitting() {
        let mut frame = Spec::tcp(1460).frame();
        frame[1000] ^= 1;
        let mut sink = Frames::new();
        assert_eq!(fit(&frame, &VnetHdr::default(), 1476, &mut sink), Fit::Dropped(DropReason::BadChecksum));
        assert!(sink.frames.is_empty());
        let mut header = Spec::tcp(1460).frame();
        header[22] ^= 1;
        assert_eq!(fit(&header, &VnetHdr::default(), 1476, &mut sink), Fit::Dropped(DropReason::BadChecksum));
        let mut datagram = Spec { df: false, ..Spec::udp(1460) }.frame();
        datagram[22] ^= 1;
        assert_eq!(
            fit(&datagram, &VnetHdr::default(), 1476, &mut sink),
            Fit::Dropped(DropReason::BadChecksum)
        );
        assert!(sink.frames.is_empty());
        // a frame that fits is none of our business
        assert_eq!(fit(&frame, &VnetHdr::default(), 1514, &mut sink), Fit::Sent(1));
        assert_eq!(sink.frames, [frame]);
    }

    #[test]
    fn syn_reset_and_signed_are_not_split() {
        let flags = |flags| Spec { flags, ..Spec::tcp(1460) };
        let signed = Spec { options: vec![1, 1, 29, 6, 1, 1, 7, 7], ..Spec::tcp(1460) };
        for spec in [flags(tcp::SYN), flags(tcp::ACK | tcp::RST), flags(tcp::ACK | tcp::URG), signed] {
            let mut sink = Frames::new();
            assert_eq!(
                fit(&spec.frame(), &VnetHdr::default(), 1476, &mut sink),
                Fit::TooBig { ip_mtu: 1462 }
            );
        }
        let (frame, vnet) = Spec { flags: tcp::SYN, ..Spec::tcp(1460) }.offloaded(500);
        assert_eq!(fit(&frame, &vnet, 1476, &mut Frames::new()), Fit::Dropped(DropReason::Malformed));
    }

    #[test]
    fn a_full_sink_ends_it() {
        let (frame, vnet) = Spec::tcp(5000).offloaded(1000);
        let mut sink = Frames { room: 3, ..Frames::new() };
        assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Sent(3));
        assert_eq!(sink.frames.len(), 3);
    }

    /// With a routing header the pseudo header has the final destination, which only the partial checksum knows.
    #[test]
    fn segments_behind_a_routing_header() {
        use crate::wire::checksum::{Sum, pseudo};
        use crate::wire::{ipv6, proto, put16};

        let spec = Spec { v6: true, ..Spec::tcp(3000) };
        let (mut frame, mut vnet) = spec.offloaded(1000);
        let last = [0xab; 16];
        let routing = [&[proto::TCP, 2, 4, 1, 0, 0, 0, 0][..], &last].concat();
        frame.splice(54..54, routing.iter().copied());
        frame[14 + 6] = 43;
        put16(&mut frame, 14 + 4, (24 + 20 + 3000) as u16);
        vnet.csum_start = (54 + 24).into();
        let final_pseudo = |frame: &[u8], len| {
            let addresses =
                [&frame[14 + ipv6::ADDRESSES.start..14 + ipv6::ADDRESSES.start + 16], &last].concat();
            pseudo(&addresses, proto::TCP, len)
        };
        let partial = final_pseudo(&frame, 3020).fold();
        put16(&mut frame, 78 + tcp::CHECKSUM, partial);

        let mut sink = Frames::new();
        assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Sent(3));
        for frame in &sink.frames {
            assert_eq!(frame.len(), 78 + 20 + 1000);
            assert!((final_pseudo(frame, 1020) + Sum::of(&frame[78..])).is_valid());
        }
        // without a partial checksum it cannot be split
        assert_eq!(fit(&frame, &VnetHdr::default(), 1476, &mut sink), Fit::TooBig { ip_mtu: 1462 });
    }
}
