//! BFD sessions on ports: clock and frames for the engine ([`bfd`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::bfd::{Config, Millis, Session};
use datapath::counters::PortCounters;
use datapath::handle::Datapath;
use datapath::slow_path::FrameKind;
use datapath::snapshot::PortId;
use ovsdb::{Datum, RowUpdate, Uuid};
use ring::rand::SecureRandom;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// How often ports are looked at whose other traffic counts, too.
const LOOK: Millis = 100;
/// When nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// Source ports (RFC 5881 section 4) begin here, and there are so many.
const PORTS: (u16, u16) = (49152, 16384);

/// A port that shall have a session.
#[derive(Debug)]
pub struct Port {
    /// Of the interface.
    pub name: String,
    /// Its row.
    pub row: Uuid,
    /// In the datapath.
    pub id: PortId,
    /// Its address.
    pub mac: [u8; 6],
    /// Nothing that comes by it is for the session: `check_tnl_key`, and the tunnel has a key.
    pub deaf: bool,
    /// What passes through it.
    pub counters: Arc<PortCounters>,
    /// The settings.
    pub config: Config,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    epoch: Instant,
    inner: RefCell<Inner>,
    /// There may be something to do earlier than thought.
    changed: Notify,
    /// A row's column is to be written.
    news: Notify,
}

/// Of a thousand sessions most have nothing to do each time that one has: what is there to do is found without a look at all.
#[derive(Debug, Default)]
struct Inner {
    /// By interface.
    entries: BTreeMap<Name, Entry>,
    /// Interfaces by their ports, as far as these hear anything.
    hearing: HashMap<PortId, Name>,
    /// When to look at which again.
    queue: BTreeSet<(Millis, Name)>,
    /// Something happened that their status may tell of.
    stirred: BTreeSet<Name>,
    /// Their status is to be written.
    news: BTreeSet<Name>,
    /// Rows of interfaces that had a session.
    ended: Vec<Uuid>,
    next_port: u16,
}

/// Of an interface.
type Name = Rc<str>;

#[derive(Debug)]
struct Entry {
    port: Port,
    session: Session,
    /// Where it is in the queue.
    queued: Millis,
    /// As last seen.
    status: Option<[(&'static str, String); 6]>,
}

impl Entry {
    /// When to look at it again.
    fn due(&self, now: Millis) -> Millis {
        let look = if self.port.config.forwarding_if_rx { now + LOOK } else { Millis::MAX };
        self.session.due().min(look)
    }
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            epoch: Instant::now(),
            inner: RefCell::default(),
            changed: Notify::new(),
            news: Notify::new(),
        }
    }
}

impl Sessions {
    /// Has sessions on these ports and on no others.
    pub fn follow(&self, ports: Vec<Port>) {
        let now = self.now();
        let mut guard = self.inner.borrow_mut();
        let inner = &mut *guard;
        let mut before = std::mem::take(&mut inner.entries);
        inner.hearing.clear();
        for port in ports {
            let name: Name = port.name.as_str().into();
            let entry = match before.remove(&name).filter(|entry| entry.port.row == port.row) {
                Some(mut entry) => {
                    if entry.port.config != port.config || entry.port.mac != port.mac {
                        entry.session.configure(port.config.clone(), now);
                        entry.session.set_mac(port.mac);
                        inner.stirred.insert(name.clone());
                    }
                    Entry { port, ..entry }
                }
                None => {
                    let source = PORTS.0 + inner.next_port % PORTS.1;
                    inner.next_port = inner.next_port.wrapping_add(1);
                    let session = Session::new(port.config.clone(), port.mac, discriminator(), source, now);
                    tracing::info!("{}: BFD session begins", port.name);
                    inner.stirred.insert(name.clone());
                    Entry { port, session, queued: Millis::MAX, status: None }
                }
            };
            if !entry.port.deaf {
                inner.hearing.insert(entry.port.id, name.clone());
            }
            inner.entries.insert(name, entry);
        }
        let gone: Vec<Entry> = before.into_values().collect();
        inner.ended.extend(gone.into_iter().map(|entry| entry.port.row));
        let entries = &inner.entries;
        inner.queue.retain(|(at, name)| entries.get(name).is_some_and(|entry| entry.queued == *at));
        drop(guard);
        self.changed.notify_one();
    }

