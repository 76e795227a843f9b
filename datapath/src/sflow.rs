//! Samples for sFlow: of so many packets that enter a bridge by its ports, one at random is passed up to control, with what
//! became of it.
//!
//! Workers count down to the next packet that is taken, each by itself, and touch nothing else for those in between. How many
//! there were is known when one is taken. A superframe stands for as many packets as it will be cut into, and each of them may
//! be taken.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counters::MAX_WORKERS;
use crate::snapshot::PortId;

/// The most of a packet that is passed up, in bytes: it must fit a datagram with all that is said of it.
pub const MAX_HEADER: usize = 1024;
/// Samples that wait for control at most.
pub const ROOM: usize = 1024;

/// A packet that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it came in.
    pub from: PortId,
    /// Its first bytes, as it came in.
    pub header: Vec<u8>,
    /// Its length in bytes, from the destination address on, without the frame check sequence.
    pub len: u32,
    /// What became of it.
    pub fate: Fate,
    /// Packets that could have been taken, up to this one.
    pub pool: u64,
    /// Samples that found no room, up to this one.
    pub drops: u64,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fate {
    /// How many copies of it left. 0: it was dropped.
    pub copies: u32,
    /// Where the last of them did.
    pub last: Option<PortId>,
    /// The tag control information that it came with; 0 for no tag.
    pub came: u16,
    /// That which it left with; of several copies, the last that had a tag. Of a packet that was dropped, as it came.
    pub left: u16,
}

/// Takes the samples of a bridge. Kept by [`std::sync::Arc`], so that it counts on from one snapshot to the next.
#[derive(Debug)]
pub struct Sampler {
    rate: u32,
    header: usize,
    cells: [Cell; MAX_WORKERS],
    up: Mutex<Upward>,
}

/// A worker's own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell {
    /// Packets up to and with the next that is taken.
    left: AtomicU64,
    /// What `left` began at.
    skip: AtomicU64,
    /// State of the generator (xorshift64).
    random: AtomicU64,
}

#[derive(Debug, Default)]
struct Upward {
    samples: Vec<Sample>,
    pool: u64,
    drops: u64,
}

/// A packet of a frame that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Which of the packets that the frame stands for, from 0 on.
    pub(crate) index: u64,
    /// How many packets there were since the one before, with this one.
    pub(crate) skip: u64,
}

impl Sampler {
    /// One packet in `rate` (at least 1), and `header` bytes of it at most.
    pub fn new(rate: u32, header: usize) -> Sampler {
        let sampler = Sampler {
            rate: rate.max(1),
            header: header.min(MAX_HEADER),
            cells: Default::default(),
            up: Mutex::default(),
        };
        for cell in &sampler.cells {
            // seeded anew by each state; never 0, which the generator would stay at
            cell.random.store(RandomState::new().build_hasher().finish() | 1, Relaxed);
            sampler.draw(cell);
        }
        sampler
    }

    /// One packet in so many.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Bytes of a packet that are passed up at most.
    pub fn header(&self) -> usize {
        self.header
    }

    /// Counts a frame of so many packets. True: one of them is to be taken.
    #[inline]
    pub(crate) fn passes(&self, worker: usize, packets: u64) -> bool {
        let left = &self.cells[worker % MAX_WORKERS].left;
        let before = left.load(Relaxed);
        if packets < before {
            left.store(before - packets, Relaxed);
        }
        packets >= before
    }

    /// Those to be taken of a frame that [`Sampler::passes`] says has some.
    pub(crate) fn take_of(&self, worker: usize, packets: u64, taken: &mut Vec<Taken>) {
        let cell = &self.cells[worker % MAX_WORKERS];
        let mut passed = cell.left.load(Relaxed);
        while passed <= packets {
            let skip = cell.skip.load(Relaxed);
            if taken.len() < ROOM {
                taken.push(Taken { index: passed.saturating_sub(1), skip });
            } else if let Some(last) = taken.last_mut() {
                // more than any kernel cuts a frame into
                last.skip += skip;
            }
            passed += self.draw(cell);
        }
        cell.left.store(passed - packets, Relaxed);
    }

