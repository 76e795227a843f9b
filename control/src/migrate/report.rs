//! What would become of a configuration, row by row: by the same reading of the rows that the switch itself goes by
//! ([`Wanted`]), so that it cannot promise what the switch would refuse.

use std::collections::BTreeMap;
use std::fmt::Write;

use ovsdb::{Database, Row as DbRow};

use super::addresses::Kept;
use super::switch::Promise;
use crate::devices::netlink::{Link, Links};
use crate::ipsec::credentials::Credentials;
use crate::reconcile::wanted::{Wanted, WantedPort, WantedTunnel, What};

/// Kinds of devices that are made on top of another, and go with it.
const STACKED: [&str; 7] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "vxlan", "macsec"];

/// How a row fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// As it does now.
    Works,
    /// It works, but not all of what it says has an effect, or something beside it is lost.
    Differs,
    /// It will not work.
    Refused,
}

/// What becomes of a bridge or a port.
#[derive(Debug)]
struct Row {
    bridge: String,
    port: String,
    kind: String,
    verdict: Verdict,
    promise: Promise,
    /// What there is to say, sentence by sentence.
    words: Vec<String>,
}

/// What becomes of a configuration.
#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
    /// What concerns no single row.
    besides: Vec<String>,
}

/// What the host says, besides the database.
#[derive(Debug, Default)]
pub struct Host {
    /// Its devices.
    pub links: Links,
    /// Flows that the present switch has, other than the one that makes it learn and forward; by bridge. None: it does not say.
    pub flows: BTreeMap<String, Option<usize>>,
    /// What internal ports have besides.
    pub kept: Vec<Kept>,
    /// Something else has IKE's port, and goes on having it.
    pub ike_port_taken: bool,
    /// What the switch itself needs and this process has not, in words.
    pub lacks: Option<String>,
}

impl Report {
    /// Goes through the rows.
    pub fn new(db: &Database, host: &Host) -> Report {
        let wanted = Wanted::from_database(db);
        let mut report = Report { rows: Vec::new(), besides: Vec::new() };
        let mut credentials = Credentials::default();
        let kinds = kinds(db);
        for (name, bridge) in &wanted.bridges {
            report.rows.push(report.bridge_row(name, bridge.ports.get(name), host));
            for (port, wish) in bridge.ports.iter().filter(|(port, _)| *port != name) {
                let kind = kinds.get(port.as_str()).copied().unwrap_or_default();
                let mut row = Row::new(name, port, kind);
                row.judge(wish, &mut credentials, host);
                report.rows.push(row);
            }
        }
        let protected = wanted.bridges.values().flat_map(|b| b.ports.values()).any(is_protected);
        if protected && host.ike_port_taken {
            report.besides.push(
                "another IKE daemon has UDP port 500, and not for Open vSwitch alone: while it runs, protected tunnels \
                 wait"
                    .to_owned(),
            );
        }
        report.besides.extend(host.lacks.clone());
        wanted.warnings.iter().for_each(|warning| report.place(warning));
        report
    }

    /// Whether everything will work as it is.
    pub fn all_works(&self) -> bool {
        self.differing() == 0 && self.besides.is_empty()
    }

    /// How far the port is one that shall work.
    pub fn promises(&self, port: &str) -> Option<Promise> {
        let mut rows = self.rows.iter().filter(|row| row.name() == port);
        rows.find(|row| row.verdict != Verdict::Refused && !row.waits()).map(|row| row.promise)
    }

    fn differing(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict != Verdict::Works).count()
    }

    fn bridge_row(&self, name: &str, own: Option<&WantedPort>, host: &Host) -> Row {
        let mut row = Row::new(name, "", "bridge");
        if let Some(own) = own {
            row.judge(own, &mut Credentials::default(), host);
        }
        match host.flows.get(name) {
            None | Some(Some(0)) => {}
            Some(Some(flows)) => {
                let flows = if *flows == 1 { "1 flow is".to_owned() } else { format!("{flows} flows are") };
                row.say(Verdict::Differs, format!("{flows} not taken along: the bridge learns and forwards"));
            }
            Some(None) => {
                let words =
                    "Open vSwitch does not say which flows it has; they are not taken along".to_owned();
                row.say(Verdict::Differs, words);
            }
        }
        row
    }

    /// A warning begins with the name of what it is about.
    fn place(&mut self, warning: &str) {
        let text = ["bridge ", "port "].iter().find_map(|word| warning.strip_prefix(word)).unwrap_or(warning);
        let found = text.split_once(": ").and_then(|(name, rest)| {
            let row = self.rows.iter_mut().find(|row| row.name() == name)?;
            Some((row, rest))
        });
        match found {
            Some((row, rest)) => row.say(Verdict::Differs, rest.to_owned()),
            None => self.besides.push(warning.to_owned()),
        }
    }
}

