//! Database schemas: tables, columns and the constraints on their values (RFC 7047 section 3.2).

use crate::error::{Error, Tag};
use crate::value::{Atom, Datum, integer};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomType {
    Integer,
    Real,
    Boolean,
    String,
    Uuid,
}

impl AtomType {
    pub fn as_str(self) -> &'static str {
        match self {
            AtomType::Integer => "integer",
            AtomType::Real => "real",
            AtomType::Boolean => "boolean",
            AtomType::String => "string",
            AtomType::Uuid => "uuid",
        }
    }

    fn from_json(json: &Value) -> Result<AtomType, Error> {
        match json.as_str() {
            Some("integer") => Ok(AtomType::Integer),
            Some("real") => Ok(AtomType::Real),
            Some("boolean") => Ok(AtomType::Boolean),
            Some("string") => Ok(AtomType::String),
            Some("uuid") => Ok(AtomType::Uuid),
            Some(other) => Err(Error::syntax(json, format!("\"{other}\" is not an atomic-type"))),
            None => Err(Error::syntax(json, "atomic-type expected")),
        }
    }
}

/// The rows of another table that a uuid may point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub table: String,
    /// A strong reference keeps its row alive; a weak one vanishes with its row.
    pub strong: bool,
}

/// An atom's type with the range that it must lie in. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub enum Range {
    Integer {
        min: i64,
        max: i64,
    },
    Real {
        min: f64,
        max: f64,
    },
    Boolean,
    /// Length in characters.
    String {
        min: u32,
        max: u32,
    },
    Uuid(Option<Reference>),
}

/// The type of a set's elements, of a map's keys or of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseType {
    pub range: Range,
    /// The only values allowed, ascending; empty if any will do.
    pub choices: Vec<Atom>,
}

impl BaseType {
    pub fn new(atom_type: AtomType) -> BaseType {
        let range = match atom_type {
            AtomType::Integer => Range::Integer { min: i64::MIN, max: i64::MAX },
            AtomType::Real => Range::Real { min: f64::MIN, max: f64::MAX },
            AtomType::Boolean => Range::Boolean,
            AtomType::String => Range::String { min: 0, max: u32::MAX },
            AtomType::Uuid => Range::Uuid(None),
        };
        BaseType { range, choices: Vec::new() }
    }

    pub fn atom_type(&self) -> AtomType {
        match self.range {
            Range::Integer { .. } => AtomType::Integer,
            Range::Real { .. } => AtomType::Real,
            Range::Boolean => AtomType::Boolean,
            Range::String { .. } => AtomType::String,
            Range::Uuid(_) => AtomType::Uuid,
        }
    }

    pub fn reference(&self) -> Option<&Reference> {
        if let Range::Uuid(reference) = &self.range { reference.as_ref() } else { None }
    }

