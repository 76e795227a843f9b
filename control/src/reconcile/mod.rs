//! From rows to devices and back: compares what the database wants with what is there, and closes the gap.
//!
//! One pass: 1. read the rows ([`wanted`]) and the host's links. 2. Take away what shall not be, or is not as it shall
//! be; wait until no worker uses it. 3. Make what is missing; wait until every worker forwards by it. 4. Move addresses
//! where `underpass attach` wants them. 5. Write back what came of it ([`report`]), and with it `cur_cfg`.
//!
//! A pass never fails as a whole: what cannot be done becomes the `error` of its row and is tried again.

mod absent;
pub mod actual;
mod apply;
mod awake;
mod bonds;
pub mod device;
mod fences;
pub mod mirrors;
pub mod options;
mod patches;
#[cfg(test)]
mod protected_tests;
pub mod protection;
pub(crate) mod publish;
pub(crate) mod report;
pub mod rules;
mod sflow;
mod tend;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod trains;
mod tunnels;
mod unprotected;
pub mod wanted;
mod watch;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::fdb::Fdb;
use datapath::handle::{Datapath, Event, KeepAwake};
use datapath::snapshot::{BridgeId, OfPort, PortId};
use ovsdb::{RowUpdate, Server, Uuid};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::attach::Takeover;
use crate::devices::member;
use crate::devices::netlink::{Change, Links, Monitor, Netlink};
use crate::devices::path::Paths;
use crate::ipsec::Ipsec;
use crate::loops::Loops;
use crate::openflow::{self, OpenFlow};
use crate::rundir::RunDir;
use crate::shutdown::Shutdown;
use crate::snooping::Snooping;
use crate::spanning::Spanning;
use crate::status;
use crate::system;
use actual::{Ids, PortState, State};
use device::Choice;
use fences::Fences;
use publish::readable;
use trains::Trains;
use wanted::{Wanted, What};

/// How often ages advance and paths are looked up anew without cause.
const TICK: Duration = Duration::from_secs(1);
/// How often tunnels are compared with rows, paths and files without cause. What it takes grows with their number.
const FOLLOW: Duration = Duration::from_secs(5);
/// Links change in bursts (a container starts): let one pass serve them all.
const SETTLE: Duration = Duration::from_millis(20);
/// The least time between passes for the sake of links. A pass may itself change links, and one that fails half-way
/// takes back what it made: that must not be cause enough for the next to follow at once, for ever.
const APART: Duration = Duration::from_millis(200);

/// Keeps devices and datapath as the database wants them.
#[derive(Debug)]
pub struct Reconciler {
    datapath: Rc<Datapath>,
    netlink: Netlink,
    monitor: Monitor,
    paths: Paths,
    choice: Choice,
    /// Links as last seen.
    links: Links,
    state: Rc<RefCell<State>>,
    port_ids: Ids,
    bridge_ids: Ids,
    /// The state has news that workers do not know.
    dirty: bool,
    /// Taken out of the state, but perhaps still in use by a worker.
    leaving: Vec<PortState>,
    leaving_bridges: Vec<BridgeId>,
    /// Tunnels whose far end is another one, perhaps without every worker knowing: who was behind it is not behind it now.
    redirected: Vec<(Arc<Fdb>, PortId)>,
    /// The number an interface had when it last worked, by its row.
    remembered: BTreeMap<Uuid, OfPort>,
    /// Warnings given, so that each is given once.
    warned: BTreeSet<String>,
    /// What is wrong with sFlow agents, said once.
    complaints: BTreeSet<String>,
    /// What the datapath was told of it.
    awake: Option<KeepAwake>,
    takeover: Takeover,
    ipsec: Rc<Ipsec>,
    spanning: Rc<Spanning>,
    /// Tells our devices from those of another daemon on this host.
    owner: String,
    /// Tells this host's devices from those of others; goes into addresses.
    identity: String,
    /// Told when rows were written, so that clients hear of it.
    wrote: Rc<Notify>,
    trains: Trains,
    fences: Fences,
    openflow: Option<OpenFlow>,
    /// Internal ports stay on the host when this ends, unless it says that nothing shall.
    keep_ports: Option<Shutdown>,
    /// From here on they do.
    leaves_ports: bool,
    next_worker: usize,
    since: Instant,
    statistics_due: Instant,
    follow_due: Instant,
}

