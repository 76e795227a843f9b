//! What is there: bridges and ports as the datapath has them, and the numbers they go by.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use datapath::fdb::Fdb;
use datapath::mirror::{Mirror, MirrorOutput, PortSet};
use datapath::multicast::Groups;
use datapath::port::esp_device::Inlet;
use datapath::port::{DeviceRoad, RxRoad, Underlay};
use datapath::sflow::Sampler;
use datapath::snapshot::{Bridge, BridgeId, OfPort, PolicyId, Port, PortId, PortKind, Snapshot, StpState};
use datapath::tunnel::Demux;
use openflow::PortConfig;

use super::mirrors::MirrorState;
use super::rules::BridgeRules;
use crate::bfd::Sessions;
use crate::bond::Bonds;
use crate::cfm::Points;
use crate::devices::member::Member;
use crate::ipsec::sas::Sas;
use crate::loops::{Looped, Loops};
use crate::sflow::Sflow;
use crate::snooping::Snooping;

/// The number of a bridge's own port.
pub const OFPORT_LOCAL: OfPort = 65534;
/// The highest number that other ports get (OFPP_MAX is 0xff00 and not itself a port).
pub const OFPORT_MAX: OfPort = 65279;

/// Everything that the daemon has made, by the names that operators know.
#[derive(Debug, Default)]
pub struct State {
    /// By name.
    pub bridges: BTreeMap<String, BridgeState>,
    /// Sockets that tunnels ride on, while there are tunnels. At most one for each road and IP version.
    pub underlays: Vec<Arc<Underlay>>,
    /// The way out for tunnels whose packets the kernel cuts, while there are such.
    pub device: Option<Arc<DeviceRoad>>,
    /// Protected host pairs and their SAs.
    pub sas: Sas,
    /// What takes ESP in by trains, while there is any.
    pub inlet: Option<Arc<Inlet>>,
    /// BFD on ports.
    pub bfd: Rc<Sessions>,
    /// CFM on ports.
    pub cfm: Rc<Points>,
    /// Multicast snooping on bridges.
    pub snooping: Rc<Snooping>,
    /// Ports of several interfaces.
    pub bonds: Rc<Bonds>,
    /// What looks for loops where there is no spanning tree.
    pub loops: Rc<Loops>,
    /// What samples bridges.
    pub sflow: Rc<Sflow>,
}

/// A bridge that is there.
#[derive(Debug)]
pub struct BridgeState {
    /// Its place in the snapshot.
    pub id: BridgeId,
    /// Who is where.
    pub fdb: Arc<Fdb>,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// It runs STP or RSTP.
    pub spanning: bool,
    /// What it does about VLANs.
    pub rules: BridgeRules,
    /// Who is given copies of what.
    pub mirrors: Vec<MirrorState>,
    /// Multicast snooping: who hears what. None: it does not snoop.
    pub groups: Option<Arc<Groups>>,
    /// What its probes for loops are known by. None: it looks for none.
    pub probe: Option<u64>,
    /// Takes samples of what enters. None: nobody asks for any.
    pub sampler: Option<Arc<Sampler>>,
    /// Ports that work, by interface name.
    pub ports: BTreeMap<String, PortState>,
    /// The member of each bond that goes by the number which the MAC table knows: the one that is, or was last, active.
    pub holders: BTreeMap<String, String>,
    /// Interfaces that do not, and why.
    pub failed: BTreeMap<String, String>,
    /// Where the search for a free OpenFlow number begins.
    pub next_ofport: OfPort,
    /// When it was made.
    pub since: Instant,
}

/// A port that is there.
#[derive(Debug)]
pub struct PortState {
    /// As the datapath has it.
    pub port: Arc<Port>,
    /// How it hangs on the host.
    pub attachment: Attachment,
    /// Of its bridge.
    pub fdb: Arc<Fdb>,
    /// The bond that it is a member of, by the Port's name. What a member may pass is its bond's to say
    /// ([`BridgeState::activate`]), and nobody else's: neither a spanning tree nor who looks for loops closes or opens it.
    pub bond: Option<String>,
    /// What was asked for by OpenFlow; it lasts as long as the port.
    pub config: PortConfig,
    /// It is in a loop.
    pub looped: Option<Looped>,
    /// How often the device's carrier had come or gone before it was a port.
    pub carrier_changes: u32,
    /// When it was made.
    pub since: Instant,
    /// Since when it leads where it does: a tunnel's far end may become another one.
    pub leads_since: Instant,
}

