//! strongSwan with kernel-libipsec, the other ESP in user space: always in UDP, keyed by IKEv2, and kernel VXLAN over it, for it
//! carries no Ethernet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running, vxlan};
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

const CHARON: &str = "charon-systemd";
const LIBIPSEC: &str = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so";
/// What the MTU of 1500 leaves of a packet in ESP in UDP, with some to spare.
const TUNNEL_MTU: &str = "1400";

#[derive(Debug)]
pub struct StrongSwan;

impl Peer for StrongSwan {
    fn name(&self) -> &'static str {
        "strongswan"
    }

    fn about(&self) -> String {
        // its daemon takes no options: it would just run
        let help = process::output("swanctl", &["--help"]).unwrap_or_default();
        let version = help.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        format!("{version} kernel-libipsec (ESP in UDP), AES-128-GCM, kernel VXLAN over it")
    }

    fn container_mtu(&self) -> u16 {
        1350 // TUNNEL_MTU - VXLAN and its headers 50
    }

    fn missing(&self) -> Option<String> {
        let there =
            ["swanctl", CHARON].iter().all(|p| process::find(p).is_some()) && Path::new(LIBIPSEC).exists();
        (!there).then(|| "apt-get install charon-systemd strongswan-swanctl libcharon-extra-plugins".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let mut running = Running::default();
        let mut charons = Vec::new();
        for (host, other) in hosts.pairs() {
            host.ns.run("ip", &["addr", "add", &format!("{}/32", inside(host)), "dev", "lo"])?;
            let charon = Charon::start(host, other, &dir.join(host.letter), &mut running)?;
            charon.swanctl(&["--load-all", "--file", &charon.file("swanctl.conf")])?;
            charons.push(charon);
        }
        if let Some(charon) = charons.first() {
            charon.swanctl(&["--initiate", "--child", "child", "--timeout", "10"])?;
        }
        for (host, other) in hosts.pairs() {
            host.ns.run("ip", &["link", "set", "ipsec0", "mtu", TUNNEL_MTU])?;
            vxlan::add(host, inside(host), inside(other), "ipsec0", self.container_mtu())?;
        }
        Ok(running)
    }
}

fn inside(host: &Host) -> &'static str {
    if host.letter == "A" { "10.99.0.1" } else { "10.99.0.2" }
}

/// One host's daemon and its files.
struct Charon {
    dir: PathBuf,
}

impl Charon {
    fn start(host: &Host, other: &Host, dir: &Path, running: &mut Running) -> Result<Charon> {
        let charon = Charon { dir: dir.to_owned() };
        fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
        let (conf, socket) = (charon.file("strongswan.conf"), charon.file("vici.sock"));
        fs::write(&conf, daemon(&socket))?;
        fs::write(charon.file("swanctl.conf"), connection(host, other))?;
        let mut command = Command::new(CHARON);
        command.env("STRONGSWAN_CONF", &conf);
        let mut job = host.ns.enter(|| Job::start(&mut command, &dir.join("charon.log")))?;
        job.wait_until("its socket", || Path::new(&socket).exists())?;
        running.switches.push(job);
        Ok(charon)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn swanctl(&self, args: &[&str]) -> Result<()> {
        let uri = format!("unix://{}", self.file("vici.sock"));
        let conf = format!("STRONGSWAN_CONF={}", self.file("strongswan.conf"));
        process::run("env", &[&[conf.as_str(), "swanctl"], args, &["--uri", &uri]].concat())
    }
}

fn daemon(socket: &str) -> String {
    format!(
        "charon {{
           load = random nonce openssl pem pkcs1 pubkey x509 kdf hmac aes sha1 sha2 gcm kernel-libipsec kernel-netlink \
                  socket-default vici updown
           plugins {{ vici {{ socket = unix://{socket} }} }}
           filelog {{ stderr {{ default = 1 }} }}
         }}\n"
    )
}

fn connection(host: &Host, other: &Host) -> String {
    format!(
        "connections {{ bench {{
           version = 2
           local_addrs = {here}
           remote_addrs = {there}
           encap = yes
           proposals = aes128gcm16-prfsha256-ecp256
           local {{ auth = psk\n id = {letter}@bench\n }}
           remote {{ auth = psk\n id = {other_letter}@bench\n }}
           children {{ child {{
             local_ts = {inside}/32
             remote_ts = {other_inside}/32
             esp_proposals = aes128gcm16
             mode = tunnel
           }} }}
         }} }}
         secrets {{ ike-bench {{ id-a = A@bench\n id-b = B@bench\n secret = benchmark\n }} }}\n",
        here = host.underlay_ip,
        there = other.underlay_ip,
        letter = host.letter,
        other_letter = other.letter,
        inside = inside(host),
        other_inside = inside(other),
    )
}
