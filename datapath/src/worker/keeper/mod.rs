//! Keeps the host's cores from halting while short frames go to and fro.
//!
//! A frame that is answered passes four workers on its way there and back, and each sleeps when it comes. To wake a halted
//! core of a virtual machine takes longer than all the rest. So while a host's workers are woken again and again for next to
//! nothing, this thread asks the kernel, as `/dev/cpu_dma_latency` lets it, for cores that are there at once. Idle cores then look
//! for work in the kernel's own idle loop: nobody's wake-up is delayed by it, no interrupt is needed, and the request ends
//! with the process however that ends.
//!
//! As with KVM's `halt_poll_ns`, success makes it more patient and failure less. A worker calls it after a row of short turns
//! ([`Gait`], which strangers' packets are no part of); what it does then, [`policy`] decides from what all workers tell ([`Pulse`]). Neither an idle host, nor some frames
//! now and then, nor bulk traffic keeps any core awake.

mod policy;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::handle::Shared;
use crate::sys;

use policy::{Beats, Policy, Step};

/// Whether cores are kept awake for short exchanges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepAwake {
    /// In virtual machines of at most [`MOST_CORES`] cores, whose kernel would halt them.
    #[default]
    Auto,
    /// On every machine that lets us.
    Always,
    /// Never.
    Never,
}

/// On a larger machine too many other cores would look for work that is not theirs.
pub const MOST_CORES: usize = 8;

/// Turns further apart than this are no exchange: a core that waits so long may as well halt.
const GAP: Duration = Duration::from_micros(250);
/// Short turns in a row that call the keeper.
const ROW: u32 = 8;
/// Frames, or bytes of frames, that make a turn more than short.
const FRAMES: usize = 2;
const BYTES: u32 = 2048;

/// What one worker tells of its turns; they wrap.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Pulse {
    short: AtomicU32,
    long: AtomicU32,
}

impl Pulse {
    /// Of its worker alone.
    fn beat(&self, short: bool) {
        let counter = if short { &self.short } else { &self.long };
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// How a worker goes: what it took in this turn, and how many turns before were short ones in quick succession.
#[derive(Debug, Default)]
pub(super) struct Gait {
    frames: usize,
    bytes: u32,
    row: u32,
    last: Option<Instant>,
}

impl Gait {
    /// A frame of that length came in by a port of a bridge.
    #[inline]
    pub(super) fn take(&mut self, len: u32) {
        self.frames += 1;
        self.bytes = self.bytes.saturating_add(len);
    }

    /// The turn is over at `now`. Says whether it was short; None: nothing came.
    fn turn(&mut self, now: Instant) -> Option<bool> {
        let (frames, bytes) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.bytes));
        if frames == 0 {
            return None;
        }
        let short = frames <= FRAMES && bytes <= BYTES;
        let quick = self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) <= GAP);
        self.row = if short && quick { self.row.saturating_add(1) } else { 0 };
        Some(short)
    }
}

/// Between workers, control and the keeper.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    allowed: AtomicBool,
    /// The keeper sleeps and may be called.
    listening: AtomicBool,
    keeper: OnceLock<Thread>,
}

impl Bell {
    /// Whom to wake.
    pub(crate) fn belongs_to(&self, keeper: &Thread) {
        let _ = self.keeper.set(keeper.clone());
    }

