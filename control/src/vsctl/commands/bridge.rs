//! Bridges: add-br, del-br and what can be asked of them.

use super::super::error::{Error, Result, fatal};
use super::super::output::Output;
use super::topology::{self, Bridge, VlanBridge, uuids, with};
use super::{Command, Context, Invocation, Plan};
use ovsdb::{Atom, Datum, Uuid};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "add-br",
        min: 1,
        max: 3,
        usage: "!NEW-BRIDGE ?PARENT ?NEW-VLAN",
        options: &["--may-exist"],
        prepare: need_topology,
        run: add_br,
        writes: true,
    },
    Command {
        name: "del-br",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &["--if-exists"],
        prepare: need_topology,
        run: del_br,
        writes: true,
    },
    Command {
        name: "list-br",
        min: 0,
        max: 0,
        usage: "",
        options: &["--real", "--fake"],
        prepare: need_topology,
        run: list_br,
        writes: false,
    },
    Command {
        name: "br-exists",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need_topology,
        run: br_exists,
        writes: false,
    },
    Command {
        name: "br-to-vlan",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need_topology,
        run: br_to_vlan,
        writes: false,
    },
    Command {
        name: "br-to-parent",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need_topology,
        run: br_to_parent,
        writes: false,
    },
    Command {
        name: "br-set-external-id",
        min: 2,
        max: 3,
        usage: "!BRIDGE !KEY ?VALUE",
        options: &[],
        prepare: need_external_ids,
        run: br_set_external_id,
        writes: true,
    },
    Command {
        name: "br-get-external-id",
        min: 1,
        max: 2,
        usage: "!BRIDGE ?KEY",
        options: &[],
        prepare: need_external_ids,
        run: br_get_external_id,
        writes: false,
    },
];

fn need_topology(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    topology::need(plan);
    Ok(())
}

fn need_external_ids(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    topology::need(plan);
    plan.need("Bridge", &["external_ids"]);
    plan.need("Port", &["external_ids"]);
    Ok(())
}

fn add_br(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let name = call.arg(0);
    if name.is_empty() {
        return fatal("bridge name must not be empty string");
    }
    let child_of = match call.args.as_slice() {
        [_] => None,
        [_, parent, vlan] => Some((parent.as_str(), parse_vlan(vlan)?)),
        _ => return fatal("'add-br' command takes exactly 1 or 3 arguments"),
    };
    let topology = context.topology()?;
    if call.has("--may-exist")
        && let Some(bridge) = topology.bridges.get(name)
    {
        check_same(bridge, child_of)?;
        return Ok(Output::nothing());
    }
    topology.check_free(name, &format!("cannot create a bridge named {name}"))?;
    match child_of {
        None => add_real_bridge(name, context),
        Some((parent, vlan)) => add_vlan_bridge(name, parent, vlan, context),
    }
}

/// As the stock tool reads it: digits up to the first other character, 0 if there are none.
fn parse_vlan(text: &str) -> Result<i64> {
    let text = text.trim_start();
    let end = text.bytes().enumerate().find(|(i, b)| !(b.is_ascii_digit() || *i == 0 && b"+-".contains(b)));
    let digits = text.get(..end.map_or(text.len(), |(i, _)| i)).unwrap_or_default();
    match digits.parse().unwrap_or(if digits.len() > 4 { i64::MAX } else { 0 }) {
        vlan @ 0..=4095 => Ok(vlan),
        _ => fatal("add-br: vlan must be between 0 and 4095"),
    }
}

