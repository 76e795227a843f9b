//! `ovs-appctl -t ovs-monitor-ipsec`: tunnels as Open vSwitch's IPsec daemon shows them, with the secret hidden.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Instant;

use ikev2::auth::Trust;
use ikev2::{ChildStatus, IkeState, IkeStatus, PeerStatus, Selector};
use ovsdb::{Database, Row};

use super::Ipsec;
use super::credentials::Loaded;
use super::pairs::selectors;
use crate::reconcile::protection::{self, HostSettings};
use crate::reconcile::wanted::{Wanted, WantedTunnel, What};
use crate::secret::{MASK, SecretText};

/// What is remembered of tunnels: how often each has changed.
#[derive(Debug, Default)]
pub struct Monitor(BTreeMap<String, (u32, Conf)>);

/// A tunnel's configuration, as its row and the host's settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conf {
    kind: String,
    options: BTreeMap<String, SecretText>,
    host: HostSettings,
    invalid: Option<String>,
}

impl Monitor {
    /// Looks at the rows. To be called whenever they may have changed.
    pub fn look(&mut self, db: &Database, wanted: &Wanted) {
        let mut seen = BTreeMap::new();
        for (_, row) in db.rows("Interface") {
            let Some(conf) = conf(row, wanted) else { continue };
            let name = row.str("name").to_owned();
            let version = match self.0.get(&name) {
                None => 1,
                Some((version, before)) if *before == conf => *version,
                Some((version, _)) => version + 1,
            };
            seen.insert(name, (version, conf));
        }
        self.0 = seen;
    }
}

fn conf(row: &Row, wanted: &Wanted) -> Option<Conf> {
    let kind = row.str("type");
    let asks = || row.map("options").any(|(option, value)| protection::asks(option, value));
    if kind != "ipsec_gre" && !(matches!(kind, "gre" | "ip6gre" | "vxlan" | "geneve") && asks()) {
        return None;
    }
    let name = row.str("name");
    let port = wanted.bridges.values().find_map(|bridge| bridge.ports.get(name));
    let reason = |error: &String| error.strip_prefix(name).unwrap_or(error).to_owned();
    let invalid = match port.map(|port| &port.what) {
        _ if row.map_get("options", "remote_ip").is_none_or(str::is_empty) => {
            Some(": 'remote_ip' is not set".to_owned())
        }
        None => Some(": it is in no bridge".to_owned()),
        Some(Err(error)) => Some(reason(error)),
        Some(Ok(What::Tunnel(WantedTunnel { protection: Some(Err(error)), .. }))) => Some(reason(error)),
        Some(Ok(_)) => None,
    };
    Some(Conf {
        kind: kind.to_owned(),
        options: row.map("options").map(|(k, v)| (k.to_owned(), SecretText::new(v))).collect(),
        host: wanted.host.clone(),
        invalid,
    })
}

impl Ipsec {
    /// `tunnels/show`.
    pub fn tunnels_show(&self, db: &Database) -> String {
        let (peers, monitor) = (self.peers.borrow(), self.monitor.borrow());
        let status = peers.engine.status(Instant::now());
        let mut out = String::new();
        for (name, (version, conf)) in &monitor.0 {
            let row = db.rows("Interface").find(|(_, row)| row.str("name") == name).map(|(_, row)| row);
            let pair = peers.pair_with(name).map(|(_, pair)| pair);
            let peer = pair.and_then(|pair| status.iter().find(|s| s.peer == pair.peer));
            out += &conf.show(name, *version, pair.map(|pair| &pair.loaded), row);
            let kind = pair.and_then(|pair| pair.wanted.tunnels.iter().find(|(tunnel, _)| tunnel == name));
            let needs = kind.map(|(_, kind)| selectors(*kind)).unwrap_or_default();
            out += &connections(name, *version, &needs, peer);
            out.push('\n');
        }
        if out.is_empty() { "No tunnels configured with IPsec".into() } else { out }
    }
}

