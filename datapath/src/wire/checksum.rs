//! The Internet checksum (RFC 1071): the one's-complement sum of 16-bit words.
//!
//! Words are added in the machine's own byte order and swapped once at the end, which RFC 1071 section 2 (B) shows to
//! be the same. The inner loops add 32-bit words into 64-bit lanes, so that carries need no care before the end and
//! the compiler turns the loop into vector code, for the widest vectors that [`crate::sys::vector`] finds.

use crate::sys::vector;

/// A sum under way. Unfolded, in native byte order; cheap to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// What one turn of the inner loops takes.
pub(crate) type Block = [u8; BLOCK];

const BLOCK: usize = 32;

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// The sum of `data`. An odd last byte counts as if a zero byte followed, so only the last part of a message may
    /// be of odd length.
    #[inline]
    pub fn of(data: &[u8]) -> Sum {
        let (blocks, rest) = data.as_chunks();
        let sum = Sum(vector::sum(blocks)) + tail(rest);
        debug_assert_eq!(sum.fold(), slow(data));
        sum
    }

    /// The same for a part that the compiler knows the length of, and which is short: no turns are counted.
    #[inline(always)]
    pub fn of_few<const N: usize>(data: &[u8; N]) -> Sum {
        tail(data)
    }

    /// Copies `from` to `to`, which must be equally long (else the shorter length counts), and sums it on the way.
    #[inline]
    pub fn copy(from: &[u8], to: &mut [u8]) -> Sum {
        let len = from.len().min(to.len());
        let (from, to) = (from.split_at(len).0, to.split_at_mut(len).0);
        let (blocks, rest) = from.as_chunks();
        let (out, out_rest) = to.as_chunks_mut();
        out_rest.copy_from_slice(rest);
        Sum(vector::copy(blocks, out)) + tail(rest)
    }

    /// One more word, as a number.
    #[inline]
    pub fn word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word.to_be()))
    }

    /// Takes a word out that was summed before.
    #[inline]
    pub fn without(self, word: u16) -> Sum {
        self.word(!word)
    }

    /// The folded sum, as a number. Never inverted: this is what a partial checksum field holds of a pseudo header.
    #[inline]
    pub fn fold(self) -> u16 {
        let mut sum = fold32(self.0);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The value for a checksum field: the complement of the folded sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// [`Sum::checksum`] for UDP, where 0 means that there is none and 0xffff stands for it (RFC 768).
    #[inline]
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// Whether a message that was summed checksum field and all is intact.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

impl std::ops::Add for Sum {
    type Output = Sum;

    #[inline]
    fn add(self, other: Sum) -> Sum {
        Sum(fold32(self.0) + fold32(other.0))
    }
}

/// The pseudo header of TCP, UDP and ICMPv6. `addresses` is source and destination as they stand in the IP header (8 or
/// 32 bytes). IPv4 (RFC 9293 section 3.1) and IPv6 (RFC 8200 section 8.1) lay it out differently, to the same sum.
#[inline]
pub fn pseudo(addresses: &[u8], proto: u8, len: usize) -> Sum {
    let sum = addresses.as_array::<8>().map_or_else(|| Sum::of(addresses), Sum::of_few);
    sum.word(u16::from(proto)).word((len >> 16) as u16).word(len as u16)
}

/// A checksum field's new value when the word `old` that it covers becomes `new` (RFC 1624 equation 3).
/// `odd`: the word starts at an odd offset of the message.
#[inline]
pub fn update(check: u16, old: u16, new: u16, odd: bool) -> u16 {
    let (old, new) = if odd { (old.swap_bytes(), new.swap_bytes()) } else { (old, new) };
    Sum::ZERO.word(!check).word(!old).word(new).checksum()
}

/// The sum of whole blocks.
#[inline(always)]
pub(crate) fn sum_blocks(blocks: &[Block]) -> u64 {
    let mut lanes = [0; BLOCK / 4];
    blocks.iter().for_each(|block| add_block(&mut lanes, block));
    lanes.iter().fold(0, |sum, lane| sum + fold32(*lane))
}

/// The same, and copies them on the way to as many others.
#[inline(always)]
pub(crate) fn copy_blocks(from: &[Block], to: &mut [Block]) -> u64 {
    let mut lanes = [0; BLOCK / 4];
    for (block, out) in from.iter().zip(to) {
        *out = *block;
        add_block(&mut lanes, block);
    }
    lanes.iter().fold(0, |sum, lane| sum + fold32(*lane))
}

#[inline(always)]
fn add_block(lanes: &mut [u64; BLOCK / 4], block: &Block) {
    let (words, _) = block.as_chunks::<4>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane += u64::from(u32::from_ne_bytes(*word));
    }
}

/// The sum of few bytes: what is left of a message behind its blocks.
#[inline(always)]
fn tail(rest: &[u8]) -> Sum {
    let (words, rest) = rest.as_chunks::<4>();
    let mut sum = words.iter().fold(0, |a, word| a + u64::from(u32::from_ne_bytes(*word)));
    let (pairs, odd) = rest.as_chunks::<2>();
    sum += pairs.iter().fold(0, |a, pair| a + u64::from(u16::from_ne_bytes(*pair)));
    sum += odd.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    Sum(sum)
}

#[inline(always)]
fn fold32(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// RFC 1071 word by word: what the fast code is held to in debug builds and tests.
fn slow(data: &[u8]) -> u16 {
    data.chunks(2).fold(0u32, |sum, pair| {
        let word =
            u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    }) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 3.
    #[test]
    fn rfc_1071_example() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    /// RFC 1624 section 4.
    #[test]
    fn rfc_1624_example() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285, false), 0x0000);
    }

    #[test]
    fn edges() {
        assert_eq!(Sum::of(&[]).checksum(), 0xffff);
        assert_eq!(Sum::of(&[0xff; 65535 + 40]).fold(), 0xff00, "an odd byte at the end counts high");
        assert_eq!(Sum::of(&[0xff, 0xff]).udp_checksum(), 0xffff);
        assert_eq!(Sum::of(&[1]).fold(), 0x0100);
    }

    proptest! {
        #[test]
        fn same_as_word_by_word(data in proptest::collection::vec(any::<u8>(), 0..3000), skip in 0usize..9) {
            let data = data.get(skip..).unwrap_or(&[]);
            prop_assert_eq!(Sum::of(data).fold(), slow(data));
            let mut copy = vec![0; data.len()];
            prop_assert_eq!(Sum::copy(data, &mut copy).fold(), slow(data));
            prop_assert_eq!(&copy, data);
        }

        #[test]
        fn parts_add_up(data in proptest::collection::vec(any::<u8>(), 0..500), cut in 0usize..250) {
            let (a, b) = data.split_at((cut * 2).min(data.len() & !1));
            prop_assert_eq!((Sum::of(a) + Sum::of(b)).fold(), slow(&data));
        }

        #[test]
        fn update_is_as_good_as_summing_again(mut data in proptest::collection::vec(any::<u8>(), 10..60),
                                              at in 0usize..8, new in any::<u16>()) {
            let check = Sum::of(&data).checksum();
            let old = crate::wire::get16(&data, at).unwrap();
            crate::wire::put16(&mut data, at, new);
            let updated = update(check, old, new, at % 2 == 1);
            prop_assert!(Sum::of(&data).word(updated).is_valid());
        }

        #[test]
        fn without_takes_back(data in proptest::collection::vec(any::<u8>(), 0..60), word in any::<u16>()) {
            let there = Sum::of(&data).word(word).without(word).word(1);
            prop_assert_eq!(there.fold(), Sum::of(&data).word(1).fold());
        }
    }
}
