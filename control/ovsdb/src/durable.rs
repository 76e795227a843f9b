//! Writes records, and has the disk keep them on a thread of its own: a disk may take seconds for that, and what runs beside
//! the database must not stand still for as long.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tracing::{error, info, warn};

use crate::medium::Medium;

/// Between two tries on a disk that fails.
const RETRY: Duration = Duration::from_secs(1);

/// Told, on the syncer's thread, whenever more became durable or failed to.
pub(crate) type Wake = Box<dyn Fn() + Send>;

/// A medium with records, synced behind those who write to it. Dropped, it first finishes, unless the disk fails.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// What messages name the medium.
    name: String,
    /// Held while something is written, never while the disk is waited for.
    state: Mutex<State>,
    work: Condvar,
    durable: AtomicU64,
}

struct State {
    medium: Arc<dyn Medium>,
    /// Of the medium's intact records, in bytes.
    length: u64,
    /// What `length` was after the last snapshot.
    base: u64,
    /// Something may stand after `length` that a failed write left.
    torn: bool,
    /// The records at the end that are not durable yet. A kernel that could not write its pages forgets that they are dirty,
    /// and the next sync of the same file says that all is well: so they are written again first.
    pending: Vec<u8>,
    /// The medium is to be synced.
    unsynced: bool,
    /// Records ever written.
    written: u64,
    rewrite: Option<Rewrite>,
    failing: bool,
    ended: bool,
    wake: Option<Wake>,
}

/// A shorter content, to stand for all that is there.
struct Rewrite {
    bytes: Vec<u8>,
    /// It makes up for so many bytes of the medium.
    instead_of: u64,
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").field("durable", &self.durable()).finish_non_exhaustive()
    }
}

