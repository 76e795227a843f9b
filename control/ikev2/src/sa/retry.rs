//! When a request is sent again, and when one gives up (RFC 7296 2.4: the requester's duty alone).

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

/// The schedule of one request: after half a second, then ever later, then every five seconds.
#[derive(Debug)]
pub(crate) struct Retry {
    delay: Duration,
    at: Instant,
    end: Instant,
    sent: u32,
}

impl Retry {
    /// For a request that is being sent now and given up after `patience`.
    pub fn new(now: Instant, patience: Duration) -> Retry {
        Retry { delay: FIRST, at: now + FIRST, end: now + patience, sent: 1 }
    }

    /// When to look again.
    pub fn at(&self) -> Instant {
        self.at.min(self.end)
    }

    /// How often it was sent.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// What is to be done now.
    pub fn due(&mut self, now: Instant) -> Due {
        if now >= self.end {
            return Due::GiveUp;
        }
        if now < self.at {
            return Due::Wait;
        }
        self.delay = LONGEST.min(self.delay * 3 / 2);
        self.at = now + self.delay;
        self.sent = self.sent.saturating_add(1);
        Due::Resend
    }

    /// To be sent again at once, because there is reason to hope.
    pub fn hurry(&mut self, now: Instant) {
        self.at = now;
    }
}

/// What is to be done with a request that is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Wait,
    /// Send it again, byte for byte.
    Resend,
    /// Nobody is there.
    GiveUp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_in_half_a_minute_then_given_up() {
        let start = Instant::now();
        let mut retry = Retry::new(start, Duration::from_secs(30));
        let mut times = Vec::new();
        loop {
            let now = retry.at();
            match retry.due(now) {
                Due::Resend => times.push((now - start).as_millis()),
                Due::GiveUp => break assert_eq!(now - start, Duration::from_secs(30)),
                Due::Wait => panic!("not due at its own time"),
            }
        }
        assert_eq!(times, [500, 1250, 2375, 4062, 6593, 10390, 15390, 20390, 25390]);
        assert_eq!(retry.sent(), 10);
    }
}
