//! Geneve (RFC 8926 section 3.4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Ver|  Opt Len  |O|C|    Rsvd.  |          Protocol Type        |
//! |        Virtual Network Identifier (VNI)       |    Reserved   |
//! |                    Variable-Length Options                    |
//! ```
//! No option is known here, so they are passed over, and a packet whose C bit says that one of them is critical is dropped, as it
//! must be where options are not parsed. So is a control packet (O bit), whose payload must not be forwarded.

/// Bytes of a header without options.
pub const HEADER: usize = 8;

const VERSION: u8 = 0xc0;
/// Length of the options, in words of 4 bytes.
const OPT_LEN: u8 = 0x3f;
/// A control packet.
const O: u8 = 0x80;
/// Some option is critical.
const C: u8 = 0x40;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geneve {
    /// EtherType of the payload.
    pub protocol: u16,
    /// The network.
    pub vni: u32,
    /// Bytes of the header with its options.
    pub len: usize,
}

/// Why a packet is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Shorter than its header with the options.
    Short,
    /// Not version 0.
    Version,
    /// It has an option that must not be ignored.
    Critical,
    /// A control packet, and not a frame.
    Control,
}

/// A header without options, and with the lower 24 bits of `vni`.
#[inline]
pub fn encode(protocol: u16, vni: u32) -> [u8; HEADER] {
    let ([p0, p1], [_, v0, v1, v2]) = (protocol.to_be_bytes(), vni.to_be_bytes());
    [0, 0, p0, p1, v0, v1, v2, 0]
}

/// Reads the header that `packet` begins with.
///
/// # Errors
/// Why the packet is to be discarded.
#[inline]
pub fn decode(packet: &[u8]) -> Result<Geneve, Discard> {
    let (header, rest) = packet.split_first_chunk::<HEADER>().ok_or(Discard::Short)?;
    let [first, flags, p0, p1, v0, v1, v2, _] = *header;
    if first & VERSION != 0 {
        return Err(Discard::Version);
    }
    let options = rest.get(..4 * usize::from(first & OPT_LEN)).ok_or(Discard::Short)?;
    if flags & O != 0 {
        return Err(Discard::Control);
    }
    if flags & C != 0 {
        return Err(Discard::Critical);
    }
    Ok(Geneve {
        protocol: u16::from_be_bytes([p0, p1]),
        vni: u32::from_be_bytes([0, v0, v1, v2]),
        len: HEADER + options.len(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ethernet::TEB;

    #[test]
    fn bytes_on_the_wire() {
        let plain = [0, 0, 0x65, 0x58, 0x12, 0x34, 0x56, 0];
        assert_eq!(encode(TEB, 0xab_123456), plain);
        assert_eq!(decode(&plain), Ok(Geneve { protocol: TEB, vni: 0x123456, len: 8 }));
        for len in 0..plain.len() {
            assert_eq!(decode(&plain[..len]), Err(Discard::Short));
        }
        // reserved bits change nothing (section 3.4)
        assert_eq!(
            decode(&[0, 0x3f, 0x65, 0x58, 0, 0, 1, 0xff]),
            Ok(Geneve { protocol: TEB, vni: 1, len: 8 })
        );
        assert_eq!(decode(&[0x40, 0, 0x65, 0x58, 0, 0, 1, 0]), Err(Discard::Version));
        assert_eq!(decode(&[0, 0x80, 0x65, 0x58, 0, 0, 1, 0]), Err(Discard::Control));
    }

    #[test]
    fn options_are_passed_over_and_critical_ones_are_not() {
        let packet = |flags| [2, flags, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 0, 1, 0xaa, 0xaa, 0xaa, 0xaa, 9, 9];
        assert_eq!(decode(&packet(0)), Ok(Geneve { protocol: TEB, vni: 7, len: 16 }));
        assert_eq!(decode(&packet(0x40)), Err(Discard::Critical));
        assert_eq!(decode(&packet(0)[..15]), Err(Discard::Short));
    }

    proptest! {
        #[test]
        fn any_bytes(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = decode(&packet) {
                prop_assert!(header.len <= packet.len() && header.vni < 1 << 24);
            }
        }
    }
}
