//! Who hears which group on one bridge: what reports and routers' queries told, and for how long it holds. No I/O: it is told
//! of messages and of seconds of a clock that goes on steadily. Sizes, ages and what is not learned are Open vSwitch's.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv6Addr;

use datapath::mirror::PortSet;
use datapath::multicast::Groups;
use datapath::snapshot::PortId;
use datapath::wire::membership::{Change, Message};
use lru::LruCache;

/// Seconds for which a router is known by one query (RFC 2236 8.5 comes to 255, Open vSwitch takes 180).
const ROUTER_AGE: u64 = 180;

/// What is to be held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `mcast-snooping-table-size`, in groups.
    pub max_groups: usize,
    /// `mcast-snooping-aging-time`, in seconds.
    pub max_age: u64,
    /// Not `mcast-snooping-disable-flood-unregistered`.
    pub flood_unregistered: bool,
    /// Ports with `mcast-snooping-flood`.
    pub flood: BTreeSet<PortId>,
    /// Ports with `mcast-snooping-flood-reports`.
    pub reports: BTreeSet<PortId>,
}

/// The groups of one bridge.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    /// By VLAN and address. The one that was heard of last comes first.
    groups: LruCache<(u16, Ipv6Addr), Vec<Member>>,
    /// When a router was last heard of in a VLAN on a port. Ordered likewise.
    routers: LruCache<(u16, PortId), u64>,
    /// Nothing is too old before that second.
    due: u64,
    /// Workers do not know yet.
    stale: bool,
}

/// A port that hears a group, and when it last said so. Those of a group are in the order of that.
#[derive(Debug, Clone, Copy)]
struct Member {
    port: PortId,
    heard: u64,
}

impl Table {
    /// Nobody has said anything yet.
    pub fn new(settings: Settings) -> Table {
        Table { settings, groups: LruCache::unbounded(), routers: LruCache::unbounded(), due: 0, stale: true }
    }

    /// Goes by other settings.
    pub fn configure(&mut self, settings: Settings) {
        if self.settings == settings {
            return;
        }
        self.settings = settings;
        (self.stale, self.due) = (true, 0);
        while self.groups.len() > self.settings.max_groups {
            self.groups.pop_lru();
        }
    }

    /// What came in by `port`, in a VLAN. A port that hears everything anyway is not noted.
    pub fn receive(&mut self, vlan: u16, port: PortId, message: Message<'_>, now: u64) {
        if self.settings.flood.contains(&port) {
            return;
        }
        match message {
            Message::Router => {
                self.stale |= self.routers.put((vlan, port), now).is_none();
                self.due = self.due.min(now + ROUTER_AGE);
            }
            Message::Changes(changes) => changes.for_each(|change| self.change(vlan, port, change, now)),
        }
    }

    fn change(&mut self, vlan: u16, port: PortId, Change { group, joins }: Change, now: u64) {
        if joins {
            self.join((vlan, group), port, now);
        } else if !self.settings.reports.contains(&port) {
            // behind a port that hears reports there may be another switch, and others who still hear the group
            self.leave((vlan, group), port);
        }
    }

    fn join(&mut self, key: (u16, Ipv6Addr), port: PortId, now: u64) {
        if self.routers.contains(&(key.0, port)) {
            return;
        }
        if !self.groups.contains(&key) && self.groups.len() >= self.settings.max_groups {
            self.groups.pop_lru();
            self.stale = true;
        }
        let members = self.groups.get_or_insert_mut(key, Vec::new);
        let before = members.iter().position(|member| member.port == port).map(|at| members.remove(at));
        members.push(Member { port, heard: now });
        self.stale |= before.is_none();
        self.due = self.due.min(now + self.settings.max_age);
    }

    fn leave(&mut self, key: (u16, Ipv6Addr), port: PortId) {
        let Some(members) = self.groups.peek_mut(&key) else { return };
        let before = members.len();
        members.retain(|member| member.port != port);
        self.stale |= members.len() != before;
        if members.is_empty() {
            self.groups.pop(&key);
        }
    }

    /// Forgets what nobody has said for too long.
    pub fn expire(&mut self, now: u64) {
        if now < self.due {
            return;
        }
        let (max_age, mut oldest_member, mut oldest_router) = (self.settings.max_age, now, now);
        self.keep_members(|member| {
            let stays = now < member.heard + max_age;
            if stays {
                oldest_member = oldest_member.min(member.heard);
            }
            stays
        });
        self.keep_routers(|_, heard| {
            let stays = now < heard + ROUTER_AGE;
            if stays {
                oldest_router = oldest_router.min(heard);
            }
            stays
        });
        self.due = (oldest_member + max_age).min(oldest_router + ROUTER_AGE);
    }

