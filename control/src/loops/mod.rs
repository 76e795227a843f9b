//! Loops of bridges that have no spanning tree: a [`guard`] for each, between datapath and rows. What it finds stands in the
//! `error` of an interface, and in the log.

pub mod guard;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::handle::Datapath;
use datapath::slow_path::{FrameKind, PuntedFrame};
use datapath::snapshot::{Port, PortId, Snapshot, StpState};
use datapath::vlan::{self, Edit, Tags};
use datapath::wire::loopback::Probe;
use datapath::wire::parse::Link;
use ovsdb::{Database, Row};
use ring::rand::SecureRandom;
use tokio::sync::Notify;

use crate::devices::mac_for;
use crate::reconcile::actual::{BridgeState, OFPORT_LOCAL, PortState, State};
use crate::reconcile::publish::{self, Published};
use crate::reconcile::wanted::Wanted;
use guard::{Candidate, Guard, Loop, Millis, PERIOD};

/// How often bridges are looked at where nothing is suspected.
const TICK: Duration = Duration::from_secs(1);

/// A bridge whose loops shall be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Interfaces that take no part: `other_config:loop-detection=false` of their ports.
    apart: BTreeSet<String>,
}

/// A port that is in a loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looped {
    /// Nothing passes it.
    pub closed: bool,
    /// What the interface's `error` says.
    pub error: String,
}

/// All guards.
#[derive(Debug)]
pub struct Loops {
    epoch: Instant,
    /// By bridge.
    guards: RefCell<BTreeMap<String, (Wish, Guard)>>,
    /// A row is to be written.
    news: Notify,
}

impl Default for Loops {
    fn default() -> Loops {
        Loops { epoch: Instant::now(), guards: RefCell::default(), news: Notify::new() }
    }
}

impl Wish {
    /// Reads a bridge's row, and those of its ports. None: it has a spanning tree, or is told not to.
    pub fn read(db: &Database, bridge: &Row) -> Option<Wish> {
        let off = |row: &Row| row.map_get("other_config", "loop-detection") == Some("false");
        if off(bridge) || bridge.bool("stp_enable") || bridge.bool("rstp_enable") {
            return None;
        }
        let ports = bridge.refs("ports").into_iter().filter_map(|uuid| db.row("Port", uuid));
        let interfaces = ports.filter(|port| off(port)).flat_map(|port| port.refs("interfaces"));
        let rows = interfaces.filter_map(|uuid| db.row("Interface", uuid));
        Some(Wish { apart: rows.map(|row| row.str("name").to_owned()).collect() })
    }
}

impl Loops {
    /// Has guards for the bridges that want one, and for no others. True: the state has changed.
    pub fn follow(&self, wanted: &Wanted, state: &mut State) -> bool {
        let mut guards = self.guards.borrow_mut();
        let wish = |name: &str| wanted.bridges.get(name).and_then(|bridge| bridge.loops.as_ref());
        guards.retain(|name, _| wish(name).is_some() && state.bridges.contains_key(name));
        let mut changed = false;
        for (name, bridge) in &mut state.bridges {
            let guarded = wish(name).map(|wish| {
                let (before, guard) = guards
                    .entry(name.clone())
                    .or_insert_with(|| (Wish::default(), Guard::new(u64::from_ne_bytes(random()), random())));
                before.clone_from(wish);
                guard.switch
            });
            changed |= std::mem::replace(&mut bridge.probe, guarded) != guarded;
        }
        drop(guards);
        !self.bring(state).is_empty() | changed
    }

