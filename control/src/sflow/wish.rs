//! What a row of table sFlow asks for. Pure: rows in, wishes out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use datapath::sflow::MAX_HEADER;
use ovsdb::{Atom, Database, Datum, Row};

/// Where collectors listen (IANA).
const PORT: u16 = 6343;
/// What Open vSwitch takes where the row does not say.
const SAMPLING: u32 = 400;
const HEADER: usize = 128;
const POLLING: u32 = 30;

/// A bridge that shall be sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// One packet in so many. None: none at all, `sampling=0`.
    pub rate: Option<u32>,
    /// Bytes of it.
    pub header: usize,
    /// Seconds from one report of counters to the next; 0 for none.
    pub polling: u32,
    /// Collectors.
    pub targets: Vec<SocketAddr>,
    /// What the agent goes by.
    pub agent: AgentName,
}

/// Which address an agent goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentName {
    /// This one.
    Address(IpAddr),
    /// That of this device.
    Device(String),
    /// That from which the first collector is reached.
    Route,
}

impl Wish {
    /// Reads the row that a bridge refers to. None: there is none, or nobody to send to.
    pub fn read(db: &Database, bridge: &Row, warnings: &mut Vec<String>) -> Option<Wish> {
        let row = bridge.refs("sflow").into_iter().find_map(|uuid| db.row("sFlow", uuid))?;
        let name = bridge.str("name");
        let mut targets = Vec::new();
        for text in row.get("targets").map(Datum::atoms).unwrap_or_default().iter().filter_map(Atom::as_str) {
            match target(text) {
                Some(target) => targets.push(target),
                None => warnings.push(format!(
                    "bridge {name}: sFlow target '{text}' is not ip:port (names are not looked up); ignoring"
                )),
            }
        }
        if targets.is_empty() {
            warnings.push(format!("bridge {name}: no collectors could be initialized, sFlow disabled"));
            return None;
        }
        let number = |column, default: u32| {
            row.opt_int(column).map_or(default, |n| n.clamp(0, u32::MAX.into()) as u32)
        };
        let header = number("header", HEADER as u32) as usize;
        if header > MAX_HEADER {
            warnings.push(format!(
                "bridge {name}: sFlow header={header} does not fit a datagram; sampling {MAX_HEADER} bytes"
            ));
        }
        let agent = match row.opt_str("agent") {
            None | Some("") => AgentName::Route,
            Some(text) => match text.parse() {
                Ok(address) => AgentName::Address(address),
                Err(_) => AgentName::Device(text.to_owned()),
            },
        };
        Some(Wish {
            rate: Some(number("sampling", SAMPLING)).filter(|rate| *rate != 0),
            header: header.min(MAX_HEADER),
            polling: number("polling", POLLING),
            targets,
            agent,
        })
    }
}

/// `ip`, `ip:port`, `[ip]:port`; IPv6 also without brackets, and then without a port.
fn target(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = text.parse().ok().or_else(|| bare?.parse::<Ipv6Addr>().ok().map(IpAddr::V6));
    address
        .map(|address| SocketAddr::new(address, PORT))
        .or_else(|| text.parse().ok())
        .filter(|target| target.port() != 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{add_br, database, row, transact};

    fn read(columns: Value) -> (Option<Wish>, Vec<String>) {
        let db = database();
        add_br(&db, "br0", json!({}));
        transact(
            &db,
            json!([
                {"op": "insert", "table": "sFlow", "uuid-name": "s", "row": columns},
                {"op": "update", "table": "Bridge", "where": [], "row": {"sflow": ["named-uuid", "s"]}},
            ]),
        );
        let mut warnings = Vec::new();
        let wish = Wish::read(db.borrow().db(), &row(&db, "Bridge", "br0"), &mut warnings);
        (wish, warnings)
    }

    #[test]
    fn what_a_row_asks_for() {
        let (wish, warnings) = read(json!({"targets": "10.0.0.1"}));
        let wish = wish.unwrap();
        assert_eq!((wish.rate, wish.header, wish.polling), (Some(400), 128, 30));
        assert_eq!((wish.agent, warnings.len()), (AgentName::Route, 0));
        let all = json!({"targets": ["set", ["10.0.0.1:7", "[2001:db8::1]:8"]], "agent": "eth0", "header": 64,
            "sampling": 0, "polling": 0});
        let wish = read(all).0.unwrap();
        assert_eq!((wish.rate, wish.header, wish.polling, wish.targets.len()), (None, 64, 0, 2));
        assert_eq!(wish.agent, AgentName::Device("eth0".into()));
        let wish = read(json!({"targets": "10.0.0.1", "agent": "10.0.0.9"})).0.unwrap();
        assert_eq!(wish.agent, AgentName::Address([10, 0, 0, 9].into()));
    }

    #[test]
    fn what_it_asks_for_in_vain() {
        let (wish, warnings) = read(json!({"targets": ["set", ["10.0.0.1", "collector.example:6343"]]}));
        assert_eq!(wish.map(|wish| wish.targets.len()), Some(1));
        assert!(warnings[0].contains("'collector.example:6343' is not ip:port"), "{warnings:?}");
        let (wish, warnings) = read(json!({"targets": "x"}));
        assert!(wish.is_none() && warnings.len() == 2);
        assert!(warnings[1].contains("sFlow disabled"), "{warnings:?}");
        let (wish, warnings) = read(json!({"targets": "10.0.0.1", "header": 4000, "sampling": -5}));
        assert_eq!(wish.map(|wish| (wish.header, wish.rate)), Some((MAX_HEADER, None)));
        assert!(warnings[0].contains("header=4000"), "{warnings:?}");
    }

    #[test]
    fn targets() {
        for (text, want) in [
            ("10.0.0.1", Some("10.0.0.1:6343")),
            ("10.0.0.1:99", Some("10.0.0.1:99")),
            ("2001:db8::1", Some("[2001:db8::1]:6343")),
            ("[2001:db8::1]", Some("[2001:db8::1]:6343")),
            ("[2001:db8::1]:99", Some("[2001:db8::1]:99")),
            ("10.0.0.1:", None),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65536", None),
            ("10.0.0.256", None),
            ("[10.0.0.1]:1", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(target(text), want.map(|want| want.parse().unwrap()), "{text}");
        }
    }
}