    /// What was learned on a port does not hold any more.
    pub fn forget(&mut self, port: PortId) {
        self.keep_members(|member| member.port != port);
        self.keep_routers(|(_, at), _| at != port);
    }

    /// Nothing of what was learned holds any more.
    pub fn flush(&mut self) {
        self.stale |= !self.groups.is_empty() || !self.routers.is_empty();
        self.groups.clear();
        self.routers.clear();
    }

    fn keep_members(&mut self, mut stays: impl FnMut(&Member) -> bool) {
        let mut empty = Vec::new();
        for (key, members) in &mut self.groups {
            let before = members.len();
            members.retain(&mut stays);
            self.stale |= members.len() != before;
            if members.is_empty() {
                empty.push(*key);
            }
        }
        empty.iter().for_each(|key| _ = self.groups.pop(key));
    }

    fn keep_routers(&mut self, mut stays: impl FnMut((u16, PortId), u64) -> bool) {
        let going = self.routers.iter().filter(|(key, heard)| !stays(**key, **heard));
        let going: Vec<(u16, PortId)> = going.map(|(key, _)| *key).collect();
        self.stale |= !going.is_empty();
        going.iter().for_each(|key| _ = self.routers.pop(key));
    }

    /// What workers are to go by, if it is not what they have been told last.
    pub fn news(&mut self) -> Option<Groups> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let ports = |members: &[Member]| members.iter().map(|member| member.port).collect::<PortSet>();
        let mut routers = std::collections::BTreeMap::<u16, Vec<PortId>>::new();
        for ((vlan, port), _) in &self.routers {
            routers.entry(*vlan).or_default().push(*port);
        }
        Some(Groups {
            members: self.groups.iter().map(|(key, members)| (*key, ports(members))).collect(),
            routers: routers.into_iter().map(|(vlan, ports)| (vlan, ports.into_iter().collect())).collect(),
            flood: self.settings.flood.iter().copied().collect(),
            reports: self.settings.reports.iter().copied().collect(),
            flood_unregistered: self.settings.flood_unregistered,
        })
    }

    /// `mdb/show`. `number` names ports.
    pub fn show(&self, now: u64, number: impl Fn(PortId) -> String) -> String {
        let mut out = " port  VLAN  GROUP                Age\n".to_owned();
        for ((vlan, group), members) in self.groups.iter().rev() {
            let group = group.to_ipv4_mapped().map_or_else(|| group.to_string(), |v4| v4.to_string());
            for Member { port, heard } in members {
                let (port, age) = (number(*port), now.saturating_sub(*heard));
                let _ = writeln!(out, "{port:>5}  {vlan:4}  {group}         {age:3}");
            }
        }
        for ((vlan, port), heard) in self.routers.iter().rev() {
            let (port, age) = (number(*port), now.saturating_sub(*heard));
            let _ = writeln!(out, "{port:>5}  {vlan:4}  querier             {age:3}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            max_groups: 3,
            max_age: 300,
            flood_unregistered: true,
            flood: BTreeSet::new(),
            reports: BTreeSet::new(),
        }
    }

    fn group(n: u8) -> Ipv6Addr {
        Ipv4Addr::new(239, 0, 0, n).to_ipv6_mapped()
    }

    impl Table {
        fn say(&mut self, port: u16, n: u8, joins: bool, now: u64) {
            if !self.settings.flood.contains(&PortId(port)) {
                self.change(7, PortId(port), Change { group: group(n), joins }, now);
            }
        }

        /// Lines of what is shown, without the heading.
        fn lines(&self, now: u64) -> Vec<String> {
            self.show(now, |port| port.0.to_string()).lines().skip(1).map(str::to_owned).collect()
        }
    }

    #[test]
    fn joined_left_and_forgotten() {
        let mut table = Table::new(settings());
        assert!(table.news().is_some() && table.news().is_none());
        table.say(1, 1, true, 0);
        table.say(2, 1, true, 10);
        table.receive(7, PortId(3), Message::Router, 20);
        assert_eq!(
            table.lines(30),
            [
                "    1     7  239.0.0.1          30",
                "    2     7  239.0.0.1          20",
                "    3     7  querier              10",
            ]
        );
        let groups = table.news().unwrap();
        let hears = |groups: &Groups, port| {
            groups.members.get(&(7, group(1))).is_some_and(|s| s.contains(PortId(port)))
        };
        assert_eq!([1, 2, 3].map(|port| hears(&groups, port)), [true, true, false]);
        assert!(groups.routers[&7].contains(PortId(3)) && !groups.routers.contains_key(&8));
        // said again: nothing new for workers
        table.say(1, 1, true, 100);
        table.receive(7, PortId(3), Message::Router, 100);
        assert!(table.news().is_none());
        // what was not joined cannot be left; routers hear everything
        table.say(4, 1, false, 100);
        table.say(3, 1, true, 100);
        assert!(table.news().is_none());
        table.expire(279);
        assert!(table.news().is_none());
        table.expire(310);
        assert_eq!(table.lines(310), ["    1     7  239.0.0.1         210"]);
        table.say(1, 1, false, 310);
        assert!(table.lines(310).is_empty() && table.news().unwrap().members.is_empty());
    }

    #[test]
    fn ports_that_hear_everything_or_who_hears() {
        let ports = |id| BTreeSet::from([PortId(id)]);
        let mut table = Table::new(Settings { flood: ports(1), reports: ports(2), ..settings() });
        table.receive(7, PortId(1), Message::Router, 0);
        for port in [1, 2] {
            table.say(port, 1, true, 0);
            table.say(port, 1, false, 0);
        }
        assert_eq!(table.lines(0), ["    2     7  239.0.0.1           0"]);
        let groups = table.news().unwrap();
        assert!(groups.flood.contains(PortId(1)) && groups.reports.contains(PortId(2)));
        table.forget(PortId(2));
        assert!(table.lines(0).is_empty() && table.news().is_some());
    }

    #[test]
    fn no_more_than_so_many() {
        let mut table = Table::new(settings());
        (1..=3).for_each(|n| table.say(1, n, true, n.into()));
        table.say(1, 1, true, 4);
        table.say(1, 4, true, 5);
        let shown = |table: &Table| {
            table.lines(5).iter().map(|l| l.split_whitespace().nth(2).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&table), ["239.0.0.3", "239.0.0.1", "239.0.0.4"]);
        table.configure(Settings { max_groups: 1, ..settings() });
        assert_eq!(shown(&table), ["239.0.0.4"]);
        table.flush();
        assert!(shown(&table).is_empty());
        assert!(table.news().is_some() && table.news().is_none());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Say(u16, u8, bool),
        Router(u16),
        Forget(u16),
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            8 => (0u16..4, 0u8..6, any::<bool>()).prop_map(|(port, n, joins)| Event::Say(port, n, joins)),
            1 => (0u16..4).prop_map(Event::Router),
            1 => (0u16..4).prop_map(Event::Forget),
            2 => (0u64..200).prop_map(Event::Wait),
        ];
        proptest::collection::vec(event, 0..80)
    }

    proptest! {
        /// A table that never fills is a list of what was said last, and when; and what workers have been told is what it holds.
        #[test]
        fn is_what_was_said_last(events in events()) {
            let mut table = Table::new(Settings { max_groups: 6, ..settings() });
            let (mut said, mut routers) = (BTreeMap::new(), BTreeMap::new());
            let (mut now, mut known) = (0, Groups::default());
            for event in events {
                match event {
                    Event::Say(port, n, joins) => {
                        table.say(port, n, joins, now);
                        match joins {
                            true if routers.contains_key(&port) => {}
                            true => _ = said.insert((n, port), now),
                            false => _ = said.remove(&(n, port)),
                        }
                    }
                    Event::Router(port) => {
                        table.receive(7, PortId(port), Message::Router, now);
                        routers.insert(port, now);
                    }
                    Event::Forget(port) => {
                        table.forget(PortId(port));
                        said.retain(|(_, at), _| *at != port);
                        routers.remove(&port);
                    }
                    Event::Wait(seconds) => now += seconds,
                }
                table.expire(now);
                said.retain(|_, heard| now < *heard + 300);
                routers.retain(|_, heard| now < *heard + ROUTER_AGE);
                known = table.news().unwrap_or(known);
                let mut members = HashMap::<_, Vec<PortId>, foldhash::fast::RandomState>::default();
                for (n, port) in said.keys() {
                    members.entry((7, group(*n))).or_default().push(PortId(*port));
                }
                let members = members.into_iter().map(|(key, ports)| (key, ports.into_iter().collect())).collect();
                prop_assert_eq!(&known.members, &members);
                let ports: PortSet = routers.keys().map(|port| PortId(*port)).collect();
                prop_assert_eq!(known.routers.get(&7).cloned().unwrap_or_default(), ports);
                prop_assert_eq!(table.lines(now).len(), said.len() + routers.len());
            }
        }
    }
}
