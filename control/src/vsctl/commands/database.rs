//! The commands that work on any table.

use super::super::column::{Named, check_mutable, column_of, find_column, set_column, split};
use super::super::condition;
use super::super::error::{Result, fatal};
use super::super::log;
use super::super::output::{Cell, Output, Table};
use super::super::record::{find_row, find_table, get_row, need_names};
use super::super::text::{parse_atom, parse_datum, print_datum};
use super::{Command, Context, Invocation, MANY, Plan};
use ovsdb::schema::{ColumnSchema, ColumnType, TableSchema};
use ovsdb::{Datum, Uuid};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "list",
        min: 1,
        max: MANY,
        usage: "!TABLE *RECORD",
        options: &["--if-exists", "--columns="],
        prepare: need_listed,
        run: list,
        writes: false,
    },
    Command {
        name: "find",
        min: 1,
        max: MANY,
        usage: "!TABLE *COLUMN?:KEY=VALUE",
        options: &["--columns="],
        prepare: need_found,
        run: find,
        writes: false,
    },
    Command {
        name: "get",
        min: 2,
        max: MANY,
        usage: "!TABLE !RECORD *COLUMN?:KEY",
        options: &["--if-exists", "--id="],
        prepare: need_got,
        run: get,
        writes: false,
    },
    Command {
        name: "set",
        min: 3,
        max: MANY,
        usage: "!TABLE !RECORD +COLUMN?:KEY=VALUE",
        options: &["--if-exists"],
        prepare: |call, plan| need_columns(call, plan, call.args_from(2)),
        run: set,
        writes: true,
    },
    Command {
        name: "add",
        min: 4,
        max: MANY,
        usage: "!TABLE !RECORD !COLUMN +?KEY=VALUE",
        options: &["--if-exists"],
        prepare: need_one_column,
        run: add,
        writes: true,
    },
    Command {
        name: "remove",
        min: 4,
        max: MANY,
        usage: "!TABLE !RECORD !COLUMN +KEY|VALUE|KEY=VALUE",
        options: &["--if-exists"],
        prepare: need_one_column,
        run: remove,
        writes: true,
    },
    Command {
        name: "clear",
        min: 3,
        max: MANY,
        usage: "!TABLE !RECORD +COLUMN",
        options: &["--if-exists"],
        prepare: need_cleared,
        run: clear,
        writes: true,
    },
    Command {
        name: "create",
        min: 2,
        max: MANY,
        usage: "!TABLE +COLUMN?:KEY=VALUE",
        options: &["--id="],
        prepare: need_created,
        run: create,
        writes: true,
    },
    Command {
        name: "destroy",
        min: 1,
        max: MANY,
        usage: "!TABLE *RECORD",
        options: &["--if-exists", "--all"],
        prepare: need_destroyed,
        run: destroy,
        writes: true,
    },
    Command {
        name: "wait-until",
        min: 2,
        max: MANY,
        usage: "!TABLE !RECORD *COLUMN?:KEY=VALUE",
        options: &[],
        prepare: |call, plan| need_columns(call, plan, call.args_from(2)),
        run: wait_until,
        writes: false,
    },
];

/// The column that every row has and no schema lists.
const UUID: &str = "_uuid";

fn need_columns(call: &Invocation, plan: &mut Plan<'_>, arguments: &[String]) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    need_names(&mut plan.needs, &table.name);
    for argument in arguments {
        let column = column_of(table, argument)?;
        plan.need(&table.name, &[&column.name]);
    }
    Ok(())
}

fn need_one_column(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    let column = find_column(table, call.arg(2))?;
    need_names(&mut plan.needs, &table.name);
    plan.need(&table.name, &[&column.name]);
    Ok(())
}

/// The columns of `--columns`, in order. None stands for `_uuid`.
fn listed_columns<'s>(call: &Invocation, table: &'s TableSchema) -> Result<Vec<Option<&'s ColumnSchema>>> {
    let Some(names) = call.option("--columns") else {
        return Ok(std::iter::once(None).chain(table.columns().iter().map(Some)).collect());
    };
    let names = names.split([',', ' ']).filter(|name| !name.is_empty());
    let columns: Vec<_> = names
        .map(
            |name| {
                if name.eq_ignore_ascii_case(UUID) { Ok(None) } else { find_column(table, name).map(Some) }
            },
        )
        .collect::<Result<_>>()?;
    if columns.is_empty() { fatal("must specify at least one column name") } else { Ok(columns) }
}

fn need_listed(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    need_names(&mut plan.needs, &table.name);
    for column in listed_columns(call, table)?.into_iter().flatten() {
        plan.need(&table.name, &[&column.name]);
    }
    Ok(())
}

fn list(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let rows = match call.args_from(1) {
        [] => context.txn.rows(&table.name),
        records => {
            let find = |record: &String| found_row(call, context, table, record);
            records.iter().map(find).filter_map(Result::transpose).collect::<Result<_>>()?
        }
    };
    print_rows(call, context, table, rows)
}

