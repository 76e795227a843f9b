//! A flood of one and the same warning says nothing new: each place in the code that warns may do so 60 times at
//! once and once a second after that. What was held back is counted and told with the next one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;

const BURST: f64 = 60.0;
const PER_SECOND: f64 = 1.0;

/// Bounded by the number of places in the code.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    buckets: HashMap<Identifier, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    dropped: u64,
    first: Instant,
    last: Instant,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Write,
    Hold,
    /// Write, and this many were held back: over how long, and how long ago the last one.
    WriteAfter(u64, Duration, Duration),
}

impl Limiter {
    pub(super) fn admit(&mut self, place: Identifier, now: Instant) -> Verdict {
        let bucket = self.buckets.entry(place).or_insert(Bucket {
            tokens: BURST,
            filled: now,
            dropped: 0,
            first: now,
            last: now,
        });
        bucket.tokens =
            (bucket.tokens + now.duration_since(bucket.filled).as_secs_f64() * PER_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            if bucket.dropped == 0 {
                bucket.first = now;
            }
            bucket.dropped += 1;
            bucket.last = now;
            return Verdict::Hold;
        }
        bucket.tokens -= 1.0;
        match std::mem::take(&mut bucket.dropped) {
            0 => Verdict::Write,
            n => Verdict::WriteAfter(n, now.duration_since(bucket.first), now.duration_since(bucket.last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_at_once_then_one_a_second() {
        let place = || tracing::callsite!(name: "x", kind: tracing::metadata::Kind::EVENT, fields:);
        use tracing::Callsite;
        let place = place().metadata().callsite();
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let written = (0..100).filter(|_| limiter.admit(place.clone(), start) == Verdict::Write).count();
        assert_eq!(written, 60);
        let later = start + Duration::from_secs(3);
        let told = Verdict::WriteAfter(40, Duration::from_secs(3), Duration::from_secs(3));
        assert_eq!(limiter.admit(place.clone(), later), told);
        assert_eq!(limiter.admit(place.clone(), later), Verdict::Write);
        assert_eq!(limiter.admit(place.clone(), later), Verdict::Write);
        assert_eq!(limiter.admit(place, later), Verdict::Hold);
    }
}
