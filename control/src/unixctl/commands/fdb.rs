//! `fdb/…`: who is where.

use std::fmt::Write;

use datapath::fdb::Fdb;
use datapath::snapshot::{BridgeId, OfPort, Port, Snapshot};

use super::{Args, Reply, bridge, bridges, ports_of};
use crate::devices::{mac_text, parse_mac};

/// The bridge's own port.
pub const LOCAL: OfPort = 65534;

/// `fdb/show bridge`: least recently used first.
pub fn show(snapshot: &Snapshot, now: u32, args: Args<'_>) -> Reply {
    let (_, bridge) = bridge(snapshot, args)?;
    let mut out = String::from(" port  VLAN  MAC                Age\n");
    for entry in bridge.fdb.entries(now) {
        let port = snapshot.port(entry.port).map_or_else(|| "?".into(), |p| port_number(p.ofport));
        let age = entry.age.map_or_else(|| "static".into(), |s| format!("{s:3}"));
        let _ = writeln!(out, "{port:>5}  {:4}  {}  {age}", entry.vlan, mac_text(entry.mac));
    }
    Ok(out)
}

pub(super) fn port_number(ofport: OfPort) -> String {
    if ofport == LOCAL { "LOCAL".into() } else { ofport.to_string() }
}

/// `fdb/stats-show bridge`.
pub fn stats_show(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    let (_, bridge) = bridge(snapshot, args)?;
    let s = bridge.fdb.stats();
    Ok(format!(
        "Statistics for bridge \"{}\":\n  \
         Current/maximum MAC entries in the table: {}/{}\n  \
         Current static MAC entries in the table : {}\n  \
         Total number of learned MAC entries     : {}\n  \
         Total number of expired MAC entries     : {}\n  \
         Total number of evicted MAC entries     : {}\n  \
         Total number of port moved MAC entries  : {}\n",
        bridge.name, s.entries, s.max_entries, s.static_entries, s.learned, s.expired, s.evicted, s.moved
    ))
}

/// `fdb/stats-clear [bridge]`.
pub fn stats_clear(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    each(snapshot, args, Fdb::clear_stats)?;
    Ok("statistics successfully cleared".into())
}

/// `fdb/flush [bridge]`: static entries stay.
pub fn flush(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    each(snapshot, args, Fdb::flush)?;
    Ok("table successfully flushed".into())
}

fn each(snapshot: &Snapshot, args: Args<'_>, act: impl Fn(&Fdb)) -> Result<(), String> {
    if args.is_empty() {
        bridges(snapshot).iter().for_each(|(_, b)| act(&b.fdb));
    } else {
        act(&bridge(snapshot, args)?.1.fdb);
    }
    Ok(())
}

/// `fdb/add bridge port vlan mac`.
pub fn add(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    let (id, bridge) = bridge(snapshot, args)?;
    let [_, port, vlan, mac] = args else { return Err("bridge, port, vlan and mac are needed".into()) };
    let port = port_named(snapshot, id, port)?;
    let mac = unicast(mac)?;
    if bridge.fdb.add_static(vlan_id(vlan)?, mac, port.id) {
        Ok(String::new())
    } else {
        Err("the table is full".into())
    }
}

/// `fdb/del bridge vlan mac`.
pub fn del(snapshot: &Snapshot, now: u32, args: Args<'_>) -> Reply {
    let (_, bridge) = bridge(snapshot, args)?;
    let [_, vlan, mac] = args else { return Err("bridge, vlan and mac are needed".into()) };
    let (mac, vlan) = (unicast(mac)?, vlan_id(vlan)?);
    let is_static = |e: &datapath::fdb::FdbEntry| e.age.is_none() && (e.vlan, e.mac) == (vlan, mac);
    if bridge.fdb.entries(now).iter().any(is_static) && bridge.fdb.remove(vlan, mac) {
        Ok(String::new())
    } else {
        Err("could not find static mac entry".into())
    }
}

fn port_named<'a>(snapshot: &'a Snapshot, bridge: BridgeId, name: &str) -> Result<&'a Port, String> {
    ports_of(snapshot, bridge).into_iter().find(|p| p.name == name).ok_or_else(|| "no such port".into())
}

