//! A database in memory: tables of immutable rows, with what makes look-ups and reference checks cheap.

use crate::row::Row;
use crate::schema::{ColumnSchema, Reference, Schema, TableSchema};
use crate::value::Datum;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct Database {
    schema: Schema,
    tables: BTreeMap<String, Table>,
    serial: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) schema: Arc<TableSchema>,
    rows: BTreeMap<Uuid, Arc<Row>>,
    /// For each index of the schema: the row that has these values.
    indexes: Vec<HashMap<Vec<Datum>, Uuid>>,
    /// How many strong references point to a row of this table. A row without any has no entry.
    strong: HashMap<Uuid, usize>,
    /// The rows (table, uuid) whose weak references point to a row of this table.
    weak: HashMap<Uuid, BTreeSet<(String, Uuid)>>,
}

/// What one commit did to one row: inserted (no old), deleted (no new) or modified it.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) old: Option<Arc<Row>>,
    pub(crate) new: Option<Arc<Row>>,
}

impl Database {
    pub fn new(schema: Schema) -> Database {
        let table = |(name, schema): (&String, &Arc<TableSchema>)| (name.clone(), Table::new(schema.clone()));
        let tables = schema.tables.iter().map(table).collect();
        Database { schema, tables, serial: 0 }
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// One more with every commit that changed something.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The rows of a table in the order of their UUIDs; none for an unknown table.
    pub fn rows(&self, table: &str) -> impl Iterator<Item = (Uuid, &Row)> {
        self.tables.get(table).into_iter().flat_map(Table::rows).map(|row| (row.uuid(), &**row))
    }

    pub fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        self.tables.get(table)?.row(uuid).map(|row| &**row)
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    fn replace(&mut self, Change { old, new }: &Change) {
        let Some(name) = old.as_ref().or(new.as_ref()).map(|row| row.schema().name.clone()) else { return };
        if let Some(old) = old {
            self.count_references(&name, old, false);
        }
        if let Some(new) = new {
            self.count_references(&name, new, true);
        }
        if let Some(table) = self.tables.get_mut(&name) {
            table.replace(old.as_ref(), new.as_ref());
        }
    }

    /// Makes changes, whose constraints have been checked, visible.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.replace(change));
        self.serial += u64::from(!changes.is_empty());
    }

    fn count_references(&mut self, source_table: &str, row: &Row, add: bool) {
        for_each_reference(row, |_, reference, target| {
            let Some(table) = self.tables.get_mut(&reference.table) else { return };
            if reference.strong {
                let count = table.strong.entry(target).or_default();
                *count = if add { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    table.strong.remove(&target);
                }
                return;
            }
            let sources = table.weak.entry(target).or_default();
            let source = (source_table.to_owned(), row.uuid());
            if add {
                sources.insert(source);
            } else {
                sources.remove(&source);
            }
            if sources.is_empty() {
                table.weak.remove(&target);
            }
        });
    }
}

impl Table {
    fn new(schema: Arc<TableSchema>) -> Table {
        let indexes = vec![HashMap::new(); schema.indexes.len()];
        Table { schema, rows: BTreeMap::new(), indexes, strong: HashMap::new(), weak: HashMap::new() }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    pub(crate) fn row(&self, uuid: Uuid) -> Option<&Arc<Row>> {
        self.rows.get(&uuid)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row that has `values` in the columns of the schema's index number `index`.
    pub(crate) fn find(&self, index: usize, values: &[Datum]) -> Option<Uuid> {
        self.indexes.get(index)?.get(values).copied()
    }

    pub(crate) fn strong_references(&self, uuid: Uuid) -> usize {
        self.strong.get(&uuid).copied().unwrap_or_default()
    }

    pub(crate) fn weak_sources(&self, uuid: Uuid) -> impl Iterator<Item = &(String, Uuid)> {
        self.weak.get(&uuid).into_iter().flatten()
    }

    fn replace(&mut self, old: Option<&Arc<Row>>, new: Option<&Arc<Row>>) {
        for (columns, index) in self.schema.indexes.iter().zip(&mut self.indexes) {
            // A swap of values between two rows may already have put the other row here.
            if let Some(old) = old {
                let values = index_values(old, columns);
                if index.get(&values) == Some(&old.uuid()) {
                    index.remove(&values);
                }
            }
            if let Some(new) = new {
                index.insert(index_values(new, columns), new.uuid());
            }
        }
        match (old, new) {
            (_, Some(new)) => drop(self.rows.insert(new.uuid(), new.clone())),
            (Some(old), None) => drop(self.rows.remove(&old.uuid())),
            (None, None) => {}
        }
    }
}

/// What a row has in the columns of an index.
pub(crate) fn index_values(row: &Row, columns: &[usize]) -> Vec<Datum> {
    columns.iter().filter_map(|at| row.data().get(*at).cloned()).collect()
}

/// Visits each reference that `row` holds, as often as it holds it. One to itself keeps nobody alive and is left out.
pub(crate) fn for_each_reference<'a>(
    row: &'a Row,
    mut visit: impl FnMut(&'a ColumnSchema, &'a Reference, Uuid),
) {
    let own = |reference: &Reference, uuid| uuid == row.uuid() && reference.table == row.schema().name;
    let mut visit = |column, reference, uuid| {
        if !own(reference, uuid) {
            visit(column, reference, uuid);
        }
    };
    for (column, datum) in row.schema().columns().iter().zip(row.data()) {
        let column_type = &column.column_type;
        if let Some(reference) = column_type.key.reference() {
            let keys = datum.atoms().iter().chain(datum.pairs().iter().map(|(key, _)| key));
            keys.filter_map(|atom| atom.as_uuid()).for_each(|uuid| visit(column, reference, uuid));
        }
        if let Some(reference) = column_type.value.as_ref().and_then(|value| value.reference()) {
            let values = datum.pairs().iter().filter_map(|(_, value)| value.as_uuid());
            values.for_each(|uuid| visit(column, reference, uuid));
        }
    }
}
