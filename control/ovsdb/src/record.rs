//! A transaction as a record of the log: `{"_date": …, "_is_diff": true, "Table": {"uuid": {column: value}}}`.

use crate::database::{Change, Database};
use crate::error::{Error, Tag};
use crate::row::Row;
use crate::schema::Column;
use crate::transaction::Transaction;
use crate::value::{Datum, parse_uuid_text};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The record of a commit; None if nothing that outlives the process has changed. `date`: ms since 1970.
pub(crate) fn encode(changes: &[Change], comment: &str, date: Option<i64>) -> Option<Value> {
    let mut record = Map::new();
    for Change { old, new } in changes {
        let Some(row) = old.as_ref().or(new.as_ref()) else { continue };
        let value = match (old, new) {
            (_, None) => Value::Null,
            (None, Some(new)) => Value::Object(inserted(new)),
            (Some(old), Some(new)) => match modified(old, new) {
                columns if columns.is_empty() => continue,
                columns => Value::Object(columns),
            },
        };
        let rows = record.entry(row.schema().name.clone()).or_insert_with(|| json!({}));
        if let Some(rows) = rows.as_object_mut() {
            rows.insert(row.uuid().to_string(), value);
        }
    }
    if record.is_empty() {
        return None;
    }
    annotate(&mut record, comment, date);
    Some(Value::Object(record))
}

/// One record that makes the whole content of a database.
pub(crate) fn snapshot(db: &Database, comment: &str, date: Option<i64>) -> Value {
    let mut record = Map::new();
    for table in db.schema().tables.keys() {
        let rows: Map<String, Value> =
            db.rows(table).map(|(uuid, row)| (uuid.to_string(), Value::Object(inserted(row)))).collect();
        if !rows.is_empty() {
            record.insert(table.clone(), Value::Object(rows));
        }
    }
    annotate(&mut record, comment, date);
    Value::Object(record)
}

fn annotate(record: &mut Map<String, Value>, comment: &str, date: Option<i64>) {
    if !comment.is_empty() {
        record.insert("_comment".into(), json!(comment));
    }
    if let Some(date) = date {
        record.insert("_date".into(), json!(date));
    }
    record.insert("_is_diff".into(), json!(true));
}

fn inserted(row: &Row) -> Map<String, Value> {
    let columns = row.schema().columns().iter().zip(row.data());
    let stored = columns
        .filter(|(column, datum)| !column.ephemeral && **datum != Datum::default_of(&column.column_type));
    stored.map(|(column, datum)| (column.name.clone(), datum.to_json())).collect()
}

fn modified(old: &Row, new: &Row) -> Map<String, Value> {
    let mut columns = Map::new();
    for (column, (old, new)) in old.schema().columns().iter().zip(old.data().iter().zip(new.data())) {
        if column.ephemeral || old == new {
            continue;
        }
        // Where the old value is the default, the new one is written in full: so OVS reads it.
        let value = match *old == Datum::default_of(&column.column_type) {
            true => new.to_json(),
            false => old.diff(new, &column.column_type).to_json(),
        };
        columns.insert(column.name.clone(), value);
    }
    columns
}

/// What `record` changes in `db`. Tables and columns that the schema does not have are passed over.
pub(crate) fn decode(db: &Database, record: &Value) -> Result<Vec<Change>, Error> {
    let tables = record.as_object().ok_or_else(|| Error::syntax(record, "object expected"))?;
    let is_diff = tables.get("_is_diff").and_then(Value::as_bool).unwrap_or(false);
    let mut transaction = Transaction::new(db);
    for (name, rows) in tables {
        let Some(schema) = db.schema().table(name) else { continue };
        let rows = rows.as_object().ok_or_else(|| Error::syntax(rows, "object expected"))?;
        for (uuid_text, columns) in rows {
            let uuid = parse_uuid_text(uuid_text);
            let uuid =
                uuid.ok_or_else(|| Error::new(Tag::Syntax, format!("\"{uuid_text}\" is not a valid UUID")))?;
            let exists = transaction.row(name, uuid).is_some();
            match columns {
                Value::Null if !exists => {
                    let details = format!("transaction deletes row {uuid} that does not exist");
                    return Err(Error::new(Tag::Syntax, details));
                }
                Value::Null => transaction.delete(name, uuid),
                Value::Object(columns) if !exists => {
                    let mut row = Row::new(Arc::clone(schema), uuid);
                    set_columns(&mut row, columns, false)?;
                    transaction.insert(row);
                }
                Value::Object(columns) => {
                    if let Some(row) = transaction.modify(name, uuid) {
                        set_columns(row, columns, is_diff)?;
                    }
                }
                _ => return Err(Error::syntax(columns, "row must be JSON object")),
            }
        }
    }
    transaction.prepare().map(|commit| commit.changes)
}

fn set_columns(row: &mut Row, columns: &Map<String, Value>, is_diff: bool) -> Result<(), Error> {
    let schema = Arc::clone(row.schema());
    for (name, json) in columns {
        let (Some(position), Some(column)) = (schema.position(name), schema.column(name)) else { continue };
        let at = Column::At(position);
        let old = row.value(at);
        let new = if is_diff && *old != Datum::default_of(&column.column_type) {
            let diff = Datum::from_json_unsized(json, &column.column_type, None)?;
            old.apply_diff(&diff, &column.column_type)?
        } else {
            Datum::from_json(json, &column.column_type, None)?
        };
        row.set(at, new);
    }
    Ok(())
}
