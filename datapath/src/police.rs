//! Limits on what comes in by a port: policing of everything, and of what a bridge would send to all its ports (storm control).
//!
//! A [`Bucket`] is one number that any worker may move on: when it will be full again. A port without limits has none of this.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::counters::DropReason;

const NANOS: u128 = 1_000_000_000;

/// So much a second, and so much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second, at least 1.
    pub rate: u64,
    /// Units at once. One frame may exceed it: what is left need not be enough for a superframe.
    pub burst: u64,
}

/// The limits of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// `ingress_policing_rate` and `_burst`, in bytes.
    pub bytes: Option<Rate>,
    /// `ingress_policing_kpkts_rate` and `_kpkts_burst`, in packets.
    pub packets: Option<Rate>,
    /// Broadcasts, in packets.
    pub broadcast: Option<Rate>,
    /// Other groups, in packets.
    pub multicast: Option<Rate>,
    /// To stations that are not known, in packets.
    pub unknown_unicast: Option<Rate>,
}

/// Holds a port to its limits.
#[derive(Debug)]
pub struct Policer {
    /// What it goes by.
    pub limits: Limits,
    start: Instant,
    bytes: Option<Bucket>,
    packets: Option<Bucket>,
    broadcast: Option<Bucket>,
    multicast: Option<Bucket>,
    unknown_unicast: Option<Bucket>,
}

impl Policer {
    /// With every bucket full. None: there is no limit.
    pub fn new(limits: Limits) -> Option<Policer> {
        let bucket = |rate: Option<Rate>| rate.map(Bucket::new);
        (limits != Limits::default()).then(|| Policer {
            limits,
            start: Instant::now(),
            bytes: bucket(limits.bytes),
            packets: bucket(limits.packets),
            broadcast: bucket(limits.broadcast),
            multicast: bucket(limits.multicast),
            unknown_unicast: bucket(limits.unknown_unicast),
        })
    }

    /// A frame of `bytes` that stands for `packets` has come.
    ///
    /// # Errors
    /// It is beyond a limit.
    pub fn admit(&self, bytes: u64, packets: u64) -> Result<(), DropReason> {
        if self.bytes.is_none() && self.packets.is_none() {
            return Ok(());
        }
        let now = self.start.elapsed().as_nanos();
        take(self.bytes.as_ref(), bytes, now, DropReason::PolicedRate)?;
        take(self.packets.as_ref(), packets, now, DropReason::PolicedPackets)
    }

    /// The same of one that goes to every port, because of its destination.
    ///
    /// # Errors
    /// It is beyond a limit.
    pub fn admit_flood(&self, dst: [u8; 6], packets: u64) -> Result<(), DropReason> {
        let (bucket, why) = match dst {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => (&self.broadcast, DropReason::StormBroadcast),
            [first, ..] if first & 1 != 0 => (&self.multicast, DropReason::StormMulticast),
            _ => (&self.unknown_unicast, DropReason::StormUnknownUnicast),
        };
        match bucket {
            Some(_) => take(bucket.as_ref(), packets, self.start.elapsed().as_nanos(), why),
            None => Ok(()),
        }
    }
}

fn take(bucket: Option<&Bucket>, units: u64, now: u128, why: DropReason) -> Result<(), DropReason> {
    match bucket {
        Some(bucket) if !bucket.take(units, now) => Err(why),
        _ => Ok(()),
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    /// Nanoseconds from the policer's start on after which it is full, if nothing more is taken.
    full_at: AtomicU64,
}

impl Bucket {
    fn new(rate: Rate) -> Bucket {
        Bucket { rate, full_at: AtomicU64::new(0) }
    }

    /// Takes so many units at `now`, in nanoseconds from the start on, unless nothing is left.
    fn take(&self, units: u64, now: u128) -> bool {
        let nanos = |units: u64| u128::from(units) * NANOS / u128::from(self.rate.rate.max(1));
        let take = |full_at: u64| {
            let full_at = u128::from(full_at).max(now);
            let one_left = full_at - now + nanos(1) <= nanos(self.rate.burst.max(1));
            one_left.then(|| u64::try_from(full_at + nanos(units)).unwrap_or(u64::MAX))
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(rate: u64, burst: u64) -> Bucket {
        Bucket::new(Rate { rate, burst })
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let b = bucket(1000, 10);
        let passed = |b: &Bucket, now| (0..100).filter(|_| b.take(1, now)).count();
        assert_eq!(passed(&b, 0), 10);
        assert_eq!(passed(&b, 0), 0);
        assert_eq!(passed(&b, 1_000_000), 1);
        assert_eq!(passed(&b, 6_000_000), 5);
        assert_eq!(passed(&b, 60_000_000_000), 10, "never more than a burst");
    }

    #[test]
    fn what_exceeds_the_burst_passes_and_is_made_up_for() {
        let b = bucket(1000, 10);
        assert!(b.take(500, 0));
        assert!(!b.take(1, 0) && !b.take(1, 489_000_000));
        assert!(b.take(1, 491_000_000));
    }

    #[test]
    fn numbers_beyond_all_measure() {
        let b = bucket(1, u64::MAX);
        assert!(b.take(u64::MAX, 0) && b.take(u64::MAX, u128::from(u64::MAX)));
        assert!(bucket(u64::MAX, 1).take(u64::MAX, 0));
        assert!(bucket(0, 0).take(1, 0));
    }

    #[test]
    fn each_kind_has_its_own() {
        let one = Some(Rate { rate: 1, burst: 1 });
        let policer = |limits| Policer::new(limits).unwrap();
        assert!(Policer::new(Limits::default()).is_none());
        let storm =
            policer(Limits { broadcast: one, multicast: one, unknown_unicast: one, ..Limits::default() });
        for (dst, why) in [
            ([0xff; 6], DropReason::StormBroadcast),
            ([1, 0, 0x5e, 0, 0, 1], DropReason::StormMulticast),
            ([2; 6], DropReason::StormUnknownUnicast),
        ] {
            assert_eq!([storm.admit_flood(dst, 1), storm.admit_flood(dst, 1)], [Ok(()), Err(why)]);
            assert_eq!(storm.admit(1, 1), Ok(()));
        }
        let bytes = policer(Limits { bytes: one, ..Limits::default() });
        assert_eq!([bytes.admit(9, 1), bytes.admit(9, 1)], [Ok(()), Err(DropReason::PolicedRate)]);
        let packets = policer(Limits { packets: one, ..Limits::default() });
        assert_eq!([packets.admit(9, 1), packets.admit(9, 1)], [Ok(()), Err(DropReason::PolicedPackets)]);
    }

    proptest! {
        /// Over any time, no more passes than the rate in that time, a burst and one frame.
        #[test]
        fn never_more_than_the_rate(
            rate in 1u64..10_000,
            burst in 1u64..1000,
            steps in proptest::collection::vec((0u64..50_000_000, 1u64..100), 1..200),
        ) {
            let b = bucket(rate, burst);
            let (mut now, mut passed) = (0u128, 0u64);
            for (pause, units) in steps {
                now += u128::from(pause);
                if b.take(units, now) {
                    passed += units;
                }
            }
            let most = u128::from(rate) * now / NANOS + u128::from(burst) + 100 + 1;
            prop_assert!(u128::from(passed) <= most, "{passed} of {most}");
        }
    }
}
