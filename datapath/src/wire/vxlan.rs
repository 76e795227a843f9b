//! VXLAN (RFC 7348 section 5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! |                VXLAN Network Identifier       |   Reserved    |
//! ```
//! I must be set. What is reserved is sent as zero and ignored.

/// Bytes of the header.
pub const HEADER: usize = 8;

const I: u8 = 0x08;

/// Why a packet is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// Shorter than its header.
    Short,
    /// The header has no valid network identifier.
    NoVni,
}

/// A header with the lower 24 bits of `vni`.
#[inline]
pub fn encode(vni: u32) -> [u8; HEADER] {
    let [_, v0, v1, v2] = vni.to_be_bytes();
    [I, 0, 0, 0, v0, v1, v2, 0]
}

/// The VNI in the header that `packet` begins with.
///
/// # Errors
/// Why the packet is to be discarded.
#[inline]
pub fn decode(packet: &[u8]) -> Result<u32, Discard> {
    let [flags, _, _, _, v0, v1, v2, _] = *packet.first_chunk::<HEADER>().ok_or(Discard::Short)?;
    if flags & I == 0 { Err(Discard::NoVni) } else { Ok(u32::from_be_bytes([0, v0, v1, v2])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_i_flag_and_the_vni_count() {
        assert_eq!(encode(0xab_123456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(decode(&encode(0x123456)), Ok(0x123456));
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff, 0, 0, 7, 0xff, 1, 2]), Ok(7));
        assert_eq!(decode(&[0xf7, 0, 0, 0, 0, 0, 7, 0]), Err(Discard::NoVni));
        for len in 0..HEADER {
            assert_eq!(decode(&encode(1)[..len]), Err(Discard::Short));
        }
    }
}
