//! The unix socket through which `ovs-vsctl` and other clients reach the database.
//!
//! Everything runs on one thread: `ovsdb::Server` says what to answer, this module moves the bytes. A client is read
//! from only while nothing waits to be sent to it, so that what it can make the server hold is bounded.
//!
//! Nobody is told of a commit before the disk has it. While a disk takes its time, clients wait and nothing else does.

use ovsdb::{Server, SessionId, Transmit};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

/// How many clients may be connected at the same time.
const MAX_SESSIONS: usize = 256;
/// A client that leaves more than this many bytes unread is cut off when the next message for it is due.
const MAX_BACKLOG: usize = 16 << 20;
/// How long a client may take to finish a message that it has begun, or to read anything of what waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes taken from a client at a time; bounds what its requests can cause to be queued for it.
const READ_SIZE: usize = 16 << 10;

/// The database with the clients that are connected to it. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct DbServer(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    db: Rc<RefCell<Server>>,
    /// Told after a client has changed the database.
    changed: Rc<Notify>,
    outboxes: RefCell<BTreeMap<SessionId, Rc<Outbox>>>,
    /// Told when the time at which the database wants to be called may have moved.
    timer: Notify,
    /// Told when more of the database is durable, or its disk refuses.
    disk: Arc<Notify>,
    /// Messages may leave that tell of this many records of the database and no more.
    open: Cell<u64>,
}

/// What waits to be sent to one client.
#[derive(Debug, Default)]
struct Outbox {
    messages: RefCell<VecDeque<Transmit>>,
    /// How much of the first message is sent already.
    sent: Cell<usize>,
    bytes: Cell<usize>,
    overflown: Cell<bool>,
    filled: Notify,
}

/// What can be done for a client whose outbox is this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Read from it: nothing waits for it.
    Read,
    Write,
    /// Wait for the disk.
    Hold,
}

impl DbServer {
    pub fn new(db: Rc<RefCell<Server>>, changed: Rc<Notify>) -> DbServer {
        let disk = Arc::<Notify>::default();
        let wake = disk.clone();
        db.borrow_mut().on_durable(Box::new(move || wake.notify_one()));
        let shared = Shared {
            db,
            changed,
            outboxes: RefCell::default(),
            timer: Notify::new(),
            disk,
            open: Cell::new(0),
        };
        shared.hear_of_the_disk();
        DbServer(Rc::new(shared))
    }

    /// Hands out what the database has to say. To be called after each commit that is not a client's, with the
    /// database not borrowed.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Serves clients for ever, in tasks of the current `LocalSet`; they end when this future is dropped.
    pub async fn serve(self, listener: UnixListener) {
        let mut sessions = JoinSet::new();
        loop {
            let timeout = self.0.db.borrow().poll_timeout().map(Instant::from_std);
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(_) if sessions.len() >= MAX_SESSIONS => warn!("too many database clients: refused another"),
                    Ok((stream, _)) => {
                        sessions.spawn_local(serve_session(self.0.clone(), stream));
                    }
                    Err(error) => {
                        warn!("cannot accept database clients: {error}");
                        // Out of file descriptors, for example: it may pass.
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                _ = sessions.join_next(), if !sessions.is_empty() => {}
                () = self.0.timer.notified() => {}
                () = self.0.disk.notified() => self.0.hear_of_the_disk(),
                () = sleep_until(timeout.unwrap_or_else(Instant::now)), if timeout.is_some() => {
                    self.0.db.borrow_mut().handle_timeout(Instant::now().into_std());
                    self.0.changed.notify_one();
                    self.0.flush();
                }
            }
        }
    }
}

impl Shared {
    /// Lets messages go whose commits are durable. Where the disk fails they go, too, for who looks must be answered; those
    /// who committed are told that it failed.
    fn hear_of_the_disk(&self) {
        let db = self.db.borrow();
        let (durable, fails) = (db.durable().max(self.open.get()), db.disk_fails());
        for outbox in self.outboxes.borrow().values() {
            if fails {
                outbox.refuse(durable);
            }
            outbox.filled.notify_one();
        }
        self.open.set(if fails { db.committed() } else { durable });
    }

    fn flush(&self) {
        let mut db = self.db.borrow_mut();
        let outboxes = self.outboxes.borrow();
        while let Some(transmit) = db.poll_transmit() {
            if let Some(outbox) = outboxes.get(&transmit.session) {
                outbox.push(transmit);
            }
        }
        self.timer.notify_one();
    }

