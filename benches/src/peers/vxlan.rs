//! The kernel's VXLAN: what a user without a userspace switch would take.

use std::path::Path;

use anyhow::Result;

use super::{Peer, Running};
use crate::topo::Topology;

#[derive(Debug)]
pub struct Vxlan;

impl Peer for Vxlan {
    fn name(&self) -> &'static str {
        "vxlan"
    }

    fn about(&self) -> String {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("kernel VXLAN, Linux {}", release.trim())
    }

    fn container_mtu(&self) -> u16 {
        1450 // 1500 - IPv4 20 - UDP 8 - VXLAN 8 - Ethernet 14
    }

    fn join(&self, hosts: &Topology, _dir: &Path) -> Result<Running> {
        for (h, other) in hosts.pairs() {
            let (local, remote, mtu) = (h.underlay_ip, other.underlay_ip, self.container_mtu());
            let add = format!(
                "link add vx0 mtu {mtu} type vxlan id 42 dstport 4789 local {local} remote {remote} dev u0 noudpcsum"
            );
            h.ns.run("ip", &add.split(' ').collect::<Vec<_>>())?;
            h.enslave("vx0")?;
        }
        Ok(Running::default())
    }
}
