//! Active-backup bonds: ports of several interfaces, of which one forwards.
//!
//! [`wishes`] reads the rows and [`engine`] chooses; [`Bonds`] brings it links and time, puts its choice in force and tells
//! the neighbours of it ([`lesson`]). In the datapath a bond is its active member: whichever that is goes by the one
//! number that the MAC table knows ([`BridgeState::activate`]), and the others are held back.

pub mod engine;
pub mod hash;
mod lesson;
pub mod wishes;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use datapath::handle::Datapath;
use ovsdb::{Datum, RowUpdate, Uuid};
use tokio::sync::Notify;

use crate::devices::netlink::Links;
use crate::devices::path::Path;
use crate::devices::{mac_for, mac_text};
use crate::ipsec::view::View;
use crate::reconcile::actual::{Attachment, BridgeState, PortState, State};
use crate::reconcile::publish::{self, Published};
use crate::reconcile::report::device;
use crate::reconcile::wanted::Wanted;
use engine::{Bond, Mac, Millis, Refused};

/// When nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// When lessons found no room.
const FULL: Duration = Duration::from_millis(5);

/// All bonds. Shared by those who configure them, who look at them, and [`Bonds::run`].
#[derive(Debug)]
pub struct Bonds {
    epoch: Instant,
    inner: RefCell<Inner>,
    /// There may be something to do earlier than thought.
    changed: Notify,
    /// A row's column is to be written.
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// By port.
    bonds: BTreeMap<String, Entry>,
    /// Tunnels that there is a way out for, by (bridge, interface).
    ways: BTreeSet<(String, String)>,
    /// Workers may not go by what was chosen.
    unpublished: bool,
}

#[derive(Debug)]
struct Entry {
    bridge: String,
    row: Uuid,
    members: BTreeSet<String>,
    /// How often its links are looked at. None: the kernel tells of them.
    look: Option<Duration>,
    bond: Bond,
    /// Another member is to be active in place of one whose link is still up. Workers come to know of it one after the other, and
    /// the neighbour may just be sending back, by the new one, what left by the old one: a moment without either keeps such frames
    /// from coming in as if they were somebody else's.
    gap: bool,
    /// Another member is active, and the stations on this side have not been announced there.
    moved: bool,
    /// Of those, the ones that are still to be: VLAN and address.
    lessons: Vec<(u16, Mac)>,
    /// `bond_active_slave`, as last written.
    written: Option<Mac>,
}

impl Default for Bonds {
    fn default() -> Bonds {
        Bonds {
            epoch: Instant::now(),
            inner: RefCell::default(),
            changed: Notify::new(),
            news: Notify::new(),
        }
    }
}

