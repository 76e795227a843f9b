//! `dpif/…`, `dpctl/…`, `ofproto/…`, `tnl/…`: bridges, ports and tunnels as the datapath has them.

use std::fmt::Write;
use std::net::IpAddr;

use datapath::counters::PortStats;
use datapath::port::{GENEVE_PORT, InUdp, VXLAN_PORT};
use datapath::snapshot::{Port, PortKind, Snapshot};
use datapath::tunnel::{Tos, Ttl, TunnelConfig};

use super::fdb::LOCAL;
use super::{Args, Reply, bridge, bridges, ports_of};

/// The datapath's name: Open vSwitch's for a switch in userspace.
pub(super) const DATAPATH: &str = "netdev@ovs-netdev";

/// `ofproto/list`.
pub fn list(snapshot: &Snapshot) -> Reply {
    Ok(bridges(snapshot).iter().map(|(_, b)| format!("{}\n", b.name)).collect())
}

/// `dpif/show`: each port as `name ofport/number: (type: options)`.
pub fn dpif_show(snapshot: &Snapshot) -> Reply {
    let total = total(snapshot.ports.iter().flatten().map(|p| &**p));
    let mut out = format!("{DATAPATH}: hit:{} missed:0\n", total.rx_packets);
    for (id, bridge) in bridges(snapshot) {
        let _ = writeln!(out, "  {}:", bridge.name);
        for port in ports_of(snapshot, id) {
            let number = match port.kind {
                PortKind::Patch(_) => "none".to_owned(),
                PortKind::Local(_) | PortKind::Tunnel(_) => number(port).to_string(),
            };
            let _ = writeln!(out, "    {} {}/{number}: ({})", port.name, port.ofport, kind(port));
        }
    }
    Ok(out)
}

/// `dpctl/show [-s]`.
pub fn dpctl_show(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    let statistics = args.iter().any(|a| a == "-s" || a == "--statistics");
    if let Some(other) = args.iter().find(|a| !a.starts_with('-') && *a != DATAPATH) {
        return Err(format!("ovs-vswitchd: opening datapath {other} failed (No such device)"));
    }
    // a pair of patch ports is no port of the datapath
    let ports = snapshot.ports.iter().flatten().map(|p| &**p);
    let ports: Vec<&Port> = ports.filter(|p| !matches!(p.kind, PortKind::Patch(_))).collect();
    let total = total(ports.iter().copied());
    let mut out =
        format!("{DATAPATH}:\n  lookups: hit:{} missed:0 lost:{}\n", total.rx_packets, total.rx_dropped);
    let _ = writeln!(out, "  flows: {}", bridges(snapshot).len());
    for port in ports {
        let _ = write!(out, "  port {}: {}", number(port), port.name);
        out += &match kind(port).as_str() {
            "system" => "\n".to_owned(),
            other => format!(" ({other})\n"),
        };
        if statistics {
            let s = port.counters.sum();
            let _ = write!(
                out,
                "    RX packets:{} errors:? dropped:{} overruns:? frame:?\n    \
                 TX packets:{} errors:{} dropped:{} aborted:? carrier:?\n    \
                 collisions:?\n    RX bytes:{}  TX bytes:{}\n",
                s.rx_packets, s.rx_dropped, s.tx_packets, s.tx_errors, s.tx_dropped, s.rx_bytes, s.tx_bytes
            );
        }
    }
    Ok(out)
}

/// `ofproto/list-tunnels`.
pub fn list_tunnels(snapshot: &Snapshot) -> Reply {
    let mut out = String::new();
    for (port, config) in tunnels(snapshot) {
        let local = config.local.map_or_else(|| "::".to_owned(), |l| l.to_string());
        let key =
            |k: Option<u32>| k.filter(|k| *k != 0).map_or_else(|| "0".to_owned(), |k| format!("{k:#x}"));
        let _ = write!(
            out,
            "port {}: {} ({}: {local}->{}",
            number(port),
            port.name,
            tunnel_type(config),
            config.remote
        );
        let _ = write!(out, ", key={}, legacy_l2, dp port={}", key(config.in_key), number(port));
        if config.out_key != config.in_key {
            let _ =
                write!(out, ", out_key={}", config.out_key.map_or_else(|| "none".into(), |k| key(Some(k))));
        }
        let _ = match config.ttl {
            Ttl::Inherit => write!(out, ", ttl=inherit"),
            Ttl::Fixed(n) => write!(out, ", ttl={n}"),
        };
        let _ = match config.tos {
            Tos::Inherit => write!(out, ", tos=inherit"),
            Tos::Fixed(0) => Ok(()),
            Tos::Fixed(n) => write!(out, ", tos={n:#x}"),
        };
        if !config.df {
            out += ", df=false";
        }
        if config.csum {
            out += ", csum=true";
        }
        if config.in_udp == Some(InUdp::Gre) {
            out += ", encapsulation=udp";
        }
        out += ")\n";
    }
    Ok(out)
}

