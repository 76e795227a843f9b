//! WireGuard in user space, and kernel VXLAN over it, for it carries no Ethernet.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running, vxlan};
use crate::leftovers;
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

const PORT: &str = "51820";
/// 1500 - IPv4 20 - UDP 8 - WireGuard 32.
const TUNNEL_MTU: &str = "1440";

#[derive(Debug)]
pub struct WireguardGo;

impl Peer for WireguardGo {
    fn name(&self) -> &'static str {
        "wireguard-go"
    }

    fn about(&self) -> String {
        let version = process::output("wireguard-go", &["--version"]).unwrap_or_default();
        let version = version.lines().next().unwrap_or_default().to_owned();
        format!("{version}, ChaCha20-Poly1305, kernel VXLAN over it")
    }

    fn container_mtu(&self) -> u16 {
        1390 // TUNNEL_MTU - VXLAN and its headers 50
    }

    fn missing(&self) -> Option<String> {
        let there = ["wireguard-go", "wg"].iter().all(|p| process::find(p).is_some());
        (!there).then(|| "apt-get install wireguard-go wireguard-tools".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let mut running = Running::default();
        let mut publics = Vec::new();
        for host in hosts.hosts() {
            let key = process::output("wg", &["genkey"])?;
            let file = dir.join(format!("{}.key", host.letter));
            fs::write(&file, &key).with_context(|| format!("write {}", file.display()))?;
            let public = process::output("sh", &["-c", "wg pubkey <\"$0\"", &file.to_string_lossy()])?;
            publics.push(public.trim().to_owned());

            let device = device(host);
            let mut command = Command::new("wireguard-go");
            command.args(["-f", &device]).env("LOG_LEVEL", "error").env("WG_PROCESS_FOREGROUND", "1");
            let log = dir.join(format!("{}.log", host.letter));
            let mut job = host.ns.enter(|| Job::start(&mut command, &log))?;
            let socket = format!("/var/run/wireguard/{device}.sock");
            job.wait_until("its socket", || host.has(&device) && Path::new(&socket).exists())?;
            running.switches.push(job);
        }
        for ((host, other), public) in hosts.pairs().into_iter().zip(publics.iter().rev()) {
            let device = device(host);
            let key = dir.join(format!("{}.key", host.letter)).to_string_lossy().into_owned();
            let endpoint = format!("{}:{PORT}", other.underlay_ip);
            let set = ["set", &device, "private-key", &key, "listen-port", PORT, "peer", public];
            let peer = ["allowed-ips", "10.99.0.0/24", "endpoint", &endpoint];
            host.ns.run("wg", &[&set[..], &peer].concat())?;
            host.ns.run("ip", &["addr", "add", &format!("{}/24", inside(host)), "dev", &device])?;
            host.ns.run("ip", &["link", "set", &device, "mtu", TUNNEL_MTU, "up"])?;
        }
        for (host, other) in hosts.pairs() {
            vxlan::add(host, inside(host), inside(other), &device(host), self.container_mtu())?;
        }
        Ok(running)
    }
}

/// Its control sockets have one directory for all namespaces, hence a name of this run. At most 15 characters.
fn device(host: &Host) -> String {
    let run = leftovers::name("");
    format!("wg{}{}", host.letter, run.trim_matches(|c: char| !c.is_ascii_digit()))
}

fn inside(host: &Host) -> &'static str {
    if host.letter == "A" { "10.99.0.1" } else { "10.99.0.2" }
}
