//! Monitors: what a client gets to see of the commits (RFC 7047 section 4.1.5, ovsdb-server(7) sections 4.1.12-4.1.15).

use crate::condition::Condition;
use crate::database::{Change, Database};
use crate::error::Error;
use crate::parser::Parser;
use crate::row::Row;
use crate::schema::{Column, TableSchema};
use crate::value::{Datum, Symbols};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Which method made the monitor, and thus the form of its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `monitor`, `update`
    V1,
    /// `monitor_cond`, `update2`
    V2,
    /// `monitor_cond_since`, `update3`
    V3,
}

#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) version: Version,
    tables: BTreeMap<String, MonitoredTable>,
}

#[derive(Debug)]
struct MonitoredTable {
    schema: Arc<TableSchema>,
    columns: Vec<(Column, Select)>,
    /// What at least one of the table's requests selects.
    select: Select,
    condition: Condition,
}

/// The kinds of change that a request is interested in.
#[derive(Debug, Clone, Copy, Default)]
struct Select {
    initial: bool,
    insert: bool,
    delete: bool,
    modify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Initial,
    Insert,
    Delete,
    Modify,
}

/// No history is kept, so every transaction has the same id, as in a standalone ovsdb-server.
pub(crate) const TRANSACTION_ID: &str = "00000000-0000-0000-0000-000000000000";

impl Monitor {
    pub(crate) fn from_json(db: &Database, requests: &Value, version: Version) -> Result<Monitor, Error> {
        let requests = requests.as_object();
        let mut tables = BTreeMap::new();
        for (name, request) in requests.into_iter().flatten() {
            let mut table = MonitoredTable::new(monitored_table(db, name)?);
            for request in request.as_array().map_or(std::slice::from_ref(request), Vec::as_slice) {
                table.add_request(request, version)?;
            }
            tables.insert(name.clone(), table);
        }
        Ok(Monitor { version, tables })
    }

    /// The reply to the request.
    pub(crate) fn initial(&self, db: &Database) -> Value {
        let mut updates = Updates::default();
        for table in self.tables.values().filter(|table| table.select.initial) {
            for (_, row) in db.rows(&table.schema.name) {
                if table.condition.any(row) {
                    updates.put(table, row.uuid(), self.row_update(table, Kind::Initial, None, Some(row)));
                }
            }
        }
        let updates = Value::Object(updates.0);
        match self.version {
            Version::V3 => json!([false, TRANSACTION_ID, updates]),
            _ => updates,
        }
    }

    /// What of a commit this monitor shows, if anything.
    pub(crate) fn update(&self, changes: &[Change]) -> Option<Value> {
        let mut updates = Updates::default();
        for Change { old, new } in changes {
            let Some(row) = old.as_ref().or(new.as_ref()) else { continue };
            let Some(table) = self.tables.get(&row.schema().name) else { continue };
            let visible = |row: &Option<Arc<Row>>| row.clone().filter(|row| table.condition.any(row));
            let (old, new) = (visible(old), visible(new));
            updates.put(table, row.uuid(), self.change_update(table, old.as_deref(), new.as_deref()));
        }
        (!updates.0.is_empty()).then_some(Value::Object(updates.0))
    }

