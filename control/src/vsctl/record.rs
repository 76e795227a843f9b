//! Finding tables and rows by what people call them.

use super::error::{Result, fatal};
use super::transaction::Transaction;
use super::view::Needs;
use ovsdb::schema::TableSchema;
use ovsdb::{Atom, Datum, Schema, Uuid};

/// How rows of a table are called, apart from their UUIDs.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// By the value of this column.
    Column(&'static str),
    /// By the name of the row that refers to it: (table, its name, the column that refers).
    Via(&'static str, &'static str, &'static str),
}

fn names(table: &str) -> Option<Names> {
    Some(match table {
        "Bridge" | "Flow_Table" | "Interface" | "Mirror" | "Port" => Names::Column("name"),
        "Flow_Sample_Collector_Set" => Names::Column("id"),
        "Manager" => Names::Column("target"),
        "AutoAttach" => Names::Via("Bridge", "name", "auto_attach"),
        "Controller" => Names::Via("Bridge", "name", "controller"),
        "IPFIX" => Names::Via("Bridge", "name", "ipfix"),
        "NetFlow" => Names::Via("Bridge", "name", "netflow"),
        "sFlow" => Names::Via("Bridge", "name", "sflow"),
        "QoS" => Names::Via("Port", "name", "qos"),
        _ => return None,
    })
}

/// The table that `name` means: case and `-` for `_` do not matter, and an abbreviation that fits no other will do.
pub fn find_table<'s>(schema: &'s Schema, name: &str) -> Result<&'s TableSchema> {
    match best_matches(schema.tables.values().map(|table| &**table), |table| table.name.as_str(), name)
        .as_slice()
    {
        [table] => Ok(table),
        [] => fatal(format!("unknown table \"{name}\"")),
        many => {
            let names: Vec<&str> = many.iter().map(|table| table.name.as_str()).collect();
            fatal(format!("\"{name}\" matches multiple table names: {}", names.join(", ")))
        }
    }
}

/// Those whose names fit `typed` best: exactly, but for case and dashes, or as an abbreviation.
pub fn best_matches<'s, T>(
    all: impl Iterator<Item = &'s T>,
    name_of: impl Fn(&'s T) -> &'s str,
    typed: &str,
) -> Vec<&'s T> {
    let fold = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let folded = fold(typed);
    let mut best = (0, Vec::new());
    for item in all {
        let name = name_of(item);
        let score = match fold(name) {
            _ if name == typed => 3,
            name if name == folded => 2,
            name if !folded.is_empty() && name.starts_with(&folded) => 1,
            _ => continue,
        };
        if score > best.0 {
            best = (score, Vec::new());
        }
        if score == best.0 {
            best.1.push(item);
        }
    }
    best.1
}

/// Asks for what `find_row` looks at.
pub fn need_names(needs: &mut Needs, table: &str) {
    needs.entry(table.to_owned()).or_default();
    match names(table) {
        Some(Names::Column(column)) => need(needs, table, column),
        Some(Names::Via(table, name, column)) => {
            need(needs, table, name);
            need(needs, table, column);
        }
        None => {}
    }
}

/// Asks for one column.
pub fn need(needs: &mut Needs, table: &str, column: &str) {
    needs.entry(table.to_owned()).or_default().insert(column.to_owned());
}

/// The row that `record` means: its UUID or the beginning of it, its name, or `.` for the only row there is.
pub fn find_row(txn: &mut Transaction<'_>, table: &str, record: &str) -> Result<Option<Uuid>> {
    if let Some(uuid) = ovsdb::parse_uuid_text(record).filter(|uuid| txn.exists(table, *uuid)) {
        return Ok(Some(uuid));
    }
    let named = match names(table) {
        Some(Names::Column(column)) => row_called(txn, table, column, record)?,
        Some(Names::Via(referrer, name, column)) => match row_called(txn, referrer, name, record)? {
            Some(row) => {
                txn.rely_on(referrer, row, column);
                txn.read(referrer, row, column).one().and_then(Atom::as_uuid)
            }
            None => None,
        },
        None => None,
    };
    match named {
        Some(row) if txn.exists(table, row) => return Ok(Some(row)),
        _ => {}
    }
    let rows = txn.rows(table);
    if record == "." {
        return Ok(if let [only] = rows.as_slice() { Some(*only) } else { None });
    }
    row_beginning_with(&rows, table, record)
}

/// Like `find_row`, but the row must be there.
pub fn get_row(txn: &mut Transaction<'_>, table: &str, record: &str) -> Result<Uuid> {
    match find_row(txn, table, record)? {
        Some(row) => Ok(row),
        None => fatal(format!("no row \"{record}\" in table {table}")),
    }
}

fn row_called(txn: &mut Transaction<'_>, table: &str, column: &str, name: &str) -> Result<Option<Uuid>> {
    let called = |txn: &Transaction<'_>, row: &Uuid| match txn.get(table, *row, column).and_then(Datum::one) {
        Some(Atom::Integer(id)) => name.parse() == Ok(*id),
        Some(atom) => atom.as_str() == Some(name),
        None => false,
    };
    let mut rows = txn.rows(table);
    rows.retain(|row| called(txn, row));
    match rows.as_slice() {
        [] => Ok(None),
        [row] => Ok(Some(*row)),
        _ => fatal(format!("multiple rows in {table} match \"{name}\"")),
    }
}

fn row_beginning_with(rows: &[Uuid], table: &str, prefix: &str) -> Result<Option<Uuid>> {
    if prefix.bytes().filter(u8::is_ascii_hexdigit).count() < 4 {
        return Ok(None);
    }
    let prefix = prefix.to_ascii_lowercase();
    let mut fitting = rows.iter().filter(|row| row.to_string().starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(first), Some(second)) => fatal(format!(
            "{table} contains 2 or more rows whose UUIDs begin with {prefix}: at least {first} and {second}"
        )),
        (first, _) => Ok(first.copied()),
    }
}
