//! Controllers, managers, the fail mode and TLS files. This switch uses none of them; they are kept for those who ask.

use super::super::error::{Result, fatal};
use super::super::log;
use super::super::output::Output;
use super::bridge::{real_bridge, references};
use super::topology;
use super::{Command, Context, Invocation, MANY, Plan};
use ovsdb::{Datum, Uuid};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "get-controller",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need,
        run: get_controller,
        writes: false,
    },
    Command {
        name: "del-controller",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need,
        run: del_controller,
        writes: true,
    },
    Command {
        name: "set-controller",
        min: 1,
        max: MANY,
        usage: "!BRIDGE +TARGET",
        options: &["--inactivity-probe="],
        prepare: need,
        run: set_controller,
        writes: true,
    },
    Command {
        name: "get-fail-mode",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need,
        run: get_fail_mode,
        writes: false,
    },
    Command {
        name: "del-fail-mode",
        min: 1,
        max: 1,
        usage: "!BRIDGE",
        options: &[],
        prepare: need,
        run: del_fail_mode,
        writes: true,
    },
    Command {
        name: "set-fail-mode",
        min: 2,
        max: 2,
        usage: "!BRIDGE !MODE",
        options: &[],
        prepare: need,
        run: set_fail_mode,
        writes: true,
    },
    Command {
        name: "get-manager",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need,
        run: get_manager,
        writes: false,
    },
    Command {
        name: "del-manager",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need,
        run: del_manager,
        writes: true,
    },
    Command {
        name: "set-manager",
        min: 1,
        max: MANY,
        usage: "+TARGET",
        options: &["--inactivity-probe="],
        prepare: need,
        run: set_manager,
        writes: true,
    },
    Command {
        name: "get-ssl",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need_ssl,
        run: get_ssl,
        writes: false,
    },
    Command {
        name: "del-ssl",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need_ssl,
        run: del_ssl,
        writes: true,
    },
    Command {
        name: "set-ssl",
        min: 3,
        max: 3,
        usage: "!PRIVATE-KEY !CERTIFICATE !CA-CERT",
        options: &["--bootstrap"],
        prepare: need_ssl,
        run: set_ssl,
        writes: true,
    },
];

fn need(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    topology::need(plan);
    plan.need("Open_vSwitch", &["manager_options"]);
    plan.need("Bridge", &["controller", "fail_mode"]);
    plan.need("Controller", &["target", "inactivity_probe"]);
    plan.need("Manager", &["target", "inactivity_probe"]);
    Ok(())
}

fn need_ssl(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    plan.need("Open_vSwitch", &["ssl"]);
    plan.need("SSL", &["private_key", "certificate", "ca_cert", "bootstrap_ca_cert"]);
    Ok(())
}

/// The row of a bridge, or of its parent if it is a VLAN bridge.
fn any_bridge(name: &str, context: &mut Context<'_>) -> Result<Uuid> {
    Ok(context.topology()?.bridge(name)?.row)
}

fn get_controller(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = any_bridge(call.arg(0), context)?;
    context.txn.rely_on("Bridge", bridge, "controller");
    Ok(targets(context, "Bridge", bridge, "controller", "Controller"))
}

fn del_controller(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = real_bridge(call.arg(0), context)?;
    replace_targets(context, "Bridge", bridge, "controller", "Controller", &[], None);
    Ok(Output::nothing())
}

fn set_controller(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = real_bridge(call.arg(0), context)?;
    let probe = call.option("--inactivity-probe");
    replace_targets(context, "Bridge", bridge, "controller", "Controller", call.args_from(1), probe);
    Ok(Output::nothing())
}

fn get_manager(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    context.txn.rely_on("Open_vSwitch", context.root, "manager_options");
    Ok(targets(context, "Open_vSwitch", context.root, "manager_options", "Manager"))
}

fn del_manager(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    replace_targets(context, "Open_vSwitch", context.root, "manager_options", "Manager", &[], None);
    Ok(Output::nothing())
}

fn set_manager(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let probe = call.option("--inactivity-probe");
    replace_targets(context, "Open_vSwitch", context.root, "manager_options", "Manager", &call.args, probe);
    Ok(Output::nothing())
}