impl Row {
    fn new(bridge: &str, port: &str, kind: &str) -> Row {
        let kind = if kind.is_empty() { "system" } else { kind };
        Row {
            bridge: bridge.to_owned(),
            port: port.to_owned(),
            kind: kind.to_owned(),
            verdict: Verdict::Works,
            promise: Promise::Works,
            words: Vec::new(),
        }
    }

    /// What rows of the database call it.
    fn name(&self) -> &str {
        if self.port.is_empty() { &self.bridge } else { &self.port }
    }

    fn say(&mut self, verdict: Verdict, words: String) {
        self.verdict = self.verdict.max(verdict);
        self.words.push(words);
    }

    fn judge(&mut self, wish: &WantedPort, credentials: &mut Credentials, host: &Host) {
        match &wish.what {
            Err(error) => self.refuse(error),
            Ok(What::Tunnel(WantedTunnel { protection: Some(protection), .. })) => {
                self.promise = Promise::WithItsPeer;
                let loaded = protection.clone().and_then(|p| credentials.load(&p).map(drop));
                loaded.unwrap_or_else(|error| self.refuse(&error));
            }
            Ok(What::System { .. }) if host.links.by_name(self.name()).is_none() => {
                self.words.push(WAITS.to_owned());
            }
            Ok(What::Internal { .. }) if host.links.by_name(self.name()).is_none() => {
                let words = "its device is not here, but perhaps in a container: a new one will be here, and none there";
                self.say(Verdict::Differs, words.to_owned());
            }
            Ok(What::Internal { .. }) => {
                let name = self.name().to_owned();
                for (lost, words) in host.kept.iter().filter(|kept| kept.name == name).map(Kept::doubts) {
                    lost.into_iter().for_each(|words| self.say(Verdict::Differs, words));
                    self.words.extend(words);
                }
                for link in stacked_on(self.name(), &host.links) {
                    let words = format!("{} ({}) stands on it and goes with it", link.name, link.kind);
                    self.say(Verdict::Differs, words);
                }
            }
            Ok(_) => {}
        }
    }

    /// The error is the one that the row would have.
    fn refuse(&mut self, error: &str) {
        let words = error.strip_prefix(&format!("{}: ", self.name())).unwrap_or(error).to_owned();
        self.say(Verdict::Refused, words);
    }

    fn waits(&self) -> bool {
        self.words.iter().any(|words| words == WAITS)
    }
}

const WAITS: &str = "waits for its device, as it does now";

/// Devices that would vanish with `device`.
fn stacked_on<'a>(device: &str, links: &'a Links) -> Vec<&'a Link> {
    let Some(below) = links.by_name(device) else { return Vec::new() };
    links.iter().filter(|l| l.below == below.index && STACKED.contains(&l.kind.as_str())).collect()
}

fn is_protected(port: &WantedPort) -> bool {
    matches!(&port.what, Ok(What::Tunnel(WantedTunnel { protection: Some(_), .. })))
}