/// The row that a command is about. None if it is not there and need not be.
fn found_row(
    call: &Invocation,
    context: &mut Context<'_>,
    table: &TableSchema,
    record: &str,
) -> Result<Option<Uuid>> {
    match call.has("--if-exists") {
        true => find_row(&mut context.txn, &table.name, record),
        false => get_row(&mut context.txn, &table.name, record).map(Some),
    }
}

fn print_rows(
    call: &Invocation,
    context: &Context<'_>,
    table: &TableSchema,
    rows: Vec<Uuid>,
) -> Result<Output> {
    let columns = listed_columns(call, table)?;
    let heading = |column: &Option<&ColumnSchema>| column.map_or(UUID, |column| &column.name).to_owned();
    let cells = |row: Uuid| {
        let cell = |column: &Option<&ColumnSchema>| match column {
            None => Cell::uuid(row),
            Some(column) => Cell::new(context.txn.read(&table.name, row, &column.name), &column.column_type),
        };
        columns.iter().map(cell).collect()
    };
    let headings = columns.iter().map(heading).collect();
    Ok(Output::Table(Table { headings, rows: rows.into_iter().map(cells).collect() }))
}

fn need_found(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    need_listed(call, plan)?;
    need_columns(call, plan, call.args_from(1))
}

fn find(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let mut rows = Vec::new();
    for row in context.txn.rows(&table.name) {
        if all_met(call.args_from(1), context, table, row)? {
            rows.push(row);
        }
    }
    print_rows(call, context, table, rows)
}

