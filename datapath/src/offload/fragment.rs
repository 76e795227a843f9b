//! IPv4 fragmentation (RFC 791 section 3.2) of the packets inside a tunnel.

use zerocopy::FromBytes;

use super::FrameSink;
use super::finish::Patch;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{Ip, ethernet};

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;

/// Bytes of the longest header in front of a fragment's payload.
pub(super) const MAX_HEAD: usize = ethernet::MAX_HEADER + ipv4::MAX_HEADER;

/// An IPv4 packet to be fragmented; perhaps a fragment already.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    /// Ethernet and IPv4 header.
    pub head: &'a [u8],
    /// Where in `head` the IPv4 header starts.
    pub l3: usize,
    /// The payload, in two parts.
    pub payload: [&'a [u8]; 2],
    /// The finished checksum, counted from the payload's start.
    pub patch: Option<Patch>,
}

/// Why a packet was not fragmented.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room for 8 bytes behind the headers.
    NoRoom,
    /// The payload reaches beyond what an offset can say, or there is no IPv4 header.
    Malformed,
}

impl Whole<'_> {
    fn len(&self) -> usize {
        self.payload.iter().map(|part| part.len()).sum()
    }

    /// Fills `to` with the payload from `from` on.
    fn copy(&self, from: usize, to: &mut [u8]) {
        let (mut skip, mut rest) = (from, &mut *to);
        for part in self.payload {
            let source = part.get(skip..).unwrap_or(&[]);
            skip = skip.saturating_sub(part.len());
            let (here, after) = rest.split_at_mut(source.len().min(rest.len()));
            here.copy_from_slice(source.split_at(here.len()).0);
            rest = after;
        }
        if let Some(patch) = self.patch {
            patch.apply(to, from);
        }
    }

    /// Writes fragments of at most `max_frame` bytes, with at most `max_payload` payload bytes each, and returns how many
    /// the sink had room for. DF is cleared: asking for fragments overrules it.
    pub fn fragment(
        &self,
        max_frame: usize,
        max_payload: usize,
        sink: &mut impl FrameSink,
    ) -> Result<usize, Refused> {
        let (header, _) = self
            .head
            .get(self.l3..)
            .and_then(|header| Ipv4::ref_from_prefix(header).ok())
            .ok_or(Refused::Malformed)?;
        let base = usize::from(header.fragment.get() & ipv4::OFFSET) * 8;
        let more = header.fragment.get() & ipv4::MF;
        if base + self.len() > usize::from(u16::MAX) {
            return Err(Refused::Malformed);
        }
        if self.head.len() > max_frame {
            return Err(Refused::NoRoom);
        }
        let mut later = [0; MAX_HEAD];
        let later = later_head(self.head, self.l3, &mut later).ok_or(Refused::Malformed)?;

        let (mut head, mut at, mut count) = (self.head, 0, 0);
        while at < self.len() {
            let room = max_frame.saturating_sub(head.len()).min(max_payload);
            let left = self.len() - at;
            let (take, last) = if left <= room { (left, true) } else { (room & !7, false) };
            if take == 0 {
                return Err(Refused::NoRoom);
            }
            let Some(slot) = sink.slot(head.len() + take) else { return Ok(count) };
            let Some((slot_head, body)) = slot.split_at_mut_checked(head.len()) else { return Ok(count) };
            slot_head.copy_from_slice(head);
            self.copy(at, body);
            let Some(ip) = slot_head.get_mut(self.l3..) else { return Ok(count) };
            if let Ok((v4, _)) = Ipv4::mut_from_prefix(ip) {
                v4.total_len.set((head.len() - self.l3 + take) as u16);
                let offset = ((base + at) / 8) as u16;
                v4.fragment.set(offset | if last { more } else { ipv4::MF });
            }
            ipv4::set_checksum(ip);
            (head, at, count) = (later, at + take, count + 1);
        }
        Ok(count)
    }
}

