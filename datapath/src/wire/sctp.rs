//! SCTP (RFC 9260), of which the datapath needs one thing: containers send it with an unfinished checksum, and that is
//! no Internet checksum but a CRC32c over common header and chunks, stored with its lowest byte first (appendix A).

/// Where the checksum stands, from the common header's start.
pub const CHECKSUM: usize = 8;

const TABLE: [u32; 256] = table();

/// The checksum field's bytes for `packet`, which reaches from the common header to the packet's end. The field itself
/// counts as zero, whatever it holds.
pub fn checksum(packet: &[u8]) -> [u8; 4] {
    let (header, field) = packet.split_at_checked(CHECKSUM).unwrap_or((packet, &[]));
    let chunks = field.get(4..).unwrap_or(&[]);
    let bytes = header.iter().chain(&[0; 4]).chain(chunks);
    let crc = bytes.fold(!0u32, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE.get(usize::from(low ^ byte)).unwrap_or(&0) ^ (crc >> 8)
    });
    (!crc).to_le_bytes()
}

/// One entry a byte, for the reflected Castagnoli polynomial.
#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC32c of 32 zero bytes, RFC 3720 appendix B.4.
    #[test]
    fn known_value() {
        assert_eq!(checksum(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
        let mut filled = [0; 32];
        filled[CHECKSUM..CHECKSUM + 4].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(checksum(&filled), [0xaa, 0x36, 0x91, 0x8a], "the field counts as zero");
    }
}