impl Syncer {
    /// `length`: of the records that are there, of which those up to `base` are the snapshot, in bytes.
    pub fn start(name: String, medium: Arc<dyn Medium>, length: u64, base: u64) -> io::Result<Syncer> {
        let state = State {
            medium,
            length,
            base,
            torn: false,
            pending: Vec::new(),
            unsynced: false,
            written: 0,
            rewrite: None,
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

    /// Writes one more record behind the ones before. On an error nothing of it remains.
    pub fn append(&self, record: &[u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        if let Err(error) = state.append(record) {
            if let Err(cut) = state.cut() {
                warn!("{}: cannot take a failed write back, will try again: {cut}", self.shared.name);
            }
            return Err(error);
        }
        self.shared.work.notify_one();
        Ok(())
    }

    /// In bytes: the records, and the snapshot at their beginning.
    pub fn lengths(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.length, state.base)
    }

    /// Has `bytes` stand for all that was written so far, by and by. If that fails, nothing is lost.
    pub fn rewrite(&self, bytes: Vec<u8>) {
        let mut state = self.shared.lock();
        // Also after a failure: the next try is due when there is as much again.
        state.base = state.length;
        state.rewrite = Some(Rewrite { bytes, instead_of: state.length });
        self.shared.work.notify_one();
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

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(rewrite) = state.rewrite.take() {
                state = self.rewritten(state, &rewrite);
            } else if state.unsynced {
                state = self.synced(state);
                if state.failing {
                    if state.ended {
                        return;
                    }
                    let waited = self.work.wait_timeout(state, RETRY);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            } else if state.ended {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Waits for the disk, and tells what came of it.
    fn synced<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (medium, written, length) = (state.medium.clone(), state.written, state.pending.len());
        let again = state.failing.then(|| (state.pending.clone(), state.length - length as u64));
        state.unsynced = false;
        drop(state);
        let result =
            again.map_or(Ok(()), |(bytes, at)| medium.write(&bytes, at)).and_then(|()| medium.sync());
        let mut state = self.lock();
        match result {
            Ok(()) => self.kept(&mut state, written, length),
            Err(error) => self.refused(&mut state, &error),
        }
        state
    }

    /// The first `length` of the pending bytes are durable, which end record number `written`.
    fn kept(&self, state: &mut State, written: u64, length: usize) {
        if std::mem::take(&mut state.failing) {
            info!("{}: the disk works again, and has what was changed", self.name);
        }
        state.pending.drain(..length);
        self.durable.store(written, Ordering::Release);
        state.tell();
    }

    fn refused(&self, state: &mut State, error: &io::Error) {
        state.unsynced = true;
        if !std::mem::replace(&mut state.failing, true) {
            error!(
                "{}: the disk does not keep what was changed ({error}): it would be lost with the host. Changes are refused \
                 until it does; trying again each second",
                self.name
            );
        }
        state.tell();
    }

    /// Puts a shorter medium in the place of the one that is there, which goes on to be written to meanwhile.
    fn rewritten<'a>(&'a self, state: MutexGuard<'a, State>, rewrite: &Rewrite) -> MutexGuard<'a, State> {
        let medium = state.medium.clone();
        drop(state);
        let new = medium.successor(&rewrite.bytes);
        let mut state = self.lock();
        // The log as it stands is complete: a failure costs disk space and nothing else.
        if let Err(error) = new.and_then(|new| state.move_to(new, rewrite)) {
            warn!("{}: writing it anew, and shorter, failed: {error}", self.name);
        }
        state
    }
}

impl State {
    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.cut()?;
        self.torn = true;
        self.medium.write(record, self.length)?;
        self.torn = false;
        self.pending.extend_from_slice(record);
        self.length += record.len() as u64;
        self.written += 1;
        self.unsynced = true;
        Ok(())
    }

    /// Takes away what a failed write left.
    fn cut(&mut self) -> io::Result<()> {
        if self.torn {
            self.medium.cut(self.length)?;
            self.torn = false;
        }
        Ok(())
    }

    /// All that was written since the snapshot was taken is pending, as nothing was synced meanwhile, and goes along.
    fn move_to(&mut self, new: Arc<dyn Medium>, rewrite: &Rewrite) -> io::Result<()> {
        let since = self.length - rewrite.instead_of;
        let covered = (self.pending.len() as u64).saturating_sub(since) as usize;
        let since = self.pending.get(covered..).unwrap_or_default();
        let base = rewrite.bytes.len() as u64;
        new.take_place(since, base)?;
        (self.base, self.length) = (base, base + since.len() as u64);
        self.pending.drain(..covered);
        self.medium = new;
        self.torn = false;
        self.unsynced = true;
        Ok(())
    }

    fn tell(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    /// A disk that keeps nothing before it is told how the next sync ends.
    #[derive(Clone)]
    struct Disk {
        content: Arc<Mutex<Vec<u8>>>,
        verdicts: Arc<Mutex<Receiver<io::Result<()>>>>,
        /// Takes half of what is written.
        full: Arc<AtomicBool>,
        /// What took its place.
        now: Arc<Mutex<Option<Disk>>>,
    }

    impl Disk {
        fn content(&self) -> String {
            String::from_utf8(self.content.lock().unwrap().clone()).unwrap()
        }
    }

    impl Medium for Disk {
        fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            let full = self.full.load(Ordering::Relaxed);
            let bytes = if full { &bytes[..bytes.len() / 2] } else { bytes };
            let mut content = self.content.lock().unwrap();
            let at = usize::try_from(at).unwrap();
            let end = content.len().max(at + bytes.len());
            content.resize(end, b'.');
            content[at..at + bytes.len()].copy_from_slice(bytes);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn cut(&self, length: u64) -> io::Result<()> {
            self.content.lock().unwrap().truncate(usize::try_from(length).unwrap());
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            self.verdicts.lock().unwrap().recv().unwrap()
        }

        fn successor(&self, bytes: &[u8]) -> io::Result<Arc<dyn Medium>> {
            self.sync()?;
            let content = Arc::new(Mutex::new(bytes.to_vec()));
            Ok(Arc::new(Disk { content, ..self.clone() }))
        }

        fn take_place(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            self.write(bytes, at)?;
            *self.now.lock().unwrap() = Some(self.clone());
            Ok(())
        }
    }

    fn started() -> (Syncer, Disk, Sender<io::Result<()>>, Receiver<()>) {
        let (verdict, verdicts) = channel();
        let verdicts = Arc::new(Mutex::new(verdicts));
        let (content, full, now) = Default::default();
        let disk = Disk { content, verdicts, full, now };
        let syncer = Syncer::start("conf.db".to_owned(), Arc::new(disk.clone()), 0, 0).unwrap();
        let (tell, told) = channel();
        syncer.on_change(Box::new(move || tell.send(()).unwrap_or_default()));
        (syncer, disk, verdict, told)
    }

    #[test]
    fn nobody_waits_for_the_disk_and_what_was_written_meanwhile_is_next() {
        let (syncer, _, verdict, told) = started();
        syncer.append(b"one").unwrap();
        syncer.append(b"two").unwrap();
        assert_eq!((syncer.written(), syncer.durable()), (2, 0));
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        assert!(syncer.durable() >= 1);
        syncer.append(b"three").unwrap();
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
        syncer.append(b"lost").unwrap();
        disk.content.lock().unwrap().clear();
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        told.recv().unwrap();
        assert_eq!((syncer.failing(), syncer.durable()), (true, 0));
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        assert_eq!((syncer.failing(), syncer.durable()), (false, 1));
        assert_eq!(disk.content(), "lost");
    }

    #[test]
    fn a_failed_write_leaves_neither_a_torn_record_nor_a_gap() {
        let (syncer, disk, verdict, _told) = started();
        syncer.append(b"one").unwrap();
        disk.full.store(true, Ordering::Relaxed);
        syncer.append(b"two").unwrap_err();
        assert_eq!((disk.content().as_str(), syncer.written()), ("one", 1));
        disk.full.store(false, Ordering::Relaxed);
        syncer.append(b"three").unwrap();
        assert_eq!((disk.content().as_str(), syncer.written(), syncer.lengths()), ("onethree", 2, (8, 0)));
        verdict.send(Ok(())).unwrap();
        verdict.send(Ok(())).unwrap();
    }

    #[test]
    fn what_is_written_while_a_snapshot_is_made_goes_behind_it() {
        let (syncer, old, verdict, told) = started();
        syncer.append(b"one").unwrap();
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        syncer.append(b"two").unwrap();
        syncer.rewrite(b"1+2".to_vec());
        syncer.append(b"three").unwrap();
        assert_eq!(old.content(), "onetwothree");
        // at most one for what was written before, one for the snapshot, one for the new medium
        for _ in 0..3 {
            verdict.send(Ok(())).unwrap();
        }
        while syncer.durable() < 3 || syncer.lengths() != (8, 3) {
            told.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        let new = old.now.lock().unwrap().clone().unwrap();
        syncer.append(b"four").unwrap();
        assert_eq!((new.content().as_str(), old.content().as_str()), ("1+2threefour", "onetwothree"));
        verdict.send(Ok(())).unwrap();
    }

    #[test]
    fn a_snapshot_that_the_disk_refuses_costs_nothing() {
        let (syncer, disk, verdict, told) = started();
        syncer.append(b"one").unwrap();
        verdict.send(Ok(())).unwrap();
        told.recv().unwrap();
        syncer.rewrite(b"1".to_vec());
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        syncer.append(b"two").unwrap();
        verdict.send(Ok(())).unwrap();
        verdict.send(Ok(())).unwrap();
        while syncer.durable() < 2 {
            told.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        assert_eq!((disk.content().as_str(), disk.now.lock().unwrap().is_none()), ("onetwo", true));
    }

    #[test]
    fn an_end_waits_for_the_disk_but_not_for_one_that_fails() {
        let (syncer, _, verdict, _told) = started();
        syncer.append(b"one").unwrap();
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        verdict.send(Err(io::Error::other("broken"))).unwrap();
        drop(syncer);
        let (syncer, _, verdict, told) = started();
        syncer.append(b"one").unwrap();
        verdict.send(Ok(())).unwrap();
        drop(syncer);
        told.recv().unwrap();
    }
}
