//! Spanning trees: an engine of `control/rstp` for each bridge that asks for one, between rows and datapath.
//!
//! Rows are read by [`wishes`]; the reconciler tells [`Spanning`] of them, of ports and of links; [`driver`] brings BPDUs and
//! time and does what the engines say; [`view`] is what operators see of it.

mod driver;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wishes;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use datapath::handle::Datapath;
use datapath::snapshot::{Port, PortId, StpState};
use ovsdb::{Database, Uuid};
use rstp::{PortConfig, PortKey};
use tokio::sync::Notify;

use crate::devices::mac_for;
use crate::devices::netlink::Links;
use crate::devices::path::Path;
use crate::ipsec::view::View;
use crate::reconcile::actual::{Attachment, BridgeState, State};
use crate::reconcile::report::device;
use wishes::{BridgeWish, Mode, Numbers, PortWish};

/// All spanning trees. Shared by those who configure them, who look at them, and [`Spanning::run`].
pub struct Spanning {
    datapath: Rc<Datapath>,
    state: Rc<RefCell<State>>,
    /// By bridge.
    wishes: RefCell<BTreeMap<String, BridgeWish>>,
    /// By bridge.
    trees: RefCell<BTreeMap<String, Tree>>,
    /// An engine may have something to do.
    work: Notify,
    /// The end is near.
    ending: Notify,
    /// What operators see has changed.
    news: Notify,
    /// A guard has shut a port, and nobody knows yet.
    shut: Cell<bool>,
    /// Workers do not go by what ports may pass yet. Until they do, no BPDU leaves.
    owed: Cell<bool>,
}

/// The tree of one bridge.
#[derive(Debug)]
struct Tree {
    mode: Mode,
    engine: rstp::Bridge,
    /// By interface name.
    members: BTreeMap<String, Member>,
    /// Interface names by the engine's keys.
    names: HashMap<PortKey, String>,
    /// Ports that there was no number for, and the log says so.
    numberless: BTreeSet<String>,
}

/// A port that takes part.
#[derive(Debug)]
struct Member {
    /// In the datapath; also the engine's key.
    id: PortId,
    /// Since when the port leads where it does: one that is made anew, be it with the same id, begins anew, and so does a tunnel with
    /// another far end.
    since: Instant,
    /// The Port's row.
    row: Uuid,
    /// Its number in port identifiers.
    number: u16,
    /// What its BPDUs come from.
    source: [u8; 6],
    /// `rstp-admin-port-state`.
    admin_up: bool,
    /// Frames can pass.
    link_up: bool,
    /// Who watches it, by BFD or CFM, says that none get through; in RSTP's trees alone, as in Open vSwitch.
    faulty: bool,
    /// `rstp-port-mcheck`, as last seen.
    mcheck: bool,
    /// `bpdu-guard`.
    guard: bool,
    /// Its guard has shut it.
    shut: bool,
}

impl Member {
    /// The engine may count on it.
    fn enabled(&self) -> bool {
        self.link_up && !self.faulty && self.admin_up && !self.shut
    }
}

impl std::fmt::Debug for Spanning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spanning").finish_non_exhaustive()
    }
}

impl Spanning {
    /// No trees yet. `state` is where ports are held back.
    pub fn new(datapath: Rc<Datapath>, state: Rc<RefCell<State>>) -> Spanning {
        Spanning {
            datapath,
            state,
            wishes: RefCell::default(),
            trees: RefCell::default(),
            work: Notify::new(),
            ending: Notify::new(),
            news: Notify::new(),
            shut: Cell::new(false),
            owed: Cell::new(false),
        }
    }

    /// The rows may have changed.
    pub fn look(&self, db: &Database) {
        *self.wishes.borrow_mut() = wishes::read(db);
    }

    /// What a new port may pass before a tree has decided.
    pub fn first_state(&self, bridge: &str, interface: &str) -> StpState {
        let wishes = self.wishes.borrow();
        match wishes.get(bridge).and_then(|wish| wish.ports.get(interface)) {
            Some(_) => StpState::Blocking,
            None => StpState::Forwarding,
        }
    }

