//! A limit on how often something is done a second.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

/// How many shares there are. Two who fall into one share it.
const SHARES: usize = 64;

/// Lets so many through each second for each of many, so that one who asks all the time takes nothing from the others.
#[derive(Debug)]
pub(crate) struct Limit {
    rate: u32,
    second: u32,
    left: [u32; SHARES],
    hasher: RandomState,
}

impl Limit {
    /// `rate` a second for each.
    pub(crate) fn new(rate: u32) -> Limit {
        Limit { rate, second: 0, left: [rate; SHARES], hasher: RandomState::default() }
    }

    /// Whether one more may be done for `who` at `now` (seconds).
    pub(crate) fn take(&mut self, who: impl Hash, now: u32) -> bool {
        if now != self.second {
            self.second = now;
            self.left = [self.rate; SHARES];
        }
        let share = self.hasher.hash_one(who) as usize % SHARES;
        match self.left.get_mut(share) {
            Some(left @ 1..) => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limit, SHARES};

    #[test]
    fn each_second_has_its_own() {
        let mut limit = Limit::new(2);
        let taken: Vec<bool> =
            [0, 0, 0, 1, 1, 1, 5].into_iter().map(|now| limit.take([2u8; 6], now)).collect();
        assert_eq!(taken, [true, true, false, true, true, false, true]);
    }

    #[test]
    fn one_who_asks_all_the_time_leaves_the_others_theirs() {
        let mut limit = Limit::new(2);
        assert_eq!((0..1000).filter(|_| limit.take([2u8; 6], 7)).count(), 2);
        let served = (0..100).filter(|i| limit.take([4, 0, 0, 0, 0, *i], 7)).count();
        assert!((2..=2 * (SHARES - 1)).contains(&served), "{served}");
    }
}
