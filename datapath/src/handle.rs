//! The one handle that control holds: publish a snapshot, know when it is in force, read counters, hear events.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use crate::punt::Punt;
pub use crate::worker::keeper::KeepAwake;

use crate::counters::{DropCell, DropReason, MAX_WORKERS};
use crate::punt::Punts;
use crate::slow_path::{FrameKind, Injections, Lift, PuntedFrame};
use crate::snapshot::{PortId, Snapshot};
use crate::sys::eventfd::EventFd;
use crate::worker;
use crate::worker::keeper::{Bell, Keeper, Pulse};

/// What the datapath tells control. Each is delivered once, however often it happened since the last reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The kernel found a packet of this tunnel too big: look its path MTU up again.
    PathMtu(PortId),
    /// The device behind this port is gone; nothing is received from it any more.
    PortFailed(PortId),
}

/// What control and the workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Generation of `snapshot`: one load tells a worker whether there is anything new.
    pub(crate) generation: AtomicU64,
    pub(crate) stop: AtomicBool,
    pub(crate) workers: Vec<PerWorker>,
    pub(crate) epoch: Instant,
    pub(crate) bell: Bell,
    applied: Mutex<()>,
    applied_changed: Condvar,
    events: Mutex<HashSet<Event>>,
    punts: Mutex<Punts>,
    event_fd: EventFd,
    /// By [`FrameKind`].
    lifts: Vec<Lift>,
}

/// What control and one worker share.
#[derive(Debug)]
pub(crate) struct PerWorker {
    pub(crate) wake: EventFd,
    pub(crate) applied: AtomicU64,
    pub(crate) drops: DropCell,
    pub(crate) injections: Injections,
    pub(crate) pulse: Pulse,
}

impl Shared {
    /// Seconds since the datapath started.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.epoch.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// A worker goes by `generation` from here on.
    pub(crate) fn confirm(&self, worker: usize, generation: u64) {
        if let Some(w) = self.workers.get(worker) {
            w.applied.store(generation, Ordering::Release);
        }
        // taking the lock orders this with a waiter that has looked but not yet slept
        let _guard = lock(&self.applied);
        self.applied_changed.notify_all();
    }

    /// Tells control. A cold path: it may lock.
    pub(crate) fn raise(&self, event: Event) {
        if lock(&self.events).insert(event) {
            self.event_fd.notify();
        }
    }

    /// Passes something up to control, unless `queue` says that there is no room. A cold path: it locks.
    pub(crate) fn punt(&self, queue: impl FnOnce(&mut Punts) -> bool) -> bool {
        let mut punts = lock(&self.punts);
        let first = punts.is_empty();
        let queued = queue(&mut punts);
        if queued && first {
            self.event_fd.notify();
        }
        queued
    }

    /// Passes a frame up to control; false when its port has had its share. A cold path: it locks.
    pub(crate) fn lift(&self, kind: FrameKind, port: PortId, frame: &[u8]) -> bool {
        self.lifts.get(kind as usize).is_some_and(|lift| lift.push(port, frame, self.now()))
    }

    fn all_applied(&self, generation: u64) -> bool {
        self.workers.iter().all(|w| w.applied.load(Ordering::Acquire) >= generation)
    }
}

