//! A limit on how often something is done a second.

/// Lets `rate` through each second.
#[derive(Debug)]
pub(crate) struct Limit {
    rate: u32,
    second: u32,
    left: u32,
}

impl Limit {
    /// `rate` a second.
    pub(crate) fn new(rate: u32) -> Limit {
        Limit { rate, second: 0, left: rate }
    }

    /// Whether one more may be done at `now` (seconds).
    pub(crate) fn take(&mut self, now: u32) -> bool {
        if now != self.second {
            self.second = now;
            self.left = self.rate;
        }
        let go = self.left > 0;
        self.left = self.left.saturating_sub(1);
        go
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn each_second_has_its_own() {
        let mut limit = Limit::new(2);
        let taken: Vec<bool> = [0, 0, 0, 1, 1, 1, 5].into_iter().map(|now| limit.take(now)).collect();
        assert_eq!(taken, [true, true, false, true, true, false, true]);
    }
}
