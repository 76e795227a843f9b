//! What the database holds, as far as the commands need it: kept current by a monitor.

use ovsdb::{Datum, Schema, Uuid};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The columns to read, by table. A table without columns is one whose rows only have to be known to exist.
pub type Needs = BTreeMap<String, BTreeSet<String>>;

/// A row's columns by name.
pub type Row = BTreeMap<String, Datum>;

/// The rows of each table, by UUID.
#[derive(Debug)]
pub struct View {
    /// The server's own schema, which may lack what a newer one has, and have what ours lacks.
    schema: Schema,
    tables: BTreeMap<String, BTreeMap<Uuid, Row>>,
}

impl View {
    pub fn new(schema: Schema) -> View {
        View { schema, tables: BTreeMap::new() }
    }

    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables.get(table).into_iter().flatten().map(|(uuid, row)| (*uuid, row))
    }

    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        self.tables.get(table)?.get(&uuid)
    }

    /// Whether the server knows `column`: one that it lacks reads as empty.
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.schema.table(table).is_some_and(|table| table.column(column).is_some())
    }

    /// The monitor request for what is needed and there (RFC 7047 section 4.1.5).
    pub fn monitor_requests(&self, needs: &Needs) -> Value {
        let mut requests = Map::new();
        for (table, columns) in needs {
            if self.schema.table(table).is_some() {
                let known: Vec<_> = columns.iter().filter(|column| self.has_column(table, column)).collect();
                requests.insert(table.clone(), json!({ "columns": known }));
            }
        }
        Value::Object(requests)
    }

    /// Takes in `<table-updates>` (RFC 7047 section 4.1.6).
    ///
    /// # Errors
    /// The text says what the server sent that its own schema does not allow.
    pub fn update(&mut self, updates: &Value) -> Result<(), String> {
        let malformed = || format!("malformed update from the database server: {updates}");
        for (table, rows) in updates.as_object().ok_or_else(malformed)? {
            let schema = self.schema.table(table).ok_or_else(malformed)?;
            let stored = self.tables.entry(table.clone()).or_default();
            for (uuid, change) in rows.as_object().ok_or_else(malformed)? {
                let uuid = ovsdb::parse_uuid_text(uuid).ok_or_else(malformed)?;
                let Some(new) = change.get("new") else {
                    stored.remove(&uuid);
                    continue;
                };
                let row = stored.entry(uuid).or_default();
                for (name, value) in new.as_object().ok_or_else(malformed)? {
                    let column = schema.column(name).ok_or_else(malformed)?;
                    let datum = Datum::from_json_unsized(value, &column.column_type, None);
                    row.insert(name.clone(), datum.map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(())
    }
}