/// A thread that panicked while it held a lock leaves data that is still whole: every critical section here is one
/// insertion or removal, or few.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Running workers.
#[derive(Debug)]
pub struct Datapath {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Datapath {
    /// Starts `workers` threads (brought into 1 to [`MAX_WORKERS`]) in the calling thread's network namespace.
    ///
    /// # Errors
    /// Whatever the kernel says to a new eventfd, epoll instance or thread.
    pub fn start(workers: usize) -> io::Result<Datapath> {
        let workers = workers.clamp(1, MAX_WORKERS);
        let per_worker = (0..workers).map(|_| {
            Ok(PerWorker {
                wake: EventFd::new()?,
                applied: AtomicU64::new(0),
                drops: DropCell::new(),
                injections: Injections::default(),
                pulse: Pulse::default(),
            })
        });
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            generation: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            workers: per_worker.collect::<io::Result<_>>()?,
            epoch: Instant::now(),
            bell: Bell::default(),
            applied: Mutex::new(()),
            applied_changed: Condvar::new(),
            events: Mutex::default(),
            punts: Mutex::default(),
            event_fd: EventFd::new()?,
            lifts: FrameKind::ALL.into_iter().map(Lift::new).collect::<io::Result<_>>()?,
        });
        let mut datapath = Datapath { shared: Arc::clone(&shared), threads: Vec::with_capacity(workers) };
        for index in 0..workers {
            let worker = worker::Worker::new(Arc::clone(&shared), index)?;
            let thread = std::thread::Builder::new().name(format!("worker{index}"));
            datapath.threads.push(thread.spawn(move || worker.run())?);
        }
        // where there can be none, cores halt as they did
        if let Ok(keeper) = Keeper::new(Arc::clone(&shared)) {
            let thread = std::thread::Builder::new().name("keeper".into());
            let keeper = thread.spawn(move || keeper.run())?;
            shared.bell.belongs_to(keeper.thread());
            datapath.threads.push(keeper);
        }
        Ok(datapath)
    }

    /// One more first worker, whom no thread runs.
    #[cfg(test)]
    pub(crate) fn idle_worker(&self) -> worker::Worker {
        worker::Worker::new(Arc::clone(&self.shared), 0).unwrap()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.shared.workers.len()
    }

    /// Seconds since start, the clock that [`crate::fdb::Fdb`] goes by.
    pub fn now(&self) -> u32 {
        self.shared.now()
    }

    /// Puts a snapshot in force and returns its generation (the field in `snapshot` is set here).
    pub fn publish(&self, mut snapshot: Snapshot) -> u64 {
        let generation = self.shared.generation.load(Ordering::Relaxed) + 1;
        snapshot.generation = generation;
        self.shared.snapshot.store(Arc::new(snapshot));
        self.shared.generation.store(generation, Ordering::Release);
        self.shared.workers.iter().for_each(|w| w.wake.notify());
        generation
    }

    /// What was published last.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Waits until every worker goes by `generation` or a later one. False: the time ran out.
    pub fn wait_applied(&self, generation: u64, timeout: Duration) -> bool {
        let guard = lock(&self.shared.applied);
        let waited = self
            .shared
            .applied_changed
            .wait_timeout_while(guard, timeout, |()| !self.shared.all_applied(generation));
        drop(waited);
        self.shared.all_applied(generation)
    }

    /// Readable when [`Datapath::events`] or [`Datapath::punted`] has something.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.event_fd.as_fd()
    }

    /// Takes what has happened since the last call.
    pub fn events(&self) -> Vec<Event> {
        self.shared.event_fd.drain();
        if !lock(&self.shared.punts).is_empty() {
            self.shared.event_fd.notify();
        }
        lock(&self.shared.events).drain().collect()
    }

    /// Takes what the workers have passed up since the last call, in order for each worker.
    pub fn punted(&self) -> Vec<Punt> {
        self.shared.event_fd.drain();
        if !lock(&self.shared.events).is_empty() {
            self.shared.event_fd.notify();
        }
        lock(&self.shared.punts).take()
    }

    /// Takes the frames of `kind` that workers have passed up since the last call, in order for each port.
    pub fn frames(&self, kind: FrameKind) -> Vec<PuntedFrame> {
        self.shared.lifts.get(kind as usize).map(Lift::take).unwrap_or_default()
    }

    /// Readable when [`Datapath::frames`] of that kind has something. None: it is of no kind there is.
    pub fn frames_fd(&self, kind: FrameKind) -> Option<BorrowedFd<'_>> {
        self.shared.lifts.get(kind as usize).map(Lift::readable)
    }

    /// Sends a frame out of one port, local or tunnel (protected as the tunnel is), whatever its [`crate::snapshot::StpState`].
    /// A worker does it, soon; what one port is given leaves in order. What is published before is in force
    /// when it leaves. False: too many frames wait.
    pub fn inject(&self, port: PortId, frame: &[u8]) -> bool {
        let workers = &self.shared.workers;
        let Some(worker) = workers.get(usize::from(port.0) % workers.len().max(1)) else { return false };
        let queued = worker.injections.push(port, frame);
        if queued {
            worker.wake.notify();
        }
        queued
    }

    /// Whether the host's cores are kept from halting while short frames go to and fro; they are not before the first call.
    /// False: they are to be, always, and this machine has no means for it, or the process no right to it.
    pub fn keep_awake(&self, wish: KeepAwake) -> bool {
        self.shared.keep_awake(wish)
    }

    /// Every drop counter, summed over workers.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let sum = |why| self.shared.workers.iter().map(|w| w.drops.get(why)).sum();
        DropReason::ALL.iter().map(|&why| (why, sum(why))).collect()
    }

    /// Stops and joins the workers.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.workers.iter().for_each(|w| w.wake.notify());
        self.shared.bell.wake();
        for thread in self.threads.drain(..) {
            // a worker that panicked has nothing left to say
            let _ = thread.join();
        }
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.halt();
    }
}
