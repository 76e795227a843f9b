//! Takes away what shall not be, makes what shall be, and keeps devices as they shall be.

use std::collections::BTreeSet;
use std::sync::Arc;

use datapath::counters::PortCounters;
use datapath::fdb::Fdb;
use datapath::port::{LocalPort, Underlay};
use datapath::snapshot::{BridgeId, OfPort, Port, PortId, PortKind};
use datapath::tunnel::{Tunnel, TunnelConfig};

use super::actual::{Attachment, BridgeState, OFPORT_LOCAL, PortState, ofport};
use super::wanted::{Attach, Wanted, WantedBridge, WantedPort, What};
use super::{PATIENCE, Reconciler};
use crate::devices::member::Member;
use crate::devices::netlink::{Link, Links};
use crate::devices::path::{self, Path};
use crate::devices::{mac_for, reason};

/// MTU of an internal port in a bridge without devices of the host.
const DEFAULT_MTU: u32 = 1500;

impl Reconciler {
    /// Moves out of the state what is not wanted, or no longer what it was.
    pub(super) fn take_away(&mut self, wanted: &Wanted) {
        let mut state = self.state.borrow_mut();
        for (name, bridge) in &mut state.bridges {
            let wishes = wanted.bridges.get(name);
            let leaves = |port: &str, state: &PortState| {
                let wish = wishes.and_then(|w| w.ports.get(port)).and_then(|p| p.what.as_ref().ok());
                !wish.is_some_and(|what| holds(port, state, what, &self.links))
            };
            let going: Vec<String> =
                bridge.ports.iter().filter(|(n, p)| leaves(n, p)).map(|(n, _)| n.clone()).collect();
            for port in going {
                tracing::info!("bridge {name}: deleted interface {port}");
                self.leaving.extend(bridge.ports.remove(&port));
                self.dirty = true;
            }
            bridge.failed.retain(|port, _| wishes.is_some_and(|w| w.ports.contains_key(port)));
        }
        let gone: Vec<String> =
            state.bridges.keys().filter(|n| !wanted.bridges.contains_key(*n)).cloned().collect();
        for name in gone {
            self.leaving_bridges.extend(state.bridges.remove(&name).map(|b| b.id));
            self.dirty = true;
        }
    }

    /// Tells workers of the state, and once none uses what left it: forgets addresses learned there, removes devices,
    /// frees the numbers. False: workers have not taken it up in time; try again.
    pub(super) async fn settle(&mut self) -> bool {
        if !self.publish().await {
            return false;
        }
        if self.leaving.is_empty() && self.leaving_bridges.is_empty() {
            return true;
        }
        for PortState { port, attachment, fdb } in std::mem::take(&mut self.leaving) {
            fdb.flush_port(port.id);
            self.port_ids.give_back(port.id.0);
            if let Attachment::Member(member) = attachment
                && let Err(e) = member.remove(&self.netlink).await
            {
                tracing::warn!("{}: cannot remove its member port: {}", port.name, reason(&e));
            }
            // A TAP goes here, with the last reference to it
        }
        for id in std::mem::take(&mut self.leaving_bridges) {
            self.bridge_ids.give_back(id.0);
        }
        self.look_around().await;
        true
    }

    /// Publishes a snapshot if there is news, and waits until every worker goes by it. False: they did not in time.
    async fn publish(&mut self) -> bool {
        if !self.dirty {
            return true;
        }
        self.keep_underlays();
        let snapshot = loop {
            let picture = self.state.borrow().snapshot();
            match picture {
                Ok(snapshot) => break snapshot,
                Err((_, second)) => self.refuse(second),
            }
        };
        let generation = self.datapath.publish(snapshot);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        // Workers need microseconds, so look often at first
        let mut pause = std::time::Duration::from_micros(100);
        while !self.datapath.wait_applied(generation, std::time::Duration::ZERO) {
            if tokio::time::Instant::now() > deadline {
                tracing::error!("the datapath has not taken up a change for {PATIENCE:?}; will try again");
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_millis(10));
        }
        self.dirty = false;
        true
    }