    /// Keeps the sessions; does not return.
    pub async fn run(self: Rc<Self>, datapath: Rc<Datapath>) {
        let fd = datapath.frames_fd(FrameKind::Bfd).and_then(|fd| fd.try_clone_to_owned().ok());
        // The successor is unsafe for the sake of types that lie about their descriptor; OwnedFd does not
        #[allow(deprecated)]
        let fd = fd.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE).ok());
        loop {
            self.turn(&datapath);
            let wait = self.wait();
            tokio::select! {
                () = crate::reconcile::publish::readable(fd.as_ref()) => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes what has come, sends what is due.
    fn turn(&self, datapath: &Datapath) {
        let now = self.now();
        let mut guard = self.inner.borrow_mut();
        let inner = &mut *guard;
        for frame in datapath.frames(FrameKind::Bfd) {
            let Some(name) = inner.hearing.get(&frame.port) else { continue };
            if let Some(entry) = inner.entries.get_mut(name) {
                entry.session.receive(&frame.bytes, now);
                inner.stirred.insert(name.clone());
            }
        }
        while let Some((at, name)) = inner.queue.pop_first() {
            if at > now {
                inner.queue.insert((at, name));
                break;
            }
            inner.stirred.insert(name);
        }
        for name in std::mem::take(&mut inner.stirred) {
            let Some(entry) = inner.entries.get_mut(&name) else { continue };
            if entry.port.config.forwarding_if_rx {
                entry.session.traffic(entry.port.counters.sum().rx_packets, now);
            }
            if let Some(frame) = entry.session.tick(now) {
                // One that finds no room is as good as lost on the way
                datapath.inject(entry.port.id, &frame);
            }
            let status = entry.session.status(now);
            if entry.status.as_ref() != Some(&status) {
                if let Some(before) = &entry.status {
                    log(&entry.port.name, before, &status);
                }
                entry.status = Some(status);
                inner.news.insert(name.clone());
            }
            let due = entry.due(now);
            let before = std::mem::replace(&mut entry.queued, due);
            inner.queue.remove(&(before, name.clone()));
            inner.queue.insert((due, name));
        }
        if !(inner.news.is_empty() && inner.ended.is_empty()) {
            self.news.notify_one();
        }
    }

    /// Until something is due.
    fn wait(&self) -> Duration {
        let (inner, now) = (self.inner.borrow(), self.now());
        let due = inner.queue.first().map(|(due, _)| due.saturating_sub(now).max(0) as u64);
        due.map_or(IDLE, |due| Duration::from_millis(due).min(IDLE))
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.epoch.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Returns when [`Sessions::status`] has something new.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Column `bfd_status` of every interface with news of its session, or without one by now.
    pub fn status(&self) -> Vec<RowUpdate> {
        let mut guard = self.inner.borrow_mut();
        let inner = &mut *guard;
        let ended = std::mem::take(&mut inner.ended).into_iter().map(|row| (row, Datum::empty_map()));
        let news = std::mem::take(&mut inner.news);
        let standing = news.iter().filter_map(|name| {
            let entry = inner.entries.get(name)?;
            let status = entry.status.as_ref()?.iter().map(|(key, value)| (*key, value.as_str()));
            Some((entry.port.row, Datum::map(status)))
        });
        let update =
            |(row, status)| RowUpdate { table: "Interface", row, columns: vec![("bfd_status", status)] };
        // an interface may have a session again by now
        ended.chain(standing).map(update).collect()
    }

    /// Whether frames may be sent by an interface. None: it has no session.
    pub fn forwarding(&self, interface: &str) -> Option<bool> {
        let now = self.now();
        self.inner.borrow().entries.get(interface).map(|entry| entry.session.forwarding(now))
    }

    /// Ports go by other numbers in the datapath: each that had one of these has another of them.
    pub fn renumber<'a>(&self, ports: impl Iterator<Item = (&'a str, PortId)>) {
        let mut guard = self.inner.borrow_mut();
        let Inner { entries, hearing, .. } = &mut *guard;
        for (interface, id) in ports {
            hearing.remove(&id);
            if let Some((name, _)) = entries.get_key_value(interface) {
                let name = name.clone();
                let Some(entry) = entries.get_mut(interface) else { continue };
                entry.port.id = id;
                if !entry.port.deaf {
                    hearing.insert(id, name);
                }
            }
        }
    }

    /// `bfd/show`. None: there is no session of that name.
    pub fn show(&self, name: Option<&str>) -> Option<String> {
        let (inner, now) = (self.inner.borrow(), self.now());
        if let Some(name) = name {
            return inner.entries.get(name).map(|entry| entry.session.show(now));
        }
        let mut out = String::new();
        for (name, entry) in &inner.entries {
            let _ = write!(out, "---- {name} ----\n{}", entry.session.show(now));
        }
        Some(out)
    }

    /// `bfd/set-forwarding`, of all without a name. False: there is no session of that name.
    pub fn force(&self, name: Option<&str>, forwarding: Option<bool>) -> bool {
        let mut inner = self.inner.borrow_mut();
        let mut found = name.is_none();
        let Inner { entries, stirred, .. } = &mut *inner;
        for (key, entry) in entries {
            if name.is_none_or(|name| *name == **key) {
                entry.session.force(forwarding);
                stirred.insert(key.clone());
                found = true;
            }
        }
        drop(inner);
        self.changed.notify_one();
        found
    }
}

/// Says what has become of a session.
fn log(name: &str, before: &[(&str, String)], after: &[(&str, String)]) {
    let get = |status: &[(&str, String)], key: &str| {
        status.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone()).unwrap_or_default()
    };
    let (state, diagnostic) = (get(after, "state"), get(after, "diagnostic"));
    if state != get(before, "state") {
        tracing::info!("{name}: BFD state is {state} ({diagnostic})");
    }
}

/// Not 0, and one that nobody guesses.
fn discriminator() -> u32 {
    let mut bytes = [0; 4];
    // without randomness it is a number like any other
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes).max(1)
}