fn targets(context: &Context<'_>, owner: &str, row: Uuid, column: &str, table: &str) -> Output {
    let rows = references(context, owner, row, column);
    let mut targets: Vec<String> =
        rows.iter().map(|row| context.txn.read_str(table, *row, "target")).collect();
    targets.sort();
    Output::lines(targets)
}

/// Puts rows for these targets in the place of all that `owner` refers to.
fn replace_targets(
    context: &mut Context<'_>,
    owner: &str,
    row: Uuid,
    column: &str,
    table: &str,
    targets: &[String],
    inactivity_probe: Option<&str>,
) {
    context.txn.rely_on(owner, row, column);
    for old in references(context, owner, row, column) {
        context.txn.delete(table, old);
    }
    let mut rows = Vec::new();
    for target in targets {
        check_target(target);
        let new = Uuid::new_v4();
        context.txn.insert(table, new, false);
        context.txn.write(table, new, "target", Datum::scalar(target.as_str()));
        if let Some(milliseconds) = inactivity_probe {
            // The stock tool takes what is no number for 0.
            let milliseconds: i64 = milliseconds.parse().unwrap_or(0);
            context.txn.write(table, new, "inactivity_probe", Datum::scalar(milliseconds));
        }
        rows.push(new);
    }
    context.txn.write(owner, row, column, Datum::set(rows));
}

fn check_target(target: &str) {
    let kind = target.split(':').next().unwrap_or_default();
    if !["tcp", "ssl", "unix", "ptcp", "pssl", "punix"].contains(&kind) {
        log::warn("vsctl", &format!("target type \"{target}\" is possibly erroneous"));
    }
}

fn get_fail_mode(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = any_bridge(call.arg(0), context)?;
    context.txn.rely_on("Bridge", bridge, "fail_mode");
    let mode = context.txn.read_str("Bridge", bridge, "fail_mode");
    Ok(Output::lines(Some(mode).filter(|mode| !mode.is_empty())))
}

fn del_fail_mode(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = real_bridge(call.arg(0), context)?;
    context.txn.write("Bridge", bridge, "fail_mode", Datum::empty_set());
    Ok(Output::nothing())
}

fn set_fail_mode(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let bridge = real_bridge(call.arg(0), context)?;
    let mode = call.arg(1);
    if mode != "standalone" && mode != "secure" {
        return fatal("fail-mode must be \"standalone\" or \"secure\"");
    }
    context.txn.write("Bridge", bridge, "fail_mode", Datum::scalar(mode));
    Ok(Output::nothing())
}

fn get_ssl(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    context.txn.rely_on("Open_vSwitch", context.root, "ssl");
    let txn = &context.txn;
    let lines = references(context, "Open_vSwitch", context.root, "ssl").into_iter().flat_map(|ssl| {
        let bootstrap =
            txn.read("SSL", ssl, "bootstrap_ca_cert").one().is_some_and(|atom| atom.as_bool() == Some(true));
        [
            format!("Private key: {}", txn.read_str("SSL", ssl, "private_key")),
            format!("Certificate: {}", txn.read_str("SSL", ssl, "certificate")),
            format!("CA Certificate: {}", txn.read_str("SSL", ssl, "ca_cert")),
            format!("Bootstrap: {bootstrap}"),
        ]
    });
    Ok(Output::lines(lines))
}

fn del_ssl(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    context.txn.rely_on("Open_vSwitch", context.root, "ssl");
    for old in references(context, "Open_vSwitch", context.root, "ssl") {
        context.txn.delete("SSL", old);
    }
    context.txn.write("Open_vSwitch", context.root, "ssl", Datum::empty_set());
    Ok(Output::nothing())
}

fn set_ssl(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    del_ssl(call, context)?;
    let ssl = Uuid::new_v4();
    let txn = &mut context.txn;
    txn.insert("SSL", ssl, false);
    for (column, value) in ["private_key", "certificate", "ca_cert"].into_iter().zip(&call.args) {
        txn.write("SSL", ssl, column, Datum::scalar(value.as_str()));
    }
    txn.write("SSL", ssl, "bootstrap_ca_cert", Datum::scalar(call.has("--bootstrap")));
    txn.write("Open_vSwitch", context.root, "ssl", Datum::scalar(ssl));
    Ok(Output::nothing())
}