    /// Makes what is missing and changes in place what can be changed so.
    pub(super) async fn make(&mut self, wanted: &Wanted) {
        let mut made = false;
        for (bridge_name, bridge) in &wanted.bridges {
            if !self.make_bridge(bridge_name, bridge) {
                continue;
            }
            let kept = bridge.ports.values().filter_map(|p| self.number_before(p)).collect();
            for (name, port) in &bridge.ports {
                match &port.what {
                    Err(error) => self.fail(bridge_name, name, error.clone()),
                    Ok(_) if self.has(bridge_name, name) => self.renumber(bridge_name, name, port),
                    Ok(what) => match self.open(bridge_name, name, what).await {
                        Ok(opened) => made |= self.insert(bridge_name, name, port, opened, &kept),
                        Err(error) => self.fail(bridge_name, name, error),
                    },
                }
            }
        }
        self.follow_tunnels(wanted).await;
        if made {
            self.look_around().await;
        }
    }

    fn make_bridge(&mut self, name: &str, wanted: &WantedBridge) -> bool {
        let mut state = self.state.borrow_mut();
        if let Some(bridge) = state.bridges.get_mut(name) {
            bridge.fdb.configure(wanted.max_entries, wanted.max_age);
            self.dirty |= bridge.forward_bpdu != wanted.forward_bpdu;
            bridge.forward_bpdu = wanted.forward_bpdu;
            return true;
        }
        let Some(id) = self.bridge_ids.take() else {
            tracing::error!("bridge {name}: there are too many bridges");
            return false;
        };
        let fdb = Arc::new(Fdb::new(wanted.max_entries, wanted.max_age));
        state.bridges.insert(name.to_owned(), BridgeState::new(BridgeId(id), fdb, wanted.forward_bpdu));
        self.dirty = true;
        true
    }

    /// Opens what a port is made of. The error is the text for the row.
    async fn open(
        &mut self,
        bridge: &str,
        name: &str,
        what: &What,
    ) -> Result<(PortKind, Attachment), String> {
        let failed = |e: std::io::Error| format!("could not open network device {name} ({})", reason(&e));
        match what {
            What::Internal { mac } => {
                let port = LocalPort::tap(name).map_err(failed)?;
                let ifindex = port.ifindex();
                let mac = mac.unwrap_or_else(|| mac_for(&[&self.identity, bridge, name]));
                self.netlink.set_mac(ifindex, mac).await.map_err(failed)?;
                let attachment = Attachment::Tap { ifindex, mac: Some(mac), mtu: None };
                Ok((PortKind::Local(Arc::new(port)), attachment))
            }
            What::System { attach, .. } => {
                let link = self.links.by_name(name).cloned();
                let link = link.ok_or_else(|| failed(std::io::Error::from_raw_os_error(libc::ENODEV)))?;
                if through_member(*attach, &link) {
                    let made = Member::attach(&self.netlink, &self.links, &link, &self.owner).await;
                    let (member, port) = made.map_err(failed)?;
                    return Ok((PortKind::Local(Arc::new(port)), Attachment::Member(member)));
                }
                let port = LocalPort::packet(name).map_err(failed)?;
                port.set_mtu(link.mtu);
                let attachment = Attachment::Direct { ifindex: port.ifindex() };
                Ok((PortKind::Local(Arc::new(port)), attachment))
            }
            What::Tunnel(config) => {
                self.open_underlay(config).map_err(failed)?;
                let tunnel = self.tunnel(config).await;
                Ok((PortKind::Tunnel(Arc::new(tunnel)), Attachment::Tunnel))
            }
        }
    }

    async fn tunnel(&mut self, config: &TunnelConfig) -> Tunnel {
        let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
        let mtu = path.as_ref().map_or(path::DEFAULT_MTU, |p| p.mtu);
        Tunnel::new(config.clone(), source(config, path.as_ref()), mtu)
    }