    /// Brings the state to what guards have found. Ports that are closed or open now and were not.
    fn bring(&self, state: &mut State) -> Vec<(String, PortId)> {
        let guards = self.guards.borrow();
        let mut changed = Vec::new();
        for (name, bridge) in &mut state.bridges {
            let found = guards.get(name).map(|(_, guard)| guard.loops());
            let none = found.is_none_or(BTreeMap::is_empty);
            if none && bridge.ports.values().all(|port| port.looped.is_none()) {
                continue;
            }
            let names: BTreeMap<PortId, String> =
                bridge.ports.iter().map(|(name, port)| (port.port.id, name.clone())).collect();
            for (interface, port) in &mut bridge.ports {
                let known = found.and_then(|loops| loops.get(&port.port.id));
                let looped = known.map(|known| looped(known, port.port.id, &names));
                if port.looped == looped {
                    continue;
                }
                match &looped {
                    Some(looped) => tracing::warn!("bridge {name}: port {interface} {}", looped.error),
                    None => tracing::info!("bridge {name}: port {interface} is in no loop any more"),
                }
                port.looped = looped;
                let closed = port.looped.as_ref().is_some_and(|l| l.closed);
                // a tree has its own say, and so has a bond
                if !bridge.spanning && port.bond.is_none() {
                    let stp = if closed { StpState::Blocking } else { StpState::Forwarding };
                    port.port = Arc::new(Port { stp, ..Port::clone(&port.port) });
                }
                changed.push((name.clone(), port.port.id));
            }
        }
        changed
    }

    /// Looks for loops; does not return. `identity` tells this host from others.
    pub async fn run(self: Rc<Self>, datapath: Rc<Datapath>, state: Rc<RefCell<State>>, identity: String) {
        loop {
            let busy = self.look(&datapath, &state.borrow(), &identity);
            let changed = self.bring(&mut state.borrow_mut());
            if !changed.is_empty() {
                if publish::publish(&datapath, &state).await == Published::Late {
                    tracing::error!("the datapath has not taken up in time what was found of loops");
                }
                forget(&state.borrow(), &changed);
                self.news.notify_one();
            }
            tokio::time::sleep(if busy { Duration::from_millis(PERIOD) } else { TICK }).await;
        }
    }

    /// Takes what has come, sends what is due, decides. True: there is something to look into.
    fn look(&self, datapath: &Datapath, state: &State, identity: &str) -> bool {
        let (now, snapshot) = (self.now(), datapath.snapshot());
        let mut guards = self.guards.borrow_mut();
        for kind in [FrameKind::Probe, FrameKind::OthersProbe] {
            for frame in datapath.frames(kind) {
                deliver(&mut guards, &snapshot, &frame, now);
            }
        }
        let mut busy = false;
        for (name, (wish, guard)) in guards.iter_mut() {
            let Some(bridge) = state.bridges.get(name) else { continue };
            let moves = bridge.fdb.take_moves();
            let takes_part = |id| find(bridge, id).is_some_and(|(name, _)| !wish.apart.contains(name));
            guard.moved(moves.count, moves.places.into_iter().filter(|(id, _)| takes_part(*id)), now);
            if !guard.is_busy() {
                continue;
            }
            busy = true;
            guard.decide(|id| candidate(bridge, wish, id), now);
            for (id, probe) in guard.probes(now) {
                if let Some((interface, port)) = find(bridge, id)
                    && let Some(frame) =
                        outgoing(&port.port, &probe, mac_for(&[identity, name, interface, "probe"]))
                {
                    // One that finds no room is as good as lost on the way
                    datapath.inject(id, &frame);
                }
            }
        }
        busy
    }

    /// Forgets what was found of a port that is not what it was.
    pub fn forget(&self, port: PortId) {
        self.guards.borrow_mut().values_mut().for_each(|(_, guard)| guard.forget(port));
    }

    /// Waits until rows are to be written anew.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.epoch.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }
}