/// How a port hangs on the host.
#[derive(Debug)]
pub enum Attachment {
    /// A packet socket on the device itself, whose index it is.
    Direct {
        /// Of the device.
        ifindex: u32,
    },
    /// A port of a Linux bridge.
    Member(Member),
    /// A TAP that the daemon made.
    Tap {
        /// Of the TAP.
        ifindex: u32,
        /// The address last set.
        mac: Option<[u8; 6]>,
        /// The MTU last set, in bytes.
        mtu: Option<u32>,
    },
    /// A tunnel; nothing on the host but the route to its far end.
    Tunnel,
    /// A patch port; nothing on the host at all.
    Patch,
}

impl State {
    /// The port with that number in the snapshot, with its bridge's name and its own.
    pub fn port(&self, id: PortId) -> Option<(&str, &str, &PortState)> {
        let all = self.bridges.iter().flat_map(|(b, s)| s.ports.iter().map(move |(n, p)| (b, n, p)));
        all.into_iter().find(|(_, _, p)| p.port.id == id).map(|(b, n, p)| (b.as_str(), n.as_str(), p))
    }

    /// Whether frames get through by an interface, as far as those who watch it know: like Open vSwitch one goes by the better
    /// news, where BFD and CFM do. None: nobody watches it.
    pub fn works(&self, interface: &str) -> Option<bool> {
        [self.bfd.works(interface), self.cfm.works(interface)].into_iter().flatten().max()
    }

    /// The socket of that road and IP version, if it is open.
    pub fn underlay(&self, road: RxRoad, v6: bool) -> Option<Arc<Underlay>> {
        self.underlays.iter().find(|u| u.road() == road && u.is_ipv6() == v6).cloned()
    }

    /// Tells the inlet whose packets to take: before the snapshot with an SA is in force, so that it begins as it goes on.
    pub fn tell_inlet(&self) {
        let Some(inlet) = &self.inlet else { return };
        let key = |child: &ikev2::Child| match (child.udp, child.local) {
            (None, IpAddr::V4(local)) => Some((local, child.inbound.spi)),
            _ => None,
        };
        let keys = self.sas.children().filter_map(|(_, installed)| key(&installed.child)).collect();
        if let Err(e) = inlet.take(keys) {
            // The raw socket takes what it does not
            tracing::debug!("the inlet for ESP does not know every SA: {e}");
        }
    }

    /// The host pairs that tunnels refer to.
    pub fn policies(&self) -> BTreeSet<PolicyId> {
        let ports = self.bridges.values().flat_map(|bridge| bridge.ports.values());
        let policy = |port: &PortState| match &port.port.kind {
            PortKind::Tunnel(tunnel) => tunnel.policy,
            PortKind::Local(_) | PortKind::Patch(_) => None,
        };
        ports.filter_map(policy).collect()
    }

    /// The picture that workers shall forward by. Err: two tunnels that a received packet could belong to.
    pub fn snapshot(&self) -> Result<Snapshot, (PortId, PortId)> {
        let mut snapshot = Snapshot::default();
        for (name, bridge) in &self.bridges {
            let mirrors: Vec<Mirror> = bridge.mirrors.iter().filter_map(|m| m.among(&bridge.ports)).collect();
            let watcher = |mirror: &Mirror| match mirror.output {
                MirrorOutput::Port(id) => Some(id),
                MirrorOutput::Vlan(_) => None,
            };
            let watchers: PortSet = mirrors.iter().filter_map(watcher).collect();
            let forwarding = bridge.ports.values().filter(|p| p.port.stp == StpState::Forwarding);
            let forwarding = forwarding.filter(|p| !watchers.contains(p.port.id));
            let no_flood = |p: &&PortState| p.config.has(PortConfig::NO_FLOOD);
            let (no_flood, flood): (Vec<_>, Vec<_>) = forwarding.partition(no_flood);
            let ids = |ports: Vec<&PortState>| ports.into_iter().map(|p| p.port.id).collect();
            let seen = Bridge {
                flood: ids(flood),
                no_flood: ids(no_flood),
                forward_bpdu: bridge.forward_bpdu,
                spanning: bridge.spanning,
                flood_vlans: bridge.rules.flood_vlans.clone(),
                vlan_limit: bridge.rules.vlan_limit,
                mirrors,
                watchers,
                groups: bridge.groups.clone(),
                probe: bridge.probe,
                sampler: bridge.sampler.clone(),
                ..Bridge::new(name, bridge.fdb.clone())
            };
            put(&mut snapshot.bridges, bridge.id.0, Arc::new(seen));
            for port in bridge.ports.values() {
                put(&mut snapshot.ports, port.port.id.0, port.port.clone());
            }
        }
        let tunnels = snapshot.ports.iter().flatten().filter(|p| matches!(p.kind, PortKind::Tunnel(_)));
        snapshot.demux = Demux::build(tunnels)?;
        snapshot.underlays.extend(self.underlays.iter().cloned());
        snapshot.device = self.device.clone();
        self.sas.fill(&mut snapshot);
        Ok(snapshot)
    }
}

