//! OpenVPN: TLS keys, AES-GCM in user space on a TAP. The hosts know each other by the fingerprints of their certificates.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running};
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

const DEVICE: &str = "ov0";

#[derive(Debug)]
pub struct OpenVpn;

impl Peer for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn about(&self) -> String {
        let version = process::output("openvpn", &["--version"]).unwrap_or_default();
        let version = version.split(' ').take(2).collect::<Vec<_>>().join(" ");
        format!("{version}, TAP, AES-256-GCM")
    }

    fn container_mtu(&self) -> u16 {
        1434 // 1500 - IPv4 20 - UDP 8 - OpenVPN 24 - Ethernet 14
    }

    fn missing(&self) -> Option<String> {
        let there = ["openvpn", "openssl"].iter().all(|p| process::find(p).is_some());
        (!there).then(|| "apt-get install openvpn openssl".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let fingerprints = [certificate(&hosts.a, dir)?, certificate(&hosts.b, dir)?];
        let mut running = Running::default();
        for ((host, other), theirs) in hosts.pairs().into_iter().zip(fingerprints.iter().rev()) {
            let file = |extension: &str| dir.join(format!("{}.{extension}", host.letter));
            let mut command = Command::new("openvpn");
            let mtu = self.container_mtu().to_string();
            command.args(["--dev", DEVICE, "--dev-type", "tap", "--proto", "udp4", "--tun-mtu", &mtu]);
            command.args(["--mssfix", "0", "--data-ciphers", "AES-256-GCM", "--disable-dco", "--fast-io"]);
            // as much room as the others make for themselves
            command.args(["--sndbuf", "1000000", "--rcvbuf", "1000000", "--txqueuelen", "1000"]);
            command.args(["--local", host.underlay_ip, "--remote", other.underlay_ip]);
            command.args(["--peer-fingerprint", theirs]).arg("--cert").arg(file("crt"));
            command.arg("--key").arg(file("key"));
            match host.letter {
                "A" => command.args(["--tls-server", "--dh", "none"]),
                _ => command.arg("--tls-client"),
            };
            let mut job = host.ns.enter(|| Job::start(&mut command, &file("log")))?;
            job.wait_until("its device", || host.has(DEVICE))?;
            host.enslave(DEVICE)?;
            running.switches.push(job);
        }
        Ok(running)
    }
}

/// Makes a key and a certificate for the host, and tells its fingerprint.
fn certificate(host: &Host, dir: &Path) -> Result<String> {
    let file =
        |extension: &str| dir.join(format!("{}.{extension}", host.letter)).to_string_lossy().into_owned();
    let (key, certificate) = (file("key"), file("crt"));
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let subject = format!("/CN=host{}", host.letter);
    let mut request = vec!["req", "-x509", "-subj", &subject, "-keyout", &key, "-out", &certificate];
    request.extend(kind);
    process::run("openssl", &request)?;
    let printed =
        process::output("openssl", &["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"])?;
    let fingerprint = printed.trim().split_once('=').context("openssl printed no fingerprint")?.1;
    Ok(fingerprint.to_owned())
}