/// `tnl/ports/show`: what tunnels listen on, one line a protocol.
pub fn tunnel_ports(snapshot: &Snapshot) -> Reply {
    // in the order of their first ports, which is that in which they came
    let mut lines: Vec<(String, u32, usize)> = Vec::new();
    for (port, config) in tunnels(snapshot) {
        let name = match config.in_udp {
            None | Some(InUdp::Gre) if config.remote.is_ipv4() => "gre_sys".to_owned(),
            None | Some(InUdp::Gre) => "ip6gre_sys".to_owned(),
            Some(InUdp::Vxlan(to)) => format!("vxlan_sys_{to}"),
            Some(InUdp::Geneve(to)) => format!("genev_sys_{to}"),
        };
        match lines.iter_mut().find(|(known, ..)| *known == name) {
            Some((.., count)) => *count += 1,
            None => lines.push((name, number(port), 1)),
        }
    }
    let lines = lines.into_iter().map(|(name, first, count)| format!("{name} ({first}) ref_cnt={count}\n"));
    Ok(std::iter::once("Listening ports:\n".to_owned()).chain(lines).collect())
}

/// `bridge/dump-flows bridge`: there is one flow a bridge, and it is a learning switch's.
pub fn dump_flows(snapshot: &Snapshot, seconds: u64, args: Args<'_>) -> Reply {
    let (options, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with('-'));
    let names: Vec<String> = names.into_iter().cloned().collect();
    let (id, _) = bridge(snapshot, &names).map_err(|_| "Unknown bridge")?;
    let total = total(ports_of(snapshot, id).into_iter());
    let offload = options.iter().any(|o| *o == "--offload-stats");
    let offloaded = if offload { "n_offload_packets=0, n_offload_bytes=0, " } else { "" };
    Ok(format!(
        "duration={seconds}s, n_packets={}, n_bytes={}, {offloaded}priority=0,actions=NORMAL\n",
        total.rx_packets, total.rx_bytes
    ))
}

/// `dpif/dump-dps`: one line a bridge.
pub fn dump_dps(snapshot: &Snapshot) -> Reply {
    Ok(bridges(snapshot).iter().map(|(_, b)| format!("netdev@{}\n", b.name)).collect())
}

/// `upcall/show`. What is cached of forwarding decisions is the MAC tables, and nobody has to look after them.
pub fn upcalls(snapshot: &Snapshot) -> String {
    let tables: Vec<_> = bridges(snapshot).iter().map(|(_, b)| b.fdb.stats()).collect();
    let entries: usize = tables.iter().map(|t| t.entries).sum();
    let limit: usize = tables.iter().map(|t| t.max_entries).sum();
    format!(
        "{DATAPATH}:\n  flows         : (current {entries}) (avg {entries}) (max {entries}) (limit {limit})\n  \
         dump duration : 0ms\n  ufid enabled : true\n\n  1: (keys {entries})\n"
    )
}

/// `qos/show interface`.
pub fn qos_show(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if snapshot.ports.iter().flatten().any(|p| p.name == name) {
        Ok(format!("QoS not configured on {name}\n"))
    } else {
        Err("no such interface".into())
    }
}

fn tunnels(snapshot: &Snapshot) -> Vec<(&Port, &TunnelConfig)> {
    let each = snapshot.ports.iter().flatten().filter_map(|p| match &p.kind {
        PortKind::Tunnel(t) => Some((&**p, &t.config)),
        PortKind::Local(_) | PortKind::Patch(_) => None,
    });
    each.collect()
}

