//! Who watches the way that begins at a port, by BFD or CFM: clock and frames for their engines.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::counters::PortCounters;
use datapath::handle::Datapath;
use datapath::slow_path::FrameKind;
use datapath::snapshot::PortId;
use ovsdb::{Datum, RowUpdate, Uuid};
use tokio::sync::Notify;

use crate::reconcile::publish;

/// Milliseconds of a steady clock.
pub type Millis = i64;

/// When nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// A port that shall be watched.
#[derive(Debug)]
pub struct Port<C> {
    /// Of the interface.
    pub name: String,
    /// Its row.
    pub row: Uuid,
    /// In the datapath.
    pub id: PortId,
    /// Its address.
    pub mac: [u8; 6],
    /// Nothing that comes by it is heeded.
    pub deaf: bool,
    /// What passes through it.
    pub counters: Arc<PortCounters>,
    /// The settings.
    pub config: C,
}

/// One who watches one port, without I/O.
pub trait Watcher: Debug + Sized {
    /// What is for it.
    const KIND: FrameKind;
    /// When it is shown, its name is said even to those who asked by that.
    const NAMED: bool;
    /// Settings.
    type Config: Debug + PartialEq;
    /// What rows tell of it.
    type Status: Debug + PartialEq;

    /// Begins; `ordinal`: how many have begun before.
    fn begin(port: &Port<Self::Config>, ordinal: u16, now: Millis) -> Self;
    /// The settings or the address are others now.
    fn configure(&mut self, port: &Port<Self::Config>, now: Millis);
    /// A frame of its kind has come by the port.
    fn receive(&mut self, port: &Port<Self::Config>, frame: &[u8], now: Millis);
    /// When there is something to do next.
    fn due(&self, config: &Self::Config, now: Millis) -> Millis;
    /// Does that, and gives what is to be sent.
    fn tick(&mut self, port: &Port<Self::Config>, now: Millis) -> Option<Vec<u8>>;
    /// What rows tell.
    fn status(&self, now: Millis) -> Self::Status;
    /// How rows tell it. None: nobody watches any more.
    fn columns(status: Option<&Self::Status>) -> Vec<(&'static str, Datum)>;
    /// Says what has changed.
    fn log(name: &str, before: &Self::Status, after: &Self::Status);
    /// Whether frames get through, as far as it knows.
    fn works(&self, now: Millis) -> bool;
    /// What operators see.
    fn show(&self, now: Millis) -> String;
    /// The operator decides; None: no longer.
    fn force(&mut self, what: Option<bool>);
}

/// All that watch in the same manner.
#[derive(Debug)]
pub struct Watch<W: Watcher> {
    epoch: Instant,
    inner: RefCell<Inner<W>>,
    /// There may be something to do earlier than thought.
    changed: Notify,
    /// A row's columns are to be written.
    news: Notify,
}

/// Of a thousand watchers most have nothing to do each time that one has: what is there to do is found without a look at all.
#[derive(Debug)]
struct Inner<W: Watcher> {
    /// By interface.
    entries: BTreeMap<Name, Entry<W>>,
    /// Interfaces by their ports, as far as these hear anything.
    hearing: HashMap<PortId, Name>,
    /// When to look at which again.
    queue: BTreeSet<(Millis, Name)>,
    /// Something happened that their status may tell of.
    stirred: BTreeSet<Name>,
    /// Their status is to be written.
    news: BTreeSet<Name>,
    /// Rows of interfaces that had a watcher.
    ended: Vec<Uuid>,
    begun: u16,
}

/// Of an interface.
type Name = Rc<str>;

#[derive(Debug)]
struct Entry<W: Watcher> {
    port: Port<W::Config>,
    watcher: W,
    /// Where it is in the queue.
    queued: Millis,
    /// As last seen.
    status: Option<W::Status>,
}

impl<W: Watcher> Default for Watch<W> {
    fn default() -> Watch<W> {
        let inner = Inner {
            entries: BTreeMap::new(),
            hearing: HashMap::new(),
            queue: BTreeSet::new(),
            stirred: BTreeSet::new(),
            news: BTreeSet::new(),
            ended: Vec::new(),
            begun: 0,
        };
        Watch {
            epoch: Instant::now(),
            inner: RefCell::new(inner),
            changed: Notify::new(),
            news: Notify::new(),
        }
    }
}

impl<W: Watcher> Watch<W> {
    /// Watches these ports and no others.
    pub fn follow(&self, ports: Vec<Port<W::Config>>) {
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
                        entry.watcher.configure(&port, now);
                        inner.stirred.insert(name.clone());
                    }
                    Entry { port, ..entry }
                }
                None => {
                    let watcher = W::begin(&port, inner.begun, now);
                    inner.begun = inner.begun.wrapping_add(1);
                    inner.stirred.insert(name.clone());
                    Entry { port, watcher, queued: Millis::MAX, status: None }
                }
            };
            if !entry.port.deaf {
                inner.hearing.insert(entry.port.id, name.clone());
            }
            inner.entries.insert(name, entry);
        }
        let gone: Vec<Entry<W>> = before.into_values().collect();
        inner.ended.extend(gone.into_iter().map(|entry| entry.port.row));
        let entries = &inner.entries;
        inner.queue.retain(|(at, name)| entries.get(name).is_some_and(|entry| entry.queued == *at));
        drop(guard);
        self.changed.notify_one();
    }

    /// Keeps watching; does not return.
    pub async fn run(self: Rc<Self>, datapath: Rc<Datapath>) {
        let fd = datapath.frames_fd(W::KIND).and_then(publish::listen);
        loop {
            self.turn(&datapath);
            let wait = self.wait();
            tokio::select! {
                () = publish::readable(fd.as_ref()) => {}
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
        for frame in datapath.frames(W::KIND) {
            let Some(name) = inner.hearing.get(&frame.port) else { continue };
            if let Some(entry) = inner.entries.get_mut(name) {
                entry.watcher.receive(&entry.port, &frame.bytes, now);
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
            if let Some(frame) = entry.watcher.tick(&entry.port, now) {
                // One that finds no room is as good as lost on the way
                datapath.inject(entry.port.id, &frame);
            }
            let status = entry.watcher.status(now);
            if entry.status.as_ref() != Some(&status) {
                if let Some(before) = &entry.status {
                    W::log(&entry.port.name, before, &status);
                }
                entry.status = Some(status);
                inner.news.insert(name.clone());
            }
            let due = entry.watcher.due(&entry.port.config, now);
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

    /// Returns when [`Watch::status`] has something new.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// The columns of every interface with news of its watcher, or without one by now.
    pub fn status(&self) -> Vec<RowUpdate> {
        let mut guard = self.inner.borrow_mut();
        let inner = &mut *guard;
        let ended = std::mem::take(&mut inner.ended).into_iter().map(|row| (row, W::columns(None)));
        let news = std::mem::take(&mut inner.news);
        let standing = news.iter().filter_map(|name| {
            let entry = inner.entries.get(name)?;
            Some((entry.port.row, W::columns(entry.status.as_ref())))
        });
        let update = |(row, columns)| RowUpdate { table: "Interface", row, columns };
        // an interface may be watched again by now
        ended.chain(standing).map(update).collect()
    }

    /// Whether frames get through by an interface. None: it is not watched.
    pub fn works(&self, interface: &str) -> Option<bool> {
        let now = self.now();
        self.inner.borrow().entries.get(interface).map(|entry| entry.watcher.works(now))
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

    /// What operators see of one, or of all without a name. None: there is none of that name.
    pub fn show(&self, name: Option<&str>) -> Option<String> {
        let (inner, now) = (self.inner.borrow(), self.now());
        let mut out = String::new();
        let mut show = |name: &str, entry: &Entry<W>, named: bool| {
            // a String takes whatever is written
            let _ = if named { writeln!(out, "---- {name} ----") } else { Ok(()) };
            out += &entry.watcher.show(now);
        };
        match name {
            Some(name) => show(name, inner.entries.get(name)?, W::NAMED),
            None => inner.entries.iter().for_each(|(name, entry)| show(name, entry, true)),
        }
        Some(out)
    }

    /// The operator decides for one, or for all without a name. False: there is none of that name.
    pub fn force(&self, name: Option<&str>, what: Option<bool>) -> bool {
        let mut inner = self.inner.borrow_mut();
        let mut found = name.is_none();
        let Inner { entries, stirred, .. } = &mut *inner;
        for (key, entry) in entries {
            if name.is_none_or(|name| *name == **key) {
                entry.watcher.force(what);
                stirred.insert(key.clone());
                found = true;
            }
        }
        drop(inner);
        self.changed.notify_one();
        found
    }
}
