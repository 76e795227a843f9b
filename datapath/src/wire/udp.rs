//! UDP (RFC 768).
//!
//! ```text
//!  0                   1                   2                   3
//! |          Source Port          |       Destination Port        |
//! |            Length             |           Checksum            |
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16};

/// Bytes of the header.
pub const HEADER: usize = 8;
/// Where the checksum stands, from the header's start.
pub const CHECKSUM: usize = 6;

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub src: U16,
    /// Destination port.
    pub dst: U16,
    /// Bytes of header and payload.
    pub len: U16,
    /// Over pseudo header, header and payload; 0 over IPv4: none.
    pub checksum: U16,
}
