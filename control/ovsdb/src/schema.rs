//! Database schemas: tables and their columns (RFC 7047 section 3.2). `types` has the columns' types.

use crate::error::Error;
use crate::types::{as_string, as_u32, member};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

pub use crate::types::{AtomType, BaseType, ColumnType, Range, Reference};

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSchema {
    pub name: String,
    pub column_type: ColumnType,
    /// Lives in memory alone: never written to the log.
    pub ephemeral: bool,
    /// False: set by insert and never changed.
    pub mutable: bool,
}

/// A column of some table: one of the two that every table has, or the one at a position in `columns()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Column {
    Uuid,
    Version,
    At(usize),
}

static UUID: LazyLock<ColumnType> = LazyLock::new(|| ColumnType::scalar(AtomType::Uuid));

#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    pub name: String,
    /// Ascending by name; a row keeps its values in the same order.
    columns: Vec<ColumnSchema>,
    /// Rows of a root table live without anybody referring to them.
    pub is_root: bool,
    /// `u32::MAX` for no limit.
    pub max_rows: u32,
    /// Positions of columns whose values together must be unique.
    pub indexes: Vec<Vec<usize>>,
}

impl TableSchema {
    pub fn new(name: &str, mut columns: Vec<ColumnSchema>) -> TableSchema {
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        TableSchema {
            name: name.to_owned(),
            columns,
            is_root: false,
            max_rows: u32::MAX,
            indexes: Vec::new(),
        }
    }

    pub fn columns(&self) -> &[ColumnSchema] {
        &self.columns
    }

    /// Where `name` stands in `columns`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok()
    }

    /// Any column, the two that every table has included.
    pub(crate) fn resolve(&self, name: &str) -> Option<Column> {
        match name {
            "_uuid" => Some(Column::Uuid),
            "_version" => Some(Column::Version),
            _ => self.position(name).map(Column::At),
        }
    }

    /// `_uuid`, `_version` and all others, by name.
    pub(crate) fn all_columns(&self) -> Vec<Column> {
        let own = (0..self.columns.len()).map(Column::At);
        [Column::Uuid, Column::Version].into_iter().chain(own).collect()
    }

    pub(crate) fn name_of(&self, column: Column) -> &str {
        match column {
            Column::Uuid => "_uuid",
            Column::Version => "_version",
            Column::At(at) => self.columns.get(at).map_or("", |column| &column.name),
        }
    }

    pub(crate) fn type_of(&self, column: Column) -> &ColumnType {
        let own = if let Column::At(at) = column { self.columns.get(at) } else { None };
        own.map_or(&*UUID, |column| &column.column_type)
    }

    pub(crate) fn is_mutable(&self, column: Column) -> bool {
        matches!(column, Column::At(at) if self.columns.get(at).is_some_and(|column| column.mutable))
    }

    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.position(name).and_then(|at| self.columns.get(at))
    }

    /// The same table with an index on these columns; those that do not exist are left out.
    #[must_use]
    pub fn indexed(mut self, columns: &[&str]) -> TableSchema {
        let index = columns.iter().filter_map(|name| self.position(name)).collect();
        self.indexes.push(index);
        self
    }

    /// The same table with more columns.
    fn with_columns(&self, more: Vec<ColumnSchema>) -> TableSchema {
        let mut columns = self.columns.clone();
        columns.extend(more);
        let mut table = TableSchema::new(&self.name, columns);
        (table.is_root, table.max_rows) = (self.is_root, self.max_rows);
        for index in &self.indexes {
            let names: Vec<&str> = index.iter().map(|at| self.name_of(Column::At(*at))).collect();
            table = table.indexed(&names);
        }
        table
    }

    fn from_json(name: &str, json: &Value) -> Result<TableSchema, Error> {
        let object = json.as_object().ok_or_else(|| Error::syntax(json, "object expected"))?;
        let columns = object.get("columns").and_then(Value::as_object);
        let columns = columns.ok_or_else(|| Error::syntax(json, "Required 'columns' member is missing."))?;
        let mut parsed = Vec::new();
        for (column, json) in columns {
            check_name(column, json)?;
            let object = json.as_object().ok_or_else(|| Error::syntax(json, "object expected"))?;
            parsed.push(ColumnSchema {
                name: column.clone(),
                column_type: ColumnType::from_json(object.get("type").unwrap_or(&Value::Null))?,
                ephemeral: member(object, "ephemeral", Value::as_bool)?.unwrap_or(false),
                mutable: member(object, "mutable", Value::as_bool)?.unwrap_or(true),
            });
        }
        if parsed.is_empty() {
            return Err(Error::syntax(json, "table must have at least one column"));
        }
        let mut table = TableSchema::new(name, parsed);
        table.is_root = member(object, "isRoot", Value::as_bool)?.unwrap_or(false);
        table.max_rows = member(object, "maxRows", as_u32)?.unwrap_or(u32::MAX);
        if table.max_rows == 0 {
            return Err(Error::syntax(json, "maxRows must be at least 1"));
        }
        for index in object.get("indexes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            let names = index.as_array().filter(|names| !names.is_empty());
            let names = names.ok_or_else(|| Error::syntax(index, "index must have at least one column"))?;
            let position = |name: &Value| {
                let position = name.as_str().and_then(|name| table.position(name));
                position.ok_or_else(|| Error::syntax(name, format!("{name} is not a valid column name")))
            };
            let positions = names.iter().map(position).collect::<Result<_, _>>()?;
            table.indexes.push(positions);
        }
        Ok(table)
    }

    /// `is_root` is written only if some table of the schema has it: without any, every table is a root.
    fn to_json(&self, default_is_root: bool) -> Value {
        let columns: Map<String, Value> = self
            .columns
            .iter()
            .map(|column| {
                let mut json = json!({ "type": column.column_type.to_json() });
                if column.ephemeral {
                    json["ephemeral"] = json!(true);
                }
                if !column.mutable {
                    json["mutable"] = json!(false);
                }
                (column.name.clone(), json)
            })
            .collect();
        let mut json = json!({ "columns": columns });
        if self.is_root && !default_is_root {
            json["isRoot"] = json!(true);
        }
        if self.max_rows != u32::MAX {
            json["maxRows"] = json!(self.max_rows);
        }
        if !self.indexes.is_empty() {
            let name = |at: &usize| self.columns.get(*at).map(|column| column.name.clone());
            let names = |index: &Vec<usize>| index.iter().filter_map(name).collect::<Vec<_>>();
            json["indexes"] = json!(self.indexes.iter().map(names).collect::<Vec<_>>());
        }
        json
    }
}

