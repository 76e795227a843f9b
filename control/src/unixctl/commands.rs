//! The commands of our targets.

mod absent;
mod bfd;
mod bond;
mod cfm;
mod fdb;
pub mod ipsec;
mod ports;
mod routes;
mod snooping;
mod spanning;
mod trace;

use datapath::snapshot::{Bridge, BridgeId, Port, Snapshot};

use super::{Command, Commands, Reply};
use crate::cli::OVS_VERSION;
use crate::daemon::Daemon;
use crate::logging::Spec;
use crate::rundir::{MONITOR_IPSEC, OVSDB_SERVER, VSWITCHD};

type Args<'a> = &'a [String];

/// Of `ovs-appctl`'s default target.
pub fn vswitchd() -> Commands<Daemon> {
    /// One that needs to see bridges and ports only.
    fn look(show: impl Fn(&Snapshot, Args<'_>) -> Reply) -> impl Fn(&Daemon, Args<'_>) -> Reply {
        move |d, args| show(&d.datapath.snapshot(), args)
    }
    let own = [
        Command::new("bridge/dump-flows", "[--offload-stats] bridge", 1..=2, |d: &Daemon, args| {
            ports::dump_flows(&d.datapath.snapshot(), d.started.elapsed().as_secs(), args)
        }),
        Command::new("bridge/reconnect", "[bridge]", 0..=1, look(reconnect)),
        Command::new("coverage/show", "", 0..=0, |d: &Daemon, _| Ok(d.coverage.borrow().show(d.drops()))),
        Command::new("coverage/read-counter", "COUNTER", 1..=1, read_counter),
        Command::new("dpctl/dump-dps", "", 0..=0, |_, _| Ok("netdev@ovs-netdev".into())),
        Command::new("dpctl/show", "[-s] [dp...]", 0..=usize::MAX, look(ports::dpctl_show)),
        Command::new("dpif/dump-dps", "", 0..=0, look(|s, _| ports::dump_dps(s))),
        Command::new(
            "dpif/dump-flows",
            "[-m] [--names | --no-names] bridge",
            1..=usize::MAX,
            look(dump_flows),
        ),
        Command::new("dpif/show", "", 0..=0, look(|s, _| ports::dpif_show(s))),
        Command::new("fdb/add", "bridge port vlan mac", 4..=4, |d: &Daemon, args| {
            let mut args = args.to_vec();
            if let [bridge, port, ..] = &mut args[..]
                && let Some(holder) = d.bond_holder(bridge, port)
            {
                *port = holder;
            }
            fdb::add(&d.datapath.snapshot(), &args)
        }),
        Command::new("fdb/del", "bridge vlan mac", 3..=3, |d: &Daemon, args| {
            fdb::del(&d.datapath.snapshot(), d.datapath.now(), args)
        }),
        Command::new("fdb/flush", "[bridge]", 0..=1, look(fdb::flush)),
        Command::new("fdb/show", "bridge", 1..=1, |d: &Daemon, args| {
            fdb::show(&d.datapath.snapshot(), d.datapath.now(), args)
        }),
        Command::new("fdb/stats-clear", "[bridge]", 0..=1, look(fdb::stats_clear)),
        Command::new("fdb/stats-show", "bridge", 1..=1, look(fdb::stats_show)),
        Command::new("memory/show", "", 0..=0, memory_show),
        Command::new("ofproto/list", "", 0..=0, look(|s, _| ports::list(s))),
        Command::new("ofproto/list-tunnels", "", 0..=0, look(|s, _| ports::list_tunnels(s))),
        Command::new("ovs/route/lookup", "ip_addr", 1..=1, |_, args| routes::lookup(args)),
        Command::new("ovs/route/show", "", 0..=0, |_, _| routes::show()),
        Command::new(
            "ofproto/trace",
            "bridge flow [-generate] [--names]",
            1..=usize::MAX,
            |d: &Daemon, args| trace::trace(&d.datapath.snapshot(), d.datapath.now(), args),
        ),
        Command::new("qos/show", "interface", 1..=1, look(ports::qos_show)),
        Command::new("tnl/arp/show", "", 0..=0, |_, _| routes::neighbours()),
        Command::new("tnl/neigh/show", "", 0..=0, |_, _| routes::neighbours()),
        Command::new("tnl/ports/show", "-v", 0..=1, look(|s, _| ports::tunnel_ports(s))),
        Command::new("upcall/show", "", 0..=0, look(|s, _| Ok(ports::upcalls(s)))),
    ];
    let all = common(VSWITCHD)
        .into_iter()
        .chain(own)
        .chain(ipsec::commands())
        .chain(spanning::commands())
        .chain(bfd::commands())
        .chain(cfm::commands())
        .chain(snooping::commands())
        .chain(bond::commands())
        .chain(absent::commands());
    Commands::new(all)
}

/// Of `ovs-appctl -t ovsdb-server`.
pub fn ovsdb_server() -> Commands<Daemon> {
    Commands::new(common(OVSDB_SERVER).into_iter().chain([
        Command::new("ovsdb-server/list-dbs", "", 0..=0, |_: &Daemon, _| Ok("Open_vSwitch\n_Server".into())),
        Command::new("ovsdb-server/list-remotes", "", 0..=0, |d: &Daemon, _| {
            Ok(format!("punix:{}", d.rundir.db_sock().display()))
        }),
        Command::new("ovsdb-server/sync-status", "", 0..=0, |_, _| Ok("state: active".into())),
        Command::new("coverage/show", "", 0..=0, |d: &Daemon, _| Ok(d.coverage.borrow().show(d.drops()))),
        Command::new("memory/show", "", 0..=0, memory_show),
    ]))
}

/// Of `ovs-appctl -t ovs-monitor-ipsec`.
pub fn monitor_ipsec() -> Commands<Daemon> {
    let common = common(MONITOR_IPSEC).into_iter().filter(|command| command.name != "exit");
    Commands::new(common.chain(ipsec::monitor_commands()))
}

/// What every target has.
fn common(target: &'static str) -> Vec<Command<Daemon>> {
    let done = || Ok(String::new());
    vec![
        Command::new("version", "", 0..=0, move |_, _| Ok(format!("{target} (Open vSwitch) {OVS_VERSION}"))),
        Command::new("exit", "[--cleanup]", 0..=1, move |d: &Daemon, args| {
            if args.iter().any(|arg| arg == "--cleanup") {
                d.shutdown.ask_cleanup();
            }
            d.shutdown.ask();
            done()
        })
        .at_exit(),
        Command::new("vlog/list", "", 0..=0, |d: &Daemon, _| Ok(d.vlog.list())),
        Command::new("vlog/list-pattern", "", 0..=0, |d: &Daemon, _| Ok(d.vlog.list_patterns())),
        Command::new("vlog/set", "{spec | PATTERN:destination:pattern}", 0..=usize::MAX, vlog_set),
        Command::new("vlog/reopen", "", 0..=0, move |d: &Daemon, _| {
            d.vlog.reopen().map_err(|e| e.to_string()).and_then(|()| done())
        }),
        Command::new("vlog/enable-rate-limit", "[module]...", 0..=usize::MAX, |d: &Daemon, modules| {
            d.vlog.limit_rate(modules, true).map(|()| String::new())
        }),
        Command::new("vlog/disable-rate-limit", "[module]...", 0..=usize::MAX, |d: &Daemon, modules| {
            d.vlog.limit_rate(modules, false).map(|()| String::new())
        }),
        Command::new("vlog/close", "", 0..=0, move |d: &Daemon, _| {
            d.vlog.close();
            done()
        }),
    ]
}

fn vlog_set(d: &Daemon, specs: Args<'_>) -> Reply {
    for spec in specs {
        d.vlog.set(&Spec::parse(spec).map_err(|e| e.to_string())?);
    }
    Ok(String::new())
}

fn read_counter(d: &Daemon, args: Args<'_>) -> Reply {
    let wanted = args.first().map(String::as_str).unwrap_or_default();
    d.drops()
        .find(|(name, _)| *name == wanted)
        .map(|(_, n)| n.to_string())
        .ok_or_else(|| "No such counter".into())
}

fn memory_show(d: &Daemon, _: Args<'_>) -> Reply {
    let snapshot = d.datapath.snapshot();
    let (ports, bridges) = (snapshot.ports.iter().flatten().count(), bridges(&snapshot).len());
    Ok(format!("handlers:{} ports:{ports} revalidators:1 rules:{bridges}", d.datapath.workers()))
}

/// No controllers, no connections to make anew.
fn reconnect(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    if !args.is_empty() {
        bridge(snapshot, args).map_err(|_| "Unknown bridge")?;
    }
    Ok(String::new())
}

/// `dpif/dump-flows`: nothing is cached beside the MAC table.
fn dump_flows(snapshot: &Snapshot, args: Args<'_>) -> Reply {
    let name = args.last().cloned().unwrap_or_default();
    bridge(snapshot, &[name])?;
    Ok(String::new())
}

/// Every bridge, by name.
fn bridges(snapshot: &Snapshot) -> Vec<(BridgeId, &Bridge)> {
    let ids = (0..=u16::MAX).map(BridgeId);
    let mut all: Vec<_> =
        ids.zip(&snapshot.bridges).filter_map(|(id, b)| Some((id, &**b.as_ref()?))).collect();
    all.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    all
}

/// The bridge that the first argument names.
fn bridge<'a>(snapshot: &'a Snapshot, args: Args<'_>) -> Result<(BridgeId, &'a Bridge), String> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    bridges(snapshot).into_iter().find(|(_, b)| b.name == name).ok_or_else(|| "no such bridge".into())
}

