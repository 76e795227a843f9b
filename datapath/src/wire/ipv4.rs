//! IPv4 (RFC 791).
//!
//! ```text
//!  0                   1                   2                   3
//! |Version|  IHL  | DSCP      |ECN|          Total Length         |
//! |         Identification        |0|D|M|     Fragment Offset     |
//! |  Time to Live |    Protocol   |        Header Checksum        |
//! |                        Source Address                         |
//! |                     Destination Address                       |
//! |                    Options, if IHL exceeds 5                  |
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

use super::checksum::Sum;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes of a header with as many options as fit.
pub const MAX_HEADER: usize = 60;
/// Where source and destination stand, together, from the header's start.
pub const ADDRESSES: std::ops::Range<usize> = 12..20;
/// Where the checksum stands, from the header's start.
pub const CHECKSUM: usize = 10;

/// "Don't fragment", in [`Ipv4::fragment`].
pub const DF: u16 = 0x4000;
/// "More fragments", in [`Ipv4::fragment`].
pub const MF: u16 = 0x2000;
/// The fragment offset in units of 8 bytes, in [`Ipv4::fragment`].
pub const OFFSET: u16 = 0x1fff;

/// The header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version 4 and the header's length in words of 4 bytes.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Reserved bit, [`DF`], [`MF`], [`OFFSET`].
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Of the header alone, options included.
    pub checksum: U16,
    /// Source.
    pub src: [u8; 4],
    /// Destination.
    pub dst: [u8; 4],
}

impl Ipv4 {
    /// Bytes of the header with its options, as it claims: 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// Whether the version field says 4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.version_ihl >> 4 == 4
    }

    /// Whether the packet is one of several fragments.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & (MF | OFFSET) != 0
    }
}

/// Computes the header checksum anew. `header` is the whole header, options included; its checksum field may hold
/// anything. Does nothing with fewer than [`HEADER`] bytes.
#[inline]
pub fn set_checksum(header: &mut [u8]) {
    let sum = Sum::of(header);
    if let Ok((ip, _)) = Ipv4::mut_from_prefix(header) {
        ip.checksum.set(sum.without(ip.checksum.get()).checksum());
    }
}

/// Whether the header checksum is right. `header` is the whole header, options included.
#[inline]
pub fn checksum_ok(header: &[u8]) -> bool {
    header.as_array::<HEADER>().map_or_else(|| Sum::of(header), Sum::of_few).is_valid()
}

/// Whether the option of that type goes into every fragment, or into the first alone: the copied flag (RFC 791 3.1).
#[inline]
pub fn option_is_copied(kind: u8) -> bool {
    kind & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as tcpdump showed it: ping from 10.0.11.2 to 10.0.42.2.
    const PING: [u8; 20] =
        [0x45, 0x00, 0x00, 0x54, 0x5c, 0x1f, 0x40, 0x00, 0x40, 0x01, 0x95, 0x85, 10, 0, 11, 2, 10, 0, 42, 2];

    #[test]
    fn fields() {
        let ip = Ipv4::ref_from_bytes(&PING).unwrap();
        assert!(ip.is_v4() && !ip.is_fragment());
        assert_eq!((ip.header_len(), ip.total_len.get(), ip.id.get()), (20, 84, 0x5c1f));
        assert_eq!((ip.fragment.get(), ip.ttl, ip.protocol), (DF, 64, 1));
        assert_eq!((ip.src, ip.dst), ([10, 0, 11, 2], [10, 0, 42, 2]));
    }

    #[test]
    fn checksum() {
        let mut header = PING;
        set_checksum(&mut header);
        assert!(checksum_ok(&header));
        header[8] -= 1;
        assert!(!checksum_ok(&header));
        set_checksum(&mut header);
        assert!(checksum_ok(&header));
        set_checksum(&mut [0; 19]);
    }
}