    /// Follows what was read by [`Spanning::look`] and which ports there are. True: the state has changed. `identity` tells this
    /// host from others.
    pub fn follow(&self, links: &Links, identity: &str) -> bool {
        let wishes = self.wishes.borrow();
        let mut news = false;
        {
            let mut trees = self.trees.borrow_mut();
            let mut state = self.state.borrow_mut();
            trees.retain(|name, tree| {
                let wish = wishes.get(name).filter(|_| state.bridges.contains_key(name));
                wish.is_some_and(|wish| wish.mode == tree.mode)
            });
            for (name, bridge) in &mut state.bridges {
                let spanning = wishes.contains_key(name);
                news |= std::mem::replace(&mut bridge.spanning, spanning) != spanning;
                let Some(wish) = wishes.get(name) else { continue };
                let address = wish.address.unwrap_or_else(|| address(name, bridge, links, identity));
                let config = wish.config(address);
                let tree = trees.entry(name.clone()).or_insert_with(|| Tree {
                    mode: wish.mode,
                    engine: rstp::Bridge::new(config),
                    members: BTreeMap::new(),
                    names: HashMap::new(),
                    numberless: BTreeSet::new(),
                });
                tree.engine.configure(config);
                tree.follow(name, wish, bridge, links, identity);
                tree.engine.settle();
            }
        }
        self.work.notify_one();
        self.hold_back() | news
    }

    /// Tells the trees which ports can pass frames: devices by their carrier, tunnels by the way out (`egress`: bridge, name,
    /// way) and by their protection.
    pub fn hear(
        &self,
        links: &Links,
        egress: &[(String, String, Option<Path>)],
        views: &BTreeMap<String, View>,
    ) {
        let carried: BTreeMap<(&str, &str), bool> = egress
            .iter()
            .map(|(bridge, name, path)| ((&**bridge, &**name), path.as_ref().is_some_and(|p| p.carrier)))
            .collect();
        let state = self.state.borrow();
        let mut trees = self.trees.borrow_mut();
        for (bridge, tree) in trees.iter_mut() {
            let Some(ports) = state.bridges.get(bridge).map(|b| &b.ports) else { continue };
            for (name, member) in &mut tree.members {
                member.link_up = match ports.get(name).map(|p| &p.attachment) {
                    None => false,
                    Some(Attachment::Tunnel) => {
                        let carried = carried.get(&(&**bridge, &**name)).copied().unwrap_or_default();
                        carried && views.get(name).is_none_or(|view| view.up)
                    }
                    // its bridge is in this very process
                    Some(Attachment::Patch) => true,
                    Some(attachment) => device(attachment, links).is_some_and(|l| l.up && l.carrier),
                };
            }
            tree.enable(&state);
        }
        drop(trees);
        self.work.notify_one();
    }

    /// Asks those who watch ports, by BFD or CFM, whether frames get through.
    pub fn look_at_watch(&self) {
        let state = self.state.borrow();
        let mut trees = self.trees.borrow_mut();
        if trees.is_empty() {
            return;
        }
        trees.values_mut().for_each(|tree| tree.enable(&state));
        self.work.notify_one();
    }

    /// Brings what ports may pass to what the trees say. True: the state has changed.
    fn hold_back(&self) -> bool {
        let (wishes, trees) = (self.wishes.borrow(), self.trees.borrow());
        let mut changed = false;
        for (name, bridge) in &mut self.state.borrow_mut().bridges {
            let (wish, tree) = (wishes.get(name), trees.get(name));
            // a bond's member is held back by its bond
            for (interface, port) in bridge.ports.iter_mut().filter(|(_, port)| port.bond.is_none()) {
                let member = tree.and_then(|tree| Some((tree, tree.members.get(interface)?)));
                let shut = member.is_some_and(|(_, member)| member.shut);
                let stp = match member.and_then(|(tree, member)| tree.engine.port(member.id.0)) {
                    // one that there was no number for must not close a circle
                    None if wish.is_some_and(|w| w.ports.contains_key(interface)) => StpState::Blocking,
                    None if port.looped.as_ref().is_some_and(|l| l.closed) => StpState::Blocking,
                    None => StpState::Forwarding,
                    Some(_) if shut => StpState::Disabled,
                    Some(port) => match port.state {
                        rstp::State::Discarding => StpState::Blocking,
                        rstp::State::Learning => StpState::Learning,
                        rstp::State::Forwarding => StpState::Forwarding,
                    },
                };
                if port.port.stp != stp {
                    port.port = Arc::new(Port { stp, ..Port::clone(&port.port) });
                    changed = true;
                }
            }
        }
        changed
    }

