//! Finishing a checksum that the sender's kernel left to the device.

use crate::vnet::VnetHdr;
use crate::wire::checksum::Sum;
use crate::wire::{Ip, proto, sctp, udp};

/// Finishes the checksum that `vnet` says is partial, in place. `frame` must end where the packet ends, padding cut off
/// or zero. `ip` is what parsing said of it. A header that points outside the frame, or into the headers that it was
/// switched by, changes nothing.
pub fn finish_checksum(frame: &mut [u8], ip: Option<&Ip>, vnet: &VnetHdr) {
    if let Some(patch) = unfinished(frame, ip, vnet) {
        patch.apply(frame, 0);
    }
}

/// What [`finish_checksum`] would write where, for those who copy the frame in parts. None: nothing to finish.
pub(super) fn unfinished(frame: &[u8], ip: Option<&Ip>, vnet: &VnetHdr) -> Option<Patch> {
    if !vnet.needs_csum() {
        return None;
    }
    let (start, offset) = (usize::from(vnet.csum_start.get()), usize::from(vnet.csum_offset.get()));
    if ip.is_some_and(|ip| start < ip.l4) {
        return None;
    }
    let covered = frame.get(start..)?;
    let patch = if offset == sctp::CHECKSUM && ip.is_some_and(|ip| ip.proto == proto::SCTP && ip.l4 == start)
    {
        Patch { at: start + offset, bytes: sctp::checksum(covered), len: 4 }
    } else {
        // the field holds the pseudo header's sum, and is summed with the rest
        let sum = Sum::of(covered);
        let check = if offset == udp::CHECKSUM { sum.udp_checksum() } else { sum.checksum() };
        let [high, low] = check.to_be_bytes();
        Patch { at: start + offset, bytes: [high, low, 0, 0], len: 2 }
    };
    (patch.at + patch.len <= frame.len()).then_some(patch)
}

/// Bytes that stand in a copy instead of the original's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch {
    /// Where, counted as the original counts.
    pub at: usize,
    bytes: [u8; 4],
    len: usize,
}

impl Patch {
    /// The same patch, counted from offset `base` of the original. None: it stands before that.
    pub fn from(self, base: usize) -> Option<Patch> {
        Some(Patch { at: self.at.checked_sub(base)?, ..self })
    }

    /// Writes the part of the patch that falls into `copy`, which holds the original from offset `from` on.
    pub fn apply(&self, copy: &mut [u8], from: usize) {
        for (at, byte) in (self.at..).zip(self.bytes.iter().take(self.len)) {
            if let Some(place) = at.checked_sub(from).and_then(|at| copy.get_mut(at)) {
                *place = *byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet::F_NEEDS_CSUM;

    fn partial(start: u16, offset: u16) -> VnetHdr {
        VnetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: start.into(),
            csum_offset: offset.into(),
            ..VnetHdr::default()
        }
    }

    #[test]
    fn writes_the_complement() {
        let mut frame = [9, 9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0];
        finish_checksum(&mut frame, None, &partial(2, 8));
        assert_eq!(frame[10..], [0x22, 0x0d]);
    }

    #[test]
    fn a_header_that_lies_changes_nothing() {
        let original = [7u8; 20];
        for (start, offset) in [(0, 19), (19, 0), (20, 0), (21, 0), (0, 65535), (65535, 65535)] {
            let mut frame = original;
            finish_checksum(&mut frame, None, &partial(start, offset));
            assert_eq!(frame, original, "{start} {offset}");
        }
        let mut frame = original;
        finish_checksum(&mut frame, None, &VnetHdr { flags: 0, ..partial(0, 16) });
        assert_eq!(frame, original);
    }

    #[test]
    fn addresses_are_no_checksum() {
        let mut frame = vec![0; 14];
        frame[12..].copy_from_slice(&[8, 0]);
        frame.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 255, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.resize(50, 7);
        let ip = crate::wire::parse(&frame).unwrap().ip.unwrap();
        let original = frame.clone();
        for (start, offset) in [(0, 0), (14, 12), (21, 8), (33, 17)] {
            finish_checksum(&mut frame, Some(&ip), &partial(start, offset));
            assert_eq!(frame, original, "{start} {offset}");
        }
        finish_checksum(&mut frame, Some(&ip), &partial(34, 0));
        assert_ne!(frame, original);
    }

    #[test]
    fn udp_never_says_none() {
        let mut frame = [0xff, 0xff, 0, 0, 0, 0, 0, 0];
        finish_checksum(&mut frame, None, &partial(0, 6));
        assert_eq!(frame[6..], [0xff, 0xff]);
    }

    #[test]
    fn a_patch_lands_in_the_part_that_has_its_place() {
        let patch = Patch { at: 5, bytes: [1, 2, 0, 0], len: 2 };
        for (from, expected) in
            [(0, [0, 0, 0, 0]), (2, [0, 0, 0, 1]), (5, [1, 2, 0, 0]), (6, [2, 0, 0, 0]), (7, [0; 4])]
        {
            let mut copy = [0; 4];
            patch.apply(&mut copy, from);
            assert_eq!(copy, expected, "from {from}");
        }
    }
}