    /// Whether `atom` is one of the choices, or within the range.
    pub fn check(&self, atom: &Atom) -> Result<(), Error> {
        if !self.choices.is_empty() {
            if self.choices.contains(atom) {
                return Ok(());
            }
            let choices: Vec<String> = self.choices.iter().map(Atom::to_string).collect();
            let choices = choices.join(", ");
            return Err(Error::constraint(format!("{atom} is not one of the allowed values ([{choices}])")));
        }
        match (atom, &self.range) {
            (Atom::Integer(value), Range::Integer { min, max }) => {
                in_range(value, min, max, *min == i64::MIN, *max == i64::MAX)
            }
            (Atom::Real(value), Range::Real { min, max }) => {
                in_range(&value.get(), min, max, *min == f64::MIN, *max == f64::MAX)
            }
            (Atom::String(value), Range::String { min, max }) => {
                let length = value.chars().count();
                let complain = |what, limit| {
                    Error::constraint(format!("\"{value}\" length {length} is {what} allowed length {limit}"))
                };
                if length < *min as usize {
                    return Err(complain("less than minimum", min));
                }
                if length > *max as usize {
                    return Err(complain("greater than maximum", max));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn from_json(json: &Value) -> Result<BaseType, Error> {
        let Some(object) = json.as_object() else { return AtomType::from_json(json).map(BaseType::new) };
        let atom_type = AtomType::from_json(object.get("type").unwrap_or(&Value::Null))?;
        let mut base = BaseType::new(atom_type);
        if let Some(choices) = object.get("enum") {
            let set = ColumnType { key: base.clone(), value: None, min: 1, max: u32::MAX };
            base.choices = Datum::from_json(choices, &set, None)?.atoms().to_vec();
        }
        match &mut base.range {
            Range::Integer { min, max } => {
                *min = member(object, "minInteger", integer)?.unwrap_or(*min);
                *max = member(object, "maxInteger", integer)?.unwrap_or(*max);
                if min > max {
                    return Err(Error::syntax(json, "minInteger exceeds maxInteger"));
                }
            }
            Range::Real { min, max } => {
                *min = member(object, "minReal", Value::as_f64)?.unwrap_or(*min);
                *max = member(object, "maxReal", Value::as_f64)?.unwrap_or(*max);
                if *min > *max {
                    return Err(Error::syntax(json, "minReal exceeds maxReal"));
                }
            }
            Range::String { min, max } => {
                *min = member(object, "minLength", as_u32)?.unwrap_or(*min);
                *max = member(object, "maxLength", as_u32)?.unwrap_or(*max);
                if min > max {
                    return Err(Error::syntax(json, "minLength exceeds maxLength"));
                }
            }
            Range::Uuid(reference) => {
                if let Some(table) = member(object, "refTable", as_string)? {
                    let strong = match member(object, "refType", as_string)?.as_deref() {
                        None | Some("strong") => true,
                        Some("weak") => false,
                        Some(other) => {
                            let details = format!("refType must be \"strong\" or \"weak\" (not \"{other}\")");
                            return Err(Error::syntax(json, details));
                        }
                    };
                    *reference = Some(Reference { table, strong });
                }
            }
            Range::Boolean => {}
        }
        Ok(base)
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("type", json!(self.atom_type().as_str()));
        if !self.choices.is_empty() {
            put("enum", Datum::set(self.choices.iter().cloned()).to_json());
        }
        match &self.range {
            Range::Integer { min, max } => {
                if *min != i64::MIN {
                    put("minInteger", json!(min));
                }
                if *max != i64::MAX {
                    put("maxInteger", json!(max));
                }
            }
            Range::Real { min, max } => {
                if *min != f64::MIN {
                    put("minReal", json!(min));
                }
                if *max != f64::MAX {
                    put("maxReal", json!(max));
                }
            }
            Range::String { min, max } => {
                if *min != 0 {
                    put("minLength", json!(min));
                }
                if *max != u32::MAX {
                    put("maxLength", json!(max));
                }
            }
            Range::Uuid(Some(reference)) => {
                put("refTable", json!(reference.table));
                if !reference.strong {
                    put("refType", json!("weak"));
                }
            }
            Range::Uuid(None) | Range::Boolean => {}
        }
        if object.len() == 1 { json!(self.atom_type().as_str()) } else { Value::Object(object) }
    }
}

fn in_range<T: PartialOrd + std::fmt::Display>(
    value: &T,
    min: &T,
    max: &T,
    no_min: bool,
    no_max: bool,
) -> Result<(), Error> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(Error::constraint(match (no_min, no_max) {
        (false, false) => format!("{value} is not in the valid range {min} to {max} (inclusive)"),
        (false, true) => format!("{value} is less than minimum allowed value {min}"),
        _ => format!("{value} is greater than maximum allowed value {max}"),
    }))
}

/// The full type of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnType {
    pub key: BaseType,
    /// Present for maps.
    pub value: Option<BaseType>,
    /// 0 or 1.
    pub min: u32,
    /// `u32::MAX` stands for "unlimited".
    pub max: u32,
}

impl ColumnType {
    pub fn scalar(atom_type: AtomType) -> ColumnType {
        ColumnType { key: BaseType::new(atom_type), value: None, min: 1, max: 1 }
    }

    pub fn is_map(&self) -> bool {
        self.value.is_some()
    }

    pub fn is_scalar(&self) -> bool {
        !self.is_map() && self.min == 1 && self.max == 1
    }

    pub fn is_set(&self) -> bool {
        !self.is_map() && !self.is_scalar()
    }

    /// At most one element that may be absent.
    pub fn is_optional(&self) -> bool {
        !self.is_map() && self.min == 0 && self.max == 1
    }

    /// More than one element is possible: differences are made element by element.
    pub fn is_composite(&self) -> bool {
        self.max > 1
    }

    /// The type in words, for messages: "set of up to 1 integers".
    pub fn to_english(&self) -> String {
        let key = self.key.atom_type().as_str();
        if self.is_scalar() {
            return key.to_owned();
        }
        let size = match (self.min, self.max) {
            (0, u32::MAX) => String::new(),
            (min, u32::MAX) => format!(" {min} or more"),
            (0, max) => format!(" up to {max}"),
            (min, max) => format!(" {min} to {max}"),
        };
        match &self.value {
            None => format!("set of{size} {key}s"),
            Some(value) => format!("map of{size} ({key}, {}) pairs", value.atom_type().as_str()),
        }
    }

    /// Whether a value may have `len` elements.
    pub fn allows(&self, len: usize) -> bool {
        len >= self.min as usize && (self.max == u32::MAX || len <= self.max as usize)
    }

    pub fn from_json(json: &Value) -> Result<ColumnType, Error> {
        let Some(object) = json.as_object() else {
            return AtomType::from_json(json).map(ColumnType::scalar);
        };
        let key = BaseType::from_json(object.get("key").unwrap_or(&Value::Null))?;
        let value = object.get("value").map(BaseType::from_json).transpose()?;
        let min = member(object, "min", as_u32)?.unwrap_or(1);
        let max = match object.get("max") {
            Some(Value::String(s)) if s == "unlimited" => u32::MAX,
            _ => member(object, "max", as_u32)?.unwrap_or(1),
        };
        if min > 1 || max < 1 || min > max {
            return Err(Error::syntax(json, "ovsdb type fails constraint checks"));
        }
        Ok(ColumnType { key, value, min, max })
    }

    pub fn to_json(&self) -> Value {
        let key = self.key.to_json();
        if self.is_scalar() && key.is_string() {
            return key;
        }
        let mut object = Map::new();
        object.insert("key".into(), key);
        if let Some(value) = &self.value {
            object.insert("value".into(), value.to_json());
        }
        if self.min != 1 {
            object.insert("min".into(), json!(self.min));
        }
        if self.max == u32::MAX {
            object.insert("max".into(), json!("unlimited"));
        } else if self.max != 1 {
            object.insert("max".into(), json!(self.max));
        }
        Value::Object(object)
    }
}

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

fn as_u32(json: &Value) -> Option<u32> {
    integer(json).and_then(|n| u32::try_from(n).ok())
}

fn as_string(json: &Value) -> Option<String> {
    json.as_str().map(str::to_owned)
}

/// An optional member of an object that must have the right type if it is there.
fn member<T>(
    object: &Map<String, Value>,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, Error> {
    match object.get(name) {
        None => Ok(None),
        Some(json) => match read(json) {
            Some(value) => Ok(Some(value)),
            None => Err(Error::new(Tag::Syntax, format!("Type mismatch for member '{name}'.")).at(json)),
        },
    }
}
