//! Has the disk keep what was written, on a thread of its own: a disk may take seconds for that, and what runs beside the
//! database must not stand still for as long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tracing::{error, info};

/// Between two tries on a disk that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Where bytes become durable: a file, or its stand-in in tests.
pub(crate) trait Medium: Send + Sync {
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Told, on the syncer's thread, whenever more became durable or failed to.
pub(crate) type Wake = Box<dyn Fn() + Send>;

/// Syncs a medium behind those who write to it. Dropped, it first finishes, unless the disk fails.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// What messages name the medium.
    name: String,
    state: Mutex<State>,
    work: Condvar,
    durable: AtomicU64,
}

struct State {
    medium: Arc<dyn Medium>,
    /// Counts media: what is said of an earlier one does not matter any more.
    generation: u64,
    /// Written and not durable yet. A kernel that could not write its pages forgets that they are dirty, and the next sync
    /// of the same file says that all is well: so they are written again first.
    pending: Vec<u8>,
    /// Where `pending` stands in the medium, in bytes.
    at: u64,
    written: u64,
    failing: bool,
    ended: bool,
    wake: Option<Wake>,
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").field("durable", &self.durable()).finish_non_exhaustive()
    }
}

impl Syncer {
    pub fn start(name: String, medium: Arc<dyn Medium>) -> io::Result<Syncer> {
        let state = State {
            medium,
            generation: 0,
            pending: Vec::new(),
            at: 0,
            written: 0,
            failing: false,
            ended: false,
            wake: None,
        };
        let (state, work) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { name, state, work, durable: AtomicU64::new(0) });
        let of_thread = shared.clone();
        let thread = Builder::new().name("sync".to_owned()).spawn(move || of_thread.run())?;
        Ok(Syncer { shared, thread: Some(thread) })
    }

    pub fn on_change(&self, wake: Wake) {
        self.shared.lock().wake = Some(wake);
    }

    /// One more record was written, of these bytes at this place, behind the ones before.
    pub fn wrote(&self, bytes: &[u8], at: u64) {
        let mut state = self.shared.lock();
        if state.pending.is_empty() {
            state.at = at;
        }
        state.pending.extend_from_slice(bytes);
        state.written += 1;
        self.shared.work.notify_one();
    }

    /// Another medium stands in the place of the first, with all that was written, and durable.
    pub fn replaced(&self, medium: Arc<dyn Medium>) {
        let mut state = self.shared.lock();
        state.medium = medium;
        state.generation += 1;
        state.pending.clear();
        state.failing = false;
        self.shared.became_durable(&mut state);
    }

    /// Records written.
    pub fn written(&self) -> u64 {
        self.shared.lock().written
    }

    /// Of these, durable.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Whether what was written cannot be made durable at the moment.
    pub fn failing(&self) -> bool {
        self.shared.lock().failing
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.work.notify_one();
        // A panic of the thread has been reported by then.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn became_durable(&self, state: &mut State) {
        self.durable.store(state.written, Ordering::Release);
        state.tell();
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.pending.is_empty() {
                if state.ended {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (medium, generation) = (state.medium.clone(), state.generation);
            let (written, length, at) = (state.written, state.pending.len(), state.at);
            let again = state.failing.then(|| state.pending.clone());
            drop(state);
            let result = again.map_or(Ok(()), |bytes| medium.write(&bytes, at)).and_then(|()| medium.sync());
            state = self.lock();
            if state.generation != generation {
                continue;
            }
            match result {
                Ok(()) => self.kept(&mut state, written, length),
                Err(error) => {
                    self.refused(&mut state, &error);
                    if state.ended {
                        return;
                    }
                    let waited = self.work.wait_timeout(state, RETRY);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The first `length` of the pending bytes are durable, which end record number `written`.
    fn kept(&self, state: &mut State, written: u64, length: usize) {
        if std::mem::take(&mut state.failing) {
            info!("{}: the disk works again, and has what was changed", self.name);
        }
        state.pending.drain(..length);
        state.at += length as u64;
        self.durable.store(written, Ordering::Release);
        state.tell();
    }

    fn refused(&self, state: &mut State, error: &io::Error) {
        if !std::mem::replace(&mut state.failing, true) {
            error!(
                "{}: the disk does not keep what was changed ({error}): it would be lost with the host. Changes are refused \
                 until it does; trying again each second",
                self.name
            );
        }
        state.tell();
    }
}

impl State {
    fn tell(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    /// A disk that keeps nothing before it is told how the next sync ends.
    struct Disk {
        content: Mutex<Vec<u8>>,
        verdicts: Mutex<Receiver<io::Result<()>>>,
    }

    impl Medium for Disk {
        fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            let mut content = self.content.lock().unwrap();
            let at = usize::try_from(at).unwrap();
            let end = content.len().max(at + bytes.len());
            content.resize(end, 0);
            content[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            self.verdicts.lock().unwrap().recv().unwrap()
        }
    }

    fn started() -> (Syncer, Arc<Disk>, Sender<io::Result<()>>, Receiver<()>) {
        let (verdict, verdicts) = channel();
        let disk = Arc::new(Disk { content: Mutex::default(), verdicts: Mutex::new(verdicts) });
        let syncer = Syncer::start("conf.db".to_owned(), disk.clone()).unwrap();
        let (tell, told) = channel();
        syncer.on_change(Box::new(move || tell.send(()).unwrap_or_default()));
        (syncer, disk, verdict, told)
    }

    #[test]
    fn nobody_waits_for_the_disk_and_what_was_written_meanwhile_is_next() {
        let (syncer, _, verdict, told) = started();
        syncer.wrote(b"one", 0);
        syncer.wrote(b"two", 3);
        assert_eq!((syncer.written(), syncer.durable()), (2, 0));
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        assert!(syncer.durable() >= 1);
        syncer.wrote(b"three", 6);
        // a sync for each, if the first had begun before the second was written
        verdict.send(Ok(())).unwrap();
        verdict.send(Ok(())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while syncer.durable() < 3 && Instant::now() < deadline {
            told.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        assert_eq!((syncer.durable(), syncer.failing()), (3, false));
    }

    #[test]
    fn what_a_disk_refused_is_written_again_before_it_is_synced_again() {
        let (syncer, disk, verdict, told) = started();
        syncer.wrote(b"lost", 4);
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        told.recv().unwrap();
        assert_eq!((syncer.failing(), syncer.durable()), (true, 0));
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        assert_eq!((syncer.failing(), syncer.durable()), (false, 1));
        assert_eq!(*disk.content.lock().unwrap(), b"\0\0\0\0lost");
    }

    #[test]
    fn a_new_file_makes_up_for_a_disk_that_refused_the_old_one() {
        let (syncer, _, verdict, told) = started();
        syncer.wrote(b"one", 0);
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        told.recv().unwrap();
        let (_, other, other_verdict, _) = started();
        syncer.replaced(other.clone());
        told.recv().unwrap();
        assert_eq!((syncer.failing(), syncer.durable()), (false, 1));
        syncer.wrote(b"two", 9);
        other_verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        assert_eq!(syncer.durable(), 2);
        assert!(
            other.content.lock().unwrap().is_empty(),
            "what is pending for the first time is written already"
        );
    }

    #[test]
    fn an_end_waits_for_the_disk_but_not_for_one_that_fails() {
        let (syncer, _, verdict, _told) = started();
        syncer.wrote(b"one", 0);
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        drop(syncer);
        let (syncer, _, verdict, told) = started();
        syncer.wrote(b"one", 0);
        verdict.send(Ok(())).unwrap();
        drop(syncer);
        told.recv().unwrap();
    }
}
