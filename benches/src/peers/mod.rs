//! What the hosts' bridges are joined by, one peer a file. To add one: write `peers/NAME.rs`, and name it in [`all`].

mod fastd;
mod none;
mod openvpn;
mod ovs_gre;
mod underpass;
mod vxlan;

use std::path::{Path, PathBuf};

use anyhow::Result;

use self::underpass::Road;
use crate::process::Job;
use crate::topo::Topology;

/// The peer that ratios are taken to.
pub const REFERENCE: &str = "vxlan";

/// Underpass without ESP; the names of its protected kinds begin so.
pub const PLAIN: &str = "underpass";

/// A way to join two hosts' docker0 bridges.
pub trait Peer: std::fmt::Debug {
    /// How `--peers` names it.
    fn name(&self) -> &'static str;

    /// One line about it for the table, with its version.
    fn about(&self) -> String;

    /// MTU that containers must have behind it.
    fn container_mtu(&self) -> u16;

    /// What is not installed, and how to install it. None: it can run.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Joins the bridges; `dir` is an empty directory for its files, removed afterwards.
    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running>;
}

/// The processes of a peer that runs.
#[derive(Debug, Default)]
pub struct Running {
    /// Those that frames pass through, whose CPU time is counted.
    pub switches: Vec<Job>,
    /// The others (a database server).
    pub helpers: Vec<Job>,
}

/// Every peer, in the table's order: those in the clear, then the encrypted. `underpass` is the binary to measure.
pub fn all(underpass: PathBuf) -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(none::None),
        Box::new(vxlan::Vxlan),
        Box::new(ovs_gre::OvsGre),
        Box::new(underpass::Underpass { binary: underpass.clone(), road: Road::Gre }),
        Box::new(underpass::Underpass { binary: underpass.clone(), road: Road::GreUdp }),
        Box::new(fastd::Fastd),
        Box::new(openvpn::OpenVpn),
        Box::new(underpass::Underpass { binary: underpass.clone(), road: Road::Esp }),
        Box::new(underpass::Underpass { binary: underpass, road: Road::Udp }),
    ]
}