impl Bonds {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.inner.borrow().bonds.is_empty()
    }

    /// How often links are to be looked at for the sake of bonds that do not wait for the kernel's word. It comes at most once a
    /// second where links change often.
    pub fn interval(&self) -> Option<Duration> {
        self.inner.borrow().bonds.values().filter_map(|entry| entry.look).min()
    }

    /// Has bonds as they are wanted, of ports that work, and their choice in `state`. True: that has changed.
    pub fn follow(&self, wanted: &Wanted, state: &mut State, links: &Links) -> bool {
        let mut guard = self.inner.borrow_mut();
        let mut before = std::mem::take(&mut guard.bonds);
        for (bridge_name, bridge) in &wanted.bridges {
            for (name, wish) in &bridge.bonds {
                let standing = before.remove(name).filter(|entry| entry.row == wish.row);
                let mut entry = standing.unwrap_or_else(|| Entry {
                    bridge: bridge_name.clone(),
                    row: wish.row,
                    members: BTreeSet::new(),
                    look: None,
                    gap: false,
                    bond: Bond::new(name, wish.settings.clone(), wish.last),
                    moved: false,
                    lessons: Vec::new(),
                    written: None,
                });
                entry.bridge.clone_from(bridge_name);
                entry.members.clone_from(&wish.members);
                entry.look = wish.look;
                entry.bond.configure(wish.settings.clone());
                guard.bonds.insert(name.clone(), entry);
            }
        }
        drop(guard);
        self.look(state, links)
    }

    /// Tells the bonds which tunnels have a way out: bridge, name, way; and, of the protected, by name, an SA.
    pub fn hear(&self, egress: &[(String, String, Option<Path>)], views: &BTreeMap<String, View>) {
        if self.is_empty() {
            return;
        }
        let up = egress.iter().filter(|(_, name, path)| {
            path.as_ref().is_some_and(|path| path.carrier) && views.get(name).is_none_or(|view| view.up)
        });
        self.inner.borrow_mut().ways = up.map(|(bridge, name, _)| (bridge.clone(), name.clone())).collect();
    }

    /// Looks at members' links, chooses, and brings `state` to that. True: it has changed.
    pub fn look(&self, state: &mut State, links: &Links) -> bool {
        let now = self.now();
        let mut guard = self.inner.borrow_mut();
        let Inner { bonds, ways, .. } = &mut *guard;
        for entry in bonds.values_mut() {
            let Some(bridge) = state.bridges.get(&entry.bridge) else { continue };
            let link = |name: &String| {
                let port = bridge.ports.get(name)?;
                let device = device(&port.attachment, links);
                let mac = device.map_or_else(|| mac_for(&[&entry.bridge, name]), |link| link.mac);
                let way = || ways.contains(&(entry.bridge.clone(), name.clone()));
                let up = match &port.attachment {
                    Attachment::Tunnel => way(),
                    _ => device.is_some_and(|link| link.up && link.carrier),
                };
                let up = up && state.works(name) != Some(false);
                Some((name.clone(), (mac, up)))
            };
            let members = entry.members.iter().filter_map(link).collect();
            entry.bond.follow(&members, now);
        }
        drop(guard);
        self.changed.notify_one();
        self.advance(state)
    }

    /// Runs bonds whose time has come and brings `state` to what they choose. True: it has changed.
    fn advance(&self, state: &mut State) -> bool {
        let now = self.now();
        let mut changed = false;
        let mut inner = self.inner.borrow_mut();
        for (name, entry) in &mut inner.bonds {
            entry.bond.run(now);
            entry.moved |= entry.bond.take_moved();
            let (sessions, points) = (state.bfd.clone(), state.cfm.clone());
            let Some(bridge) = state.bridges.get_mut(&entry.bridge) else { continue };
            let open = bridge.active_member(name);
            entry.gap |= open.is_some_and(|open| entry.bond.leaves(open));
            let next = entry.bond.active().filter(|_| !entry.gap);
            if bridge.activate(name, next) {
                changed = true;
                let members = bridge.ports.iter().filter(|(_, port)| port.is_of(name));
                let numbers = members.map(|(interface, port)| (interface.as_str(), port.port.id));
                sessions.renumber(numbers.clone());
                points.renumber(numbers);
            }
        }
        inner.unpublished |= changed;
        changed
    }

    /// Keeps the bonds of `state`; does not return.
    pub async fn run(self: Rc<Self>, datapath: Rc<Datapath>, state: Rc<RefCell<State>>) {
        loop {
            self.advance(&mut state.borrow_mut());
            if self.take_unpublished() {
                put_in_force(&datapath, &state).await;
                self.inner.borrow_mut().bonds.values_mut().for_each(|entry| entry.gap = false);
                if self.advance(&mut state.borrow_mut()) {
                    put_in_force(&datapath, &state).await;
                }
                self.prepare_lessons(&datapath, &state.borrow());
            }
            self.teach(&datapath, &state.borrow());
            if self.inner.borrow().bonds.values().any(|e| e.written != Some(e.bond.active_mac())) {
                self.news.notify_one();
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(self.wait()) => {}
            }
        }
    }

    /// Whether there is a choice that perhaps is not in force.
    fn take_unpublished(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let moved = inner.bonds.values().any(|entry| entry.moved);
        std::mem::take(&mut inner.unpublished) || moved
    }

    /// Notes which stations are to be announced by the bonds whose active member has changed: all that are not behind it.
    fn prepare_lessons(&self, datapath: &Datapath, state: &State) {
        for (name, entry) in &mut self.inner.borrow_mut().bonds {
            if !std::mem::take(&mut entry.moved) {
                continue;
            }
            let Some((bridge, port)) = entry.port(state) else { continue };
            let known = bridge.fdb.entries(datapath.now());
            let elsewhere = known.into_iter().filter(|station| station.port != port.port.id);
            entry.lessons = elsewhere.map(|station| (station.vlan, station.mac)).collect();
            if !entry.lessons.is_empty() {
                tracing::info!("bond {name}: sends {} gratuitous learning packets", entry.lessons.len());
            }
        }
    }

    /// Announces stations, as many as find room.
    fn teach(&self, datapath: &Datapath, state: &State) {
        for entry in self.inner.borrow_mut().bonds.values_mut() {
            let Some((_, port)) = entry.port(state) else {
                entry.lessons.clear();
                continue;
            };
            let (id, policy) = (port.port.id, port.port.vlan.clone());
            while let Some((vlan, mac)) = entry.lessons.pop() {
                let Some(frame) = lesson::frame(mac, vlan, policy.as_deref()) else { continue };
                if !datapath.inject(id, &frame) {
                    entry.lessons.push((vlan, mac));
                    break;
                }
            }
        }
    }

    /// Until something is due.
    fn wait(&self) -> Duration {
        let (inner, now) = (self.inner.borrow(), self.now());
        if inner.bonds.values().any(|entry| !entry.lessons.is_empty()) {
            return FULL;
        }
        let due = inner.bonds.values().filter_map(|entry| entry.bond.due()).min();
        due.map_or(IDLE, |due| Duration::from_millis(due.saturating_sub(now).max(0) as u64).min(IDLE))
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.epoch.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Returns when [`Bonds::columns`] has something new.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Column `bond_active_slave` of every bond.
    pub fn columns(&self) -> Vec<RowUpdate> {
        let mut inner = self.inner.borrow_mut();
        let column = |entry: &mut Entry| {
            let mac = entry.bond.active_mac();
            entry.written = Some(mac);
            let columns = vec![("bond_active_slave", Datum::optional(Some(mac_text(mac))))];
            RowUpdate { table: "Port", row: entry.row, columns }
        };
        inner.bonds.values_mut().map(column).collect()
    }

    /// `bond/list`.
    pub fn list(&self) -> String {
        let mut out = String::from("bond\ttype\trecircID\tmembers\n");
        for (name, entry) in &self.inner.borrow().bonds {
            let members: Vec<&str> = entry.bond.members().collect();
            out += &format!("{name}\tactive-backup\t0\t{}\n", members.join(", "));
        }
        out
    }

    /// `bond/show`. None: there is no bond of that name.
    pub fn show(&self, name: Option<&str>) -> Option<String> {
        let (inner, now) = (self.inner.borrow(), self.now());
        match name {
            Some(name) => inner.bonds.get(name).map(|entry| entry.bond.show(now)),
            None => Some(inner.bonds.values().map(|entry| entry.bond.show(now)).collect()),
        }
    }

    /// Asks something of the bond of that name. None: there is none.
    pub fn ask<T>(
        &self,
        name: &str,
        ask: impl FnOnce(&mut Bond) -> Result<T, Refused>,
    ) -> Option<Result<T, Refused>> {
        let answer = self.inner.borrow_mut().bonds.get_mut(name).map(|entry| ask(&mut entry.bond));
        self.changed.notify_one();
        answer
    }
}

async fn put_in_force(datapath: &Datapath, state: &RefCell<State>) {
    if publish::publish(datapath, state).await == Published::Late {
        tracing::error!("the datapath has not taken up the choice of a bond in time");
    }
}

impl Entry {
    /// The port that is the bond in the datapath, with its bridge.
    fn port<'a>(&self, state: &'a State) -> Option<(&'a BridgeState, &'a PortState)> {
        let bridge = state.bridges.get(&self.bridge)?;
        Some((bridge, bridge.ports.get(self.bond.active()?)?))
    }
}