impl PortState {
    /// A port that has just been made.
    pub fn new(port: Arc<Port>, attachment: Attachment, fdb: Arc<Fdb>) -> PortState {
        let (bond, config, since) = (None, PortConfig::default(), Instant::now());
        PortState {
            port,
            attachment,
            fdb,
            bond,
            config,
            looped: None,
            carrier_changes: 0,
            since,
            leads_since: since,
        }
    }

    /// Whether it is a member of that bond.
    pub fn is_of(&self, bond: &str) -> bool {
        self.bond.as_deref() == Some(bond)
    }

    fn replace(&mut self, new: impl FnOnce(&mut Port)) {
        let mut port = Port::clone(&self.port);
        new(&mut port);
        self.port = Arc::new(port);
    }
}

impl BridgeState {
    /// A bridge without ports.
    pub fn new(id: BridgeId, fdb: Arc<Fdb>, forward_bpdu: bool) -> BridgeState {
        let (rules, ports, failed) = (BridgeRules::default(), BTreeMap::new(), BTreeMap::new());
        let (mirrors, since) = (Vec::new(), Instant::now());
        BridgeState {
            id,
            fdb,
            forward_bpdu,
            spanning: false,
            rules,
            mirrors,
            groups: None,
            probe: None,
            sampler: None,
            ports,
            holders: BTreeMap::new(),
            failed,
            next_ofport: 1,
            since,
        }
    }

    /// Lets `active` pass frames, and no other member of `bond`. What was learned behind the bond stays known: the active member goes
    /// by the number that the one before had. True: something has changed.
    pub fn activate(&mut self, bond: &str, active: Option<&str>) -> bool {
        let mut changed = active.is_some_and(|active| self.hand_over(bond, active));
        for (name, member) in self.ports.iter_mut().filter(|(_, port)| port.is_of(bond)) {
            let stp = if active == Some(name.as_str()) { StpState::Forwarding } else { StpState::Backup };
            if member.port.stp != stp {
                member.replace(|port| port.stp = stp);
                changed = true;
            }
        }
        changed
    }

    /// The member of `bond` that frames pass through.
    pub fn active_member(&self, bond: &str) -> Option<&str> {
        let mut members = self.ports.iter().filter(|(_, port)| port.is_of(bond));
        members.find(|(_, port)| port.port.stp == StpState::Forwarding).map(|(name, _)| name.as_str())
    }

    /// Lets `heir`, a member of `bond`, go by the bond's number. True: another went by it.
    fn hand_over(&mut self, bond: &str, heir: &str) -> bool {
        let Some(own) = self.ports.get(heir).map(|port| port.port.id) else { return false };
        let holder = self.holders.insert(bond.to_owned(), heir.to_owned());
        let holder = holder.and_then(|name| self.ports.get_mut(&name)).filter(|port| port.is_of(bond));
        let Some(common) = holder.map(|holder| {
            let common = holder.port.id;
            holder.replace(|port| port.id = own);
            common
        }) else {
            return false;
        };
        if let Some(heir) = self.ports.get_mut(heir) {
            heir.replace(|port| port.id = common);
        }
        own != common
    }

    /// `leaving` goes: what was learned behind a bond that goes by its number stays with another member, if there is one.
    pub fn bequeath(&mut self, leaving: &str) {
        let holder = self.holders.iter().find(|(_, holder)| *holder == leaving);
        let Some(bond) = holder.map(|(bond, _)| bond.clone()) else { return };
        let heir = self.ports.iter().find(|(name, port)| *name != leaving && port.is_of(&bond));
        match heir.map(|(name, _)| name.clone()) {
            Some(heir) => self.hand_over(&bond, &heir),
            None => self.holders.remove(&bond).is_some(),
        };
    }

    /// A number for a port: the one asked for if it is free, else the one it had before, else the next free one that no
    /// port in `kept` will come back to, as OVS counts. None: all are taken.
    pub fn choose_ofport(
        &mut self,
        asked: Option<OfPort>,
        before: Option<OfPort>,
        kept: &BTreeSet<OfPort>,
    ) -> Option<OfPort> {
        let taken: BTreeSet<OfPort> = self.ports.values().map(|p| p.port.ofport).collect();
        choose_ofport(&taken, kept, &mut self.next_ofport, asked, before)
    }
}