    /// Replaces conditions of tables; gives the rows that come into or go out of view by that.
    pub(crate) fn change_conditions(
        &mut self,
        db: &Database,
        requests: &Value,
    ) -> Result<Option<Value>, Error> {
        let mut conditions = BTreeMap::new();
        for (name, request) in requests.as_object().into_iter().flatten() {
            let schema = monitored_table(db, name)?;
            if !self.tables.contains_key(name) {
                return Err(plain(format!("no table named {name} in monitor session")));
            }
            let Some(requests) = request.as_array() else {
                return Err(plain(format!("table {name} no monitor-cond-change JSON array")));
            };
            let mut condition = Condition::default();
            for request in requests {
                let mut parser = Parser::new(request, format!("table {name}"));
                let columns = parser.optional_array("columns");
                let clauses = parser.optional_array("where");
                parser.finish()?;
                if columns.is_some() {
                    return Err(Error::syntax(request, "changing columns is unsupported"));
                }
                let mut symbols = Symbols::default();
                condition.extend(Condition::from_json(schema, clauses.unwrap_or_default(), &mut symbols)?);
            }
            conditions.insert(name.clone(), condition);
        }
        let mut updates = Updates::default();
        for (name, condition) in conditions {
            let Some(table) = self.tables.get_mut(&name) else { continue };
            let before = std::mem::replace(&mut table.condition, condition);
            let Some(table) = self.tables.get(&name) else { continue };
            for (uuid, row) in db.rows(&name) {
                let (old, new) = (before.any(row).then_some(row), table.condition.any(row).then_some(row));
                updates.put(table, uuid, self.change_update(table, old, new));
            }
        }
        Ok((!updates.0.is_empty()).then_some(Value::Object(updates.0)))
    }

    /// The notification that carries `updates`.
    pub(crate) fn notification(&self, id: &Value, updates: Value) -> Value {
        let (method, params) = match self.version {
            Version::V1 => ("update", json!([id, updates])),
            Version::V2 => ("update2", json!([id, updates])),
            Version::V3 => ("update3", json!([id, TRANSACTION_ID, updates])),
        };
        json!({ "id": null, "method": method, "params": params })
    }

    fn change_update(&self, table: &MonitoredTable, old: Option<&Row>, new: Option<&Row>) -> Option<Value> {
        let kind = match (old, new) {
            (None, None) => return None,
            (None, Some(_)) => Kind::Insert,
            (Some(_), None) => Kind::Delete,
            (Some(old), Some(new)) => {
                let changed = |(column, _): &(Column, Select)| old.value(*column) != new.value(*column);
                if !table.columns.iter().any(changed) {
                    return None;
                }
                Kind::Modify
            }
        };
        self.row_update(table, kind, old, new)
    }

    fn row_update(
        &self,
        table: &MonitoredTable,
        kind: Kind,
        old: Option<&Row>,
        new: Option<&Row>,
    ) -> Option<Value> {
        if !table.select.includes(kind) {
            return None;
        }
        Some(match self.version {
            Version::V1 => table.row_update(kind, old, new),
            Version::V2 | Version::V3 => table.row_update2(kind, old, new),
        })
    }
}

impl MonitoredTable {
    fn new(schema: &Arc<TableSchema>) -> MonitoredTable {
        let condition = Condition::default();
        MonitoredTable { schema: schema.clone(), columns: Vec::new(), select: Select::default(), condition }
    }

    fn add_request(&mut self, request: &Value, version: Version) -> Result<(), Error> {
        let mut parser = Parser::new(request, format!("table {}", self.schema.name));
        let clauses = if version == Version::V1 { None } else { parser.optional_array("where") };
        let names = parser.optional_array("columns");
        let select = parser.optional_object("select");
        parser.finish()?;

        let select = Select::from_json(select, &self.schema.name)?;
        self.select.add(select);
        match names {
            Some(names) => {
                for name in names {
                    self.add_column(name, names, select)?;
                }
            }
            None => {
                // Of the columns that every table has, `_uuid` goes without saying.
                let all = self.schema.all_columns().into_iter().filter(|column| *column != Column::Uuid);
                self.columns.extend(all.map(|column| (column, select)));
            }
        }
        let mut symbols = Symbols::default();
        self.condition.extend(Condition::from_json(&self.schema, clauses.unwrap_or_default(), &mut symbols)?);
        Ok(())
    }

    fn add_column(&mut self, name: &Value, names: &[Value], select: Select) -> Result<(), Error> {
        let names = || json!(names);
        let Some(name) = name.as_str() else {
            return Err(Error::syntax(&names(), "array of column names expected"));
        };
        let Some(column) = self.schema.resolve(name) else {
            return Err(Error::syntax(&names(), format!("{name} is not a valid column name")));
        };
        if self.columns.iter().any(|(other, _)| *other == column) {
            return Err(Error::syntax(&names(), format!("column {name} mentioned more than once")));
        }
        self.columns.push((column, select));
        Ok(())
    }