/// What is said of a loop.
fn looped(known: &Loop, port: PortId, names: &BTreeMap<PortId, String>) -> Looped {
    let place = if known.vlan == 0 { String::new() } else { format!(" in VLAN {}", known.vlan) };
    let error = match (names.get(&known.back), known.closed) {
        _ if known.back == port => {
            format!("is open, but what leaves by it{place} comes back by it: there is a loop behind it")
        }
        (back, closed) => {
            let back = back.map_or("another port", String::as_str);
            let what = if closed { "is closed" } else { "is open, as it is told to be" };
            format!(
                "{what}: what leaves by it{place} comes back by {back}; it is a loop without a spanning tree"
            )
        }
    };
    Looped { closed: known.closed, error }
}

/// What was learned while frames went round is wrong.
fn forget(state: &State, changed: &[(String, PortId)]) {
    let bridges: BTreeSet<&String> = changed.iter().map(|(bridge, _)| bridge).collect();
    for (name, bridge) in bridges.into_iter().filter_map(|name| Some((name, state.bridges.get(name)?))) {
        bridge.fdb.flush();
        bridge.fdb.take_moves();
        state.snooping.flush(Some(name));
    }
}

/// A port by its number in the datapath.
fn find(bridge: &BridgeState, id: PortId) -> Option<(&str, &PortState)> {
    let found = bridge.ports.iter().find(|(_, port)| port.port.id == id);
    found.map(|(name, port)| (name.as_str(), port))
}

fn candidate(bridge: &BridgeState, wish: &Wish, id: PortId) -> Option<Candidate> {
    let (name, port) = find(bridge, id)?;
    // which wire of a bond forwards is the bond's to say
    let closes = port.port.ofport != OFPORT_LOCAL && port.bond.is_none() && !wish.apart.contains(name);
    Some(Candidate { rank: closes.then_some(port.port.ofport) })
}

/// A probe as its port shows frames of its VLAN. None: the port is not in it.
fn outgoing(port: &Port, probe: &Probe, source: [u8; 6]) -> Option<Vec<u8>> {
    let plain = vlan::ingress(None, Tags::default())?;
    let inside = if probe.vlan == 0 { plain } else { plain.in_vlan(probe.vlan) };
    let edit = vlan::egress(port.vlan.as_deref(), &inside)?;
    let mut frame = probe.frame(source).to_vec();
    if let Edit::Push(tag) | Edit::Replace(tag) = edit {
        let behind_addresses = 12;
        frame.splice(behind_addresses..behind_addresses, tag.bytes());
    }
    Some(frame)
}

/// Tells the guard of its bridge of a probe.
fn deliver(
    guards: &mut BTreeMap<String, (Wish, Guard)>,
    snapshot: &Snapshot,
    frame: &PuntedFrame,
    now: Millis,
) -> Option<()> {
    let port = snapshot.port(frame.port)?;
    let bridge = snapshot.bridge(port.bridge)?;
    let (_, guard) = guards.get_mut(&bridge.name)?;
    let link = Link::parse(&frame.bytes)?;
    let inside = vlan::ingress(port.vlan.as_deref(), Tags::read(&frame.bytes, &link, bridge.vlan_limit))?;
    let probe = Probe::read(&frame.bytes, &link)?;
    let joined = |a, b| snapshot.port(a).zip(snapshot.port(b)).is_some_and(|(a, b)| !a.groups.meet(b.groups));
    guard.receive(port.id, inside.vid, &probe, joined, now);
    Some(())
}

