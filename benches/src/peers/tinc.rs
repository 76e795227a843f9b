//! tinc in switch mode: its own protocol in user space on a TAP, AES-128-CBC and HMAC-SHA1 cut to 32 bits, as it knows no AEAD.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Peer, Running};
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

const DEVICE: &str = "tc0";

#[derive(Debug)]
pub struct Tinc;

impl Peer for Tinc {
    fn name(&self) -> &'static str {
        "tinc"
    }

    fn about(&self) -> String {
        let version = process::output("tincd", &["--version"]).unwrap_or_default();
        let version = version.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        format!("{version}, switch mode, TAP, AES-128-CBC + SHA1 of 32 bits")
    }

    fn container_mtu(&self) -> u16 {
        1400
    }

    fn missing(&self) -> Option<String> {
        process::find("tincd").is_none().then(|| "apt-get install tinc".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        for (host, other) in hosts.pairs() {
            configure(host, other, &directory(dir, host))?;
        }
        for (host, other) in hosts.pairs() {
            let (from, name) = (directory(dir, other), file_name(other));
            let (from, to) = (from.join("hosts").join(&name), directory(dir, host).join("hosts").join(&name));
            fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
        let mut running = Running::default();
        for host in hosts.hosts() {
            let mut command = Command::new("tincd");
            command.arg("-D").arg("-c").arg(directory(dir, host));
            command.arg(format!("--pidfile={}", dir.join(format!("{}.pid", host.letter)).display()));
            let log = dir.join(format!("{}.log", host.letter));
            let mut job = host.ns.enter(|| Job::start(&mut command, &log))?;
            job.wait_until("its device", || host.has(DEVICE))?;
            host.ns.run("ip", &["link", "set", DEVICE, "mtu", &self.container_mtu().to_string()])?;
            host.enslave(DEVICE)?;
            running.switches.push(job);
        }
        sleep(Duration::from_secs(6)); // until it has found the path's MTU, it sends by TCP
        Ok(running)
    }
}

fn directory(dir: &Path, host: &Host) -> PathBuf {
    dir.join(format!("tinc{}", host.letter))
}

fn file_name(host: &Host) -> String {
    format!("host{}", host.letter)
}

/// Writes the host's configuration, and makes its key, whose public half goes into the host's file.
fn configure(host: &Host, other: &Host, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("hosts"))?;
    let (name, here) = (file_name(host), host.underlay_ip);
    let config = format!(
        "Name = {name}\nMode = switch\nDeviceType = tap\nInterface = {DEVICE}\nAddressFamily = ipv4\n\
         BindToAddress = {here} 655\nConnectTo = {}\n",
        file_name(other)
    );
    fs::write(dir.join("tinc.conf"), config)?;
    let own = format!(
        "Address = {here} 655\nCipher = aes-128-cbc\nDigest = sha1\nMACLength = 4\nCompression = 0\n\
         PMTUDiscovery = yes\n"
    );
    fs::write(dir.join("hosts").join(&name), own)?;
    process::run("tincd", &["-c", &dir.to_string_lossy(), "-K", "2048"])
}