/// Whether what `--may-exist` found is what was asked for.
fn check_same(bridge: &Bridge, child_of: Option<(&str, i64)>) -> Result<()> {
    let name = &bridge.name;
    match (child_of, &bridge.vlan) {
        (None, None) => Ok(()),
        (None, Some(VlanBridge { vlan, .. })) => {
            fatal(format!("\"--may-exist add-br {name}\" but {name} is a VLAN bridge for VLAN {vlan}"))
        }
        (Some((parent, vlan)), actual) => {
            let asked = format!("\"--may-exist add-br {name} {parent} {vlan}\"");
            match actual {
                None => fatal(format!("{asked} but {name} is not a VLAN bridge")),
                Some(actual) if actual.parent != parent => {
                    fatal(format!("{asked} but {name} has the wrong parent {}", actual.parent))
                }
                Some(actual) if actual.vlan != vlan => {
                    fatal(format!("{asked} but {name} is a VLAN bridge for the wrong VLAN {}", actual.vlan))
                }
                Some(_) => Ok(()),
            }
        }
    }
}

fn add_real_bridge(name: &str, context: &mut Context<'_>) -> Result<Output> {
    let (port, interface) = add_local_port(name, context);
    let bridge = Uuid::new_v4();
    let txn = &mut context.txn;
    txn.insert("Bridge", bridge, false);
    txn.write("Bridge", bridge, "name", Datum::scalar(name));
    txn.write("Bridge", bridge, "ports", Datum::scalar(port));
    let bridges = with(&txn.read("Open_vSwitch", context.root, "bridges"), &[bridge], &[]);
    txn.write("Open_vSwitch", context.root, "bridges", bridges);
    let topology = context.topology()?;
    topology.bridges.insert(name.to_owned(), Bridge { name: name.to_owned(), row: bridge, vlan: None });
    topology.add_port(name, port, name);
    topology.add_interface(name.to_owned(), interface, name);
    Ok(Output::nothing())
}

fn add_vlan_bridge(name: &str, parent: &str, vlan: i64, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let Some(real) = topology.bridges.get(parent) else {
        return fatal(format!("parent bridge {parent} does not exist"));
    };
    if real.vlan.is_some() {
        return fatal("cannot create bridge with fake bridge as parent");
    }
    if let Some(other) = topology.vlan_bridge(parent, vlan) {
        return fatal(format!(
            "bridge {parent} already has a child VLAN bridge {} on VLAN {vlan}",
            other.name
        ));
    }
    let bridge = real.row;
    let (port, interface) = add_local_port(name, context);
    let txn = &mut context.txn;
    txn.write("Port", port, "fake_bridge", Datum::scalar(true));
    txn.write("Port", port, "tag", Datum::scalar(vlan));
    let ports = with(&txn.read("Bridge", bridge, "ports"), &[port], &[]);
    txn.write("Bridge", bridge, "ports", ports);
    let topology = context.topology()?;
    topology.add_vlan_bridge(name.to_owned(), bridge, parent, vlan, port);
    topology.add_port(name, port, name);
    topology.add_interface(name.to_owned(), interface, name);
    Ok(Output::nothing())
}

/// The port and interface that every bridge has under its own name.
fn add_local_port(name: &str, context: &mut Context<'_>) -> (Uuid, Uuid) {
    let (port, interface) = (Uuid::new_v4(), Uuid::new_v4());
    let txn = &mut context.txn;
    txn.insert("Interface", interface, false);
    txn.write("Interface", interface, "name", Datum::scalar(name));
    txn.write("Interface", interface, "type", Datum::scalar("internal"));
    txn.insert("Port", port, false);
    txn.write("Port", port, "name", Datum::scalar(name));
    txn.write("Port", port, "interfaces", Datum::scalar(interface));
    context.new_interfaces.push(interface);
    (port, interface)
}

