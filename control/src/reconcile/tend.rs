//! Devices that are there, kept as they shall be: members joined, MTUs and addresses right.

use std::io;
use std::sync::Arc;

use datapath::port::LocalPort;
use datapath::snapshot::PortKind;

use super::Reconciler;
use super::actual::Attachment;
use super::wanted::{Wanted, WantedPort, What};
use crate::devices::member::Member;
use crate::devices::{mac_for, mac_text, reason};

/// MTU of an internal port in a bridge without devices of the host.
const DEFAULT_MTU: u32 = 1500;

impl Reconciler {
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
            Attachment::Tap { .. } | Attachment::Tunnel | Attachment::Patch => None,
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
        let actual = state.bridges.get_mut(bridge)?;
        let own = (name == bridge).then(|| {
            let inherited = self.inherited_mac(actual);
            inherited.unwrap_or_else(|| mac_for(&[&self.identity, bridge, name]))
        });
        let port = actual.ports.get_mut(name)?;
        let PortKind::Local(local) = &port.port.kind else { return None };
        let plan = match &mut port.attachment {
            Attachment::Tunnel | Attachment::Patch => return None,
            Attachment::Direct { ifindex } => {
                Plan { link: *ifindex, mtu: wanted.mtu_request, ..Plan::default() }
            }
            Attachment::Member(member) => {
                let mtu = wanted.mtu_request;
                Plan { link: member.bridge, mtu, member: Some(member.clone()), ..Plan::default() }
            }
            Attachment::Tap { ifindex, mac: mac_before, mtu: mtu_before } => {
                let Ok(What::Internal { mac }) = wanted.what else { return None };
                let mtu = wanted.mtu_request.unwrap_or(mtu);
                // Only news is acted on, so that what an operator sets by hand stands
                let mac = mac.or(own).filter(|mac| mac_before.replace(*mac) != Some(*mac));
                let mtu = Some(mtu).filter(|mtu| mtu_before.replace(*mtu) != Some(*mtu));
                Plan { link: *ifindex, mac, mtu, member: None }
            }
        };
        Some((local.clone(), plan))
    }

    async fn carry_out(&self, local: &LocalPort, plan: &Plan) -> io::Result<bool> {
        let Some(link) = self.links.by_index(plan.link) else { return Ok(false) };
        let mtu = plan.mtu.filter(|mtu| *mtu != link.mtu);
        let mac = plan.mac.filter(|mac| *mac != link.mac);
        let mut acted = mtu.is_some() || mac.is_some();
        match &plan.member {
            Some(member) => acted |= member.tend(&self.netlink, &self.links, local).await?,
            None => local.set_mtu(mtu.unwrap_or(link.mtu)),
        }
        if let Some(mac) = mac {
            let set = self.netlink.set_mac(link.index, mac).await;
            set.map_err(|e| {
                io::Error::other(format!("cannot set its address to {}: {}", mac_text(mac), reason(&e)))
            })?;
        }
        if let Some(mtu) = mtu {
            let set = self.netlink.set_mtu(link.index, mtu).await;
            set.map_err(|e| io::Error::other(format!("cannot set its MTU to {mtu} bytes: {}", reason(&e))))?;
        }
        Ok(acted)
    }
}

/// What to do with a device, or with the bridge that a member joins.
#[derive(Debug, Default)]
struct Plan {
    link: u32,
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    member: Option<Member>,
}