impl Reconciler {
    /// Nothing is made yet. `ipsec` protects tunnels in the same `datapath`, `spanning` has the trees of the same state. `owner` tells this daemon from others on the host
    /// (its run directory does), `identity` this host from others (`external_ids:system-id` does). `wrote` is told whenever
    /// rows were written. Must be called inside a tokio runtime.
    pub async fn new(
        datapath: Rc<Datapath>,
        ipsec: Rc<Ipsec>,
        spanning: Rc<Spanning>,
        owner: &str,
        identity: &str,
        wrote: Rc<Notify>,
    ) -> io::Result<Reconciler> {
        let netlink = Netlink::open()?;
        let monitor = Monitor::open()?;
        member::remove_stale(&netlink, owner).await?;
        Ok(Reconciler {
            datapath,
            paths: Paths::new(netlink.clone()),
            choice: Choice::new(),
            takeover: Takeover::new(netlink.clone()),
            netlink,
            monitor,
            links: Links::default(),
            state: ipsec.state(),
            ipsec,
            spanning,
            port_ids: Ids::default(),
            bridge_ids: Ids::default(),
            dirty: false,
            leaving: Vec::new(),
            leaving_bridges: Vec::new(),
            redirected: Vec::new(),
            remembered: BTreeMap::new(),
            warned: BTreeSet::new(),
            complaints: BTreeSet::new(),
            awake: None,
            owner: owner.to_owned(),
            identity: identity.to_owned(),
            wrote,
            trains: Trains::default(),
            fences: Fences::default(),
            openflow: None,
            keep_ports: None,
            leaves_ports: false,
            next_worker: 0,
            since: Instant::now(),
            statistics_due: Instant::now(),
            follow_due: Instant::now(),
        })
    }

    /// Lets `ovs-ofctl` in: from here on sockets come and go with bridges.
    pub fn serve_openflow(&mut self, rundir: &RunDir, db: &Rc<RefCell<Server>>) {
        self.openflow = Some(OpenFlow::new(openflow::Context {
            rundir: rundir.clone(),
            db: db.clone(),
            datapath: self.datapath.clone(),
            state: self.state.clone(),
            netlink: self.netlink.clone(),
        }));
    }

    /// Has internal ports stay on the host, with their addresses, when this is killed or ends: a successor takes them over.
    pub fn keep_ports(&mut self, shutdown: Shutdown) {
        self.keep_ports = Some(shutdown);
    }

    /// What is there. Borrow it only between awaits.
    pub fn state(&self) -> Rc<RefCell<State>> {
        self.state.clone()
    }

    fn snooping(&self) -> Rc<Snooping> {
        self.state.borrow().snooping.clone()
    }

    fn loops(&self) -> Rc<Loops> {
        self.state.borrow().loops.clone()
    }