    /// Brings tunnels up to date with their rows and with the paths to their far ends.
    pub(super) async fn follow_tunnels(&mut self, wanted: &Wanted) {
        for (bridge_name, bridge) in &wanted.bridges {
            for (name, port) in &bridge.ports {
                let Ok(What::Tunnel(config)) = &port.what else { continue };
                let Some(standing) = self.tunnel_of(bridge_name, name) else { continue };
                let path = self.paths.look_up(config.remote, config.local, &self.links).await.ok();
                let source = source(config, path.as_ref());
                if let Some(path) = &path {
                    let before = standing.path_mtu.swap(path.mtu, std::sync::atomic::Ordering::Relaxed);
                    if before != path.mtu {
                        tracing::info!("{name}: MTU of the path to {} is {} bytes", config.remote, path.mtu);
                    }
                }
                // Without a route now, the address of before does as well
                let moved = source.is_some() && source != standing.source;
                if standing.config == *config && !moved {
                    continue;
                }
                if let Err(e) = self.open_underlay(config) {
                    self.fail(
                        bridge_name,
                        name,
                        format!("could not open network device {name} ({})", reason(&e)),
                    );
                    continue;
                }
                let tunnel = self.tunnel(config).await;
                self.replace(bridge_name, name, |port| {
                    // Sequence numbers go on: a receiver may discard what looks old (RFC 2890 section 2.2)
                    let next = standing.sequence.load(std::sync::atomic::Ordering::Relaxed);
                    tunnel.sequence.store(next, std::sync::atomic::Ordering::Relaxed);
                    Port { kind: PortKind::Tunnel(Arc::new(tunnel)), ..copy(port) }
                });
                if standing.config.remote != config.remote {
                    self.flush(bridge_name, name);
                }
            }
        }
    }

    /// What each tunnel leaves by now: (bridge, port, path).
    pub(super) async fn egress(&mut self) -> Vec<(String, String, Option<Path>)> {
        let tunnels: Vec<(String, String, Arc<Tunnel>)> = {
            let state = self.state.borrow();
            let ports = state.bridges.iter().flat_map(|(b, s)| s.ports.iter().map(move |(n, p)| (b, n, p)));
            ports
                .filter_map(|(b, n, p)| match &p.port.kind {
                    PortKind::Tunnel(t) => Some((b.clone(), n.clone(), t.clone())),
                    PortKind::Local(_) => None,
                })
                .collect()
        };
        let mut found = Vec::new();
        for (bridge, name, tunnel) in tunnels {
            let path = self.paths.look_up(tunnel.config.remote, tunnel.config.local, &self.links).await.ok();
            found.push((bridge, name, path));
        }
        found
    }

    /// Opens the socket that the tunnel rides on, if it is not open.
    fn open_underlay(&mut self, config: &TunnelConfig) -> std::io::Result<()> {
        let mut state = self.state.borrow_mut();
        let (place, open): (_, fn() -> std::io::Result<Underlay>) = match config.remote.is_ipv4() {
            true => (&mut state.underlay4, Underlay::gre4),
            false => (&mut state.underlay6, Underlay::gre6),
        };
        if place.is_none() {
            *place = Some(Arc::new(open()?));
            self.dirty = true;
        }
        Ok(())
    }

    /// Closes sockets that no tunnel rides on: GRE packets are then the kernel's again.
    fn keep_underlays(&mut self) {
        let mut state = self.state.borrow_mut();
        let remotes =
            state.bridges.values().flat_map(|b| b.ports.values()).filter_map(|p| match &p.port.kind {
                PortKind::Tunnel(t) => Some(t.config.remote),
                PortKind::Local(_) => None,
            });
        let (v4, v6) = remotes.fold((false, false), |(v4, v6), r| (v4 | r.is_ipv4(), v6 | r.is_ipv6()));
        state.underlay4.take_if(|_| !v4);
        state.underlay6.take_if(|_| !v6);
    }

    /// Keeps devices as they shall be: members joined, MTUs and addresses right. True: links changed.
    pub(super) async fn tend(&mut self, wanted: &Wanted) -> bool {
        let mut changed = false;
        for (bridge_name, bridge) in &wanted.bridges {
            let mtu = self.least_mtu(bridge_name);
            for (name, port) in &bridge.ports {
                let Some((local, plan)) = self.plan(bridge_name, name, port, mtu) else { continue };
                match self.carry_out(&local, &plan).await {
                    Ok(acted) => changed |= acted,
                    Err(e) => tracing::warn!("{name}: {}", reason(&e)),
                }
            }
        }
        changed
    }

    /// The least MTU of a bridge's devices of the host, which its internal ports follow, as OVS has it.
    fn least_mtu(&self, bridge: &str) -> u32 {
        let state = self.state.borrow();
        let ports = state.bridges.get(bridge).into_iter().flat_map(|b| b.ports.values());
        let mtus = ports.filter_map(|p| match &p.attachment {
            Attachment::Direct { ifindex } => self.links.by_index(*ifindex).map(|l| l.mtu),
            Attachment::Member(member) => self.links.by_index(member.bridge).map(|l| l.mtu),
            Attachment::Tap { .. } | Attachment::Tunnel => None,
        });
        mtus.min().unwrap_or(DEFAULT_MTU)
    }

