//! TCP (RFC 9293).
//!
//! ```text
//!  0                   1                   2                   3
//! |          Source Port          |       Destination Port        |
//! |                        Sequence Number                        |
//! |                    Acknowledgment Number                      |
//! | Offset|  Rsv  |C|E|U|A|P|R|S|F|            Window             |
//! |           Checksum            |         Urgent Pointer        |
//! |                 Options, if Offset exceeds 5                  |
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian::U16, big_endian::U32};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes of a header with as many options as fit.
pub const MAX_HEADER: usize = 60;
/// Where the flags stand, from the header's start.
pub const FLAGS: usize = 13;
/// Where the checksum stands, from the header's start.
pub const CHECKSUM: usize = 16;

/// Flag: the sender has no more data.
pub const FIN: u8 = 0x01;
/// Flag: synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Flag: reset.
pub const RST: u8 = 0x04;
/// Flag: push.
pub const PSH: u8 = 0x08;
/// Flag: the acknowledgment number is valid.
pub const ACK: u8 = 0x10;
/// Flag: the urgent pointer is valid.
pub const URG: u8 = 0x20;
/// Flag: ECN echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Flag: congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MD5: u8 = 19;
const OPTION_AO: u8 = 29;

/// The header without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub src: U16,
    /// Destination port.
    pub dst: U16,
    /// Sequence number of the first payload byte (of the SYN itself when that flag is set).
    pub seq: U32,
    /// Acknowledgment number.
    pub ack: U32,
    /// The header's length in words of 4 bytes, and four reserved bits.
    pub offset_reserved: u8,
    /// [`FIN`] to [`CWR`].
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Over pseudo header, header and payload.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl Tcp {
    /// Bytes of the header with its options, as it claims: 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.offset_reserved >> 4) * 4
    }
}

/// The options in `header`, the whole TCP header: kind, where in the header, and the option whole. Ends at the first that
/// is malformed.
fn options(header: &[u8]) -> impl Iterator<Item = (u8, usize, &[u8])> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        loop {
            let rest = header.get(at..)?;
            let (start, kind) = (at, *rest.first()?);
            let len = match rest {
                [OPTION_END, ..] => return None,
                [OPTION_NOP, ..] => {
                    at += 1;
                    continue;
                }
                [_, len, ..] if *len >= 2 => usize::from(*len),
                _ => return None,
            };
            at += len;
            return Some((kind, start, rest.get(..len)?));
        }
    })
}

/// Where the value of the maximum segment size option stands in `header`, the whole TCP header with its options.
/// None without the option, or when the options are malformed before it.
pub fn mss_at(header: &[u8]) -> Option<usize> {
    let (_, at, option) = options(header).find(|(kind, ..)| *kind == OPTION_MSS)?;
    (option.len() == 4).then_some(at + 2)
}

/// Whether the segment is signed, by TCP-AO (RFC 5925) or the MD5 option (RFC 2385). What is signed must arrive as it was
/// sent.
pub fn is_signed(header: &[u8]) -> bool {
    options(header).any(|(kind, ..)| kind == OPTION_MD5 || kind == OPTION_AO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_options(options: &[u8]) -> Vec<u8> {
        [&[0; HEADER][..], options].concat()
    }

    #[test]
    fn finds_mss() {
        for (options, at) in [
            (&[2, 4, 0x05, 0xb4][..], Some(22)),
            (&[1, 2, 4, 0x05, 0xb4, 0, 0, 0], Some(23)),
            (&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0x05, 0xb4], Some(32)),
            (&[4, 2, 3, 3, 7, 1], None),
            (&[0, 2, 4, 0x05, 0xb4], None),
            (&[], None),
            (&[2, 4, 5], None),
            (&[2, 3, 5, 1], None),
            (&[3], None),
            (&[3, 0, 2, 4, 5, 5], None),
            (&[3, 1, 2, 4, 5, 5], None),
            (&[3, 255], None),
        ] {
            assert_eq!(mss_at(&with_options(options)), at, "{options:?}");
        }
        assert_eq!(mss_at(&[]), None);
    }

    #[test]
    fn knows_signatures() {
        for (options, signed) in [
            (&[&[1, 1, 19, 18][..], &[0; 16]].concat()[..], true),
            (&[2, 4, 0x05, 0xb4, 29, 4, 1, 1], true),
            (&[1, 1, 8, 10, 19, 18, 19, 18, 29, 4, 29, 4], false),
            (&[0, 29, 4, 1, 1], false),
            (&[], false),
        ] {
            assert_eq!(is_signed(&with_options(options)), signed, "{options:?}");
        }
    }

    #[test]
    fn fields() {
        let bytes =
            [0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 0x18, 0x01, 0xf6, 0xab, 0xcd, 0, 0];
        let tcp = Tcp::ref_from_bytes(&bytes).unwrap();
        assert_eq!((tcp.src.get(), tcp.dst.get(), tcp.seq.get(), tcp.ack.get()), (40000, 80, 1, 2));
        assert_eq!(
            (tcp.header_len(), tcp.flags, tcp.window.get(), tcp.checksum.get()),
            (32, ACK | PSH, 502, 0xabcd)
        );
    }
}
