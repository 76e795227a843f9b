//! The kernel's VXLAN: what a user without a userspace switch would take.

use std::path::Path;

use anyhow::Result;

use super::{Peer, Running};
use crate::topo::{Host, Topology};

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
            add(h, h.underlay_ip, other.underlay_ip, "u0", self.container_mtu())?;
        }
        Ok(Running::default())
    }
}

/// A VXLAN device from `local` to `remote` over `dev`, in docker0.
pub fn add(host: &Host, local: &str, remote: &str, dev: &str, mtu: u16) -> Result<()> {
    let add = format!(
        "link add vx0 mtu {mtu} type vxlan id 42 dstport 4789 local {local} remote {remote} dev {dev} noudpcsum"
    );
    host.ns.run("ip", &add.split(' ').collect::<Vec<_>>())?;
    host.enslave("vx0")
}