    /// Runs until `stop` is done; then undoes what was made and keeps the configuration. `changed` tells of new rows.
    pub async fn run(mut self, db: &RefCell<Server>, changed: &Notify, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let events = publish::event_fd(&self.datapath);
        let ipsec = self.ipsec.clone();
        let protecting = tokio::task::spawn_local(ipsec.clone().run());
        let spanning = self.spanning.clone();
        let keeping_trees = tokio::task::spawn_local(spanning.clone().run());
        let bfd = self.state.borrow().bfd.clone();
        let keeping = tokio::task::spawn_local(bfd.clone().run(self.datapath.clone()));
        let cfm = self.state.borrow().cfm.clone();
        let checking = tokio::task::spawn_local(cfm.clone().run(self.datapath.clone()));
        let snooping = tokio::task::spawn_local(self.snooping().run(self.datapath.clone(), self.state()));
        let bonds = self.state.borrow().bonds.clone();
        let bonding = tokio::task::spawn_local(bonds.clone().run(self.datapath.clone(), self.state.clone()));
        let loops = self.loops();
        let run = loops.clone().run(self.datapath.clone(), self.state(), self.identity.clone());
        let looking = tokio::task::spawn_local(run);
        let sflow = self.state.borrow().sflow.clone();
        let sampling = tokio::task::spawn_local(sflow.run(self.state()));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unseen = None::<Change>;
        let (mut due, mut rest_until, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        loop {
            let look = bonds.interval().map(|interval| looked + interval);
            tokio::select! {
                () = &mut stop => break,
                () = changed.notified() => self.pass(db).await,
                change = self.monitor.changed() => {
                    if unseen.is_none() {
                        due = rest_until.max(Instant::now() + SETTLE);
                        if !bonds.is_empty() {
                            // a link that is down is not waited for
                            self.look_around().await;
                            self.look_at_bonds();
                        }
                    }
                    unseen = unseen.max(Some(change));
                }
                () = tokio::time::sleep_until(due.into()), if unseen.is_some() => {
                    match self.monitor.drain().max(unseen.take()) {
                        Some(Change::Links) => self.run_once(db).await,
                        _ => self.follow_paths(db).await,
                    }
                    rest_until = Instant::now() + APART;
                }
                () = tokio::time::sleep_until(look.unwrap_or(looked).into()), if look.is_some() => {
                    self.look_around().await;
                    self.look_at_bonds();
                    looked = Instant::now();
                }
                () = readable(events.as_ref()) => self.heed_events(db).await,
                () = self.choice.changed() => self.follow_paths(db).await,
                () = ipsec.news() => self.write_tunnel_status(db).await,
                () = spanning.news() => self.write_trees(db),
                () = bfd.news() => self.write_watched(db, &bfd.status()),
                () = cfm.news() => self.write_watched(db, &cfm.status()),
                () = loops.news() => self.pass(db).await,
                () = bonds.news() => self.write(db, &bonds.columns()),
                _ = ticks.tick() => self.tick(db).await,
            }
        }
        keeping.abort();
        checking.abort();
        snooping.abort();
        bonding.abort();
        looking.abort();
        sampling.abort();
        // While the sockets are still there
        ipsec.end();
        let _ = protecting.await;
        spanning.end();
        let _ = keeping_trees.await;
        self.tear_down(db).await;
    }

    /// One pass that trusts nothing seen before; see the module.
    pub async fn run_once(&mut self, db: &RefCell<Server>) {
        self.follow_due = Instant::now() + FOLLOW;
        self.paths.forget();
        self.pass(db).await;
    }

    /// One pass because of the rows: the paths of tunnels that stand are looked up by [`Reconciler::tick`] often enough,
    /// and asking for a thousand of them whenever one is added would make adding them slow.
    async fn pass(&mut self, db: &RefCell<Server>) {
        let (wanted, next_cfg) = {
            let server = db.borrow();
            let wanted = Wanted::from_database(server.db());
            self.ipsec.look(server.db(), &wanted);
            self.spanning.look(server.db());
            (wanted, report::next_cfg(server.db()))
        };
        self.warn(&wanted);
        self.keep_awake(&wanted);
        self.forget_rows(&wanted);
        self.look_around().await;
        let plan = self.protect(&wanted).await;
        self.take_away(&wanted);
        self.settle().await;
        self.make(&wanted, &plan).await;
        self.dirty |= self.loops().follow(&wanted, &mut self.state.borrow_mut());
        self.dirty |= self.spanning.follow(&self.links, &self.identity);
        self.dirty |= self.snooping().follow(&wanted, &mut self.state.borrow_mut());
        self.follow_sflow(&wanted).await;
        let in_force = self.settle().await;
        self.openflow.iter_mut().for_each(OpenFlow::follow);
        self.follow_trains(&wanted).await;
        self.follow_fences(&wanted).await;
        if self.tend(&wanted).await {
            self.look_around().await;
        }
        if self.takeover.run(&taking(&wanted), &self.links, db).await {
            self.look_around().await;
        }
        let mut updates =
            report::report(&wanted, &self.state.borrow(), &self.links, self.takeover.failures());
        updates.extend(status::first_statistics(
            db.borrow().db(),
            &wanted,
            &self.state.borrow(),
            &self.links,
        ));
        updates.extend(self.tunnel_status(&wanted).await);
        updates.extend(self.spanning.columns(db.borrow().db()));
        updates.extend(self.state.borrow().bonds.columns());
        if in_force {
            updates.extend(report::applied(db.borrow().db(), next_cfg));
        }
        self.write(db, &updates);
    }

    async fn tunnel_status(&mut self, wanted: &Wanted) -> Vec<RowUpdate> {
        let (egress, views) = (self.egress().await, self.ipsec.views());
        self.spanning.hear(&self.links, &egress, &views);
        self.state.borrow().bonds.hear(&egress, &views);
        self.look_at_bonds();
        report::tunnels(&self.state.borrow(), wanted, &egress, &views, &self.choice)
    }

    fn write_trees(&self, db: &RefCell<Server>) {
        let updates = self.spanning.columns(db.borrow().db());
        self.write(db, &updates);
    }

    async fn write_tunnel_status(&mut self, db: &RefCell<Server>) {
        let wanted = Wanted::from_database(db.borrow().db());
        let updates = self.tunnel_status(&wanted).await;
        self.write(db, &updates);
    }

    async fn tick(&mut self, db: &RefCell<Server>) {
        for bridge in self.state.borrow().bridges.values() {
            bridge.fdb.expire(self.datapath.now());
        }
        self.openflow.iter_mut().for_each(OpenFlow::follow);
        let now = Instant::now();
        let due = now >= self.statistics_due;
        let broken = self.state.borrow().bridges.values().any(|b| !b.failed.is_empty());
        if due || self.dirty {
            self.run_once(db).await;
        } else if broken {
            self.pass(db).await;
        } else if now >= self.follow_due || self.choice.is_eager() || self.paths.changed(&self.links).await {
            self.follow_paths(db).await;
        }
        if due {
            self.statistics_due = now + status::interval(db.borrow().db());
            let wanted = Wanted::from_database(db.borrow().db());
            self.takeover.repair(&taking(&wanted));
            let mut updates = status::statistics(&wanted, &self.state.borrow(), &self.links);
            updates.extend(self.spanning.columns(db.borrow().db()));
            updates.extend(system::statistics(db.borrow().db(), self.since.elapsed().as_millis()));
            self.write(db, &updates);
        }
    }

    /// Routes may have changed without word (the kernel learns path MTUs silently).
    async fn follow_paths(&mut self, db: &RefCell<Server>) {
        self.follow_due = Instant::now() + FOLLOW;
        self.paths.forget();
        let wanted = Wanted::from_database(db.borrow().db());
        let plan = self.protect(&wanted).await;
        self.follow_tunnels(&wanted, &plan).await;
        if !self.redirected.is_empty() {
            self.dirty |= self.spanning.follow(&self.links, &self.identity);
        }
        self.settle().await;
        self.follow_trains(&wanted).await;
        let updates = self.tunnel_status(&wanted).await;
        self.write(db, &updates);
    }

    async fn heed_events(&mut self, db: &RefCell<Server>) {
        let events = self.datapath.events();
        if events.iter().any(|e| matches!(e, Event::PortFailed(_))) {
            self.run_once(db).await;
        } else if !events.is_empty() {
            self.follow_paths(db).await;
        }
    }

    /// Undoes what was made. The rows stay as they are.
    async fn tear_down(mut self, db: &RefCell<Server>) {
        self.leaves_ports = self.keep_ports.as_ref().is_some_and(|end| !end.cleans_up());
        self.look_around().await;
        self.takeover.run(&BTreeMap::new(), &self.links, db).await;
        self.take_away(&Wanted::default());
        self.settle().await;
        self.takeover.finish().await;
    }

    async fn look_around(&mut self) {
        match self.netlink.links().await {
            Ok(links) => self.links = links,
            Err(e) => tracing::error!("cannot list the host's network devices: {e}"),
        }
    }

    fn write(&self, db: &RefCell<Server>, updates: &[RowUpdate]) {
        let written = db.borrow_mut().update_rows(updates, Instant::now());
        match written {
            Ok(true) => self.wrote.notify_one(),
            Ok(false) => {}
            Err(e) => tracing::error!("cannot write back what became of the configuration: {}", e.to_json()),
        }
    }

    fn warn(&mut self, wanted: &Wanted) {
        let now: BTreeSet<String> = wanted.warnings.iter().cloned().collect();
        for warning in now.difference(&self.warned) {
            tracing::warn!("{warning}");
        }
        self.warned = now;
    }

    fn forget_rows(&mut self, wanted: &Wanted) {
        let rows: BTreeSet<Uuid> =
            wanted.bridges.values().flat_map(|b| b.ports.values()).filter_map(|p| p.row).collect();
        self.remembered.retain(|row, _| rows.contains(row));
    }
}

/// Which devices' addresses which bridges take: device → bridge.
fn taking(wanted: &Wanted) -> BTreeMap<String, String> {
    let ports = wanted.bridges.iter().flat_map(|(b, w)| w.ports.iter().map(move |(n, p)| (n, b, p)));
    let asking = ports.filter(|(_, _, p)| matches!(p.what, Ok(What::System { take_address: true, .. })));
    asking.map(|(device, bridge, _)| (device.clone(), bridge.clone())).collect()
}
