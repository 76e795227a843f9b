//! Takes away what shall not be, makes what shall be, and keeps devices as they shall be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath::fdb::Fdb;
use datapath::port::LocalPort;
use datapath::snapshot::{BridgeId, OfPort, Patch, Port, PortId, PortKind, StpState};

use super::Reconciler;
use super::actual::{Attachment, BridgeState, OFPORT_LOCAL, PortState, ofport};
use super::mirrors;
use super::publish::{self, Published};
use super::report::device;
use super::tunnels::Plan;
use super::wanted::{Attach, Wanted, WantedBridge, WantedPort, What};
use crate::devices::member::Member;
use crate::devices::netlink::{Link, Links};
use crate::devices::{mac_for, reason};

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
                bridge.bequeath(&port);
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
        for (fdb, id) in std::mem::take(&mut self.redirected) {
            fdb.flush_port(id);
            self.forget_port(id);
        }
        if self.leaving.is_empty() && self.leaving_bridges.is_empty() {
            return true;
        }
        for PortState { port, attachment, fdb, .. } in std::mem::take(&mut self.leaving) {
            fdb.flush_port(port.id);
            self.forget_port(port.id);
            self.port_ids.give_back(port.id.0);
            if let Attachment::Member(member) = attachment
                && let Err(e) = member.remove(&self.netlink).await
            {
                tracing::warn!("{}: cannot remove its member port: {}", port.name, reason(&e));
            }
            if let PortKind::Local(local) = &port.kind
                && self.keep_ports.is_some()
                && !self.leaves_ports
            {
                // One that is gone is not kept either
                let _ = local.keep_device(false);
            }
            // A TAP goes here, with the last reference to it
        }
        for id in std::mem::take(&mut self.leaving_bridges) {
            self.bridge_ids.give_back(id.0);
        }
        self.look_around().await;
        true
    }

    /// What was learned on a port, the addresses aside, does not hold any more.
    fn forget_port(&self, id: PortId) {
        let state = self.state.borrow();
        state.snooping.forget(id);
        state.loops.forget(id);
    }

    /// Publishes a snapshot if there is news, and waits until every worker goes by it. False: they did not in time.
    async fn publish(&mut self) -> bool {
        self.keep_underlays();
        self.keep_device_road();
        self.join_patches();
        if !self.dirty {
            return true;
        }
        loop {
            match publish::publish(&self.datapath, &self.state).await {
                Published::InForce => break,
                Published::Late => {
                    tracing::error!("the datapath has not taken up a change in time; will try again");
                    return false;
                }
                Published::EqualTunnels(second) => self.refuse(second),
            }
        }
        self.dirty = false;
        true
    }

    /// Makes what is missing and changes in place what can be changed so.
    pub(super) async fn make(&mut self, wanted: &Wanted, plan: &Plan) {
        let mut made = false;
        for (bridge_name, bridge) in &wanted.bridges {
            if !self.make_bridge(bridge_name, bridge) {
                continue;
            }
            let kept = bridge.ports.values().filter_map(|p| self.number_before(p)).collect();
            for (name, port) in &bridge.ports {
                match &port.what {
                    Err(error) => self.fail(bridge_name, name, error.clone()),
                    Ok(_) if self.has(bridge_name, name) => {
                        self.renumber(bridge_name, name, port, &bridge.ports);
                        self.follow_rules(bridge_name, name, port);
                    }
                    Ok(what) => match self.open(bridge_name, name, what, plan).await {
                        Ok(opened) => made |= self.insert(bridge_name, name, port, opened, &kept),
                        Err(error) => self.fail(bridge_name, name, error),
                    },
                }
            }
        }
        self.follow_tunnels(wanted, plan).await;
        self.follow_bonds(wanted);
        self.follow_watch(wanted);
        if made {
            self.look_around().await;
        }
    }

    fn make_bridge(&mut self, name: &str, wanted: &WantedBridge) -> bool {
        let mut state = self.state.borrow_mut();
        if let Some(bridge) = state.bridges.get_mut(name) {
            bridge.fdb.configure(wanted.max_entries, wanted.max_age);
            self.dirty |= bridge.forward_bpdu != wanted.forward_bpdu || bridge.rules != wanted.rules;
            bridge.forward_bpdu = wanted.forward_bpdu;
            bridge.rules.clone_from(&wanted.rules);
            self.dirty |= mirrors::follow(&mut bridge.mirrors, &wanted.mirrors);
            return true;
        }
        let Some(id) = self.bridge_ids.take() else {
            tracing::error!("bridge {name}: there are too many bridges");
            return false;
        };
        let fdb = Arc::new(Fdb::new(wanted.max_entries, wanted.max_age));
        let mut bridge = BridgeState::new(BridgeId(id), fdb, wanted.forward_bpdu);
        bridge.rules.clone_from(&wanted.rules);
        mirrors::follow(&mut bridge.mirrors, &wanted.mirrors);
        state.bridges.insert(name.to_owned(), bridge);
        self.dirty = true;
        true
    }

    /// Opens what a port is made of. The error is the text for the row.
    async fn open(
        &mut self,
        bridge: &str,
        name: &str,
        what: &What,
        plan: &Plan,
    ) -> Result<(PortKind, Attachment), String> {
        let failed = |e: std::io::Error| format!("could not open network device {name} ({})", reason(&e));
        match what {
            What::Internal { mac } => {
                let port = LocalPort::tap(name).map_err(failed)?;
                if self.keep_ports.is_some() {
                    port.keep_device(true).map_err(failed)?;
                }
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
            What::Tunnel(wanted) => {
                let policy = plan.policy(name, wanted)?;
                self.open_underlays(&wanted.config, policy).map_err(failed)?;
                let tunnel = self.tunnel(&wanted.config, policy).await;
                Ok((PortKind::Tunnel(Arc::new(tunnel)), Attachment::Tunnel))
            }
            What::Patch { peer } => {
                let patch = Patch { name: peer.clone(), peer: None };
                Ok((PortKind::Patch(Arc::new(patch)), Attachment::Patch))
            }
        }
    }

    /// The number an interface had when it last worked.
    fn number_before(&self, wanted: &WantedPort) -> Option<OfPort> {
        ofport(wanted.ofport).or_else(|| self.remembered.get(&wanted.row?).copied())
    }

    fn has(&self, bridge: &str, name: &str) -> bool {
        self.state.borrow().bridges.get(bridge).is_some_and(|b| b.ports.contains_key(name))
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
        let worker = self.next_worker;
        // tunnels receive by sockets of their own, and a bridge's own device has little to say
        if matches!(kind, PortKind::Local(_)) && ofport != OFPORT_LOCAL {
            self.next_worker = worker.wrapping_add(1);
        }
        let stp = match wanted.bond {
            Some(_) => StpState::Backup,
            None => self.spanning.first_state(bridge_name, name),
        };
        let port = Port { worker, stp, ..Port::new(PortId(id), bridge.id, ofport, name, kind) };
        let port = wanted.rules.on(port);
        tracing::info!("bridge {bridge_name}: added interface {name} on port {ofport}");
        bridge.failed.remove(name);
        let fdb = bridge.fdb.clone();
        let carrier_changes = device(&attachment, &self.links).map_or(0, |link| link.carrier_changes);
        let bond = wanted.bond.clone();
        let state = PortState { bond, carrier_changes, ..PortState::new(Arc::new(port), attachment, fdb) };
        bridge.ports.insert(name.to_owned(), state);
        self.dirty = true;
        true
    }

    /// Follows a change of `ofport_request` if that number is free; or if who has it asks for another, and can have ours.
    fn renumber(
        &mut self,
        bridge_name: &str,
        name: &str,
        wanted: &WantedPort,
        all: &BTreeMap<String, WantedPort>,
    ) {
        let Some(asked) = ofport(wanted.ofport_request) else { return };
        let (standing, holder) = {
            let state = self.state.borrow();
            let Some(bridge) = state.bridges.get(bridge_name) else { return };
            let holder = bridge.ports.iter().find(|(_, port)| port.port.ofport == asked);
            (bridge.ports.get(name).map(|p| p.port.ofport), holder.map(|(name, _)| name.clone()))
        };
        let Some(standing) = standing.filter(|n| *n != asked && *n != OFPORT_LOCAL) else { return };
        if let Some(holder) = holder {
            let leaves = |port: &&WantedPort| ofport(port.ofport_request).is_some_and(|n| n != asked);
            let Some(port) = all.get(&holder).filter(leaves) else { return };
            self.give_number(bridge_name, &holder, port, standing);
        }
        self.give_number(bridge_name, name, wanted, asked);
    }

    fn give_number(&mut self, bridge: &str, name: &str, wanted: &WantedPort, number: OfPort) {
        self.replace(bridge, name, |port| Port { ofport: number, ..port.clone() });
        self.remembered.extend(wanted.row.map(|row| (row, number)));
    }

    /// Follows a change of what may pass. Addresses learned at a port may be in other VLANs once its own have changed.
    fn follow_rules(&mut self, bridge_name: &str, name: &str, wanted: &WantedPort) {
        let standing = {
            let state = self.state.borrow();
            let port = state.bridges.get(bridge_name).and_then(|bridge| bridge.ports.get(name));
            port.map(|state| (state.fdb.clone(), state.port.clone()))
        };
        if let Some((fdb, port)) = standing.filter(|(_, port)| !wanted.rules.hold(port)) {
            self.replace(bridge_name, name, |port| wanted.rules.on(port.clone()));
            if port.vlan != wanted.rules.vlan {
                self.redirected.push((fdb, port.id));
            }
        }
    }

    pub(super) fn replace(&mut self, bridge: &str, name: &str, new: impl FnOnce(&Port) -> Port) {
        let mut state = self.state.borrow_mut();
        if let Some(port) = state.bridges.get_mut(bridge).and_then(|b| b.ports.get_mut(name)) {
            port.port = Arc::new(new(&port.port));
            self.dirty = true;
        }
    }

    /// Notes why an interface does not work. A port that stood leaves.
    pub(super) fn fail(&mut self, bridge_name: &str, name: &str, error: String) {
        let mut state = self.state.borrow_mut();
        let Some(bridge) = state.bridges.get_mut(bridge_name) else { return };
        bridge.bequeath(name);
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

/// Whether a port still is what it shall be, as far as it cannot be changed in place.
fn holds(name: &str, state: &PortState, what: &What, links: &Links) -> bool {
    if matches!(&state.port.kind, PortKind::Local(local) if local.is_gone()) {
        return false;
    }
    let link = || links.by_name(name);
    match (what, &state.attachment) {
        (What::Tunnel(_), Attachment::Tunnel) => true,
        (What::Patch { peer }, Attachment::Patch) => {
            matches!(&state.port.kind, PortKind::Patch(patch) if patch.name == *peer)
        }
        (What::Internal { .. }, Attachment::Tap { ifindex, .. }) => {
            link().is_some_and(|l| l.index == *ifindex)
        }
        (What::System { attach, .. }, attachment) => link().is_some_and(|link| match attachment {
            Attachment::Direct { ifindex } => *ifindex == link.index && !through_member(*attach, link),
            Attachment::Member(member) => {
                member.bridge == link.index
                    && through_member(*attach, link)
                    && links.by_index(member.near).is_some()
            }
            Attachment::Tap { .. } | Attachment::Tunnel | Attachment::Patch => false,
        }),
        _ => false,
    }
}

fn through_member(attach: Attach, link: &Link) -> bool {
    attach == Attach::Auto && link.is_bridge()
}
