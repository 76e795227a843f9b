//! What is a message of connectivity fault management (IEEE 802.1ag) for a maintenance point.

use super::ethernet;
use super::parse::Link;

/// EtherType (802.1ag table 21-1).
const ETHERTYPE: u16 = 0x8902;

/// So many bytes of a frame have the whole of a continuity check, but for its TLVs.
pub const BEGINNING: usize = 128;

/// Whether `frame`, with a tag or without, is one to `address`.
pub fn is_for(frame: &[u8], address: [u8; 6]) -> bool {
    Link::parse(frame).is_some_and(|link| {
        link.dst == address && link.ethertype == ETHERTYPE && link.len <= ethernet::HEADER + ethernet::TAG
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_address_and_ethertype() {
        let to = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x30];
        let frame = |tags: &[u16], ethertype: u16| {
            let tags = tags.iter().flat_map(|tpid| [*tpid, 5]);
            let types = tags.chain([ethertype]).flat_map(u16::to_be_bytes);
            [to.to_vec(), vec![2; 6], types.collect(), vec![0; 75]].concat()
        };
        for (tags, ethertype, want) in [
            (&[][..], 0x8902, true),
            (&[0x8100], 0x8902, true),
            (&[0x88a8], 0x8902, true),
            (&[0x8100, 0x8100], 0x8902, false),
            (&[], 0x0800, false),
        ] {
            let frame = frame(tags, ethertype);
            assert_eq!(is_for(&frame, to), want, "{tags:x?}");
            assert!(!is_for(&frame, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x31]));
            for len in 0..ethernet::HEADER {
                assert!(!is_for(&frame[..len], to));
            }
        }
    }
}