    fn plan(
        &self,
        bridge: &str,
        name: &str,
        wanted: &WantedPort,
        mtu: u32,
    ) -> Option<(Arc<LocalPort>, Plan)> {
        let mut state = self.state.borrow_mut();
        let port = state.bridges.get_mut(bridge)?.ports.get_mut(name)?;
        let PortKind::Local(local) = &port.port.kind else { return None };
        let plan = match &mut port.attachment {
            Attachment::Tunnel => return None,
            Attachment::Direct { ifindex } => {
                Plan { link: *ifindex, mtu: wanted.mtu_request, ..Plan::default() }
            }
            Attachment::Member(member) => {
                Plan { link: member.near, member: Some(member.clone()), ..Plan::default() }
            }
            Attachment::Tap { ifindex, mac: mac_before, mtu: mtu_before } => {
                let Ok(What::Internal { mac }) = wanted.what else { return None };
                let mtu = wanted.mtu_request.unwrap_or(mtu);
                // Only news is acted on, so that what an operator sets by hand stands
                let mac = mac.filter(|mac| mac_before.replace(*mac) != Some(*mac));
                let mtu = Some(mtu).filter(|mtu| mtu_before.replace(*mtu) != Some(*mtu));
                Plan { link: *ifindex, mac, mtu, member: None }
            }
        };
        Some((local.clone(), plan))
    }

    async fn carry_out(&self, local: &LocalPort, plan: &Plan) -> std::io::Result<bool> {
        if let Some(member) = &plan.member {
            return member.tend(&self.netlink, &self.links, local).await;
        }
        let Some(link) = self.links.by_index(plan.link) else { return Ok(false) };
        let mtu = plan.mtu.filter(|mtu| *mtu != link.mtu);
        let mac = plan.mac.filter(|mac| *mac != link.mac);
        local.set_mtu(mtu.unwrap_or(link.mtu));
        if let Some(mac) = mac {
            self.netlink.set_mac(link.index, mac).await?;
        }
        if let Some(mtu) = mtu {
            self.netlink.set_mtu(link.index, mtu).await?;
        }
        Ok(mtu.is_some() || mac.is_some())
    }

    /// The number an interface had when it last worked.
    fn number_before(&self, wanted: &WantedPort) -> Option<OfPort> {
        ofport(wanted.ofport).or_else(|| self.remembered.get(&wanted.row?).copied())
    }

    fn has(&self, bridge: &str, name: &str) -> bool {
        self.state.borrow().bridges.get(bridge).is_some_and(|b| b.ports.contains_key(name))
    }

    pub(super) fn tunnel_of(&self, bridge: &str, name: &str) -> Option<Arc<Tunnel>> {
        match &self.state.borrow().bridges.get(bridge)?.ports.get(name)?.port.kind {
            PortKind::Tunnel(tunnel) => Some(tunnel.clone()),
            PortKind::Local(_) => None,
        }
    }

    fn insert(
        &mut self,
        bridge_name: &str,
        name: &str,
        wanted: &WantedPort,
        (kind, attachment): (PortKind, Attachment),
        kept: &BTreeSet<OfPort>,
    ) -> bool {
        let before = self.number_before(wanted);
        let mut state = self.state.borrow_mut();
        let Some(bridge) = state.bridges.get_mut(bridge_name) else { return false };
        let ofport = match name == bridge_name {
            true => Some(OFPORT_LOCAL),
            false => bridge.choose_ofport(ofport(wanted.ofport_request), before, kept),
        };
        let id = ofport.and_then(|ofport| Some((ofport, self.port_ids.take()?)));
        let Some((ofport, id)) = id else {
            bridge
                .failed
                .insert(name.to_owned(), format!("could not add network device {name} (too many ports)"));
            return false;
        };
        if let Some(row) = wanted.row {
            self.remembered.insert(row, ofport);
        }
        let port = Port {
            id: PortId(id),
            bridge: bridge.id,
            ofport,
            name: name.to_owned(),
            kind,
            counters: Arc::new(PortCounters::default()),
            worker: self.next_worker,
        };
        self.next_worker = self.next_worker.wrapping_add(1);
        tracing::info!("bridge {bridge_name}: added interface {name} on port {ofport}");
        bridge.failed.remove(name);
        let fdb = bridge.fdb.clone();
        bridge.ports.insert(name.to_owned(), PortState { port: Arc::new(port), attachment, fdb });
        self.dirty = true;
        true
    }

