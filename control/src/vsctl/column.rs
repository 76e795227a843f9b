//! Finding columns, and the arguments that name one: `column[:key][=value]`.

use super::error::{Result, fatal};
use super::record::best_matches;
use super::symbols::Symbols;
use super::text::{parse_atom, parse_datum, token};
use super::transaction::Transaction;
use ovsdb::Uuid;
use ovsdb::schema::{ColumnSchema, TableSchema};

/// The column that `name` means; abbreviations will do as for tables.
pub fn find_column<'s>(table: &'s TableSchema, name: &str) -> Result<&'s ColumnSchema> {
    match best_matches(table.columns().iter(), |column| column.name.as_str(), name).as_slice() {
        [column] => Ok(column),
        [] => fatal(format!("{} does not contain a column whose name matches \"{name}\"", table.name)),
        many => {
            let names: Vec<&str> = many.iter().map(|column| column.name.as_str()).collect();
            let names = names.join(", ");
            fatal(format!(
                "{} contains more than one column whose name matches \"{name}\": {names}",
                table.name
            ))
        }
    }
}

/// `column[:key]` at the start of an argument, and what follows it.
#[derive(Debug)]
pub struct Named<'a> {
    pub column: &'a str,
    pub key: Option<&'a str>,
    pub rest: &'a str,
}

/// Splits an argument behind its column and key.
pub fn split(argument: &str) -> Result<Named<'_>> {
    let mut rest = argument;
    let column = token(&mut rest)?;
    if column.is_empty() {
        return fatal(format!("{argument}: missing column name"));
    }
    let key = match rest.strip_prefix(':') {
        Some(after) => {
            rest = after;
            Some(token(&mut rest)?)
        }
        None => None,
    };
    Ok(Named { column, key, rest })
}

/// The column that an argument names, before anything else in it is looked at.
pub fn column_of<'s>(table: &'s TableSchema, argument: &str) -> Result<&'s ColumnSchema> {
    let mut rest = argument;
    let column = token(&mut rest)?;
    if column.is_empty() {
        return fatal(format!("{argument}: missing column name"));
    }
    find_column(table, column)
}

/// Refuses columns that are set once and for all.
pub fn check_mutable(table: &TableSchema, column: &ColumnSchema) -> Result<()> {
    if column.mutable {
        return Ok(());
    }
    fatal(format!("cannot modify read-only column {} in table {}", column.name, table.name))
}

/// Applies `column[:key]=value` to a row.
pub fn set_column(
    txn: &mut Transaction<'_>,
    symbols: &mut Symbols,
    table: &TableSchema,
    row: Uuid,
    argument: &str,
) -> Result<()> {
    let Named { column, key, rest } = split(argument)?;
    let column = find_column(table, column)?;
    let Some(value) = rest.strip_prefix('=').filter(|value| !value.is_empty()) else {
        return fatal(format!("{argument}: argument does not end in \"=\" followed by a value."));
    };
    let mut resolve = symbols.resolver();
    let Some(key) = key else {
        let datum = parse_datum(value, &column.column_type, &mut resolve)?;
        txn.write(&table.name, row, &column.name, datum);
        return Ok(());
    };
    let Some(value_type) = &column.column_type.value else {
        return fatal(format!("cannot specify key to set for non-map column {}", column.name));
    };
    let key = parse_atom(key, &column.column_type.key, &mut resolve)?;
    let value = parse_atom(value, value_type, &mut resolve)?;
    txn.put_pair(&table.name, row, &column.name, key, value);
    Ok(())
}
