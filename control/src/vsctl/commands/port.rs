//! Ports, bonds and interfaces.

use super::super::column::{column_of, set_column};
use super::super::error::{Result, fatal};
use super::super::output::Output;
use super::super::record::find_table;
use super::topology::{self, Topology, with};
use super::{Command, Context, Invocation, MANY, Plan};
use ovsdb::{Datum, Uuid};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "list-ports",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need_topology,
        run: list_ports,
        writes: false,
    },
    Command {
        name: "add-port",
        min: 2,
        max: MANY,
        usage: "!BRIDGE !NEW-PORT *COLUMN?:KEY=VALUE",
        options: &["--may-exist"],
        prepare: need_settings,
        run: add_port,
        writes: true,
    },
    Command {
        name: "add-bond",
        min: 4,
        max: MANY,
        usage: "!BRIDGE !BOND +IFACE *COLUMN?:KEY=VALUE",
        options: &["--may-exist", "--fake-iface"],
        prepare: need_settings,
        run: add_bond,
        writes: true,
    },
    Command {
        name: "add-bond-iface",
        min: 2,
        max: 2,
        usage: "!BOND !IFACE",
        options: &["--may-exist"],
        prepare: need_topology,
        run: add_bond_iface,
        writes: true,
    },
    Command {
        name: "del-bond-iface",
        min: 1,
        max: 2,
        usage: "?BOND !IFACE",
        options: &["--if-exists"],
        prepare: need_topology,
        run: del_bond_iface,
        writes: true,
    },
    Command {
        name: "del-port",
        min: 1,
        max: 2,
        usage: "?BRIDGE !PORT|IFACE",
        options: &["--if-exists", "--with-iface"],
        prepare: need_topology,
        run: del_port,
        writes: true,
    },
    Command {
        name: "port-to-br",
        min: 1,
        max: 1,
        usage: "!PORT",
        options: &[],
        prepare: need_topology,
        run: port_to_br,
        writes: false,
    },
    Command {
        name: "list-ifaces",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need_topology,
        run: list_ifaces,
        writes: false,
    },
    Command {
        name: "iface-to-br",
        min: 1,
        max: 1,
        usage: "!IFACE",
        options: &[],
        prepare: need_topology,
        run: iface_to_br,
        writes: false,
    },
];

fn need_topology(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    topology::need(plan);
    Ok(())
}

/// Where `column=value` begins among the arguments of add-port and add-bond.
fn settings_at(call: &Invocation) -> usize {
    let bond = call.command.name == "add-bond";
    let first = call.args.iter().position(|arg| arg.contains('='));
    if bond { first.unwrap_or(call.args.len()).max(2) } else { 2 }
}

fn need_settings(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    topology::need(plan);
    plan.need("Port", &["bond_fake_iface"]);
    let table = find_table(plan.schema, "Port")?;
    for argument in call.args_from(settings_at(call)) {
        let column = column_of(table, argument)?;
        plan.need("Port", &[&column.name]);
    }
    Ok(())
}

fn list_ports(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let bridge = &topology.bridge(call.arg(0))?.name;
    Ok(Output::lines(topology.ports_on(bridge).map(|port| &port.name).filter(|name| *name != bridge)))
}

fn list_ifaces(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let bridge = &topology.bridge(call.arg(0))?.name;
    let on_bridge = |port: &str| topology.ports.get(port).is_some_and(|port| port.bridge == *bridge);
    let interfaces = topology.interfaces.values().filter(|interface| on_bridge(&interface.port));
    Ok(Output::lines(interfaces.map(|interface| &interface.name).filter(|name| *name != bridge)))
}

fn port_to_br(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    Ok(Output::lines([&context.topology()?.port(call.arg(0))?.bridge]))
}

fn iface_to_br(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let port = &topology.interface(call.arg(0))?.port;
    Ok(Output::lines(topology.ports.get(port).map(|port| &port.bridge)))
}