/// A database's schema. Cheap to share: tables stand behind `Arc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    pub name: String,
    /// "x.y.z"
    pub version: String,
    pub cksum: String,
    pub tables: BTreeMap<String, Arc<TableSchema>>,
}

impl Schema {
    pub fn new(name: &str, version: &str, cksum: &str, tables: Vec<TableSchema>) -> Schema {
        let tables = tables.into_iter().map(|table| (table.name.clone(), Arc::new(table))).collect();
        Schema { name: name.into(), version: version.into(), cksum: cksum.into(), tables }
    }

    /// The newer of the two schemas, with the tables and columns that only the other has.
    pub(crate) fn merged_with(&self, other: &Schema) -> Schema {
        let number = |schema: &Schema| -> Vec<u32> {
            schema.version.split('.').map(|part| part.parse().unwrap_or_default()).collect()
        };
        let (newer, older) = if number(other) > number(self) { (other, self) } else { (self, other) };
        let mut merged = newer.clone();
        for (name, table) in &older.tables {
            let place = merged.tables.entry(name.clone()).or_insert_with(|| table.clone());
            let missing = table.columns.iter().filter(|column| place.column(&column.name).is_none());
            let missing: Vec<ColumnSchema> = missing.cloned().collect();
            if !missing.is_empty() {
                *place = Arc::new(place.with_columns(missing));
            }
        }
        merged
    }

    pub fn table(&self, name: &str) -> Option<&Arc<TableSchema>> {
        self.tables.get(name)
    }

    pub fn from_json(json: &Value) -> Result<Schema, Error> {
        let object = json.as_object().ok_or_else(|| Error::syntax(json, "Object expected."))?;
        let string = |name: &str| member(object, name, as_string);
        let missing = |name: &str| Error::syntax(json, format!("Required '{name}' member is missing."));
        let name = string("name")?.ok_or_else(|| missing("name"))?;
        check_name(&name, json)?;
        let tables = object.get("tables").and_then(Value::as_object).ok_or_else(|| missing("tables"))?;
        let mut parsed = Vec::new();
        for (name, json) in tables {
            check_name(name, json)?;
            parsed.push(TableSchema::from_json(name, json)?);
        }
        // RFC 7047 section 3.2: a schema that never says "isRoot" predates garbage collection.
        if !parsed.iter().any(|table| table.is_root) {
            parsed.iter_mut().for_each(|table| table.is_root = true);
        }
        let schema = Schema::new(
            &name,
            &string("version")?.unwrap_or_default(),
            &string("cksum")?.unwrap_or_default(),
            parsed,
        );
        schema.check_references(json)?;
        Ok(schema)
    }

    fn check_references(&self, json: &Value) -> Result<(), Error> {
        for table in self.tables.values() {
            for column in table.columns() {
                let bases = [Some(&column.column_type.key), column.column_type.value.as_ref()];
                for reference in bases.into_iter().flatten().filter_map(BaseType::reference) {
                    if !self.tables.contains_key(&reference.table) {
                        let details = format!(
                            "Table {} column {} refers to undefined table {}",
                            table.name, column.name, reference.table
                        );
                        return Err(Error::syntax(json, details));
                    }
                }
            }
        }
        Ok(())
    }

    pub fn to_json(&self) -> Value {
        let all_root = self.tables.values().all(|table| table.is_root);
        let table = |(name, table): (&String, &Arc<TableSchema>)| (name.clone(), table.to_json(all_root));
        let tables: Map<String, Value> = self.tables.iter().map(table).collect();
        let mut json = json!({ "name": self.name, "tables": tables });
        if !self.version.is_empty() {
            json["version"] = json!(self.version);
        }
        if !self.cksum.is_empty() {
            json["cksum"] = json!(self.cksum);
        }
        json
    }
}

fn check_name(name: &str, json: &Value) -> Result<(), Error> {
    if name.starts_with('_') {
        return Err(Error::syntax(json, "names beginning with \"_\" are reserved"));
    }
    let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !word || name.is_empty() || name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        return Err(Error::syntax(json, "name must be a valid id"));
    }
    Ok(())
}