    /// A worker's turn is over.
    pub(super) fn turn(&self, gait: &mut Gait, pulse: &Pulse, now: impl FnOnce() -> Instant) {
        if !self.allowed.load(Ordering::Relaxed) {
            *gait = Gait::default();
            return;
        }
        let Some(short) = gait.turn(now()) else { return };
        pulse.beat(short);
        if gait.row >= ROW && self.listening.load(Ordering::Relaxed) {
            self.listening.store(false, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Wakes the keeper for whatever reason.
    pub(crate) fn wake(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    fn allow(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
        self.wake();
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    request: Request,
    policy: Policy,
}

impl Keeper {
    /// For the workers of `shared`.
    ///
    /// # Errors
    /// This kernel or machine has no such requests, or the process may not make them.
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Keeper> {
        Ok(Keeper { shared, request: Request::open()?, policy: Policy::default() })
    }

    /// The thread's life.
    pub(crate) fn run(mut self) {
        while !self.ended() {
            self.shared.bell.listening.store(true, Ordering::Relaxed);
            thread::park();
            if !self.shared.bell.listening.swap(false, Ordering::Relaxed) {
                let pause = self.accompany();
                // the token of what ends us may be used up
                if !self.ended() {
                    thread::park_timeout(pause);
                }
            }
        }
    }

    fn ended(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Looks on while an exchange lasts; returns how long not to be called again.
    fn accompany(&mut self) -> Duration {
        let (mut before, mut since) = (self.beats(), Instant::now());
        let mut next = policy::FIRST_LOOK;
        loop {
            thread::park_timeout(next);
            let (beats, now) = (self.beats(), Instant::now());
            let allowed = self.shared.bell.allowed.load(Ordering::Relaxed) && !self.ended();
            let step = self.policy.look(beats.since(before), now.saturating_duration_since(since));
            (before, since) = (beats, now);
            match step {
                // a request that is refused leaves everything as it was
                Step::Stay(look) if allowed && self.request.keep(true).is_ok() => next = look,
                Step::Stay(_) => {
                    self.release();
                    return policy::LONGEST_PAUSE;
                }
                Step::Leave(pause) => {
                    self.release();
                    return pause;
                }
            }
        }
    }

    /// Where that is refused, closing the descriptor does it.
    fn release(&mut self) {
        if self.request.keep(false).is_err()
            && let Ok(fresh) = Request::open()
        {
            self.request = fresh;
        }
    }

    fn beats(&self) -> Beats {
        let all = self.shared.workers.iter().map(|w| &w.pulse);
        all.fold(Beats::default(), |sum, pulse| Beats {
            short: sum.short.wrapping_add(pulse.short.load(Ordering::Relaxed)),
            long: sum.long.wrapping_add(pulse.long.load(Ordering::Relaxed)),
        })
    }
}

impl Shared {
    /// Lets the keeper work or not; whether that could be done.
    pub(crate) fn keep_awake(&self, wish: KeepAwake) -> bool {
        let there = self.bell.keeper.get().is_some();
        let allowed = match wish {
            KeepAwake::Auto => {
                there && idle_driver().is_some_and(|d| d == HALTING) && sys::cores() <= MOST_CORES
            }
            KeepAwake::Always => there,
            KeepAwake::Never => false,
        };
        self.bell.allow(allowed);
        there || wish != KeepAwake::Always
    }
}

/// The request of this process for cores that wake soon, see the kernel's `Documentation/power/pm_qos_interface.rst`.
#[derive(Debug)]
struct Request {
    device: File,
    /// Microseconds to ask for.
    least: i32,
    kept: bool,
}

/// That long is as good as no request.
const NO_REQUEST: i32 = 2_000_000_000;

/// The kernel's driver for virtual machines. Its one state that is no halt counts as 0 µs; elsewhere the lightest halt does.
const HALTING: &str = "haltpoll";

impl Request {
    fn open() -> io::Result<Request> {
        let driver = idle_driver().ok_or(ErrorKind::Unsupported)?;
        let least = if driver == HALTING { 0 } else { lightest_halt().ok_or(ErrorKind::Unsupported)? };
        let device = File::options().read(true).write(true).open("/dev/cpu_dma_latency")?;
        Ok(Request { device, least, kept: false })
    }

    fn keep(&mut self, awake: bool) -> io::Result<()> {
        if self.kept != awake {
            let latency = if awake { self.least } else { NO_REQUEST };
            self.device.write_all(&latency.to_ne_bytes())?;
            self.kept = awake;
        }
        Ok(())
    }
}

/// What puts cores to rest. None: the kernel itself, without asking for requests.
fn idle_driver() -> Option<String> {
    let name = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty() && name != "none")
}

/// Microseconds that a core takes to wake from the lightest state that is no loop.
fn lightest_halt() -> Option<i32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpuidle/state1/latency").ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after the one before, in microseconds, and the lengths of its frames.
    type Turn<'a> = (u64, &'a [u32]);

    fn gait(turns: &[Turn<'_>]) -> Gait {
        let (mut gait, mut now) = (Gait::default(), Instant::now());
        for (gap, frames) in turns {
            now += Duration::from_micros(*gap);
            frames.iter().for_each(|len| gait.take(*len));
            gait.turn(now);
        }
        gait
    }

    #[test]
    fn short_turns_in_quick_succession_make_a_row() {
        let cases: [(&[Turn<'_>], u32); 7] = [
            (&[(0, &[64]), (120, &[64]), (120, &[64])], 2),
            (&[(0, &[64]), (250, &[64, 64])], 1),
            (&[(0, &[64]), (251, &[64])], 0),
            (&[(0, &[64]), (100, &[64]), (100, &[64, 64, 64])], 0),
            (&[(0, &[64]), (100, &[64]), (100, &[2049])], 0),
            (&[(0, &[64]), (100, &[1024, 1024]), (100, &[])], 1),
            (&[(0, &[64]), (100, &[64]), (1000, &[64]), (100, &[64])], 1),
        ];
        for (turns, row) in cases {
            assert_eq!(gait(turns).row, row, "{turns:?}");
        }
    }

    #[test]
    fn frames_of_one_turn_add_up() {
        let mut gait = Gait::default();
        [100, 100, 100].iter().for_each(|len| gait.take(*len));
        assert_eq!(gait.turn(Instant::now()), Some(false));
        gait.take(100);
        assert_eq!(gait.turn(Instant::now()), Some(true));
        assert_eq!(gait.turn(Instant::now()), None);
    }

    #[test]
    fn the_bell_rings_once_and_only_when_allowed() {
        let (bell, pulse) = (Bell::default(), Pulse::default());
        bell.keeper.set(thread::current()).unwrap();
        bell.listening.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let turns = |gait: &mut Gait| {
            for _ in 0..=ROW {
                gait.take(64);
                bell.turn(gait, &pulse, || now);
            }
        };
        let mut gait = Gait::default();
        turns(&mut gait);
        assert!(bell.listening.load(Ordering::Relaxed), "not allowed");
        bell.allow(true);
        turns(&mut gait);
        assert!(!bell.listening.load(Ordering::Relaxed));
        assert_eq!(pulse.short.load(Ordering::Relaxed), ROW + 1);
        thread::park(); // its token is there
    }
}
