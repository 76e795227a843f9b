//! Commands for the switch as a whole: init, show, emer-reset, comment.

use super::super::error::Result;
use super::super::output::Output;
use super::super::text::print_datum;
use super::topology::uuids;
use super::{Command, Context, Invocation, MANY, Plan};
use ovsdb::{Atom, Datum, Uuid};
use std::fmt::Write as _;

pub const COMMANDS: &[Command] = &[
    Command {
        name: "init",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: |_, _| Ok(()),
        run: |_, _| Ok(Output::nothing()),
        writes: true,
    },
    Command {
        name: "show",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need_show,
        run: show,
        writes: false,
    },
    Command {
        name: "emer-reset",
        min: 0,
        max: 0,
        usage: "",
        options: &[],
        prepare: need_emer_reset,
        run: emer_reset,
        writes: true,
    },
    Command {
        name: "comment",
        min: 0,
        max: MANY,
        usage: "*ARG",
        options: &[],
        prepare: |_, _| Ok(()),
        run: |_, _| Ok(Output::nothing()),
        writes: true,
    },
];

/// What `show` prints of a table's row: the column that names it, and its columns from top to bottom.
struct Shown {
    table: &'static str,
    name: &'static str,
    columns: &'static [&'static str],
}

const SHOWN: &[Shown] = &[
    Shown { table: "Open_vSwitch", name: "", columns: &["manager_options", "bridges", "ovs_version"] },
    Shown { table: "Bridge", name: "name", columns: &["controller", "fail_mode", "datapath_type", "ports"] },
    Shown { table: "Port", name: "name", columns: &["tag", "trunks", "interfaces"] },
    Shown { table: "Interface", name: "name", columns: &["type", "options", "error", "bfd_status"] },
    Shown { table: "Controller", name: "target", columns: &["is_connected"] },
    Shown { table: "Manager", name: "target", columns: &["is_connected"] },
];

fn need_show(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    for shown in SHOWN {
        plan.need(shown.table, shown.columns);
        if !shown.name.is_empty() {
            plan.need(shown.table, &[shown.name]);
        }
    }
    Ok(())
}

fn show(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let mut text = String::new();
    if let Some(shown) = SHOWN.first() {
        for row in context.txn.rows(shown.table) {
            show_row(context, shown, row, 0, &mut text);
        }
    }
    Ok(Output::Text(text))
}

/// Prints a row and, deeper, the rows that it refers to. The tables form no circle.
fn show_row(context: &Context<'_>, shown: &Shown, row: Uuid, depth: usize, text: &mut String) {
    let indent = |depth: usize| " ".repeat(4 * depth);
    let _ = match shown.name {
        "" => writeln!(text, "{}{row}", indent(depth)),
        name => {
            let name = Atom::from(context.txn.read_str(shown.table, row, name));
            writeln!(text, "{}{} {name}", indent(depth), shown.table)
        }
    };
    let Some(table) = context.txn.schema.table(shown.table) else { return };
    for column in shown.columns.iter().filter_map(|name| table.column(name)) {
        let datum = context.txn.read(shown.table, row, &column.name);
        let target = column.column_type.key.reference().map(|reference| reference.table.as_str());
        if let Some(shown) = SHOWN.iter().find(|shown| Some(shown.table) == target) {
            for row in uuids(&datum).into_iter().filter(|row| context.txn.exists(shown.table, *row)) {
                show_row(context, shown, row, depth + 1, text);
            }
        } else if datum != Datum::default_of(&column.column_type) {
            let value = print_datum(&datum, &column.column_type);
            let _ = writeln!(text, "{}{}: {value}", indent(depth + 1), column.name);
        }
    }
}

/// Tables and columns that an emergency reset empties.
const RESET: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["manager_options", "ssl"]),
    (
        "Bridge",
        &["controller", "fail_mode", "mirrors", "netflow", "sflow", "ipfix", "flood_vlans", "other_config"],
    ),
    ("Port", &["other_config"]),
    ("Interface", &["ingress_policing_rate", "ingress_policing_burst"]),
];

fn need_emer_reset(_: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    for (table, columns) in RESET {
        plan.need(table, columns);
    }
    for table in ["Manager", "SSL", "Controller", "Mirror", "NetFlow", "sFlow", "IPFIX"] {
        plan.need(table, &[]);
    }
    Ok(())
}

fn emer_reset(_: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let txn = &mut context.txn;
    for (table, columns) in RESET {
        let Some(schema) = txn.schema.table(table) else { continue };
        for row in txn.rows(table) {
            for column in columns.iter().filter_map(|name| schema.column(name)) {
                let old = txn.read(table, row, &column.name);
                // A bridge keeps the address that it was given.
                let hwaddr = old.get_str("hwaddr").filter(|_| *table == "Bridge");
                let new = match hwaddr {
                    Some(address) => Datum::map([("hwaddr", address)]),
                    None => Datum::default_of(&column.column_type),
                };
                txn.write(table, row, &column.name, new);
            }
        }
    }
    context.forget_topology();
    Ok(Output::nothing())
}
