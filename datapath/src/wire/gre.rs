//! GRE (RFC 2784) with key and sequence number (RFC 2890).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |C|R|K|S|s|Rcr|  Reserved0   | Ver |         Protocol Type       |
//! |      Checksum (C)             |       Reserved1 (C)           |
//! |                            Key (K)                            |
//! |                      Sequence Number (S)                      |
//! ```
//! Bit 1 (routing), bits 4 and 5 and the version must be zero: a packet that has one set is from RFC 1701 or PPTP and
//! is discarded (RFC 2784 section 2.3). Bits 6 to 12 are sent as zero and ignored.

use super::checksum::Sum;
use super::{get16, put16};

/// Bytes of a header without optional fields.
pub const HEADER: usize = 4;
/// Bytes of a header with all of them.
pub const MAX_HEADER: usize = 16;

const C: u16 = 0x8000;
const K: u16 = 0x2000;
const S: u16 = 0x1000;
/// Routing, strict source route, the highest bit of recursion control, version.
const MUST_BE_ZERO: u16 = 0x4000 | 0x0800 | 0x0400 | 0x0007;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gre {
    /// EtherType of the payload.
    pub protocol: u16,
    /// Whether there is a checksum.
    pub checksum: bool,
    /// The key, if there is one.
    pub key: Option<u32>,
    /// The sequence number, if there is one.
    pub sequence: Option<u32>,
}

/// Why a packet is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Shorter than its header.
    Short,
    /// Version or reserved bits that must be zero are not.
    Unsupported,
    /// The checksum is wrong.
    Checksum,
}

impl Gre {
    /// Bytes of the header: 4 to 16.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER
            + 4 * (usize::from(self.checksum)
                + usize::from(self.key.is_some())
                + usize::from(self.sequence.is_some()))
    }

    /// Writes the header to the start of `out` and returns its length; None when `out` is too short. A checksum field is
    /// left zero: [`fill_checksum`] fills it once the payload stands behind.
    #[inline]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let header = out.get_mut(..self.header_len())?;
        let flags = if self.checksum { C } else { 0 }
            | if self.key.is_some() { K } else { 0 }
            | if self.sequence.is_some() { S } else { 0 };
        let (base, optional) = header.split_first_chunk_mut::<HEADER>()?;
        *base = (u32::from(flags) << 16 | u32::from(self.protocol)).to_be_bytes();
        let words = [self.checksum.then_some(0), self.key, self.sequence].into_iter().flatten();
        for (field, word) in optional.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *field = word.to_be_bytes();
        }
        Some(self.header_len())
    }
}

/// Reads the header at the start of `packet`, which must end where the GRE packet ends, and verifies the checksum if
/// there is one. Returns the header and the payload's offset.
#[inline]
pub fn decode(packet: &[u8]) -> Result<(Gre, usize), Discard> {
    let (gre, len) = decode_unverified(packet)?;
    if gre.checksum && !Sum::of(packet).is_valid() {
        return Err(Discard::Checksum);
    }
    Ok((gre, len))
}

/// [`decode`] without looking whether the checksum is right.
#[inline]
pub fn decode_unverified(packet: &[u8]) -> Result<(Gre, usize), Discard> {
    let (base, optional) = packet.split_first_chunk::<HEADER>().ok_or(Discard::Short)?;
    let base = u32::from_be_bytes(*base);
    let (flags, protocol) = ((base >> 16) as u16, base as u16);
    if flags & MUST_BE_ZERO != 0 {
        return Err(Discard::Unsupported);
    }
    let mut fields = optional.as_chunks::<4>().0.iter().map(|field| u32::from_be_bytes(*field));
    let mut field = |bit| match flags & bit {
        0 => Ok(None),
        _ => fields.next().map(Some).ok_or(Discard::Short),
    };
    let checksum = field(C)?.is_some();
    let gre = Gre { protocol, checksum, key: field(K)?, sequence: field(S)? };
    Ok((gre, gre.header_len()))
}

/// Fills the checksum field of a packet whose header says that it has one; `packet` is header and payload.
#[inline]
pub fn fill_checksum(packet: &mut [u8]) {
    if get16(packet, 0).is_some_and(|flags| flags & C != 0) {
        put16(packet, HEADER, 0);
        let sum = Sum::of(packet);
        put16(packet, HEADER, sum.checksum());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ethernet::TEB;

    const PLAIN: Gre = Gre { protocol: TEB, checksum: false, key: None, sequence: None };

    /// What Open vSwitch 3.1 and Linux send.
    #[test]
    fn bytes_on_the_wire() {
        for (gre, bytes) in [
            (PLAIN, &[0, 0, 0x65, 0x58][..]),
            (Gre { key: Some(0), ..PLAIN }, &[0x20, 0, 0x65, 0x58, 0, 0, 0, 0]),
            (Gre { sequence: Some(7), ..PLAIN }, &[0x10, 0, 0x65, 0x58, 0, 0, 0, 7]),
            (
                Gre { key: Some(0x1234_5678), sequence: Some(1), ..PLAIN },
                &[0x30, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1],
            ),
        ] {
            let mut out = [0xee; MAX_HEADER];
            assert_eq!(gre.encode(&mut out), Some(bytes.len()));
            assert_eq!(&out[..bytes.len()], bytes);
            assert_eq!(decode(bytes), Ok((gre, bytes.len())));
            assert_eq!(gre.encode(&mut out[..bytes.len() - 1]), None);
            assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(Discard::Short));
        }
    }

    #[test]
    fn bits_that_must_be_zero() {
        for bit in 0..16u16 {
            let first = ((0x8000u16 >> bit) & !(C | K | S)).to_be_bytes();
            let packet = [first[0], first[1], 0x65, 0x58, 0, 0, 0, 0, 0, 0, 0, 0];
            let discarded = matches!(bit, 1 | 4 | 5 | 13 | 14 | 15);
            assert_eq!(decode(&packet) == Err(Discard::Unsupported), discarded, "bit {bit}");
        }
    }

    #[test]
    fn checksum_zero_does_not_mean_none() {
        assert_eq!(decode(&[0x80, 0, 0x65, 0x58, 0, 0, 0, 0, 1, 2]), Err(Discard::Checksum));
    }

    proptest! {
        #[test]
        fn checksum_is_verified(key in any::<Option<u32>>(), sequence in any::<Option<u32>>(),
                                payload in proptest::collection::vec(any::<u8>(), 0..100), flip in any::<(usize, u8)>()) {
            let gre = Gre { checksum: true, key, sequence, ..PLAIN };
            let mut packet = vec![0; gre.header_len()];
            gre.encode(&mut packet);
            packet.extend(payload);
            fill_checksum(&mut packet);
            prop_assert_eq!(decode(&packet), Ok((gre, gre.header_len())));
            // any one byte changed behind the flags is noticed
            let at = 2 + flip.0 % (packet.len() - 2);
            packet[at] ^= flip.1;
            prop_assert_eq!(decode(&packet).is_ok(), flip.1 == 0);
        }

        #[test]
        fn any_bytes(packet in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok((gre, len)) = decode(&packet) {
                prop_assert!(len <= packet.len() && len == gre.header_len());
            }
        }
    }
}