fn all_met(conditions: &[String], context: &mut Context<'_>, table: &TableSchema, row: Uuid) -> Result<bool> {
    for condition in conditions {
        if !condition::is_met(&context.txn, &mut context.symbols, table, row, condition)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn wait_until(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let met = match find_row(&mut context.txn, &table.name, call.arg(1))? {
        Some(row) => all_met(call.args_from(2), context, table, row)?,
        None => false,
    };
    context.try_again |= !met;
    Ok(Output::nothing())
}

fn need_got(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    need_names(&mut plan.needs, &table.name);
    for argument in call.args_from(2).iter().filter(|argument| !argument.eq_ignore_ascii_case(UUID)) {
        let column = column_of(table, argument)?;
        plan.need(&table.name, &[&column.name]);
    }
    Ok(())
}

fn get(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    if call.has("--if-exists") && call.has("--id") {
        return fatal("--if-exists and --id may not be specified together");
    }
    let table = find_table(context.txn.schema, call.arg(0))?;
    let Some(row) = found_row(call, context, table, call.arg(1))? else { return Ok(Output::nothing()) };
    if let Some(name) = call.option("--id") {
        context.symbols.bind(name, row)?;
    }
    let value = |argument: &String| match argument.eq_ignore_ascii_case(UUID) {
        true => Ok(row.to_string()),
        false => get_value(call, context, table, row, argument),
    };
    Ok(Output::lines(call.args_from(2).iter().map(value).collect::<Result<Vec<_>>>()?))
}

fn get_value(
    call: &Invocation,
    context: &mut Context<'_>,
    table: &TableSchema,
    row: Uuid,
    argument: &str,
) -> Result<String> {
    let Named { column, key, rest } = split(argument)?;
    let column = find_column(table, column)?;
    if !rest.is_empty() {
        return fatal(format!("{argument}: trailing garbage \"{rest}\" in argument"));
    }
    context.txn.rely_on(&table.name, row, &column.name);
    let datum = context.txn.read(&table.name, row, &column.name);
    let Some(key) = key else { return Ok(print_datum(&datum, &column.column_type)) };
    if !column.column_type.is_map() {
        return fatal(format!("cannot specify key to get for non-map column {}", column.name));
    }
    let atom = parse_atom(key, &column.column_type.key, &mut context.symbols.resolver())?;
    match datum.get(&atom) {
        Some(value) => Ok(value.to_string()),
        None if call.has("--if-exists") => Ok(String::new()),
        None => fatal(format!(
            "no key \"{key}\" in {} record \"{}\" column {}",
            table.name,
            call.arg(1),
            column.name
        )),
    }
}

fn set(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let Some(row) = found_row(call, context, table, call.arg(1))? else { return Ok(Output::nothing()) };
    for argument in call.args_from(2) {
        let column = column_of(table, argument)?;
        check_mutable(table, column)?;
        set_column(&mut context.txn, &mut context.symbols, table, row, argument)?;
        context.changed(&table.name, &column.name);
    }
    Ok(Output::nothing())
}

fn add(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let Some(row) = found_row(call, context, table, call.arg(1))? else { return Ok(Output::nothing()) };
    let column = find_column(table, call.arg(2))?;
    check_mutable(table, column)?;
    // The server sees to the limits: others may add at the same time.
    let unlimited = ColumnType { min: 1, max: u32::MAX, ..column.column_type.clone() };
    for argument in call.args_from(3) {
        let added = parse_datum(argument, &unlimited, &mut context.symbols.resolver())?;
        context.txn.add(&table.name, row, &column.name, &added);
    }
    context.changed(&table.name, &column.name);
    Ok(Output::nothing())
}

fn remove(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let Some(row) = found_row(call, context, table, call.arg(1))? else { return Ok(Output::nothing()) };
    let column = find_column(table, call.arg(2))?;
    check_mutable(table, column)?;
    context.txn.rely_on(&table.name, row, &column.name);
    let mut left = context.txn.read(&table.name, row, &column.name);
    for argument in call.args_from(3) {
        left = without(&left, argument, column, context)?;
    }
    let ColumnType { min, .. } = column.column_type;
    if left.len() < min as usize {
        let noun = if column.column_type.is_map() { "pairs" } else { "values" };
        return fatal(format!(
            "\"remove\" operation would put {} {noun} in column {} of table {} but the minimum number is {min}",
            left.len(),
            column.name,
            table.name
        ));
    }
    context.txn.write(&table.name, row, &column.name, left);
    context.changed(&table.name, &column.name);
    Ok(Output::nothing())
}

/// `datum` less the values, pairs or keys in `argument`.
fn without(datum: &Datum, argument: &str, column: &ColumnSchema, context: &mut Context<'_>) -> Result<Datum> {
    let mut resolve = context.symbols.resolver();
    let pairs = ColumnType { min: 1, max: u32::MAX, ..column.column_type.clone() };
    let keys = ColumnType { value: None, ..pairs.clone() };
    if column.column_type.is_map() {
        if let Ok(removed) = parse_datum(argument, &pairs, &mut resolve) {
            let kept = datum.pairs().iter().filter(|(key, value)| removed.get(key) != Some(value));
            return Ok(Datum::map(kept.cloned()));
        }
        let removed = parse_datum(argument, &keys, &mut resolve)?;
        return Ok(Datum::map(datum.pairs().iter().filter(|(key, _)| !removed.contains(key)).cloned()));
    }
    let removed = parse_datum(argument, &keys, &mut resolve)?;
    Ok(Datum::set(datum.atoms().iter().filter(|atom| !removed.contains(atom)).cloned()))
}

fn need_cleared(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    need_names(&mut plan.needs, &table.name);
    for name in call.args_from(2) {
        let column = find_column(table, name)?;
        plan.need(&table.name, &[&column.name]);
    }
    Ok(())
}

fn clear(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let Some(row) = found_row(call, context, table, call.arg(1))? else { return Ok(Output::nothing()) };
    for name in call.args_from(2) {
        let column = find_column(table, name)?;
        check_mutable(table, column)?;
        if column.column_type.min > 0 {
            return fatal(format!(
                "\"clear\" operation cannot be applied to column {} of table {}, which is not allowed to be empty",
                column.name, table.name
            ));
        }
        context.txn.write(&table.name, row, &column.name, Datum::default_of(&column.column_type));
        context.changed(&table.name, &column.name);
    }
    Ok(Output::nothing())
}

fn need_created(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    if !call.has("--id") && !table.is_root {
        plan.warn(&format!(
            "applying \"create\" command to table {} without --id option will have no effect",
            table.name
        ));
    }
    need_columns(call, plan, call.args_from(1))
}

fn create(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let (row, fixed) = match call.option("--id") {
        None => (Uuid::new_v4(), false),
        Some(id) => match ovsdb::parse_uuid_text(id) {
            Some(uuid) => (uuid, true),
            None => (context.symbols.create(id, table.is_root)?, false),
        },
    };
    context.txn.insert(&table.name, row, fixed);
    for argument in call.args_from(1) {
        set_column(&mut context.txn, &mut context.symbols, table, row, argument)?;
    }
    Ok(Output::Created(row))
}

fn need_destroyed(call: &Invocation, plan: &mut Plan<'_>) -> Result<()> {
    let table = find_table(plan.schema, call.arg(0))?;
    need_names(&mut plan.needs, &table.name);
    let (all, records) = (call.has("--all"), call.args_from(1));
    if all && !records.is_empty() {
        return fatal("--all and records argument should not be specified together");
    }
    if all && call.has("--if-exists") {
        return fatal("--all and --if-exists should not be specified together");
    }
    if !all && records.is_empty() {
        log::warn("db_ctl_base", "either --all or records argument should be specified");
    }
    Ok(())
}

fn destroy(call: &Invocation, context: &mut Context<'_>) -> Result<Output> {
    let table = find_table(context.txn.schema, call.arg(0))?;
    let rows = match call.has("--all") {
        true => context.txn.rows(&table.name),
        false => {
            let find = |record: &String| found_row(call, context, table, record);
            call.args_from(1).iter().map(find).filter_map(Result::transpose).collect::<Result<_>>()?
        }
    };
    for row in rows {
        context.txn.delete(&table.name, row);
    }
    context.forget_topology();
    Ok(Output::nothing())
}