fn add_port(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    create(call, call.args.get(1..2).unwrap_or_default(), context)
}

fn add_bond(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let interfaces = call.args.get(2..settings_at(call)).unwrap_or_default();
    if interfaces.len() < 2 {
        let given = interfaces.len();
        return fatal(format!("add-bond requires at least 2 interfaces, but only {given} were specified"));
    }
    create(call, interfaces, context)
}

/// Makes a port that bonds these interfaces.
fn create(call: &Invocation, interfaces: &[String], context: &mut Context<'_>) -> Result<Output> {
    let (bridge_name, name) = (call.arg(0), call.arg(1));
    if name.is_empty() {
        return fatal("port name must not be empty string");
    }
    if interfaces.iter().any(String::is_empty) {
        return fatal("interface name must not be empty string");
    }
    let topology = context.topology()?;
    if call.has("--may-exist") && topology.port(name).is_ok() {
        check_same(call, interfaces, topology)?;
        return Ok(Output::nothing());
    }
    topology.check_free(name, &format!("cannot create a port named {name}"))?;
    for interface in interfaces {
        topology.check_free(interface, &format!("cannot create an interface named {interface}"))?;
    }
    let bridge = topology.bridge(bridge_name)?.clone();

    let rows: Vec<Uuid> = interfaces.iter().map(|interface| insert_interface(interface, context)).collect();
    let port = Uuid::new_v4();
    let txn = &mut context.txn;
    txn.insert("Port", port, false);
    txn.write("Port", port, "name", Datum::scalar(name));
    txn.write("Port", port, "interfaces", Datum::set(rows.iter().copied()));
    if call.has("--fake-iface") {
        txn.write("Port", port, "bond_fake_iface", Datum::scalar(true));
    }
    if let Some(vlan) = &bridge.vlan {
        txn.write("Port", port, "tag", Datum::scalar(vlan.vlan));
    }
    let table = find_table(txn.schema, "Port")?;
    for argument in call.args_from(settings_at(call)) {
        set_column(txn, &mut context.symbols, table, port, argument)?;
    }
    let ports = with(&txn.read("Bridge", bridge.row, "ports"), &[port], &[]);
    txn.write("Bridge", bridge.row, "ports", ports);

    let topology = context.topology()?;
    topology.add_port(name, port, bridge_name);
    for (interface, row) in interfaces.iter().zip(rows) {
        topology.add_interface(interface.clone(), row, name);
    }
    Ok(Output::nothing())
}

fn insert_interface(name: &str, context: &mut Context<'_>) -> Uuid {
    let row = Uuid::new_v4();
    context.txn.insert("Interface", row, false);
    context.txn.write("Interface", row, "name", Datum::scalar(name));
    context.new_interfaces.push(row);
    row
}

/// Whether the port that `--may-exist` found is what was asked for.
fn check_same(call: &Invocation, interfaces: &[String], topology: &Topology) -> Result<()> {
    let (bridge, name) = (call.arg(0), call.arg(1));
    let port = topology.port(name)?;
    if port.bridge != bridge {
        return fatal(format!(
            "\"{}\" but {name} is actually attached to bridge {}",
            call.typed(),
            port.bridge
        ));
    }
    let mut wanted: Vec<&str> = interfaces.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    let actual: Vec<&str> = topology.interfaces_of(name).map(|interface| interface.name.as_str()).collect();
    if wanted != actual {
        let actual = actual.join(", ");
        return fatal(format!("\"{}\" but {name} actually has interface(s) {actual}", call.typed()));
    }
    Ok(())
}

