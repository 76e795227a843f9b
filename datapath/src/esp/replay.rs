//! Which sequence numbers have come (RFC 4303 section 3.4.3), without a lock, for any number of workers at once.
//!
//! A ring of words in the manner of RFC 6479. Each word holds the marks of one block of eight numbers and how often the
//! ring had gone round when that block came up:
//!
//! ```text
//! number:  | round                  | place in the ring | bit (3) |
//! word:    | round (56)                                 | marks (8) |
//! ```
//! A word whose round is older belongs to a block that the window has left behind: whoever brings the first number of the
//! new block takes it over. So nothing is ever cleared, and a jump by any distance costs one compare-and-swap.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The window's default width. RFC 4303 asks for 32 and likes 64; several queues and workers reorder more.
pub const DEFAULT_WINDOW: u32 = 4096;

/// Narrowest and widest windows, in numbers.
const LIMITS: (u32, u32) = (32, 1 << 16);

/// Marks a word, and the bits that number them.
const MARKS: u32 = 8;
const MARK_BITS: u32 = MARKS.trailing_zeros();

/// Fewest words of a ring: rounds of 64-bit numbers must fit the 56 bits that a word has for them.
const MIN_WORDS: usize = 32;

/// Why a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It has come before.
    Seen,
    /// It lies left of the window: nobody knows any more.
    TooOld,
}

/// The numbers that have come on one SA.
#[derive(Debug)]
pub struct ReplayWindow {
    width: u64,
    /// The highest number claimed.
    top: AtomicU64,
    /// As many as a power of two.
    words: Box<[AtomicU64]>,
}

impl ReplayWindow {
    /// A window of `width` numbers (brought into 32 to 65,536) that has seen none. The number 0, which is never sent (RFC 4303
    /// section 3.3.3), counts as seen.
    pub fn new(width: u32) -> ReplayWindow {
        let width = width.clamp(LIMITS.0, LIMITS.1);
        // the window may begin and end in the midst of a block
        let words = (width.div_ceil(MARKS) as usize + 1).next_power_of_two().max(MIN_WORDS);
        let words: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        if let Some(first) = words.first() {
            first.store(1, Relaxed);
        }
        ReplayWindow { width: width.into(), top: AtomicU64::new(0), words }
    }

    /// The highest number claimed; 0: none.
    #[inline]
    pub fn top(&self) -> u64 {
        self.top.load(Relaxed)
    }

    /// Whether `number` may be fresh. Before the ICV is verified: it changes nothing.
    ///
    /// # Errors
    /// It has come before, or is too old.
    #[inline]
    pub fn check(&self, number: u64) -> Result<(), Stale> {
        self.in_window(number)?;
        let place = Place::of(number, self.words.len());
        match self.words.get(place.index) {
            Some(word) => place.mark(word.load(Relaxed)).map(|_| ()),
            None => Err(Stale::TooOld),
        }
    }

    /// Takes `number`, once the ICV has been verified, and says whether it is the highest so far. Of any number of callers with
    /// the same number one succeeds.
    ///
    /// # Errors
    /// Another has taken it meanwhile, or the window has moved past it.
    #[inline]
    pub fn claim(&self, number: u64) -> Result<bool, Stale> {
        self.in_window(number)?;
        let place = Place::of(number, self.words.len());
        let Some(word) = self.words.get(place.index) else { return Err(Stale::TooOld) };
        let mut seen = word.load(Relaxed);
        loop {
            match word.compare_exchange_weak(seen, place.mark(seen)?, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        Ok(self.top.fetch_max(number, Relaxed) < number)
    }

    /// The 64-bit number whose low half is `low`: the first at or behind the window's left edge (RFC 4303
    /// appendix A2.2). None: that would be below zero or beyond 2^64.
    #[inline]
    pub fn infer(&self, low: u32) -> Option<u64> {
        let top = self.top();
        let bottom = top.saturating_sub(self.width - 1);
        // the first number at or behind the window's left edge that ends in `low`
        bottom.checked_add(u64::from(low.wrapping_sub(bottom as u32)))
    }

    #[inline]
    fn in_window(&self, number: u64) -> Result<(), Stale> {
        let below = self.top().saturating_sub(number);
        if below < self.width { Ok(()) } else { Err(Stale::TooOld) }
    }
}

/// Where a number's mark stands.
struct Place {
    index: usize,
    round: u64,
    bit: u64,
}

impl Place {
    #[inline]
    fn of(number: u64, words: usize) -> Place {
        let block = number >> MARK_BITS;
        Place {
            index: block as usize & (words - 1),
            round: block >> words.trailing_zeros(),
            bit: 1 << (number % u64::from(MARKS)),
        }
    }

    /// `word` with the mark set.
    #[inline]
    fn mark(&self, word: u64) -> Result<u64, Stale> {
        match (word >> MARKS).cmp(&self.round) {
            Less => Ok(self.round << MARKS | self.bit),
            Equal if word & self.bit != 0 => Err(Stale::Seen),
            Equal => Ok(word | self.bit),
            Greater => Err(Stale::TooOld),
        }
    }
}