/// The head of every fragment after the first: only the options that are to be copied into each, padded to a word.
fn later_head<'a>(head: &[u8], l3: usize, out: &'a mut [u8; MAX_HEAD]) -> Option<&'a [u8]> {
    let (fixed, mut options) = head.split_at_checked(l3 + ipv4::HEADER)?;
    let mut len = fixed.len();
    out.get_mut(..len)?.copy_from_slice(fixed);
    while let [kind, ..] = *options {
        let size = match (kind, options) {
            (OPTION_END, _) => break,
            (OPTION_NOP, _) => 1,
            (_, [_, size, ..]) if *size >= 2 => usize::from(*size),
            _ => break,
        };
        let Some((option, rest)) = options.split_at_checked(size) else { break };
        if ipv4::option_is_copied(kind) {
            out.get_mut(len..len + size)?.copy_from_slice(option);
            len += size;
        }
        options = rest;
    }
    // what is left of the last word is zero, the end of options
    len = l3 + (len - l3).next_multiple_of(4);
    let words = ((len - l3) / 4) as u8;
    let version_ihl = out.get_mut(l3)?;
    *version_ihl = (*version_ihl & 0xf0) | words;
    out.get(..len)
}

/// [`Whole`] of the packet `ip` in `frame`.
pub(super) fn whole<'a>(frame: &'a [u8], ip: &Ip, patch: Option<Patch>) -> Option<Whole<'a>> {
    let (head, payload) = frame.get(..ip.end)?.split_at_checked(ip.l4)?;
    let patch = patch.and_then(|patch| patch.from(ip.l4));
    Some(Whole { head, l3: ip.l3, payload: [payload, &[]], patch })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::counters::DropReason;
    use crate::offload::testing::*;
    use crate::offload::{Fit, fit};
    use crate::vnet::{GSO_UDP, VnetHdr};
    use crate::wire::{ipv4, put16};

    /// Timestamp (not copied), no-operation, a copied option, and an end.
    const OPTIONS: [u8; 12] = [0x44, 5, 1, 1, 1, 1, 0x94, 4, 0, 0, 0, 0];

    fn check_fragments(spec: &Spec, frames: &[Vec<u8>], max_frame: usize) {
        for (index, frame) in frames.iter().enumerate() {
            assert!(frame.len() <= max_frame);
            let (header, ip) = (ipv4_of(frame), ip_of(frame));
            assert_eq!(ip.end, frame.len());
            assert_eq!((header.identification, header.dont_fragment), (spec.id, false));
            assert_eq!((ip.tos, ip.ttl), (spec.tos, 63));
            assert!(ipv4::checksum_ok(&frame[ip.l3..ip.l4]));
            let options = if index == 0 { &spec.options[..] } else { &[0x94, 4, 0, 0][..] };
            assert_eq!(header.options.as_slice(), if spec.options.is_empty() { &[] } else { options });
        }
    }

    proptest! {
        #[test]
        fn datagrams(spec in udp_spec(9000), partial in any::<bool>(), options in any::<bool>(), max_frame in 110usize..3000) {
            let options = if options { OPTIONS.to_vec() } else { vec![] };
            let spec = Spec { v6: false, df: false, options, ..spec };
            let (frame, vnet) = if partial { spec.offloaded(0) } else { (spec.frame(), VnetHdr::default()) };
            let max_frame = max_frame.min(frame.len() - 1);
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, max_frame, &mut sink), Fit::Sent(sink.frames.len()));
            check_fragments(&spec, &sink.frames, max_frame);
            let (data, complete) = reassemble(&sink.frames);
            prop_assert!(complete);
            prop_assert_eq!(&data, &spec.frame()[ip_of(&frame).l4..]);

            // and again over a shorter path: fragments of fragments
            let mut shorter = Frames::new();
            for frame in &sink.frames {
                let before = shorter.frames.len();
                prop_assert_eq!(fit(frame, &VnetHdr::default(), 108, &mut shorter), Fit::Sent(shorter.frames.len() - before));
            }
            prop_assert!(shorter.frames.iter().all(|frame| frame.len() <= 108));
            prop_assert_eq!(reassemble(&shorter.frames), (data, true));
        }

        #[test]
        fn udp_superframes_too_long_for_the_path(spec in udp_spec(20_000), gso_size in 600u16..2000) {
            let spec = Spec { v6: false, df: false, ..spec };
            let (frame, vnet) = spec.offloaded(gso_size);
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, 500, &mut sink), Fit::Sent(sink.frames.len()));
            let mut data: Vec<u8> = Vec::new();
            for index in 0..spec.len.div_ceil(gso_size.into()) {
                let id = spec.id.wrapping_add(index as u16);
                let parts: Vec<_> = sink.frames.iter().filter(|frame| ipv4_of(frame).identification == id).cloned().collect();
                let (datagram, complete) = reassemble(&parts);
                prop_assert!(complete);
                // as one packet again it has all checksums right
                let l4 = ip_of(&parts[0]).l4;
                let mut whole = [&parts[0][..l4], &datagram].concat();
                let l3 = ip_of(&parts[0]).l3;
                put16(&mut whole, l3 + 2, (l4 - l3 + datagram.len()) as u16);
                put16(&mut whole, l3 + 6, 0);
                ipv4::set_checksum(&mut whole[l3..l4]);
                assert_checksums(&whole);
                data.extend(payload_of(&whole));
            }
            prop_assert_eq!(data, spec.payload());
        }

        #[test]
        fn ufo(spec in udp_spec(20_000), gso_size in 8u16..3000) {
            let spec = Spec { v6: false, len: 1476 + spec.len, ..spec };
            let (frame, vnet) = spec.offloaded(gso_size);
            let vnet = VnetHdr { gso_type: GSO_UDP, ..vnet };
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Sent(sink.frames.len()));
            check_fragments(&spec, &sink.frames, 1476);
            let (data, complete) = reassemble(&sink.frames);
            prop_assert!(complete);
            prop_assert_eq!(&data, &spec.frame()[ip_of(&frame).l4..]);
        }
    }

    fn datagram(df: bool, len: usize) -> Spec {
        Spec { df, ..Spec::udp(len) }
    }

    #[test]
    fn dont_fragment_is_told() {
        let mut sink = Frames::new();
        let frame = datagram(true, 1472).frame();
        assert_eq!(fit(&frame, &VnetHdr::default(), 1476, &mut sink), Fit::TooBig { ip_mtu: 1462 });
        let v6 = Spec { v6: true, ..datagram(false, 1452) }.frame();
        assert_eq!(fit(&v6, &VnetHdr::default(), 1476, &mut sink), Fit::TooBig { ip_mtu: 1462 });
        let tagged = Spec { tags: 1, ..datagram(true, 1472) }.frame();
        assert_eq!(fit(&tagged, &VnetHdr::default(), 1476, &mut sink), Fit::TooBig { ip_mtu: 1458 });
        let (superframe, vnet) = datagram(true, 5000).offloaded(1472);
        assert_eq!(fit(&superframe, &vnet, 1476, &mut sink), Fit::TooBig { ip_mtu: 1462 });
        assert!(sink.frames.is_empty());
    }

    /// Offsets that add up beyond 64 KiB: "ping of death".
    #[test]
    fn beyond_the_largest_packet() {
        let mut frame = datagram(false, 1472).frame();
        put16(&mut frame, 14 + 6, 0x1fff);
        ipv4::set_checksum(&mut frame[14..34]);
        let mut sink = Frames::new();
        assert_eq!(fit(&frame, &VnetHdr::default(), 1000, &mut sink), Fit::Dropped(DropReason::Malformed));
        assert!(sink.frames.is_empty());
    }

    #[test]
    fn no_room_for_eight_bytes() {
        let frame = datagram(false, 100).frame();
        let mut empty = datagram(false, 0).frame();
        put16(&mut empty, 16, 20);
        ipv4::set_checksum(&mut empty[14..34]);
        assert_eq!(
            fit(&empty[..34], &VnetHdr::default(), 33, &mut Frames::new()),
            Fit::Dropped(DropReason::TooBig)
        );
        for (max_frame, fit_) in [(34 + 7, Fit::Dropped(DropReason::TooBig)), (34 + 8, Fit::Sent(14))] {
            assert_eq!(fit(&frame, &VnetHdr::default(), max_frame, &mut Frames::new()), fit_);
        }
    }
}
