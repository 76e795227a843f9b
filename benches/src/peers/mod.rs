//! What the hosts' bridges are joined by, one peer a file. To add one: write `peers/NAME.rs`, and name it in [`all`].

mod fastd;
mod none;
mod openvpn;
mod ovs_gre;
mod strongswan;
mod tinc;
pub mod underpass;
mod vxlan;
mod wireguard_go;

use std::path::Path;

use anyhow::Result;

use self::ovs_gre::{Io, OvsGre};
use self::underpass::{ROADS, Underpass};
use crate::process::Job;
use crate::topo::Topology;

/// The peer that ratios are taken to.
pub const REFERENCE: &str = "vxlan";

/// Underpass with plain GRE; the names of its other kinds begin so.
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

/// Every peer, in the table's order: those in the clear, then the encrypted. `underpass` is the binary to measure, with as
/// many worker threads as `workers` says.
pub fn all(underpass: &Path, workers: Option<u8>) -> Vec<Box<dyn Peer>> {
    let own = |protected: bool| {
        let roads = ROADS.iter().filter(move |road| road.is_protected() == protected);
        roads.map(move |road| {
            Box::new(Underpass { binary: underpass.to_owned(), road, workers }) as Box<dyn Peer>
        })
    };
    let mut all: Vec<Box<dyn Peer>> = vec![
        Box::new(none::None),
        Box::new(vxlan::Vxlan),
        Box::new(OvsGre { io: Io::Packet }),
        Box::new(OvsGre { io: Io::AfXdp }),
    ];
    all.extend(own(false));
    all.push(Box::new(fastd::Fastd));
    all.push(Box::new(openvpn::OpenVpn));
    all.push(Box::new(tinc::Tinc));
    all.push(Box::new(wireguard_go::WireguardGo));
    all.push(Box::new(strongswan::StrongSwan));
    all.extend(own(true));
    all
}