fn del_br(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let Some(bridge) = topology.bridges.get(call.arg(0)).cloned() else {
        return match call.has("--if-exists") {
            true => Ok(Output::nothing()),
            false => topology.bridge(call.arg(0)).map(|_| Output::nothing()),
        };
    };
    let is_in = |name: &str| {
        let parent =
            topology.bridges.get(name).and_then(|bridge| bridge.vlan.as_ref()).map(|vlan| &vlan.parent);
        name == bridge.name || parent == Some(&bridge.name)
    };
    let doomed: Vec<String> =
        topology.ports.values().filter(|port| is_in(&port.bridge)).map(|port| port.name.clone()).collect();
    for port in doomed {
        super::port::remove(&port, bridge.row, context)?;
    }
    if bridge.vlan.is_none() {
        let bridges = with(&context.txn.read("Open_vSwitch", context.root, "bridges"), &[], &[bridge.row]);
        context.txn.write("Open_vSwitch", context.root, "bridges", bridges);
        context.txn.delete("Bridge", bridge.row);
        let topology = context.topology()?;
        topology.bridges.remove(&bridge.name);
    }
    Ok(Output::nothing())
}

fn list_br(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let (real, fake) = (call.has("--real"), call.has("--fake"));
    let wanted = |bridge: &&Bridge| match bridge.vlan {
        None => real || !fake,
        Some(_) => fake || !real,
    };
    let topology = context.topology()?;
    Ok(Output::lines(topology.bridges.values().filter(wanted).map(|bridge| &bridge.name)))
}

fn br_exists(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    match context.topology()?.bridges.contains_key(call.arg(0)) {
        true => Ok(Output::nothing()),
        false => Err(Error::Exit(2)),
    }
}

fn br_to_vlan(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = context.topology()?.bridge(call.arg(0))?;
    Ok(Output::lines([bridge.vlan.as_ref().map_or(0, |vlan| vlan.vlan).to_string()]))
}

fn br_to_parent(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = context.topology()?.bridge(call.arg(0))?;
    Ok(Output::lines([bridge.vlan.as_ref().map_or(&bridge.name, |vlan| &vlan.parent)]))
}

/// Where a bridge keeps its external ids, and what their keys begin with there.
fn external_ids(name: &str, context: &mut Context<'_>) -> Result<(&'static str, Uuid, &'static str)> {
    let bridge = context.topology()?.bridge(name)?;
    Ok(match &bridge.vlan {
        None => ("Bridge", bridge.row, ""),
        Some(vlan) => ("Port", vlan.port, "fake-bridge-"),
    })
}

fn br_set_external_id(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let (table, row, prefix) = external_ids(call.arg(0), context)?;
    let key = Atom::from(format!("{prefix}{}", call.arg(1)));
    let txn = &mut context.txn;
    if let Some(value) = call.args.get(2) {
        txn.put_pair(table, row, "external_ids", key, Atom::from(value.as_str()));
        return Ok(Output::nothing());
    }
    txn.rely_on(table, row, "external_ids");
    let old = txn.read(table, row, "external_ids");
    let kept = old.pairs().iter().filter(|(other, _)| *other != key).cloned();
    txn.write(table, row, "external_ids", Datum::map(kept));
    Ok(Output::nothing())
}

fn br_get_external_id(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let (table, row, prefix) = external_ids(call.arg(0), context)?;
    let ids = context.txn.read(table, row, "external_ids");
    if let Some(key) = call.args.get(1) {
        return Ok(Output::lines(ids.get_str(&format!("{prefix}{key}"))));
    }
    let own = |(key, value): &(Atom, Atom)| {
        Some(format!("{}={}", key.as_str()?.strip_prefix(prefix)?, value.as_str()?))
    };
    Ok(Output::lines(ids.pairs().iter().filter_map(own)))
}

/// The row of a real bridge.
pub fn real_bridge(name: &str, context: &mut Context<'_>) -> Result<Uuid> {
    let bridge = context.topology()?.bridge(name)?;
    match bridge.vlan {
        None => Ok(bridge.row),
        Some(_) => fatal(format!("{name} is a fake bridge")),
    }
}

/// Everything that `column` of the row refers to.
pub fn references(context: &Context<'_>, table: &str, row: Uuid, column: &str) -> Vec<Uuid> {
    uuids(&context.txn.read(table, row, column))
}
