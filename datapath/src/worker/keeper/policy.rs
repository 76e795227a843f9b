//! When to keep cores awake, from what workers tell: counts and times in, decisions out.

use std::time::Duration;

/// How long to look on before anything is done.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(1);
/// How long an exchange that has lasted goes unobserved.
const LONGEST_LOOK: Duration = Duration::from_millis(4);
/// How long not to be called after an exchange, or after the first call for nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The most that this grows to.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(512);

/// Short turns a second, of all workers, below which cores may halt between them.
const LEAST: u128 = 4_000;
/// Of so many short turns one may be long.
const MIXED: u32 = 16;
/// Looks in a row after which an exchange counts as a success: the acknowledgements of a stream come as a few milliseconds of
/// short turns, too.
const LASTING: u32 = 3;

/// Turns of all workers together, short and long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Beats {
    pub(super) short: u32,
    pub(super) long: u32,
}

impl Beats {
    /// How many more than `before`.
    pub(super) fn since(self, before: Beats) -> Beats {
        Beats { short: self.short.wrapping_sub(before.short), long: self.long.wrapping_sub(before.long) }
    }

    fn are_an_exchange(self, over: Duration) -> bool {
        let quick = u128::from(self.short) * 1_000_000 >= LEAST * over.as_micros();
        self.short > 0 && quick && self.short / MIXED >= self.long
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Keep cores awake, and look again after that time.
    Stay(Duration),
    /// Let them halt, and do not be called for that time.
    Leave(Duration),
}

/// What it remembers from one look to the next.
#[derive(Debug)]
pub(super) struct Policy {
    look: Duration,
    pause: Duration,
    /// Looks in a row that showed an exchange.
    stays: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { look: FIRST_LOOK, pause: FIRST_PAUSE, stays: 0 }
    }
}

impl Policy {
    /// So many turns there were since the last look, or since being called.
    pub(super) fn look(&mut self, beats: Beats, over: Duration) -> Step {
        if beats.are_an_exchange(over) {
            let look = self.look;
            self.look = (look * 2).min(LONGEST_LOOK);
            self.stays = self.stays.saturating_add(1);
            return Step::Stay(look);
        }
        let pause = if self.stays < LASTING { self.pause } else { FIRST_PAUSE };
        *self = Policy { pause: (pause * 2).min(LONGEST_PAUSE), ..Policy::default() };
        Step::Leave(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn beats(short: u32, long: u32) -> Beats {
        Beats { short, long }
    }

    #[test]
    fn an_exchange_is_many_short_turns_and_few_long_ones() {
        let cases = [
            (beats(16, 0), 1, true), // 120 us a round trip, two workers
            (beats(4, 0), 1, true),
            (beats(3, 0), 1, false),
            (beats(0, 0), 1, false),
            (beats(0, 0), 0, false), // called by a token that was left over
            (beats(16, 1), 1, true),
            (beats(15, 1), 1, false), // a stream and its acknowledgements
            (beats(16, 0), 4, true),
            (beats(15, 0), 4, false),
            (beats(100, 0), 30, false), // the look came late
            (beats(u32::MAX, u32::MAX / 16), 1, true),
        ];
        for (beats, over, is) in cases {
            assert_eq!(beats.are_an_exchange(MS * over), is, "{beats:?} in {over} ms");
        }
    }

    #[test]
    fn success_makes_it_patient() {
        let mut policy = Policy::default();
        let looks: Vec<_> = (0..4).map(|_| policy.look(beats(100, 0), MS)).collect();
        assert_eq!(looks, [1, 2, 4, 4].map(|ms| Step::Stay(MS * ms)));
        assert_eq!(policy.look(beats(0, 0), MS * 4), Step::Leave(FIRST_PAUSE));
        assert_eq!(policy.look(beats(100, 0), MS), Step::Stay(FIRST_LOOK), "and anew");
    }

    #[test]
    fn calls_for_nothing_make_it_deaf_until_a_success() {
        let mut policy = Policy::default();
        let bulk = beats(20, 20);
        let pauses: Vec<_> = (0..10).map(|_| policy.look(bulk, MS)).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 512].map(|ms| Step::Leave(MS * ms)));
        for _ in 1..LASTING {
            policy.look(beats(100, 0), MS);
        }
        assert_eq!(policy.look(bulk, MS), Step::Leave(LONGEST_PAUSE), "too short to count");
        for _ in 0..LASTING {
            policy.look(beats(100, 0), MS);
        }
        assert_eq!(policy.look(bulk, MS), Step::Leave(FIRST_PAUSE));
        assert_eq!(policy.look(bulk, MS), Step::Leave(FIRST_PAUSE * 2));
    }

    #[test]
    fn counters_that_wrap_do_not_matter() {
        assert_eq!(beats(3, 1).since(beats(u32::MAX, u32::MAX)), beats(4, 2));
    }
}