/// What nobody else has.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // without randomness it is like any other
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use datapath::fdb::Fdb;
    use datapath::snapshot::{BridgeId, PortKind};
    use datapath::tunnel::{Tunnel, TunnelConfig};
    use datapath::vlan::{VlanMode, VlanPolicy};
    use datapath::wire::loopback::Finding;
    use serde_json::json;

    use super::*;
    use crate::reconcile::actual::Attachment;
    use crate::reconcile::testing::{add_br, add_port, database, map, row, set};

    #[test]
    fn what_rows_ask_for() {
        let db = database();
        add_br(&db, "br0", json!({}));
        let off = || map(&[("loop-detection", "false")]);
        add_port(&db, "br0", "p0", json!({}), json!({"other_config": off()}));
        let read = || Wish::read(db.borrow().db(), &row(&db, "Bridge", "br0"));
        assert_eq!(read(), Some(Wish { apart: BTreeSet::from(["p0".to_owned()]) }));
        set(&db, "Bridge", "br0", json!({"rstp_enable": true}));
        assert_eq!(read(), None);
        set(&db, "Bridge", "br0", json!({"rstp_enable": false, "other_config": off()}));
        assert_eq!(read(), None);
    }

    #[test]
    fn a_probe_looks_as_its_vlan_does_on_its_port() {
        let tunnel = || {
            let config = TunnelConfig::to(std::net::Ipv4Addr::new(192, 0, 2, 1).into());
            PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500)))
        };
        let port = |policy: Option<VlanPolicy>| Port {
            vlan: policy.and_then(VlanPolicy::shared),
            ..Port::new(PortId(1), BridgeId(0), 1, "gre0", tunnel())
        };
        let probe =
            |vlan| Probe { switch: 1, port: 1, vlan, sent: 1, finding: Finding::Suspects, seal: [9; 8] };
        let access = Some(VlanPolicy::new(VlanMode::Access, 10, None));
        for (policy, vlan, tag) in [
            (None, 0, Some(None)),
            (None, 10, Some(Some(10))),
            (access.clone(), 10, Some(None)),
            (access, 11, None),
        ] {
            let frame = outgoing(&port(policy), &probe(vlan), [2; 6]);
            let link = frame.as_ref().map(|frame| Link::parse(frame).unwrap());
            assert_eq!(link.map(|link| link.vlan.map(|tci| tci.vid())), tag);
            if let Some(frame) = frame {
                assert_eq!(Probe::read(&frame, &link.unwrap()), Some(probe(vlan)));
            }
        }
    }

    #[test]
    fn a_closed_port_says_so_and_opens_again() {
        let loops = Loops::default();
        let fdb = Arc::new(Fdb::new(16, 300));
        let mut bridge = BridgeState::new(BridgeId(0), fdb.clone(), false);
        for (i, name) in ["a", "b"].into_iter().enumerate() {
            let config = TunnelConfig::to(std::net::Ipv4Addr::new(192, 0, 2, i as u8).into());
            let kind = PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500)));
            let port = Port::new(PortId(i as u16), BridgeId(0), i as u16 + 1, name, kind);
            bridge.ports.insert(name.into(), PortState::new(Arc::new(port), Attachment::Tunnel, fdb.clone()));
        }
        let mut state = State::default();
        state.bridges.insert("br0".into(), bridge);
        let datapath = Datapath::start(1).unwrap();
        let mut guard = Guard::new(7, [7; 32]);
        guard.moved(guard::RESTLESS, [(PortId(0), 10)], 0);
        for now in [0, 250, 500] {
            let (_, probe) = guard.probes(now)[0];
            guard.receive(PortId(1), 10, &probe, |_, _| true, now);
        }
        guard.decide(|id| candidate(&state.bridges["br0"], &Wish::default(), id), 800);
        loops.guards.borrow_mut().insert("br0".into(), (Wish::default(), guard));
        assert_eq!(loops.bring(&mut state), [("br0".to_owned(), PortId(1))]);
        let shown = |state: &State| {
            let port = &state.bridges["br0"].ports["b"];
            (port.port.stp, port.looped.as_ref().map(|l| l.error.clone()))
        };
        let error =
            "is closed: what leaves by it in VLAN 10 comes back by a; it is a loop without a spanning tree";
        assert_eq!(shown(&state), (StpState::Blocking, Some(error.into())));
        assert!(loops.bring(&mut state).is_empty());
        assert!(loops.look(&datapath, &state, "host"));
        loops.forget(PortId(1));
        assert_eq!(loops.bring(&mut state).len(), 1);
        assert_eq!(shown(&state), (StpState::Forwarding, None));
    }
}