fn choose_ofport(
    taken: &BTreeSet<OfPort>,
    kept: &BTreeSet<OfPort>,
    next: &mut OfPort,
    asked: Option<OfPort>,
    before: Option<OfPort>,
) -> Option<OfPort> {
    let free = |n: &OfPort| (1..=OFPORT_MAX).contains(n) && !taken.contains(n);
    let named = [asked, before].into_iter().flatten().find(free);
    if named.is_some() {
        return named;
    }
    let start = (*next).clamp(1, OFPORT_MAX);
    let found = (start..=OFPORT_MAX).chain(1..start).find(|n| free(n) && !kept.contains(n))?;
    *next = if found == OFPORT_MAX { 1 } else { found + 1 };
    Some(found)
}

/// What a column says of a port's number. None: nothing, or no number that a port other than the bridge's own may have.
pub fn ofport(column: Option<i64>) -> Option<OfPort> {
    column.and_then(|n| OfPort::try_from(n).ok()).filter(|n| (1..=OFPORT_MAX).contains(n))
}

/// Hands out small dense numbers. A number comes back only when nothing refers to it any more, and then rests for a while: what
/// was passed up and waits to be looked at still names the port that had it.
#[derive(Debug, Default)]
pub struct Ids {
    /// How many were ever taken: the lowest ones.
    used: u32,
    /// Of these, the free ones, the one that has been free for longest first.
    free: VecDeque<u16>,
}

impl Ids {
    /// So many free numbers rest.
    const RESTING: usize = 64;

    /// A number that is free. None: all 65536 are taken.
    pub fn take(&mut self) -> Option<u16> {
        let rested = self.free.len() > Ids::RESTING;
        if let Some(new) = u16::try_from(self.used).ok().filter(|_| !rested) {
            self.used += 1;
            return Some(new);
        }
        self.free.pop_front()
    }

    /// `id` is free again.
    pub fn give_back(&mut self, id: u16) {
        self.free.push_back(id);
    }
}

fn put<T>(slots: &mut Vec<Option<T>>, at: u16, value: T) {
    let at = usize::from(at);
    if slots.len() <= at {
        slots.resize_with(at + 1, || None);
    }
    if let Some(slot) = slots.get_mut(at) {
        *slot = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_comes_back_rests_and_all_of_them_can_be_had() {
        let mut ids = Ids::default();
        assert_eq!((ids.take(), ids.take()), (Some(0), Some(1)));
        ids.give_back(0);
        assert_eq!(ids.take(), Some(2));
        let few: BTreeSet<u16> =
            (0..1000).filter_map(|_| ids.take().inspect(|id| ids.give_back(*id))).collect();
        assert!(few.len() > Ids::RESTING && few.last() < Some(&80), "{few:?}");
        let all = std::iter::from_fn(|| ids.take()).count();
        assert_eq!(all, 65536 - 2);
    }

    #[test]
    fn numbers_asked_for_come_first_then_those_of_before_then_free_ones() {
        let taken = BTreeSet::from([1, 2, 7, OFPORT_LOCAL]);
        let kept = BTreeSet::from([3, 6]);
        for (asked, before, next, want) in [
            (Some(5), Some(6), 1, 5),
            (Some(7), Some(6), 1, 6),
            (Some(7), Some(2), 1, 4),
            (None, None, 9, 9),
            (None, None, 2, 4),
            (None, None, OFPORT_MAX, OFPORT_MAX),
        ] {
            let mut from = next;
            let chosen = choose_ofport(&taken, &kept, &mut from, asked, before);
            assert_eq!(chosen, Some(want), "{asked:?} {before:?} {next}");
        }
        for (column, want) in [(None, None), (Some(-1), None), (Some(0), None), (Some(9), Some(9))] {
            assert_eq!(ofport(column), want);
        }
        for column in [65280, 65534, 65536, i64::MAX] {
            assert_eq!(ofport(Some(column)), None);
        }
    }

    #[test]
    fn a_number_just_freed_is_not_given_to_the_next_port() {
        let none = BTreeSet::new();
        let mut next = 1;
        let first = choose_ofport(&none, &none, &mut next, None, None);
        let second = choose_ofport(&none, &none, &mut next, None, None);
        assert_eq!((first, second), (Some(1), Some(2)));
        next = OFPORT_MAX;
        assert_eq!(choose_ofport(&none, &none, &mut next, None, None), Some(OFPORT_MAX));
        assert_eq!(next, 1, "wraps");
        let all: BTreeSet<OfPort> = (1..=OFPORT_MAX).collect();
        assert_eq!(choose_ofport(&all, &none, &mut next, None, None), None);
    }
}
