//! Multicast snooping: a [`table`] for each bridge that asks for one, between rows and datapath. Workers pass up what hosts
//! and routers say of groups, and go by what comes of it as soon as it is published.

pub mod table;
pub mod wishes;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::handle::Datapath;
use datapath::slow_path::{FrameKind, PuntedFrame};
use datapath::snapshot::{PortId, Snapshot};
use datapath::vlan::{self, Tags};
use datapath::wire::membership;
use datapath::wire::parse::{Ip, Link};
use tokio::sync::Notify;

use crate::reconcile::actual::State;
use crate::reconcile::publish::{self, Published, readable};
use crate::reconcile::wanted::Wanted;
use table::Table;

/// How often ages are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The least time from one publication to the next: hosts join in bursts.
const PAUSE: Duration = Duration::from_millis(20);
/// Publishing takes no more than one part in so many of this thread's time, but nobody waits longer than the other says.
const SHARE: (u32, Duration) = (10, Duration::from_millis(200));
/// Messages that are looked at between two pauses: of all ports together, who can each have many waiting.
const TURN: usize = 64;

/// All tables.
#[derive(Debug)]
pub struct Snooping {
    epoch: Instant,
    /// By bridge.
    tables: RefCell<BTreeMap<String, Table>>,
    /// Messages that came while there were too many for one turn.
    waiting: RefCell<VecDeque<PuntedFrame>>,
    /// There is something to publish.
    changed: Notify,
}

impl Default for Snooping {
    fn default() -> Snooping {
        Snooping {
            epoch: Instant::now(),
            tables: RefCell::default(),
            waiting: RefCell::default(),
            changed: Notify::new(),
        }
    }
}

impl Snooping {
    /// Has tables for the bridges that want one, and for no others. True: the state has changed.
    pub fn follow(&self, wanted: &Wanted, state: &mut State) -> bool {
        let mut tables = self.tables.borrow_mut();
        let wish = |name: &str| wanted.bridges.get(name).and_then(|bridge| bridge.snooping.as_ref());
        tables.retain(|name, _| wish(name).is_some() && state.bridges.contains_key(name));
        let mut changed = false;
        for (name, bridge) in &mut state.bridges {
            match wish(name).map(|wish| wish.among(&bridge.ports)) {
                None => changed |= bridge.groups.take().is_some(),
                Some(settings) => match tables.get_mut(name) {
                    Some(table) => table.configure(settings),
                    None => _ = tables.insert(name.clone(), Table::new(settings)),
                },
            }
        }
        drop(tables);
        changed | self.bring(state)
    }

    /// Brings the state to what tables hold. True: it has changed.
    fn bring(&self, state: &mut State) -> bool {
        let mut changed = false;
        for (name, table) in self.tables.borrow_mut().iter_mut() {
            if let Some(bridge) = state.bridges.get_mut(name)
                && let Some(groups) = table.news()
            {
                bridge.groups = Some(Arc::new(groups));
                changed = true;
            }
        }
        changed
    }

    /// Keeps the tables; does not return.
    pub async fn run(self: Rc<Self>, datapath: Rc<Datapath>, state: Rc<RefCell<State>>) {
        let frames = datapath.frames_fd(FrameKind::Membership).and_then(publish::listen);
        loop {
            let came = self.receive(&datapath);
            let began = Instant::now();
            let changed = self.bring(&mut state.borrow_mut());
            if changed {
                match publish::publish(&datapath, &state).await {
                    Published::InForce => {}
                    Published::Late => {
                        tracing::error!("the datapath has not taken up in time who hears which group");
                    }
                    // The reconciler is about to put one of them away, and publishes then
                    Published::EqualTunnels(_) => {}
                }
                tokio::time::sleep(PAUSE.max((began.elapsed() * SHARE.0).min(SHARE.1))).await;
            }
            if came {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tokio::select! {
                () = readable(frames.as_ref()) => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Takes what has come, and forgets what is too old. True: there was something, and more may be waiting.
    fn receive(&self, datapath: &Datapath) -> bool {
        let (now, snapshot) = (self.now(), datapath.snapshot());
        let mut tables = self.tables.borrow_mut();
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            waiting.extend(datapath.frames(FrameKind::Membership));
        }
        let turn = waiting.len().min(TURN);
        for frame in waiting.drain(..turn) {
            deliver(&mut tables, &snapshot, &frame, now);
        }
        tables.values_mut().for_each(|table| table.expire(now));
        turn > 0
    }

    /// Forgets what was learned on a port that is not what it was.
    pub fn forget(&self, port: PortId) {
        self.tables.borrow_mut().values_mut().for_each(|table| table.forget(port));
        self.waiting.borrow_mut().retain(|frame| frame.port != port);
        self.changed.notify_one();
    }

    /// Forgets what was learned on a bridge, or on all. False: the bridge does not snoop.
    pub fn flush(&self, bridge: Option<&str>) -> bool {
        let mut tables = self.tables.borrow_mut();
        let mut found = bridge.is_none();
        for (_, table) in tables.iter_mut().filter(|(name, _)| bridge.is_none_or(|bridge| bridge == *name)) {
            table.flush();
            found = true;
        }
        drop(tables);
        self.changed.notify_one();
        found
    }

    /// `mdb/show`. None: the bridge does not snoop. `number` names ports.
    pub fn show(&self, bridge: &str, number: impl Fn(PortId) -> String) -> Option<String> {
        Some(self.tables.borrow().get(bridge)?.show(self.now(), number))
    }

    /// In seconds.
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }
}

/// Tells the table of its bridge what a frame says.
fn deliver(
    tables: &mut BTreeMap<String, Table>,
    snapshot: &Snapshot,
    frame: &PuntedFrame,
    now: u64,
) -> Option<()> {
    let port = snapshot.port(frame.port)?;
    let bridge = snapshot.bridge(port.bridge)?;
    let table = tables.get_mut(&bridge.name)?;
    let link = Link::parse(&frame.bytes)?;
    let inside = vlan::ingress(port.vlan.as_deref(), Tags::read(&frame.bytes, &link, bridge.vlan_limit))?;
    let message = membership::read(&frame.bytes, &Ip::parse(&frame.bytes, &link)?)?;
    table.receive(inside.vid, port.id, message, now);
    Some(())
}
