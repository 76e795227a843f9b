//! Two "Docker hosts" out of network namespaces:
//!
//! ```text
//! cA eth0 -- vc0 [docker0  hA  u0] ---- underlay, MTU 1500 ---- [u0  hB  docker0] vc0 -- eth0 cB
//! ```
//!
//! The underlay behaves like a plain NIC: no segmentation offload on send, so every frame that crosses is at most 1514
//! bytes, and software GRO on receive. The containers keep their offloads, as Docker's veths do.

use anyhow::{Context, Result};

use crate::leftovers;
use crate::netns::Netns;
use crate::process::{self, run};

/// MTU of the underlay.
pub const UNDERLAY_MTU: u16 = 1500;

/// One host and the container on it.
#[derive(Debug)]
pub struct Host {
    /// "A" or "B".
    pub letter: &'static str,
    /// Where docker0, the underlay device u0 and the peer's switch are.
    pub ns: Netns,
    /// Where eth0 is.
    pub container: Netns,
    /// Its address on the underlay.
    pub underlay_ip: &'static str,
    /// The container's address.
    pub container_ip: &'static str,
    docker0_ip: &'static str,
}

/// Both hosts. Dropping it removes everything.
#[derive(Debug)]
pub struct Topology {
    /// Host A, where clients are.
    pub a: Host,
    /// Host B, where servers are.
    pub b: Host,
}

impl Host {
    fn new(
        letter: &'static str,
        underlay_ip: &'static str,
        docker0_ip: &'static str,
        container_ip: &'static str,
    ) -> Result<Host> {
        let ns = Netns::add(leftovers::name(&format!("h{letter}")))?;
        let container = Netns::add(leftovers::name(&format!("c{letter}")))?;
        Ok(Host { letter, ns, container, underlay_ip, container_ip, docker0_ip })
    }

    /// docker0 with one container, all with that MTU.
    fn add_docker0(&self, mtu: u16) -> Result<()> {
        let mtu = mtu.to_string();
        let ip = |args: &str| self.ns.run("ip", &args.split(' ').collect::<Vec<_>>());
        ip(&format!("link add docker0 mtu {mtu} type bridge forward_delay 0 stp_state 0"))?;
        ip(&format!("addr add {}/16 dev docker0", self.docker0_ip))?;
        let peer = self.container.name();
        ip(&format!("link add vc0 mtu {mtu} type veth peer name eth0 netns {peer} mtu {mtu}"))?;
        ip("link set vc0 master docker0")?;
        ip("link set vc0 up")?;
        ip("link set docker0 up")?;
        self.container.run("ip", &["addr", "add", &format!("{}/16", self.container_ip), "dev", "eth0"])?;
        self.container.run("ip", &["link", "set", "eth0", "up"])
    }

    /// Puts `dev` into docker0.
    pub fn enslave(&self, dev: &str) -> Result<()> {
        self.ns.run("ip", &["link", "set", dev, "master", "docker0"])?;
        self.ns.run("ip", &["link", "set", dev, "up"])
    }

    /// Whether a device of that name is there.
    pub fn has(&self, dev: &str) -> bool {
        self.ns.run("ip", &["link", "show", "dev", dev]).is_ok()
    }

    /// Turns segmentation off on `dev`, as on a NIC without it, and GRO on.
    pub fn plain_nic(&self, dev: &str) -> Result<()> {
        let off = "tso off tx-udp-segmentation off tx-gre-segmentation off tx-gre-csum-segmentation off \
                   tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off tx-ipxip4-segmentation off \
                   tx-gso-list off gro on";
        self.ethtool(dev, off)
    }

    /// Turns every offload off on `dev`, for peers that only take plain frames with finished checksums.
    pub fn no_offload(&self, dev: &str) -> Result<()> {
        self.ethtool(dev, "tx off tso off gso off gro off")
    }

    /// The address of `dev`.
    pub fn mac(&self, dev: &str) -> Result<String> {
        let json = self.ns.enter(|| process::output("ip", &["-j", "link", "show", dev]))?;
        let links: serde_json::Value = serde_json::from_str(&json)?;
        let mac = links.pointer("/0/address").and_then(|a| a.as_str());
        mac.map(str::to_owned).with_context(|| format!("{dev} has no address"))
    }

    fn ethtool(&self, dev: &str, settings: &str) -> Result<()> {
        let mut args = vec!["-K", dev];
        args.extend(settings.split_whitespace());
        self.ns.run("ethtool", &args)
    }
}

impl Topology {
    /// Builds both hosts with containers, their veths and docker0 at `mtu`; nothing joins the bridges yet.
    pub fn new(mtu: u16) -> Result<Topology> {
        let t = Topology {
            a: Host::new("A", "192.168.77.1", "10.0.11.1", "10.0.11.2")?,
            b: Host::new("B", "192.168.77.2", "10.0.42.1", "10.0.42.2")?,
        };
        t.join_by_veth("u0", UNDERLAY_MTU)?;
        for h in t.hosts() {
            h.ns.run("ip", &["addr", "add", &format!("{}/24", h.underlay_ip), "dev", "u0"])?;
            h.add_docker0(mtu)?;
        }
        Ok(t)
    }

    /// A cable between the hosts: a veth pair with the same name at both ends, behaving like plain NICs.
    pub fn join_by_veth(&self, dev: &str, mtu: u16) -> Result<()> {
        let (a, b) = (self.a.ns.name(), self.b.ns.name());
        let command =
            format!("link add {dev} mtu {mtu} netns {a} type veth peer name {dev} netns {b} mtu {mtu}");
        run("ip", &command.split(' ').collect::<Vec<_>>())?;
        for h in self.hosts() {
            h.plain_nic(dev)?;
            h.ns.run("ip", &["link", "set", dev, "up"])?;
        }
        Ok(())
    }

    /// A, then B.
    pub fn hosts(&self) -> [&Host; 2] {
        [&self.a, &self.b]
    }

    /// A host and the other one, both ways round.
    pub fn pairs(&self) -> [(&Host, &Host); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }
}