    fn selected(&self, kind: Kind) -> impl Iterator<Item = Column> {
        self.columns.iter().filter(move |(_, select)| select.includes(kind)).map(|(column, _)| *column)
    }

    /// `{"old": …, "new": …}`
    fn row_update(&self, kind: Kind, old: Option<&Row>, new: Option<&Row>) -> Value {
        let mut update = Map::new();
        if let (Some(old), Kind::Delete | Kind::Modify) = (old, kind) {
            let changed = |column: &Column| {
                kind == Kind::Delete || new.is_some_and(|new| new.value(*column) != old.value(*column))
            };
            let columns = self.selected(kind).filter(changed);
            let values = columns.map(|column| (self.name(column), old.value(column).to_json())).collect();
            update.insert("old".into(), Value::Object(values));
        }
        if let Some(new) = new {
            let values = self.selected(kind).map(|column| (self.name(column), new.value(column).to_json()));
            update.insert("new".into(), Value::Object(values.collect()));
        }
        Value::Object(update)
    }

    /// `{"insert": …}`, `{"modify": …}` and so on: no defaults, and differences instead of values.
    fn row_update2(&self, kind: Kind, old: Option<&Row>, new: Option<&Row>) -> Value {
        let name = match kind {
            Kind::Initial => "initial",
            Kind::Insert => "insert",
            Kind::Delete => return json!({ "delete": null }),
            Kind::Modify => "modify",
        };
        let mut values = Map::new();
        for column in self.selected(kind) {
            let Some(new) = new.map(|row| row.value(column)) else { continue };
            let column_type = self.schema.type_of(column);
            let value = match old.filter(|_| kind == Kind::Modify).map(|row| row.value(column)) {
                Some(old) if old == new => continue,
                Some(old) => old.diff(&new, column_type),
                None if *new == Datum::default_of(column_type) => continue,
                None => new.into_owned(),
            };
            values.insert(self.name(column), value.to_json());
        }
        Value::Object(Map::from_iter([(name.to_owned(), Value::Object(values))]))
    }

    fn name(&self, column: Column) -> String {
        self.schema.name_of(column).to_owned()
    }
}

impl Select {
    fn from_json(json: Option<&Value>, table: &str) -> Result<Select, Error> {
        let Some(json) = json else {
            return Ok(Select { initial: true, insert: true, delete: true, modify: true });
        };
        let mut parser = Parser::new(json, format!("table {table} select"));
        let mut flag = |name| parser.optional_bool(name).unwrap_or(true);
        let select = Select {
            initial: flag("initial"),
            insert: flag("insert"),
            delete: flag("delete"),
            modify: flag("modify"),
        };
        parser.finish()?;
        Ok(select)
    }

    fn includes(self, kind: Kind) -> bool {
        match kind {
            Kind::Initial => self.initial,
            Kind::Insert => self.insert,
            Kind::Delete => self.delete,
            Kind::Modify => self.modify,
        }
    }

    fn add(&mut self, other: Select) {
        self.initial |= other.initial;
        self.insert |= other.insert;
        self.delete |= other.delete;
        self.modify |= other.modify;
    }
}

/// Row updates by table and row.
#[derive(Default)]
struct Updates(Map<String, Value>);

impl Updates {
    fn put(&mut self, table: &MonitoredTable, row: Uuid, update: Option<Value>) {
        let Some(update) = update else { return };
        let rows = self.0.entry(table.schema.name.clone()).or_insert_with(|| json!({}));
        if let Some(rows) = rows.as_object_mut() {
            rows.insert(row.to_string(), update);
        }
    }
}

fn monitored_table<'a>(db: &'a Database, name: &str) -> Result<&'a Arc<TableSchema>, Error> {
    db.schema().table(name).ok_or_else(|| plain(format!("no table named {name}")))
}

fn plain(details: String) -> Error {
    Error::new(crate::error::Tag::Syntax, details)
}
