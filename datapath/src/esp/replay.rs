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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    /// What a window is, said in the simplest way.
    struct Model {
        width: u64,
        top: u64,
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn new(width: u32) -> Model {
            Model { width: width.into(), top: 0, seen: BTreeSet::from([0]) }
        }

        fn claim(&mut self, number: u64) -> Result<bool, Stale> {
            if number < self.top && self.top - number >= self.width {
                return Err(Stale::TooOld);
            }
            if !self.seen.insert(number) {
                return Err(Stale::Seen);
            }
            let newest = number > self.top;
            self.top = self.top.max(number);
            Ok(newest)
        }
    }

    /// Where the next number lies.
    #[derive(Debug, Clone)]
    enum Step {
        /// So far from the top.
        Near(i64),
        /// So many windows ahead, and a little.
        Windows(u8, i8),
        /// So many times the ring, or 2^32, ahead.
        Far(u8, i8),
        /// Anywhere.
        At(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (-5000i64..100).prop_map(Step::Near),
            8 => (-70i64..40).prop_map(Step::Near),
            2 => (0u8..4, any::<i8>()).prop_map(|(n, d)| Step::Windows(n, d)),
            1 => (0u8..64, any::<i8>()).prop_map(|(n, d)| Step::Far(n, d)),
            1 => any::<u64>().prop_map(Step::At),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_the_model_is(width in prop_oneof![Just(32u32), Just(33), Just(64), Just(1000), Just(4096)],
                                   steps in prop::collection::vec(step(), 1..400)) {
            let (window, mut model) = (ReplayWindow::new(width), Model::new(width));
            for step in steps {
                let near = |base: u64, d: i64| base.saturating_add_signed(d);
                let number = match step {
                    Step::Near(d) => near(model.top, d),
                    Step::Windows(n, d) => near(model.top.saturating_add(u64::from(n) * u64::from(width)), d.into()),
                    Step::Far(n, d) => near(model.top.saturating_add(1 << n), d.into()),
                    Step::At(number) => number,
                };
                let looked = window.check(number);
                let claimed = window.claim(number);
                prop_assert_eq!(claimed, model.claim(number), "{}", number);
                prop_assert_eq!(looked, claimed.map(|_| ()));
                prop_assert_eq!(window.top(), model.top);
            }
        }

        #[test]
        fn looking_changes_nothing(numbers in prop::collection::vec(0u64..10_000, 1..100)) {
            let (looked, other) = (ReplayWindow::new(64), ReplayWindow::new(64));
            for number in numbers {
                looked.check(number.wrapping_mul(7)).ok();
                prop_assert_eq!(looked.claim(number), other.claim(number));
            }
        }

        #[test]
        fn the_high_half_follows(top in any::<u64>(), ahead in any::<u32>()) {
            let window = ReplayWindow::new(4096);
            window.claim(top).ok();
            let number = top.saturating_sub(4095).checked_add(ahead.into());
            match number {
                Some(number) => prop_assert_eq!(window.infer(number as u32), Some(number)),
                None => prop_assert_eq!(window.infer(top.wrapping_sub(4095).wrapping_add(ahead.into()) as u32), None),
            }
        }
    }

    #[test]
    fn boundaries() {
        use Stale::{Seen, TooOld};
        const W: u64 = 64;
        const M32: u64 = u32::MAX as u64;
        let table = [
            (0, Err(Seen)),
            (1, Ok(true)),
            (1, Err(Seen)),
            (0, Err(Seen)),
            (3, Ok(true)),
            (2, Ok(false)),
            (W, Ok(true)),
            (W - 1, Ok(false)),
            // the left edge moves off 0, 1, 2
            (W + 2, Ok(true)),
            (2, Err(TooOld)),
            (3, Err(Seen)),
            (4, Ok(false)),
            (W + 2 + W, Ok(true)),
            (W + 2, Err(TooOld)),
            (W + 3, Ok(false)),
            (W + 1, Err(TooOld)),
            // exactly one round of the ring ahead, and what stands in the same word
            (W + 2 + W + 256, Ok(true)),
            (W + 2 + W, Err(TooOld)),
            (M32 - 1, Ok(true)),
            (M32, Ok(true)),
            (M32, Err(Seen)),
            (M32 + 1, Ok(true)),
            (M32, Err(Seen)),
            (M32 + 1 - (W - 1), Ok(false)),
            (M32 + 1 - W, Err(TooOld)),
            (M32 + 2 + W, Ok(true)),
            (M32 + 2, Err(TooOld)),
            (1, Err(TooOld)),
            (u64::MAX - W, Ok(true)),
            (u64::MAX - 1, Ok(true)),
            (u64::MAX, Ok(true)),
            (u64::MAX, Err(Seen)),
            (u64::MAX - W + 1, Ok(false)),
            (u64::MAX - W, Err(TooOld)),
            (0, Err(TooOld)),
        ];
        let window = ReplayWindow::new(W as u32);
        for (i, (number, want)) in table.into_iter().enumerate() {
            assert_eq!(window.check(number), want.map(|_| ()), "line {i}: {number}");
            assert_eq!(window.claim(number), want, "line {i}: {number}");
        }
    }

    #[test]
    fn widths_are_kept_within_limits() {
        for (asked, width) in [(0, 32), (1, 32), (100, 100), (65_536, 65_536), (u32::MAX, 65_536)] {
            let window = ReplayWindow::new(asked);
            window.claim(1 << 20).unwrap();
            let oldest = (1 << 20) - (width - 1);
            assert_eq!(window.check(oldest), Ok(()));
            assert_eq!(window.check(oldest - 1), Err(Stale::TooOld));
        }
    }

    /// RFC 4303 appendix A2.2, with windows in one and across two subspaces.
    #[test]
    fn the_high_half_at_the_edges() {
        const W: u64 = 4096;
        let cases = [
            (0, 0, Some(0)),
            (0, u32::MAX, Some(u32::MAX.into())),
            (W - 2, u32::MAX, Some(u32::MAX.into())),
            (W, 0, Some(1 << 32)),
            (W, 1, Some(1)),
            (u32::MAX.into(), 0, Some(1 << 32)),
            (u32::MAX.into(), 0xffff_f000, Some(0xffff_f000)),
            (u32::MAX.into(), 0xffff_efff, Some(0x1_ffff_efff)),
            (1 << 32, u32::MAX, Some(u32::MAX.into())),
            ((1 << 32) + W, u32::MAX, Some((1 << 33) - 1)),
            (u64::MAX, u32::MAX, Some(u64::MAX)),
            (u64::MAX, 0, None),
        ];
        for (top, low, want) in cases {
            let window = ReplayWindow::new(W as u32);
            window.claim(top).ok();
            assert_eq!(window.infer(low), want, "top {top:#x}, low {low:#x}");
        }
    }

    /// Another worker has taken a word over, and not yet moved the top.
    #[test]
    fn a_word_from_a_later_round_is_left_alone() {
        let window = ReplayWindow::new(32);
        let later = 5 << MARKS | 1;
        window.words[0].store(later, Relaxed);
        assert_eq!((window.check(1), window.claim(1)), (Err(Stale::TooOld), Err(Stale::TooOld)));
        assert_eq!((window.words[0].load(Relaxed), window.top()), (later, 0));
    }

    /// The claims of four threads that walk over the same numbers, each in a stride of its own.
    fn race(window: &ReplayWindow, last: u64) -> Vec<u64> {
        std::thread::scope(|scope| {
            let walkers: Vec<_> = (0..4)
                .map(|walker| {
                    scope.spawn(move || {
                        let back = |number: u64| number.checked_sub(walker * 11).unwrap_or(number);
                        let numbers = (1..=last).flat_map(|n| [n, back(n)]);
                        numbers.filter(|n| window.claim(*n).is_ok()).collect::<Vec<_>>()
                    })
                })
                .collect();
            walkers.into_iter().flat_map(|walker| walker.join().unwrap()).collect()
        })
    }

    #[test]
    fn no_number_is_claimed_twice() {
        // the ring goes round some 800 times under their feet
        let window = ReplayWindow::new(32);
        let claims = race(&window, 200_000);
        assert_eq!(claims.len(), claims.iter().collect::<HashSet<_>>().len());
        assert_eq!(window.top(), 200_000);
    }

    #[test]
    fn every_number_in_the_window_is_claimed_once() {
        let mut claims = race(&ReplayWindow::new(65_536), 65_535);
        claims.sort_unstable();
        assert!(claims.into_iter().eq(1..=65_535));
    }
}