/// The port's number in the datapath; 0 is the datapath itself, as in Open vSwitch.
pub(super) fn number(port: &Port) -> u32 {
    u32::from(port.id.0) + 1
}

fn kind(port: &Port) -> String {
    match &port.kind {
        PortKind::Local(_) if port.ofport == LOCAL => "tap".into(),
        PortKind::Local(_) => "system".into(),
        PortKind::Patch(patch) => format!("patch: peer={}", patch.name),
        PortKind::Tunnel(t) => format!("{}: {}", tunnel_type(&t.config), options(&t.config)),
    }
}

/// The type of a tunnel's interface.
fn tunnel_type(config: &TunnelConfig) -> &'static str {
    match config.in_udp {
        None | Some(InUdp::Gre) => "gre",
        Some(InUdp::Vxlan(_)) => "vxlan",
        Some(InUdp::Geneve(_)) => "geneve",
    }
}

/// The UDP port that its type would not use by itself.
fn odd_port(config: &TunnelConfig) -> Option<u16> {
    match config.in_udp? {
        InUdp::Gre | InUdp::Vxlan(VXLAN_PORT) | InUdp::Geneve(GENEVE_PORT) => None,
        InUdp::Vxlan(port) | InUdp::Geneve(port) => Some(port),
    }
}

/// What makes the tunnel, as its interface's options would say it: sorted, defaults left out.
fn options(c: &TunnelConfig) -> String {
    let address = |a: IpAddr| a.to_string();
    let same_key = c.in_key == c.out_key;
    let options = [
        ("csum", c.csum.then(|| "true".into())),
        ("df_default", (!c.df).then(|| "false".into())),
        ("dst_port", odd_port(c).map(|port| port.to_string())),
        ("encapsulation", (c.in_udp == Some(InUdp::Gre)).then(|| "udp".into())),
        ("in_key", c.in_key.filter(|_| !same_key).map(|k| k.to_string())),
        ("key", c.in_key.filter(|_| same_key).map(|k| k.to_string())),
        ("local_ip", c.local.map(address)),
        ("out_key", c.out_key.filter(|_| !same_key).map(|k| k.to_string())),
        ("remote_ip", Some(address(c.remote))),
        ("seq", c.seq.then(|| "true".into())),
        (
            "tos",
            match c.tos {
                Tos::Inherit => Some("inherit".into()),
                Tos::Fixed(0) => None,
                Tos::Fixed(n) => Some(format!("{n:#x}")),
            },
        ),
        (
            "ttl",
            match c.ttl {
                Ttl::Inherit => Some("inherit".into()),
                Ttl::Fixed(64) => None,
                Ttl::Fixed(n) => Some(n.to_string()),
            },
        ),
    ];
    let given = options.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    given.collect::<Vec<_>>().join(", ")
}