fn add_bond_iface(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let (bond, name) = (call.arg(0), call.arg(1));
    let topology = context.topology()?;
    let port = topology.port(bond)?.clone();
    if call.has("--may-exist")
        && let Ok(interface) = topology.interface(name)
    {
        return match interface.port == bond {
            true => Ok(Output::nothing()),
            false => {
                let port = &interface.port;
                fatal(format!("\"{}\" but {name} is actually attached to port {port}", call.typed()))
            }
        };
    }
    topology.check_free(name, &format!("cannot create an interface named {name}"))?;
    let row = insert_interface(name, context);
    let interfaces = with(&context.txn.read("Port", port.row, "interfaces"), &[row], &[]);
    context.txn.write("Port", port.row, "interfaces", interfaces);
    context.topology()?.add_interface(name.to_owned(), row, bond);
    Ok(Output::nothing())
}

fn del_bond_iface(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let topology = context.topology()?;
    let (bond, name) = match call.args.as_slice() {
        [bond, name] => (Some(bond), name.as_str()),
        _ => (None, call.arg(0)),
    };
    let interface = match topology.interface(name) {
        Err(_) if call.has("--if-exists") => return Ok(Output::nothing()),
        found => found?.clone(),
    };
    if let Some(bond) = bond
        && topology.port(bond)?.name != interface.port
    {
        return fatal(format!("port {bond} does not have an interface {name}"));
    }
    if topology.interfaces_of(&interface.port).count() == 1 {
        return fatal(format!("cannot delete last interface from port {}", interface.port));
    }
    let Some(port) = topology.ports.get(&interface.port).map(|port| port.row) else {
        return Ok(Output::nothing());
    };
    topology.interfaces.remove(name);
    let interfaces = with(&context.txn.read("Port", port, "interfaces"), &[], &[interface.row]);
    context.txn.write("Port", port, "interfaces", interfaces);
    context.txn.delete("Interface", interface.row);
    Ok(Output::nothing())
}

fn del_port(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let (bridge, name) = match call.args.as_slice() {
        [bridge, name] => (Some(bridge), name.clone()),
        _ => (None, call.arg(0).to_owned()),
    };
    let (must_exist, with_iface) = (!call.has("--if-exists"), call.has("--with-iface"));
    let topology = context.topology()?;
    let mut found = topology.port(&name).ok();
    if found.is_none() && with_iface {
        found = topology.interface(&name).ok().and_then(|interface| topology.ports.get(&interface.port));
    }
    let Some(port) = found.cloned() else {
        return match topology.ports.get(&name) {
            _ if !must_exist => Ok(Output::nothing()),
            Some(port) if topology.bridges.contains_key(&name) => fatal(format!(
                "cannot delete port {name} because it is the local port for bridge {} (deleting this port requires \
                 deleting the entire bridge)",
                port.bridge
            )),
            _ if with_iface => fatal(format!("no port or interface named {name}")),
            _ => fatal(format!("no port named {name}")),
        };
    };
    if let Some(bridge) = bridge.filter(|bridge| **bridge != port.bridge) {
        topology.bridge(bridge)?;
        let vlan = topology.bridge(&port.bridge)?.vlan.as_ref();
        return match vlan.is_some_and(|vlan| vlan.parent == *bridge) {
            true => fatal(format!(
                "bridge {bridge} does not have a port {name} (although its child bridge {} does)",
                port.bridge
            )),
            false => fatal(format!("bridge {bridge} does not have a port {name}")),
        };
    }
    let bridge = topology.bridge(&port.bridge)?.row;
    remove(&port.name, bridge, context)?;
    Ok(Output::nothing())
}

/// Takes a port and its interfaces off the bridge with this row.
pub fn remove(name: &str, bridge: Uuid, context: &mut Context<'_>) -> Result<()> {
    let topology = context.topology()?;
    let Some(port) = topology.ports.get(name).map(|port| port.row) else { return Ok(()) };
    let interfaces: Vec<Uuid> = topology.interfaces_of(name).map(|interface| interface.row).collect();
    topology.remove_port(name);
    let ports = with(&context.txn.read("Bridge", bridge, "ports"), &[], &[port]);
    context.txn.write("Bridge", bridge, "ports", ports);
    context.txn.delete("Port", port);
    for interface in interfaces {
        context.txn.delete("Interface", interface);
    }
    Ok(())
}