    /// Has the tree of a bridge, or all of them, forget what was learned. Err: the bridge has none of that mode.
    pub fn change_topology(&self, mode: Mode, bridge: Option<&str>) -> Result<(), view::NoTree> {
        let mut trees = self.trees.borrow_mut();
        let mut asked: Vec<&mut Tree> = trees
            .iter_mut()
            .filter(|(name, tree)| tree.mode == mode && bridge.is_none_or(|b| b == *name))
            .map(|(_, tree)| tree)
            .collect();
        if asked.is_empty() && bridge.is_some() {
            return Err(view::NoTree(mode));
        }
        asked.iter_mut().for_each(|tree| tree.engine.force_topology_change());
        self.work.notify_one();
        Ok(())
    }

    /// The process ends.
    pub fn end(&self) {
        self.ending.notify_one();
    }

    /// Waits until what operators see has changed.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Tree {
    /// The interface and the member that the engine calls so.
    fn member(&self, key: PortKey) -> Option<(&String, &Member)> {
        self.members.get_key_value(self.names.get(&key)?)
    }

    /// Lets those ports take part that can.
    fn enable(&mut self, state: &State) {
        for (name, member) in &mut self.members {
            member.faulty = self.mode == Mode::Rstp && state.works(name) == Some(false);
            self.engine.set_enabled(member.id.0, member.enabled());
        }
        self.engine.settle();
    }

    /// Brings the engine's ports to those that are there and shall take part.
    fn follow(
        &mut self,
        bridge_name: &str,
        wish: &BridgeWish,
        bridge: &BridgeState,
        links: &Links,
        identity: &str,
    ) {
        let there = |name: &str| bridge.ports.get(name).map(|port| (port.port.id, port.leads_since));
        let Tree { engine, members, names, numberless, .. } = self;
        numberless.retain(|name| wish.ports.contains_key(name));
        members.retain(|name, member| {
            let stays = wish.ports.contains_key(name) && there(name) == Some((member.id, member.since));
            if !stays {
                engine.remove_port(member.id.0);
                names.remove(&member.id.0);
            }
            stays
        });
        let before = members.iter().map(|(name, member)| (name.as_str(), member.number)).collect();
        let numbers = Numbers::deal(wish, &before);
        for (name, asked) in &wish.ports {
            let Some(port) = bridge.ports.get(name) else { continue };
            let Some(number) = numbers.of(name) else {
                if numberless.insert(name.clone()) {
                    tracing::warn!(
                        "bridge {bridge_name}: port {name} passes nothing: the spanning tree has no number left for it"
                    );
                }
                continue;
            };
            let source = match &port.attachment {
                Attachment::Direct { ifindex } => links.by_index(*ifindex).map(|link| link.mac),
                _ => None,
            };
            let source = source.unwrap_or_else(|| mac_for(&[identity, bridge_name, name, "bpdu"]));
            let id = port.port.id;
            engine.set_port(id.0, asked.config(wish.mode, number));
            if names.get(&id.0) != Some(name) {
                names.insert(id.0, name.clone());
            }
            let member = members.entry(name.clone()).or_insert_with(|| Member {
                id,
                since: port.leads_since,
                row: asked.row,
                number,
                source,
                admin_up: asked.admin_up,
                link_up: false,
                faulty: false,
                mcheck: false,
                guard: false,
                shut: false,
            });
            (member.row, member.number, member.source) = (asked.row, number, source);
            member.admin_up = asked.admin_up;
            member.guard = asked.guard;
            // who takes the guard away opens the port
            member.shut &= asked.guard;
            engine.set_enabled(id.0, member.enabled());
            if asked.mcheck && !std::mem::replace(&mut member.mcheck, asked.mcheck) {
                engine.check_migration(id.0);
            }
            member.mcheck = asked.mcheck;
        }
    }
}

/// The address that a bridge goes by: that of its own port.
fn address(name: &str, bridge: &BridgeState, links: &Links, identity: &str) -> [u8; 6] {
    let own = bridge.ports.get(name).and_then(|port| device(&port.attachment, links));
    own.map_or_else(|| mac_for(&[identity, name, name]), |link| link.mac)
}

/// What a wish makes of a port.
impl PortWish {
    fn config(&self, mode: Mode, number: u16) -> PortConfig {
        let id = match mode {
            Mode::Stp => u16::from(self.priority) << 8 | number & 0xff,
            Mode::Rstp => u16::from(self.priority & 0xf0) << 8 | number & 0xfff,
        };
        PortConfig {
            id: rstp::PortId(id),
            path_cost: self.path_cost,
            admin_edge: self.admin_edge,
            auto_edge: self.auto_edge,
            point_to_point: self.point_to_point,
        }
    }
}
