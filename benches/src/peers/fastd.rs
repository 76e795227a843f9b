//! fastd: an encrypted Ethernet tunnel in user space on a TAP. The cipher is the one of its own that gains from the CPU's AES
//! instructions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running};
use crate::process::{self, Job};
use crate::topo::Topology;

const DEVICE: &str = "fd0";
const PORT: u16 = 10_000;

#[derive(Debug)]
pub struct Fastd;

impl Peer for Fastd {
    fn name(&self) -> &'static str {
        "fastd"
    }

    fn about(&self) -> String {
        let version = process::output("fastd", &["--version"]).unwrap_or_default();
        format!("{}, TAP, aes128-ctr+umac", version.trim())
    }

    fn container_mtu(&self) -> u16 {
        1434 // 1500 - IPv4 20 - UDP 8 - fastd 24 - Ethernet 14
    }

    fn missing(&self) -> Option<String> {
        process::find("fastd").is_none().then(|| "apt-get install fastd".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let mut running = Running::default();
        let keys = [Key::generate()?, Key::generate()?];
        let others = keys.iter().rev();
        for (((host, other), own), their) in hosts.pairs().into_iter().zip(&keys).zip(others) {
            let file = dir.join(format!("{}.conf", host.letter));
            let config = format!(
                "mode tap; interface \"{DEVICE}\"; mtu {mtu}; log level warn;\n\
                 method \"aes128-ctr+umac\"; cipher \"aes128-ctr\" use \"openssl\";\n\
                 bind {here}:{PORT}; secret \"{secret}\";\n\
                 peer \"other\" {{ key \"{public}\"; remote {there}:{PORT}; }}\n",
                mtu = self.container_mtu(),
                here = host.underlay_ip,
                secret = own.secret,
                public = their.public,
                there = other.underlay_ip,
            );
            fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
            let mut command = Command::new("fastd");
            command.arg("--config").arg(&file);
            let log = dir.join(format!("{}.log", host.letter));
            let mut job = host.ns.enter(|| Job::start(&mut command, &log))?;
            job.wait_until("its device", || host.has(DEVICE))?;
            host.enslave(DEVICE)?;
            running.switches.push(job);
        }
        Ok(running)
    }
}

struct Key {
    secret: String,
    public: String,
}

impl Key {
    /// fastd prints both, one a line.
    fn generate() -> Result<Key> {
        let printed = process::output("fastd", &["--generate-key"])?;
        let value = |name: &str| {
            let line = printed.lines().find_map(|l| l.strip_prefix(name)?.trim().strip_prefix(':'));
            line.map(|v| v.trim().to_owned()).with_context(|| format!("fastd printed no {name}: {printed}"))
        };
        Ok(Key { secret: value("Secret")?, public: value("Public")? })
    }
}