    /// How far it is to the next: 1 to twice the rate less 1, which is the rate on average.
    fn draw(&self, cell: &Cell) -> u64 {
        let mut x = cell.random.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        cell.random.store(x, Relaxed);
        let skip = 1 + x % (2 * u64::from(self.rate) - 1);
        cell.left.store(skip, Relaxed);
        cell.skip.store(skip, Relaxed);
        skip
    }

    /// Passes samples of one frame up, or counts them where there is no room. A cold path: it locks.
    pub(crate) fn push(&self, taken: &[Taken], sample: impl Fn(&Taken) -> Sample) {
        let mut up = lock(&self.up);
        for taken in taken {
            up.pool += taken.skip;
            if up.samples.len() < ROOM {
                let (pool, drops) = (up.pool, up.drops);
                up.samples.push(Sample { pool, drops, ..sample(taken) });
            } else {
                up.drops += 1;
            }
        }
    }

    /// Takes the samples that wait, in order for each worker.
    pub fn samples(&self) -> Vec<Sample> {
        std::mem::take(&mut lock(&self.up).samples)
    }
}

/// A thread that panicked while it held the lock leaves a queue that is still whole.
fn lock(up: &Mutex<Upward>) -> MutexGuard<'_, Upward> {
    up.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Sample {
        Sample { from: PortId(1), header: vec![7], len: 60, fate: Fate::default(), pool: 0, drops: 0 }
    }

    /// The packets that are taken of frames that stand for so many, numbered through.
    fn taken(sampler: &Sampler, frames: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let (mut numbers, mut before) = (Vec::new(), 0);
        for packets in frames {
            let mut taken = Vec::new();
            if sampler.passes(0, packets) {
                sampler.take_of(0, packets, &mut taken);
                assert!(!taken.is_empty());
            }
            numbers.extend(taken.iter().map(|taken| (before + taken.index, taken.skip)));
            before += packets;
        }
        numbers
    }

    #[test]
    fn one_in_one_is_all() {
        let sampler = Sampler::new(1, 128);
        let all = taken(&sampler, [1, 3, 1, 45]);
        assert_eq!(all, (0..50).map(|i| (i, 1)).collect::<Vec<_>>());
        assert_eq!(Sampler::new(0, 5000).rate(), 1);
        assert_eq!(Sampler::new(0, 5000).header(), MAX_HEADER);
    }

    proptest! {
        /// However packets come in frames: what is skipped adds up to what has passed, and so many are taken as ought to be.
        #[test]
        fn skips_add_up(rate in 1u32..300, frames in prop::collection::vec(1u64..60, 1..400)) {
            let sampler = Sampler::new(rate, 128);
            let numbers = taken(&sampler, frames.iter().copied());
            let mut next = 0;
            for (number, skip) in &numbers {
                next += skip;
                prop_assert_eq!(number + 1, next);
                prop_assert!((1..2 * u64::from(rate)).contains(skip));
            }
            let total: u64 = frames.iter().sum();
            prop_assert!(next <= total && total - next < 2 * u64::from(rate));
        }
    }

    #[test]
    fn as_many_are_taken_as_the_rate_says() {
        let sampler = Sampler::new(64, 128);
        let got = taken(&sampler, std::iter::repeat_n(1, 640_000)).len();
        // the deviation is 58, for skips deviate by 37 from 64
        assert!((9_400..10_600).contains(&got), "{got}");
    }

    #[test]
    fn a_frame_of_too_many_packets_takes_no_more_memory() {
        let (sampler, mut taken) = (Sampler::new(1, 128), Vec::new());
        assert!(sampler.passes(0, 65_000));
        sampler.take_of(0, 65_000, &mut taken);
        assert_eq!((taken.len(), taken.iter().map(|taken| taken.skip).sum()), (ROOM, 65_000u64));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let sampler = Sampler::new(10, 128);
        let push = |n: usize| {
            sampler.push(&vec![Taken { index: 0, skip: 10 }; n], |_| sample());
        };
        push(ROOM + 5);
        let waiting = sampler.samples();
        assert_eq!((waiting.len(), waiting[0].pool, waiting[ROOM - 1].pool), (ROOM, 10, 10 * ROOM as u64));
        push(1);
        let after = sampler.samples();
        assert_eq!((after.len(), after[0].drops, after[0].pool), (1, 5, 10 * (ROOM as u64 + 6)));
    }
}