fn unicast(text: &str) -> Result<[u8; 6], String> {
    parse_mac(text).filter(|[first, ..]| first & 1 == 0).ok_or_else(|| "bad MAC address".into())
}

fn vlan_id(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|v| *v < 4096).ok_or_else(|| "bad VLAN: give a number from 0 to 4095".into())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{args, snapshot};
    use super::*;

    #[test]
    fn unknown_names() {
        let s = snapshot();
        let no_bridge = Err("no such bridge".to_owned());
        assert_eq!(show(&s, 0, &args("nosuch")), no_bridge);
        assert_eq!(stats_show(&s, &args("nosuch")), no_bridge);
        assert_eq!(stats_clear(&s, &args("nosuch")), no_bridge);
        assert_eq!(flush(&s, &args("nosuch")), no_bridge);
        assert_eq!(add(&s, &args("nosuch gre0 0 00:11:22:33:44:55")), no_bridge);
        assert_eq!(del(&s, 0, &args("nosuch 0 00:11:22:33:44:55")), no_bridge);
        assert_eq!(add(&s, &args("br0 nosuch 0 00:11:22:33:44:55")), Err("no such port".into()));
        assert_eq!(add(&s, &args("br0 gre0 0 zz")), Err("bad MAC address".into()));
        assert_eq!(add(&s, &args("br0 gre0 0 01:00:5e:00:00:01")), Err("bad MAC address".into()));
        assert!(add(&s, &args("br0 gre0 4096 00:11:22:33:44:55")).is_err());
    }

    #[test]
    fn static_entries() {
        let s = snapshot();
        assert_eq!(add(&s, &args("br0 gre0 10 00:11:22:33:44:55")), Ok(String::new()));
        assert_eq!(
            show(&s, 0, &args("br0")).unwrap(),
            " port  VLAN  MAC                Age\n    1    10  00:11:22:33:44:55  static\n"
        );
        assert_eq!(flush(&s, &[]), Ok("table successfully flushed".into()));
        assert_eq!(
            del(&s, 0, &args("br0 0 00:11:22:33:44:55")),
            Err("could not find static mac entry".into())
        );
        assert_eq!(del(&s, 0, &args("br0 10 00:11:22:33:44:55")), Ok(String::new()));
        assert_eq!(show(&s, 0, &args("br0")).unwrap(), " port  VLAN  MAC                Age\n");
    }

    #[test]
    fn learned_entries() {
        let s = snapshot();
        let fdb = &bridge(&s, &args("br0")).unwrap().1.fdb;
        let id = |name| port_named(&s, BridgeId(0), name).unwrap().id;
        fdb.learn(0, [0x6e, 0x3e, 0x15, 0xd2, 0xa9, 0x46], id("gre1"), 100);
        fdb.learn(0, [0x6e, 0x3e, 0x15, 0xd2, 0xa9, 0x47], id("gre0"), 119);
        assert_eq!(
            show(&s, 120, &args("br0")).unwrap(),
            " port  VLAN  MAC                Age\n\
             \x20   7     0  6e:3e:15:d2:a9:46   20\n\
             \x20   1     0  6e:3e:15:d2:a9:47    1\n"
        );
        assert_eq!(
            stats_show(&s, &args("br0")).unwrap(),
            "Statistics for bridge \"br0\":\n  \
             Current/maximum MAC entries in the table: 2/8192\n  \
             Current static MAC entries in the table : 0\n  \
             Total number of learned MAC entries     : 2\n  \
             Total number of expired MAC entries     : 0\n  \
             Total number of evicted MAC entries     : 0\n  \
             Total number of port moved MAC entries  : 0\n"
        );
        assert_eq!(
            del(&s, 120, &args("br0 0 6e:3e:15:d2:a9:46")),
            Err("could not find static mac entry".into())
        );
        flush(&s, &args("br0")).unwrap();
        assert_eq!(show(&s, 120, &args("br0")).unwrap().lines().count(), 1);
    }
}