/// Column `type` of each interface.
fn kinds(db: &Database) -> BTreeMap<&str, &str> {
    let rows: Vec<&DbRow> = db.rows("Interface").map(|(_, row)| row).collect();
    rows.into_iter().map(|row| (row.str("name"), row.str("type"))).collect()
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |heading: &str, column: fn(&Row) -> &str| {
            self.rows.iter().map(|row| column(row).len()).chain([heading.len()]).max().unwrap_or_default()
        };
        let widths = [width("BRIDGE", |r| &r.bridge), width("PORT", |r| &r.port), width("TYPE", |r| &r.kind)];
        let [bridge, port, kind] = widths;
        writeln!(f, "{:bridge$}  {:port$}  {:kind$}  WILL IT WORK", "BRIDGE", "PORT", "TYPE")?;
        for row in &self.rows {
            let mut words = row.words.join("; ");
            if !words.is_empty() {
                words.insert_str(0, ": ");
            }
            let verdict = match row.verdict {
                Verdict::Works => "yes",
                Verdict::Differs => "in part",
                Verdict::Refused => "no",
            };
            writeln!(f, "{:bridge$}  {:port$}  {:kind$}  {verdict}{words}", row.bridge, row.port, row.kind)?;
        }
        let mut rest = String::new();
        for words in &self.besides {
            let _ = writeln!(rest, "Besides: {words}");
        }
        f.write_str(&rest)?;
        match (self.differing(), self.rows.len()) {
            (0, _) if self.besides.is_empty() => f.write_str("All of it will work.\n"),
            (0, _) => f.write_str("All rows will work.\n"),
            (differing, all) => writeln!(f, "{differing} of {all} rows will not work as they are."),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map, set};

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.to_owned(), ..Link::default() }
    }

    #[test]
    fn each_row_says_what_becomes_of_it() {
        let db = database();
        add_br(&db, "br0", json!({"fail_mode": "secure"}));
        let tunnel = |kind: &str, options: &[(&str, &str)]| json!({"type": kind, "options": map(options)});
        for (name, interface, port) in [
            ("eth1", json!({}), json!({})),
            ("gone0", json!({}), json!({})),
            ("in0", json!({"type": "internal"}), json!({"tag": 7})),
            ("gre0", tunnel("gre", &[("remote_ip", "192.0.2.2")]), json!({})),
            ("gre1", tunnel("gre", &[("remote_ip", "192.0.2.2")]), json!({})),
            ("gre2", tunnel("gre", &[("remote_ip", "192.0.2.3"), ("psk", "secret")]), json!({})),
            ("gre3", tunnel("gre", &[("remote_ip", "192.0.2.4"), ("psk", "")]), json!({})),
            ("vx0", tunnel("vxlan", &[("remote_ip", "192.0.2.2"), ("exts", "gbp")]), json!({})),
            ("er0", tunnel("erspan", &[("remote_ip", "192.0.2.2")]), json!({})),
            ("lldp0", json!({"type": "internal", "lldp": ["map", [["enable", "true"]]]}), json!({})),
        ] {
            add_port(&db, "br0", name, interface, port);
        }
        add_br(&db, "br1", json!({}));
        let links = [
            link(1, "br0"),
            link(2, "eth1"),
            link(3, "in0"),
            Link { below: 3, kind: "vlan".into(), ..link(4, "in0.9") },
            link(5, "lldp0"),
            link(6, "br1"),
        ];
        let host = Host {
            links: links.into_iter().collect(),
            flows: BTreeMap::from([("br0".into(), Some(0)), ("br1".into(), Some(2))]),
            ike_port_taken: true,
            ..Host::default()
        };
        let report = Report::new(db.borrow().db(), &host);
        let expected = "\
BRIDGE  PORT   TYPE      WILL IT WORK
br0            bridge    in part: OpenFlow (fail_mode=secure) is not in this version; the bridge learns and forwards
br0     er0    erspan    no: could not open network device er0 (type 'erspan' is not supported by this version)
br0     eth1   system    yes
br0     gone0  system    yes: waits for its device, as it does now
br0     gre0   gre       yes
br0     gre1   gre       no: could not add network device gre1 to ofproto (File exists): remote_ip, local_ip and key are those of gre0
br0     gre2   gre       yes
br0     gre3   gre       no: must choose a authentication method
br0     in0    internal  in part: in0.9 (vlan) stands on it and goes with it
br0     lldp0  internal  in part: LLDP (lldp) is not in this version; the port works without
br0     vx0    vxlan     no: bad vxlan 'exts': 'gbp' is not supported; there are frames in VXLAN and nothing else
br1            bridge    in part: 2 flows are not taken along: the bridge learns and forwards
Besides: another IKE daemon has UDP port 500, and not for Open vSwitch alone: while it runs, protected tunnels wait
8 of 12 rows will not work as they are.
";
        assert_eq!(report.to_string(), expected);
        assert!(!report.all_works());
        let (works, peer) = (Some(Promise::Works), Some(Promise::WithItsPeer));
        for (port, promised) in
            [("gre0", works), ("gre1", None), ("gre2", peer), ("gone0", None), ("lldp0", works)]
        {
            assert_eq!(report.promises(port), promised, "{port}");
        }
    }

    #[test]
    fn what_all_works_is_said_in_one_line() {
        let db = database();
        add_br(&db, "br0", json!({}));
        let host = || Host { links: [link(1, "br0")].into_iter().collect(), ..Host::default() };
        let report = Report::new(db.borrow().db(), &host());
        assert!(report.all_works());
        assert!(
            report.to_string().ends_with("br0           bridge  yes\nAll of it will work.\n"),
            "{report}"
        );
        set(&db, "Bridge", "br0", json!({"datapath_type": "dpdk"}));
        assert!(!Report::new(db.borrow().db(), &host()).all_works());
        // a port in a container's namespace
        set(&db, "Bridge", "br0", json!({"datapath_type": ""}));
        add_port(&db, "br0", "v9", json!({"type": "internal"}), json!({}));
        let report = Report::new(db.borrow().db(), &host());
        assert!(
            !report.all_works()
                && report.to_string().contains("v9    internal  in part: its device is not here")
        );
    }
}