    /// Follows a change of `ofport_request` if that number is free.
    fn renumber(&mut self, bridge_name: &str, name: &str, wanted: &WantedPort) {
        let Some(asked) = ofport(wanted.ofport_request) else { return };
        let number = {
            let mut state = self.state.borrow_mut();
            let Some(bridge) = state.bridges.get_mut(bridge_name) else { return };
            let standing = bridge.ports.get(name).map(|p| p.port.ofport);
            if standing == Some(asked) || standing == Some(OFPORT_LOCAL) {
                return;
            }
            bridge.choose_ofport(Some(asked), standing, &BTreeSet::new())
        };
        if number == Some(asked) {
            self.replace(bridge_name, name, |port| Port { ofport: asked, ..copy(port) });
            self.remembered.extend(wanted.row.map(|row| (row, asked)));
        }
    }

    fn replace(&mut self, bridge: &str, name: &str, new: impl FnOnce(&Port) -> Port) {
        let mut state = self.state.borrow_mut();
        if let Some(port) = state.bridges.get_mut(bridge).and_then(|b| b.ports.get_mut(name)) {
            port.port = Arc::new(new(&port.port));
            self.dirty = true;
        }
    }

    fn flush(&self, bridge: &str, name: &str) {
        if let Some(port) = self.state.borrow().bridges.get(bridge).and_then(|b| b.ports.get(name)) {
            port.fdb.flush_port(port.port.id);
        }
    }

    /// Notes why an interface does not work. A port that stood leaves.
    fn fail(&mut self, bridge_name: &str, name: &str, error: String) {
        let mut state = self.state.borrow_mut();
        let Some(bridge) = state.bridges.get_mut(bridge_name) else { return };
        if let Some(port) = bridge.ports.remove(name) {
            self.leaving.push(port);
            self.dirty = true;
        }
        if bridge.failed.get(name) != Some(&error) {
            tracing::warn!("{error}");
            bridge.failed.insert(name.to_owned(), error);
        }
    }

    /// Two tunnels that rows did not show to be equal: the second goes.
    fn refuse(&mut self, second: PortId) {
        let found =
            self.state.borrow().port(second).map(|(bridge, name, _)| (bridge.to_owned(), name.to_owned()));
        if let Some((bridge, name)) = found {
            self.fail(
                &bridge,
                &name,
                format!("could not add network device {name} to ofproto (File exists)"),
            );
        }
    }
}

/// What to do with a device.
#[derive(Debug, Default)]
struct Plan {
    link: u32,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    member: Option<Member>,
}

/// Whether a port still is what it shall be, as far as it cannot be changed in place.
fn holds(name: &str, state: &PortState, what: &What, links: &Links) -> bool {
    if matches!(&state.port.kind, PortKind::Local(local) if local.is_gone()) {
        return false;
    }
    let link = links.by_name(name);
    match (what, &state.attachment) {
        (What::Tunnel(_), Attachment::Tunnel) => true,
        (What::Internal { .. }, Attachment::Tap { ifindex, .. }) => link.is_some_and(|l| l.index == *ifindex),
        (What::System { attach, .. }, attachment) => link.is_some_and(|link| match attachment {
            Attachment::Direct { ifindex } => *ifindex == link.index && !through_member(*attach, link),
            Attachment::Member(member) => {
                member.bridge == link.index
                    && through_member(*attach, link)
                    && links.by_index(member.near).is_some()
            }
            Attachment::Tap { .. } | Attachment::Tunnel => false,
        }),
        _ => false,
    }
}

fn through_member(attach: Attach, link: &Link) -> bool {
    attach == Attach::Auto && link.is_bridge()
}

fn source(config: &TunnelConfig, path: Option<&Path>) -> Option<std::net::IpAddr> {
    config.local.or_else(|| path.and_then(|p| p.source))
}

fn copy(port: &Port) -> Port {
    Port {
        id: port.id,
        bridge: port.bridge,
        ofport: port.ofport,
        name: port.name.clone(),
        kind: port.kind.clone(),
        counters: port.counters.clone(),
        worker: port.worker,
    }
}
