//! Ethernet (IEEE 802.3) and VLAN tags (IEEE 802.1Q).
//!
//! ```text
//!  0                   6                  12        14
//! +-------------------+-------------------+---------+----------
//! |    destination    |      source       |EtherType| payload …
//! +-------------------+-------------------+---------+----------
//! with a tag: … source |TPID 8100|PCP,DEI,VID|EtherType| payload …
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

/// An address.
pub type Mac = [u8; 6];

/// Bytes of a header without tags.
pub const HEADER: usize = 14;
/// Bytes that each tag adds.
pub const TAG: usize = 4;
/// Tags that [`crate::wire::parse`] looks behind. A frame with more is carried like any other that is not IP.
pub const MAX_TAGS: usize = 4;
/// The longest header that [`crate::wire::parse`] tells of.
pub const MAX_HEADER: usize = HEADER + MAX_TAGS * TAG;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType (tag protocol identifier) of a customer VLAN tag.
pub const DOT1Q: u16 = 0x8100;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType (tag protocol identifier) of a service VLAN tag, 802.1ad.
pub const DOT1AD: u16 = 0x88a8;
/// EtherType of "Transparent Ethernet Bridging": what GRE calls an Ethernet frame.
pub const TEB: u16 = 0x6558;

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// The bridge group address: where BPDUs go (IEEE 802.1D-2004 table 7-10).
pub const BRIDGE_GROUP: Mac = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00];

/// The header, tags not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What follows; below 0x600 a length (802.3 with LLC).
    pub ethertype: U16,
}

/// Tag control information of a VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tci(pub u16);

impl Tci {
    /// VLAN identifier, 0 to 4095. 0: the tag carries a priority only.
    #[inline]
    pub fn vid(self) -> u16 {
        self.0 & 0x0fff
    }

    /// Priority code point, 0 to 7.
    #[inline]
    pub fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }
}

/// Whether the EtherType announces a VLAN tag.
#[inline]
pub fn is_tag(ethertype: u16) -> bool {
    ethertype == DOT1Q || ethertype == DOT1AD
}

/// A multicast or broadcast address: the I/G bit.
#[inline]
pub fn is_group(mac: Mac) -> bool {
    let [first, ..] = mac;
    first & 1 != 0
}

/// An address that a station may send from: neither a group nor all zero.
#[inline]
pub fn is_source(mac: Mac) -> bool {
    !is_group(mac) && mac != [0; 6]
}

/// 01-80-C2-00-00-00 to -0F, which a bridge never forwards (IEEE 802.1D-2004 table 7-10).
#[inline]
pub fn is_reserved(mac: Mac) -> bool {
    matches!(mac, [0x01, 0x80, 0xc2, 0x00, 0x00, last] if last < 0x10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_addresses() {
        for (mac, group, source, reserved) in [
            ([0x02, 0x42, 0x0a, 0, 0, 1], false, true, false),
            ([0; 6], false, false, false),
            ([0xff; 6], true, false, false),
            ([0x33, 0x33, 0, 0, 0, 1], true, false, false),
            ([0x01, 0x80, 0xc2, 0, 0, 0x00], true, false, true),
            ([0x01, 0x80, 0xc2, 0, 0, 0x0f], true, false, true),
            ([0x01, 0x80, 0xc2, 0, 0, 0x10], true, false, false),
            ([0x01, 0x80, 0xc2, 0, 1, 0x00], true, false, false),
        ] {
            assert_eq!(
                (is_group(mac), is_source(mac), is_reserved(mac)),
                (group, source, reserved),
                "{mac:02x?}"
            );
        }
    }

    #[test]
    fn tag_fields() {
        let tci = Tci(0xb064);
        assert_eq!((tci.vid(), tci.priority()), (100, 5));
    }
}