impl Conf {
    fn show(&self, name: &str, version: u32, loaded: Option<&Loaded>, row: Option<&Row>) -> String {
        let option = |key: &str| self.options.get(key).map(SecretText::reveal).filter(|v| !v.is_empty());
        let state = self.invalid.as_ref().map_or("CONFIGURED".to_owned(), |why| format!("INVALID{why}"));
        let mut out = format!("Interface name: {name} v{version} ({state})\n");
        let mut line = |label: &str, value: Option<&str>| {
            let _ = writeln!(out, "  {:<16}{}", format!("{label}:"), value.unwrap_or("None"));
        };
        let own_name = loaded.and_then(|l| l.credential.identity()).map(ToString::to_string);
        let peer_name = match loaded.map(|l| &l.trust) {
            Some(Trust::Pinned(peer)) => Some(peer.identity().to_string()),
            _ => option("remote_name").map(str::to_owned),
        };
        let psk = option("psk").or(option("psk_file"));
        let family = option("remote_ip").and_then(|ip| ip.parse::<IpAddr>().ok());
        let host = &self.host;
        let custom = self.options.iter().filter_map(|(key, value)| {
            key.strip_prefix("ipsec_").map(|key| format!("'{key}': '{}'", value.reveal()))
        });
        let custom: Vec<String> = custom.collect();
        let fault =
            row.and_then(|row| row.get("cfm_fault").filter(|f| !f.is_empty()).map(|_| row.bool("cfm_fault")));
        let ofport = row.and_then(|row| row.opt_int("ofport")).filter(|n| *n != -1).map(|n| n.to_string());
        line("Tunnel Type", Some(if self.kind == "ipsec_gre" { "gre" } else { &self.kind }));
        line("Local IP", Some(option("local_ip").unwrap_or("%defaultroute")));
        line("Remote IP", option("remote_ip"));
        line("Address Family", family.map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }));
        line("SKB mark", host.skb_mark.as_deref());
        line("Local cert", option("certificate").or(host.certificate.as_deref()));
        line("Local name", own_name.as_deref());
        line("Local key", option("private_key").or(host.private_key.as_deref()));
        line("Remote cert", option("remote_cert").or(option("peer_cert").map(|_| "(in the row)")));
        line("Remote name", peer_name.as_deref());
        line("CA cert", host.ca_cert.as_deref());
        line("PSK", psk.map(|_| MASK));
        line("Custom Options", Some(&format!("{{{}}}", custom.join(", "))));
        line("Ofport", Some(ofport.as_deref().unwrap_or("Not assigned")));
        line("CFM state", Some(fault.map_or("Disabled", |fault| if fault { "Down" } else { "Up" })));
        out
    }
}

/// What the kernel's IPsec and the IKE daemon would say of what a tunnel needs.
fn connections(name: &str, version: u32, needs: &[Selector], peer: Option<&PeerStatus>) -> String {
    let mut out = "Kernel policies installed:\n".to_owned();
    if let Some((local, remote)) = peer.and_then(|p| Some((p.local?, p.remote))) {
        for selector in needs {
            let _ = writeln!(out, "  {}", policy(local, remote, *selector));
        }
    }
    out += "Kernel security associations installed:\n";
    let children = || peer.iter().flat_map(|p| &p.children).filter(|child| needs.contains(&child.selector));
    for child in children() {
        let (local, remote, selector) = (child.local, child.remote, child.selector);
        let (there, back) = (policy(local, remote, selector), policy(remote, local, from_behind(selector)));
        let _ = writeln!(out, "  sel {there}\n  sel {back}");
    }
    out += "IPsec connections that are active:\n";
    let connection = |selector: Selector| match selector {
        Selector::Gre => format!("{name}-{version}"),
        Selector::UdpIn(_) => format!("{name}-in-{version}"),
        Selector::UdpOut(_) => format!("{name}-out-{version}"),
    };
    let first = needs.first().map(|selector| connection(*selector)).unwrap_or_default();
    let established = peer.iter().flat_map(|p| &p.ike).filter(|ike| ike.state == IkeState::Established);
    for (n, ike) in established.enumerate() {
        let _ = writeln!(out, "  {first}[{}]: {}", n + 1, established_text(ike));
    }
    for (n, child) in children().enumerate() {
        let _ = writeln!(out, "  {}{{{}}}:   {}", connection(child.selector), n + 1, child_text(child));
    }
    out
}

/// As `ip xfrm policy` writes what goes from one address to the other.
fn policy(from: IpAddr, to: IpAddr, selector: Selector) -> String {
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let protocol = match selector {
        Selector::Gre => "gre".to_owned(),
        Selector::UdpOut(port) => format!("udp dport {port}"),
        Selector::UdpIn(port) => format!("udp sport {port}"),
    };
    format!("src {from}/{} dst {to}/{} proto {protocol}", bits(from), bits(to))
}

/// What comes back, as the other host sees it.
fn from_behind(selector: Selector) -> Selector {
    match selector {
        Selector::Gre => Selector::Gre,
        Selector::UdpOut(port) => Selector::UdpIn(port),
        Selector::UdpIn(port) => Selector::UdpOut(port),
    }
}

fn established_text(ike: &IkeStatus) -> String {
    let end = |ip: IpAddr, id: &Option<ikev2::auth::Identity>| {
        format!("{ip}[{}]", id.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    let (local, remote) =
        (end(ike.path.local.ip(), &ike.local_id), end(ike.path.remote.ip(), &ike.remote_id));
    format!("ESTABLISHED {} seconds ago, {local}...{remote}", ike.age.as_secs())
}

fn child_text(child: &ChildStatus) -> String {
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let end = |ip: IpAddr, words: String| format!("{ip}/{}[{words}]", bits(ip));
    let selector = child.selector;
    format!("{} === {}", end(child.local, selector.at_local()), end(child.remote, selector.at_remote()))
}
