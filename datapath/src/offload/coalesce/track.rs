//! What the headers of a run's segments have in common, to the byte.
//!
//! Most frames follow the one before. To see that, nothing need be parsed: a header with the bytes of the run's first, but for
//! the few that count up or sum up, says what that said of addresses, ports, flags, options and of where all this stands.

use super::run::MAX_HEAD;
use super::segment::Segment;
use crate::wire::{Version, tcp};

const WORD: usize = size_of::<u64>();
const WORDS: usize = MAX_HEAD.div_ceil(WORD);

type Bytes = [u8; WORDS * WORD];

/// The headers of a run.
#[derive(Debug)]
pub(super) struct Track {
    /// Those of the first segment, from the frame's start.
    header: [u64; WORDS],
    /// Which bits of them count.
    mask: [u64; WORDS],
    /// Words that the headers are; 0: there is no track.
    words: usize,
}

impl Track {
    pub const EMPTY: Track = Track { header: [0; WORDS], mask: [0; WORDS], words: 0 };

    pub fn clear(&mut self) {
        self.words = 0;
    }

    /// Begins with the frame of the segment `first`, a plain one.
    pub fn lay(&mut self, frame: &[u8], first: &Segment) {
        let (l3, l4, data) = (first.ip.l3, first.ip.l4, first.data);
        let (mut header, mut mask): (Bytes, Bytes) = ([0; _], [0; _]);
        for (place, byte) in header.iter_mut().zip(frame) {
            *place = *byte;
        }
        mask.iter_mut().take(data).for_each(|bits| *bits = !0);
        let counting = match first.ip.version {
            Version::V4 => [l3 + 2..l3 + 6, l3 + 10..l3 + 12], // length, identification; checksum
            Version::V6 => [l3 + 4..l3 + 6, 0..0],
        };
        let transport = match first.is_udp() {
            true => [l4 + 4..l4 + 8, 0..0], // length, checksum
            false => [l4 + 4..l4 + 8, l4 + tcp::CHECKSUM..l4 + tcp::CHECKSUM + 2],
        };
        counting
            .into_iter()
            .chain(transport)
            .for_each(|range| mask.get_mut(range).unwrap_or(&mut []).fill(0));
        if let Some(flags) = mask.get_mut(l4 + tcp::FLAGS).filter(|_| !first.is_udp()) {
            *flags = !tcp::PSH;
        }
        let words = |bytes: &Bytes| {
            let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
            std::array::from_fn(|_| words.next().unwrap_or(0))
        };
        (self.header, self.mask, self.words) = (words(&header), words(&mask), data.div_ceil(WORD));
    }

    /// Whether the headers of `frame` are those, but for what counts up.
    pub fn leads(&self, frame: &[u8]) -> bool {
        let Some(frame) = frame.as_chunks().0.get(..self.words) else { return false };
        let words = frame.iter().zip(&self.header).zip(&self.mask);
        let other = words
            .fold(0, |other, ((word, header), mask)| other | (u64::from_ne_bytes(*word) ^ header) & mask);
        self.words > 0 && other == 0
    }
}