/// The ports of a bridge, by name.
fn ports_of(snapshot: &Snapshot, bridge: BridgeId) -> Vec<&Port> {
    let mut ports: Vec<&Port> =
        snapshot.ports.iter().flatten().filter(|p| p.bridge == bridge).map(|p| &**p).collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::fdb::Fdb;
    use datapath::port::InUdp;
    use datapath::snapshot::{PortId, PortKind};
    use datapath::tunnel::{Tos, Ttl, Tunnel, TunnelConfig};
    use std::sync::Arc;

    pub(super) fn args(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// Bridge br0 with tunnels gre0 (ofport 1) and gre1 (ofport 7, after a hole), and an empty br1.
    pub(super) fn snapshot() -> Snapshot {
        let plain = TunnelConfig {
            remote: "1.2.3.4".parse().unwrap(),
            local: None,
            in_key: Some(7),
            out_key: Some(7),
            csum: true,
            seq: false,
            tos: Tos::Inherit,
            ttl: Ttl::Fixed(64),
            df: true,
            in_udp: Some(InUdp::Gre),
        };
        let odd = TunnelConfig {
            remote: "1.2.3.5".parse().unwrap(),
            local: Some("1.1.1.1".parse().unwrap()),
            in_key: Some(3),
            out_key: Some(9),
            csum: false,
            seq: true,
            tos: Tos::Fixed(0),
            ttl: Ttl::Inherit,
            df: false,
            in_udp: None,
        };
        let port = |id, name: &str, ofport, config| {
            Some(Arc::new(Port::new(
                PortId(id),
                BridgeId(0),
                ofport,
                name,
                PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500))),
            )))
        };
        let bridge = |name: &str, flood| {
            Some(Arc::new(Bridge { flood, ..Bridge::new(name, Arc::new(Fdb::new(8192, 300))) }))
        };
        Snapshot {
            bridges: vec![bridge("br0", vec![PortId(0), PortId(2)]), None, bridge("br1", vec![])],
            ports: vec![port(0, "gre0", 1, plain), None, port(2, "gre1", 7, odd)],
            ..Snapshot::default()
        }
    }

    #[test]
    fn names_are_unique() {
        for list in [vswitchd().names(), ovsdb_server().names(), monitor_ipsec().names()] {
            assert!(list.windows(2).all(|w| w[0] < w[1]), "{list:?}");
        }
    }
}
