//! One row of a table, and how the rest of the program reads it.

use crate::schema::{Column, TableSchema};
use crate::value::{Atom, Datum};
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

/// A row. Reading a column that the schema does not have gives nothing, zero, false or "".
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    schema: Arc<TableSchema>,
    uuid: Uuid,
    /// Changes with every change of the row: column `_version`.
    version: Uuid,
    /// In the order of the schema's columns.
    data: Vec<Datum>,
}

impl Row {
    /// A row with every column at its default; its version is still nil.
    pub(crate) fn new(schema: Arc<TableSchema>, uuid: Uuid) -> Row {
        let data = schema.columns().iter().map(|column| Datum::default_of(&column.column_type)).collect();
        Row { schema, uuid, version: Uuid::nil(), data }
    }

    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    pub fn version(&self) -> Uuid {
        self.version
    }

    pub(crate) fn renew_version(&mut self) {
        self.version = Uuid::new_v4();
    }

    /// The columns' values, in the order of `schema().columns()`.
    pub fn data(&self) -> &[Datum] {
        &self.data
    }

    pub(crate) fn value(&self, column: Column) -> Cow<'_, Datum> {
        match column {
            Column::Uuid => Cow::Owned(Datum::scalar(self.uuid)),
            Column::Version => Cow::Owned(Datum::scalar(self.version)),
            Column::At(at) => self.data.get(at).map_or_else(|| Cow::Owned(Datum::empty_set()), Cow::Borrowed),
        }
    }

    pub(crate) fn set(&mut self, column: Column, datum: Datum) {
        match column {
            Column::Uuid => self.uuid = datum.one().and_then(Atom::as_uuid).unwrap_or_default(),
            Column::Version => self.version = datum.one().and_then(Atom::as_uuid).unwrap_or_default(),
            Column::At(at) => {
                if let Some(place) = self.data.get_mut(at) {
                    *place = datum;
                }
            }
        }
    }

    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.schema.position(column).and_then(|at| self.data.get(at))
    }

    fn one(&self, column: &str) -> Option<&Atom> {
        self.get(column).and_then(Datum::one)
    }

    pub fn str(&self, column: &str) -> &str {
        self.opt_str(column).unwrap_or_default()
    }

    pub fn opt_str(&self, column: &str) -> Option<&str> {
        self.one(column).and_then(Atom::as_str)
    }

    pub fn int(&self, column: &str) -> i64 {
        self.opt_int(column).unwrap_or_default()
    }

    pub fn opt_int(&self, column: &str) -> Option<i64> {
        self.one(column).and_then(Atom::as_int)
    }

    pub fn bool(&self, column: &str) -> bool {
        self.one(column).and_then(Atom::as_bool).unwrap_or_default()
    }

    /// The rows that a set of references, or the values of a map of references, point to.
    pub fn refs(&self, column: &str) -> Vec<Uuid> {
        let Some(datum) = self.get(column) else { return Vec::new() };
        let values = datum.pairs().iter().map(|(_, value)| value);
        datum.atoms().iter().chain(values).filter_map(Atom::as_uuid).collect()
    }

    /// The pairs of a string map, ascending by key.
    pub fn map(&self, column: &str) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.get(column).map(Datum::pairs).unwrap_or_default();
        pairs.iter().filter_map(|(key, value)| Some((key.as_str()?, value.as_str()?)))
    }

    pub fn map_get(&self, column: &str, key: &str) -> Option<&str> {
        self.get(column).and_then(|datum| datum.get_str(key))
    }
}