fn total<'a>(ports: impl Iterator<Item = &'a Port>) -> PortStats {
    ports.map(|p| p.counters.sum()).fold(PortStats::default(), |mut sum, s| {
        sum.rx_packets += s.rx_packets;
        sum.rx_bytes += s.rx_bytes;
        sum.rx_dropped += s.rx_dropped;
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{args, snapshot};
    use super::*;
    use datapath::counters::bump;
    use datapath::snapshot::PortId;
    use datapath::tunnel::Tunnel;
    use std::sync::Arc;

    /// As Open vSwitch 3.1 prints them.
    #[test]
    fn vxlan_and_geneve() {
        let mut s = snapshot();
        let to = |in_udp, key| TunnelConfig {
            in_udp: Some(in_udp),
            in_key: key,
            out_key: key,
            ..TunnelConfig::to("192.0.2.2".parse().unwrap())
        };
        let configs = [
            to(InUdp::Vxlan(4789), None),
            TunnelConfig { csum: true, ..to(InUdp::Vxlan(4789), Some(5)) },
            to(InUdp::Vxlan(8472), Some(5)),
            to(InUdp::Geneve(6081), Some(7)),
        ];
        let template = s.ports[0].clone().unwrap();
        let ports = configs.into_iter().zip(0..).map(|(config, id)| {
            Some(Arc::new(Port {
                id: PortId(id),
                name: format!("t{id}"),
                ofport: id + 1,
                kind: PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500))),
                ..Port::clone(&template)
            }))
        });
        s.ports = ports.collect();
        assert_eq!(
            tunnel_ports(&s).unwrap(),
            "Listening ports:\nvxlan_sys_4789 (1) ref_cnt=2\nvxlan_sys_8472 (3) ref_cnt=1\n\
             genev_sys_6081 (4) ref_cnt=1\n"
        );
        assert_eq!(
            dpif_show(&s).unwrap().lines().skip(2).take(4).collect::<Vec<_>>(),
            [
                "    t0 1/1: (vxlan: remote_ip=192.0.2.2)",
                "    t1 2/2: (vxlan: csum=true, key=5, remote_ip=192.0.2.2)",
                "    t2 3/3: (vxlan: dst_port=8472, key=5, remote_ip=192.0.2.2)",
                "    t3 4/4: (geneve: key=7, remote_ip=192.0.2.2)",
            ]
        );
        assert_eq!(
            list_tunnels(&s).unwrap().lines().nth(1).unwrap(),
            "port 2: t1 (vxlan: ::->192.0.2.2, key=0x5, legacy_l2, dp port=2, ttl=64, csum=true)"
        );
    }

    #[test]
    fn layouts() {
        let s = snapshot();
        bump(&s.ports[0].as_ref().unwrap().counters.cell(1).rx_packets, 10);
        bump(&s.ports[0].as_ref().unwrap().counters.cell(1).rx_bytes, 866);
        assert_eq!(list(&s).unwrap(), "br0\nbr1\n");
        assert_eq!(
            dpif_show(&s).unwrap(),
            "netdev@ovs-netdev: hit:10 missed:0\n  br0:\n    \
             gre0 1/1: (gre: csum=true, encapsulation=udp, key=7, remote_ip=1.2.3.4, tos=inherit)\n    \
             gre1 7/3: (gre: df_default=false, in_key=3, local_ip=1.1.1.1, out_key=9, remote_ip=1.2.3.5, seq=true, \
             ttl=inherit)\n  br1:\n"
        );
        assert_eq!(
            list_tunnels(&s).unwrap(),
            "port 1: gre0 (gre: ::->1.2.3.4, key=0x7, legacy_l2, dp port=1, ttl=64, tos=inherit, csum=true, encapsulation=udp)\n\
             port 3: gre1 (gre: 1.1.1.1->1.2.3.5, key=0x3, legacy_l2, dp port=3, out_key=0x9, ttl=inherit, df=false)\n"
        );
        assert_eq!(tunnel_ports(&s).unwrap(), "Listening ports:\ngre_sys (1) ref_cnt=2\n");
        assert_eq!(
            dpctl_show(&s, &args("-s")).unwrap().lines().take(7).collect::<Vec<_>>(),
            [
                "netdev@ovs-netdev:",
                "  lookups: hit:10 missed:0 lost:0",
                "  flows: 2",
                "  port 1: gre0 (gre: csum=true, encapsulation=udp, key=7, remote_ip=1.2.3.4, tos=inherit)",
                "    RX packets:10 errors:? dropped:0 overruns:? frame:?",
                "    TX packets:0 errors:0 dropped:0 aborted:? carrier:?",
                "    collisions:?",
            ]
        );
        assert!(dpctl_show(&s, &args("nosuch")).is_err());
        assert_eq!(
            dump_flows(&s, 117, &args("br0")).unwrap(),
            "duration=117s, n_packets=10, n_bytes=866, priority=0,actions=NORMAL\n"
        );
        assert_eq!(
            dump_flows(&s, 1, &args("--offload-stats br0")).unwrap(),
            "duration=1s, n_packets=10, n_bytes=866, n_offload_packets=0, n_offload_bytes=0, priority=0,actions=NORMAL\n"
        );
        assert_eq!(dump_dps(&s).unwrap(), "netdev@br0\nnetdev@br1\n");
        assert!(upcalls(&s).starts_with(
            "netdev@ovs-netdev:\n  flows         : (current 0) (avg 0) (max 0) (limit 16384)\n  dump duration : 0ms\n"
        ));
        assert_eq!(dump_flows(&s, 0, &args("nosuch")), Err("Unknown bridge".into()));
        assert_eq!(qos_show(&s, &args("gre1")).unwrap(), "QoS not configured on gre1\n");
        assert_eq!(qos_show(&s, &args("nosuch")), Err("no such interface".into()));
    }
}