    /// Passes bytes from a client to the database. False if the client must go.
    fn receive(&self, session: SessionId, bytes: &[u8]) -> bool {
        let mut db = self.db.borrow_mut();
        let before = db.db().serial();
        let result = db.receive(session, bytes, Instant::now().into_std());
        if db.db().serial() != before {
            self.changed.notify_one();
        }
        drop(db);
        self.flush();
        if let Err(error) = &result {
            warn!("disconnecting a database client: {error}");
        }
        result.is_ok()
    }
}

impl Outbox {
    fn push(&self, message: Transmit) {
        if self.bytes.get() > MAX_BACKLOG {
            self.overflown.set(true);
        } else {
            self.bytes.set(self.bytes.get() + message.bytes.len());
            self.messages.borrow_mut().push_back(message);
        }
        self.filled.notify_one();
    }

    /// Of what tells of more than `durable` records, says the opposite.
    fn refuse(&self, durable: u64) {
        for message in self.messages.borrow_mut().iter_mut().filter(|message| message.after > durable) {
            if let Some(refused) = message.refused.take() {
                self.bytes.set(self.bytes.get() - message.bytes.len() + refused.len());
                message.bytes = refused;
            }
        }
    }

    fn turn(&self, open: u64) -> Turn {
        match self.messages.borrow().front() {
            None => Turn::Read,
            Some(message) if message.after <= open => Turn::Write,
            Some(_) => Turn::Hold,
        }
    }

    /// Sends as much as the socket takes of what may leave. True if it took something.
    fn send(&self, stream: &UnixStream, open: u64) -> io::Result<bool> {
        let mut messages = self.messages.borrow_mut();
        let mut progress = false;
        while let Some(Transmit { bytes: message, .. }) = messages.front().filter(|next| next.after <= open) {
            match stream.try_write(message.get(self.sent.get()..).unwrap_or_default()) {
                Ok(n) => {
                    progress = true;
                    self.sent.set(self.sent.get() + n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if self.sent.get() >= message.len() {
                self.bytes.set(self.bytes.get() - message.len());
                self.sent.set(0);
                messages.pop_front();
            }
        }
        Ok(progress)
    }
}

/// Ends the session in the database however its task ends.
struct Registration {
    shared: Rc<Shared>,
    session: SessionId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.outboxes.borrow_mut().remove(&self.session);
        self.shared.db.borrow_mut().disconnect(self.session);
        // Others may have got its locks.
        self.shared.flush();
    }
}

async fn serve_session(shared: Rc<Shared>, stream: UnixStream) {
    let session = shared.db.borrow_mut().connect();
    let outbox = Rc::new(Outbox::default());
    shared.outboxes.borrow_mut().insert(session, outbox.clone());
    let _registration = Registration { shared: shared.clone(), session };
    if let Err(error) = talk(&shared, session, &outbox, &stream).await {
        debug!("a database client's connection broke: {error}");
    }
}

async fn talk(shared: &Shared, session: SessionId, outbox: &Outbox, stream: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    let mut stuck_since = Instant::now();
    loop {
        let turn = outbox.turn(shared.open.get());
        let unfinished = || shared.db.borrow().unfinished_since(session).map(Instant::from_std);
        let waiting_since = match turn {
            Turn::Read => unfinished(),
            Turn::Write => Some(stuck_since),
            Turn::Hold => None,
        };
        let deadline = waiting_since.map(|since| since + PATIENCE);
        tokio::select! {
            ready = stream.readable(), if turn == Turn::Read => {
                ready?;
                match stream.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => {
                        if !shared.receive(session, buffer.get(..n).unwrap_or_default()) {
                            // What it asked before its mistake deserves an answer, if it takes it at once.
                            outbox.send(stream, shared.open.get())?;
                            return Ok(());
                        }
                        stuck_since = Instant::now();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            ready = stream.writable(), if turn == Turn::Write => {
                ready?;
                if outbox.send(stream, shared.open.get())? {
                    stuck_since = Instant::now();
                }
            }
            () = outbox.filled.notified() => {
                if turn != Turn::Write {
                    stuck_since = Instant::now();
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let what = if turn == Turn::Read { "finish its message" } else { "read what it was sent" };
                warn!("disconnecting a database client that did not {what} within {PATIENCE:?}");
                return Ok(());
            }
        }
        if outbox.overflown.get() {
            warn!("disconnecting a database client that left more than {MAX_BACKLOG} bytes unread");
            return Ok(());
        }
    }
}
