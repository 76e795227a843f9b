//! ICMP (RFC 792) and ICMPv6 (RFC 4443): what is needed to send "too big" and to know an error when it passes.
//!
//! ```text
//!  0                   1                   2                   3
//! |     Type      |     Code      |           Checksum            |
//! | ICMP 3/4: unused (16), next-hop MTU (16) | ICMPv6 2: MTU (32) |
//! |     as much of the offending packet as there is room for …    |
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16, big_endian::U32};

/// Bytes of the header.
pub const HEADER: usize = 8;

/// ICMP type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;

const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const REDIRECT_V6: u8 = 137;

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Over the message, for ICMPv6 after the pseudo header.
    pub checksum: U16,
    /// The next hop's MTU in bytes, where the type carries one. (16 unused bits before it in ICMP.)
    pub mtu: U32,
}

/// An ICMP message that no error may answer (RFC 1122 section 3.2.2).
#[inline]
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// An ICMPv6 message that no error may answer: an error itself or a redirect (RFC 4443 section 2.4 (e)).
#[inline]
pub fn is_error_v6(kind: u8) -> bool {
    kind < 128 || kind == REDIRECT_V6
}
