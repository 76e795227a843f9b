//! IPv6 and its extension headers (RFC 8200).
//!
//! ```text
//!  0                   1                   2                   3
//! |Version| Traffic Class |              Flow Label               |
//! |         Payload Length        |  Next Header  |   Hop Limit   |
//! |                      Source Address (16)                      |
//! |                    Destination Address (16)                   |
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16, big_endian::U32};

use super::proto;

/// Bytes of the header.
pub const HEADER: usize = 40;
/// Where source and destination stand, together, from the header's start.
pub const ADDRESSES: std::ops::Range<usize> = 8..40;
/// Every IPv6 link carries this much (RFC 8200 section 5); no Packet Too Big may usefully say less.
pub const MIN_MTU: u16 = 1280;
/// Extension headers that [`walk`] looks behind. RFC 8200 section 4.1 knows of seven in a sensible packet.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// The fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version 6, traffic class, flow label.
    pub version_class_flow: U32,
    /// Bytes after this header.
    pub payload_len: U16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
}

impl Ipv6 {
    /// Whether the version field says 6.
    #[inline]
    pub fn is_v6(&self) -> bool {
        self.version_class_flow.get() >> 28 == 6
    }

    /// DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }
}

/// Where the extension headers led; see [`walk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// Bytes of extension headers: where the upper-layer header starts, from the walk's start.
    pub offset: usize,
    /// What stands there. Still the number of an extension header when there were more than [`MAX_EXTENSIONS`], and
    /// [`proto::NO_NEXT_HEADER`] when one was cut short.
    pub proto: u8,
    /// Offset in bytes and "more fragments" of the fragment header, if there was one.
    pub fragment: Option<(u16, bool)>,
    /// A routing header has segments left: the destination address is not the final one.
    pub routed: bool,
}

/// Follows the extension headers in `payload`, the bytes after the fixed header up to the packet's end. `next_header`
/// is the fixed header's. Stops at the first header that is no extension, and behind the fragment header of a fragment
/// that is not the first.
pub fn walk(payload: &[u8], next_header: u8) -> Upper {
    let mut upper = Upper { offset: 0, proto: next_header, fragment: None, routed: false };
    for _ in 0..MAX_EXTENSIONS {
        let Some(rest) = payload.get(upper.offset..) else { break };
        let len = match (upper.proto, rest) {
            (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6, [_, len, ..]) => {
                (usize::from(*len) + 1) * 8
            }
            (AUTHENTICATION, [_, len, ..]) => (usize::from(*len) + 2) * 4,
            (FRAGMENT, _) => 8,
            (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6 | AUTHENTICATION, _) => {
                usize::MAX
            }
            _ => return upper,
        };
        let Some(header) = rest.get(..len) else {
            return Upper { offset: payload.len(), proto: proto::NO_NEXT_HEADER, ..upper };
        };
        match (upper.proto, header) {
            (ROUTING, [_, _, _, left, ..]) => upper.routed = *left != 0,
            (FRAGMENT, [_, _, high, low, ..]) => {
                let field = u16::from_be_bytes([*high, *low]);
                upper.fragment = Some((field & !7, field & 1 != 0));
            }
            _ => {}
        }
        upper.offset += len;
        upper.proto = header.first().copied().unwrap_or(proto::NO_NEXT_HEADER);
        if upper.fragment.is_some_and(|(offset, _)| offset != 0) {
            break;
        }
    }
    upper
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(offset: usize, proto: u8) -> Upper {
        Upper { offset, proto, fragment: None, routed: false }
    }

    #[test]
    fn walks_to_the_upper_layer() {
        let tcp = [0u8; 20];
        assert_eq!(walk(&tcp, proto::TCP), upper(0, proto::TCP));
        assert_eq!(walk(&[], proto::NO_NEXT_HEADER), upper(0, proto::NO_NEXT_HEADER));

        let options = [&[proto::UDP, 1][..], &[0; 14], &[0; 8]].concat();
        assert_eq!(walk(&options, HOP_BY_HOP), upper(16, proto::UDP));

        let authenticated = [&[proto::TCP, 4][..], &[0; 22], &[0; 20]].concat();
        assert_eq!(walk(&authenticated, AUTHENTICATION), upper(24, proto::TCP));

        let routing = [proto::TCP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(walk(&routing, ROUTING), Upper { routed: true, ..upper(8, proto::TCP) });
    }

    #[test]
    fn fragments() {
        let first = [proto::UDP, 0, 0x00, 0x01, 0, 0, 0, 7, 0xab];
        assert_eq!(walk(&first, FRAGMENT), Upper { fragment: Some((0, true)), ..upper(8, proto::UDP) });
        // what follows a later fragment's header is not to be read, even if it looks like a header
        let later = [HOP_BY_HOP, 0, 0x05, 0xa8, 0, 0, 0, 7, 6, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(walk(&later, FRAGMENT), Upper { fragment: Some((0x5a8, false)), ..upper(8, HOP_BY_HOP) });
    }

    #[test]
    fn cut_short_or_endless() {
        for len in 0..8 {
            let cut = vec![0u8; len];
            assert_eq!(walk(&cut, HOP_BY_HOP), upper(len, proto::NO_NEXT_HEADER), "{len} bytes");
            assert_eq!(walk(&cut, FRAGMENT), upper(len, proto::NO_NEXT_HEADER), "{len} bytes");
        }
        let endless = [0u8; 8 * (MAX_EXTENSIONS + 3)];
        assert_eq!(walk(&endless, HOP_BY_HOP), upper(8 * MAX_EXTENSIONS, HOP_BY_HOP));
    }
}
