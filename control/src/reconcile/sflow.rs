//! Which bridges are sampled, and what their agents go by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::snapshot::PortKind;

use super::Reconciler;
use super::actual::PortState;
use super::report::datapath_id;
use super::wanted::{Wanted, WantedBridge};
use crate::sflow::Asked;
use crate::sflow::wish::{AgentName, Wish};

impl Reconciler {
    /// Has agents where the rows want them.
    pub(super) async fn follow_sflow(&mut self, wanted: &Wanted) {
        let (mut asked, mut complaints) = (Vec::new(), BTreeSet::new());
        for (name, bridge) in &wanted.bridges {
            if let Some(wish) = &bridge.sflow {
                asked.extend(self.asked(name, bridge, wish, &mut complaints).await);
            }
        }
        for complaint in complaints.difference(&self.complaints) {
            tracing::warn!("{complaint}");
        }
        self.complaints = complaints;
        let sflow = self.state.borrow().sflow.clone();
        self.dirty |= sflow.follow(asked, &self.links, &mut self.state.borrow_mut());
    }

    /// None: nothing to go by, and so no agent.
    async fn asked(
        &mut self,
        name: &str,
        bridge: &WantedBridge,
        wish: &Wish,
        complaints: &mut BTreeSet<String>,
    ) -> Option<Asked> {
        let address = match &wish.agent {
            AgentName::Address(address) => Some(*address),
            AgentName::Device(device) => {
                let found = self.address_of(device).await;
                if found.is_none() {
                    complaints.insert(format!("bridge {name}: sFlow agent device {device} has no address"));
                }
                match found {
                    Some(address) => Some(address),
                    None => self.source(wish).await,
                }
            }
            AgentName::Route => self.source(wish).await,
        };
        let Some(address) = address else {
            complaints.insert(format!("bridge {name}: no address for the agent to go by, sFlow disabled"));
            return None;
        };
        let state = self.state.clone();
        let tunnels: Vec<_> = {
            let state = state.borrow();
            let ports = state.bridges.get(name).into_iter().flat_map(|bridge| &bridge.ports);
            let tunnel = |(name, port): (&String, &PortState)| match &port.port.kind {
                PortKind::Tunnel(tunnel) => Some((name.clone(), tunnel.config.remote, tunnel.config.local)),
                PortKind::Local(_) | PortKind::Patch(_) => None,
            };
            ports.filter_map(tunnel).collect()
        };
        let mut sources = BTreeMap::new();
        for (tunnel, remote, local) in tunnels {
            let path = self.paths.look_up(remote, local, &self.links).await;
            if let Some(IpAddr::V4(source)) = local.or(path.ok().and_then(|path| path.source)) {
                sources.insert(tunnel, source);
            }
        }
        let id = datapath_id(name, bridge, state.borrow().bridges.get(name), &self.links);
        let datapath_id = u64::from_str_radix(&id, 16).unwrap_or(0);
        Some(Asked { bridge: name.to_owned(), wish: wish.clone(), address, datapath_id, sources })
    }

    /// The address of a device: over IPv4 if it has one, and none that holds on its link alone if it has another.
    async fn address_of(&self, device: &str) -> Option<IpAddr> {
        let index = self.links.by_name(device)?.index;
        let addresses = self.netlink.addresses(index).await.ok()?;
        let worth = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => 0,
            IpAddr::V6(ip) => 1 + u8::from(ip.is_unicast_link_local()),
        };
        addresses.iter().map(|address| address.ip).min_by_key(worth)
    }

    /// Where packets to the first collector leave from.
    async fn source(&mut self, wish: &Wish) -> Option<IpAddr> {
        let target = wish.targets.first()?.ip();
        self.paths.look_up(target, None, &self.links).await.ok()?.source
    }
}
