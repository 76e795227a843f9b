//! A transaction: a view of the database with the rows that it touched laid over it, and the checks before commit.

use crate::condition::Condition;
use crate::database::{Change, Database, for_each_reference, index_values};
use crate::error::{Error, Tag};
use crate::row::Row;
use crate::schema::{Column, TableSchema};
use crate::value::Datum;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use uuid::Uuid;

pub(crate) struct Transaction<'a> {
    db: &'a Database,
    /// By table, then by row.
    touched: BTreeMap<&'a str, BTreeMap<Uuid, Touched>>,
    comment: String,
}

struct Touched {
    old: Option<Arc<Row>>,
    new: Option<Row>,
}

/// A transaction that passed every check.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) changes: Vec<Change>,
    pub(crate) comment: String,
}

type RowId<'a> = (&'a str, Uuid);

impl<'a> Transaction<'a> {
    pub(crate) fn new(db: &'a Database) -> Transaction<'a> {
        Transaction { db, touched: BTreeMap::new(), comment: String::new() }
    }

    pub(crate) fn db(&self) -> &'a Database {
        self.db
    }

    pub(crate) fn add_comment(&mut self, comment: &str) {
        if !self.comment.is_empty() {
            self.comment.push('\n');
        }
        self.comment.push_str(comment);
    }

    /// The row as this transaction has left it so far.
    pub(crate) fn row(&self, table: &str, uuid: Uuid) -> Option<&Row> {
        match self.touched.get(table).and_then(|rows| rows.get(&uuid)) {
            Some(touched) => touched.new.as_ref(),
            None => self.db.row(table, uuid),
        }
    }

    /// The rows that meet `condition`, in the order of their UUIDs.
    pub(crate) fn matching(&self, table: &TableSchema, condition: &Condition) -> Vec<Uuid> {
        let candidates: BTreeSet<Uuid> = match condition.uuid() {
            Some(uuid) => BTreeSet::from([uuid]),
            None => {
                let touched = self.touched.get(table.name.as_str()).into_iter().flat_map(|rows| rows.keys());
                self.stored_candidates(table, condition).into_iter().chain(touched.copied()).collect()
            }
        };
        let matches = |uuid: &Uuid| self.row(&table.name, *uuid).is_some_and(|row| condition.all(row));
        candidates.into_iter().filter(matches).collect()
    }

    /// Rows of the database that may match: few if an index helps.
    fn stored_candidates(&self, schema: &TableSchema, condition: &Condition) -> Vec<Uuid> {
        let Some(table) = self.db.table(&schema.name) else { return Vec::new() };
        for (number, columns) in schema.indexes.iter().enumerate() {
            if let [column] = columns.as_slice()
                && let Some(value) = condition.equal_to(Column::At(*column))
            {
                return table.find(number, std::slice::from_ref(value)).into_iter().collect();
            }
        }
        table.rows().map(|row| row.uuid()).collect()
    }

    /// False for a UUID that is taken, or that this transaction has deleted.
    pub(crate) fn may_create(&self, table: &str, uuid: Uuid) -> bool {
        self.db.row(table, uuid).is_none()
            && !self.touched.get(table).is_some_and(|rows| rows.contains_key(&uuid))
    }

    pub(crate) fn insert(&mut self, row: Row) {
        let Some((name, _)) = self.db.schema().tables.get_key_value(&row.schema().name) else { return };
        self.touched.entry(name).or_default().insert(row.uuid(), Touched { old: None, new: Some(row) });
    }

    /// The row for changing. None if it is not there, or not any more.
    pub(crate) fn modify(&mut self, table: &str, uuid: Uuid) -> Option<&mut Row> {
        self.touch(table, uuid)?.new.as_mut()
    }

    pub(crate) fn delete(&mut self, table: &str, uuid: Uuid) {
        let Some(touched) = self.touch(table, uuid) else { return };
        touched.new = None;
        if touched.old.is_none()
            && let Some(rows) = self.touched.get_mut(table)
        {
            // Inserted by this transaction too: as if it had never been.
            rows.remove(&uuid);
        }
    }

    fn touch(&mut self, table: &str, uuid: Uuid) -> Option<&mut Touched> {
        let (name, _) = self.db.schema().tables.get_key_value(table)?;
        let rows = self.touched.entry(name).or_default();
        match rows.entry(uuid) {
            std::collections::btree_map::Entry::Occupied(entry) => Some(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let old = self.db.table(table)?.row(uuid)?.clone();
                let new = Some(Row::clone(&old));
                Some(entry.insert(Touched { old: Some(old), new }))
            }
        }
    }

    /// Checks everything that only the whole transaction can violate, collects garbage, and gives what changed.
    pub(crate) fn prepare(mut self) -> Result<Commit, Error> {
        self.forget_unchanged();
        let mut references = self.count_references()?;
        self.check_deletions(&references)?;
        self.collect_garbage(&mut references);
        self.check_max_rows()?;
        self.drop_weak_references()?;
        self.forget_unchanged();
        self.check_indexes()?;
        Ok(self.finish())
    }

    fn forget_unchanged(&mut self) {
        for rows in self.touched.values_mut() {
            rows.retain(|_, Touched { old, new }| match (old, new) {
                (None, None) => false,
                (Some(old), Some(new)) => old.data() != new.data(),
                _ => true,
            });
        }
    }

    /// How the number of strong references to each row will change. Every target must exist.
    fn count_references(&self) -> Result<HashMap<RowId<'a>, i64>, Error> {
        let mut changes: HashMap<RowId<'a>, i64> = HashMap::new();
        let mut dangling = None;
        for (table, uuid, touched) in self.all_touched() {
            if let Some(old) = &touched.old {
                self.for_each_strong(old, |_, target| *changes.entry(target).or_default() -= 1);
            }
            let Some(new) = &touched.new else { continue };
            self.for_each_strong(new, |column, target| {
                *changes.entry(target).or_default() += 1;
                if !self.exists_or_existed(target) {
                    dangling.get_or_insert_with(|| {
                        format!(
                            "Table {table} column {column} row {uuid} references nonexistent row {} in table {}.",
                            target.1, target.0
                        )
                    });
                }
            });
        }
        match dangling {
            Some(details) => Err(Error::new(Tag::ReferentialIntegrityViolation, details)),
            None => Ok(changes),
        }
    }

    fn for_each_strong(&self, row: &Row, mut visit: impl FnMut(&str, RowId<'a>)) {
        for_each_reference(row, |column, reference, target| {
            if let Some((table, _)) = self.db.schema().tables.get_key_value(&reference.table)
                && reference.strong
            {
                visit(&column.name, (table.as_str(), target));
            }
        });
    }

    /// A row deleted by this very transaction counts: that it is still referred to is then the deletion's fault.
    fn exists_or_existed(&self, (table, uuid): RowId<'_>) -> bool {
        self.touched.get(table).is_some_and(|rows| rows.contains_key(&uuid))
            || self.db.row(table, uuid).is_some()
    }

    fn all_touched(&self) -> impl Iterator<Item = (&'a str, Uuid, &Touched)> {
        self.touched
            .iter()
            .flat_map(|(table, rows)| rows.iter().map(|(uuid, touched)| (*table, *uuid, touched)))
    }

    fn references_after(&self, (table, uuid): RowId<'_>, changes: &HashMap<RowId<'a>, i64>) -> i64 {
        let stored = self.db.table(table).map_or(0, |table| table.strong_references(uuid));
        stored as i64 + changes.get(&(table, uuid)).copied().unwrap_or_default()
    }

    fn check_deletions(&self, changes: &HashMap<RowId<'a>, i64>) -> Result<(), Error> {
        for (table, uuid, touched) in self.all_touched().filter(|(_, _, touched)| touched.new.is_none()) {
            let count = self.references_after((table, uuid), changes);
            if touched.old.is_some() && count > 0 {
                let details =
                    format!("cannot delete {table} row {uuid} because of {count} remaining reference(s)");
                return Err(Error::new(Tag::ReferentialIntegrityViolation, details));
            }
        }
        Ok(())
    }

    /// Deletes rows of non-root tables that nothing refers to any more, and what only those referred to.
    fn collect_garbage(&mut self, changes: &mut HashMap<RowId<'a>, i64>) {
        let touched = self.all_touched().map(|(table, uuid, _)| (table, uuid));
        let mut suspects: Vec<RowId<'a>> = touched.chain(changes.keys().copied()).collect();
        while let Some(suspect) = suspects.pop() {
            let (table, uuid) = suspect;
            let is_root = self.db.schema().table(table).is_none_or(|schema| schema.is_root);
            if is_root || self.references_after(suspect, changes) > 0 {
                continue;
            }
            let Some(row) = self.row(table, uuid).cloned() else { continue };
            self.for_each_strong(&row, |_, target| {
                *changes.entry(target).or_default() -= 1;
                suspects.push(target);
            });
            self.delete(table, uuid);
        }
        self.forget_unchanged();
    }

    fn check_max_rows(&self) -> Result<(), Error> {
        for (name, rows) in &self.touched {
            let Some(table) = self.db.table(name) else { continue };
            let inserted = rows.values().filter(|row| row.old.is_none()).count();
            let deleted = rows.values().filter(|row| row.new.is_none()).count();
            let (count, limit) = (table.len() + inserted - deleted, table.schema.max_rows);
            if inserted > 0 && limit != u32::MAX && count > limit as usize {
                return Err(Error::constraint(format!(
                    "transaction causes \"{name}\" table to contain {count} rows, greater than the \
                     schema-defined limit of {limit} row(s)"
                )));
            }
        }
        Ok(())
    }

    /// Takes references to rows that are not there out of weak columns, in all rows that may hold one.
    fn drop_weak_references(&mut self) -> Result<(), Error> {
        let mut sources: BTreeSet<(String, Uuid)> = BTreeSet::new();
        for (table, uuid, touched) in self.all_touched() {
            if touched.new.is_some() {
                sources.insert((table.to_owned(), uuid));
            } else if let Some(table) = self.db.table(table) {
                sources.extend(table.weak_sources(uuid).cloned());
            }
        }
        for (table, uuid) in sources {
            let Some(row) = self.row(&table, uuid) else { continue };
            for (at, cleaned) in self.without_dangling(row) {
                self.check_weak_size(&table, uuid, at, &cleaned)?;
                if let Some(row) = self.modify(&table, uuid) {
                    row.set(Column::At(at), cleaned);
                }
            }
        }
        Ok(())
    }

    /// The columns of `row` that hold dangling weak references, without those.
    fn without_dangling(&self, row: &Row) -> Vec<(usize, Datum)> {
        let mut cleaned = Vec::new();
        for (at, (column, datum)) in row.schema().columns().iter().zip(row.data()).enumerate() {
            let target = |base: Option<&'_ crate::schema::BaseType>| {
                base.and_then(|base| base.reference()).filter(|reference| !reference.strong).cloned()
            };
            let (key, value) =
                (target(Some(&column.column_type.key)), target(column.column_type.value.as_ref()));
            if key.is_none() && value.is_none() {
                continue;
            }
            let lives = |reference: &Option<crate::schema::Reference>, atom: &crate::value::Atom| {
                let (Some(reference), Some(uuid)) = (reference, atom.as_uuid()) else { return true };
                self.row(&reference.table, uuid).is_some()
            };
            let kept = if datum.is_map() {
                Datum::map(datum.pairs().iter().filter(|(k, v)| lives(&key, k) && lives(&value, v)).cloned())
            } else {
                Datum::set(datum.atoms().iter().filter(|atom| lives(&key, atom)).cloned())
            };
            if kept.len() != datum.len() {
                cleaned.push((at, kept));
            }
        }
        cleaned
    }

    fn check_weak_size(&self, table: &str, uuid: Uuid, at: usize, cleaned: &Datum) -> Result<(), Error> {
        let Some(row) = self.row(table, uuid) else { return Ok(()) };
        let Some(column) = row.schema().columns().get(at) else { return Ok(()) };
        if column.column_type.allows(cleaned.len()) {
            return Ok(());
        }
        let name = &column.name;
        let before = row.value(Column::At(at));
        let inserted = self.db.row(table, uuid).is_none();
        let zero = before.atoms().iter().any(|atom| atom.as_uuid().is_some_and(|uuid| uuid.is_nil()));
        Err(Error::constraint(if zero && inserted {
            format!(
                "Weak reference column \"{name}\" in \"{table}\" row {uuid} (inserted within this transaction) \
                 contained all-zeros UUID (probably as the default value for this column) but deleting this value \
                 caused a constraint volation because this column is not allowed to be empty."
            )
        } else {
            let deleted = before.len() - cleaned.len();
            let when = if inserted { "(inserted within this transaction) " } else { "" };
            format!(
                "Deletion of {deleted} weak reference(s) to deleted (or never-existing) rows from column \"{name}\" \
                 in \"{table}\" row {uuid} {when}caused this column to become empty, but constraints on this column \
                 disallow an empty column."
            )
        }))
    }

    fn check_indexes(&self) -> Result<(), Error> {
        for (name, rows) in &self.touched {
            let Some(table) = self.db.table(name) else { continue };
            for (number, columns) in table.schema.indexes.iter().enumerate() {
                let mut seen: HashMap<Vec<Datum>, Uuid> = HashMap::new();
                for (uuid, row) in rows.iter().filter_map(|(uuid, row)| Some((*uuid, row.new.as_ref()?))) {
                    let values = index_values(row, columns);
                    // Rows of this transaction are judged by their new values, which `seen` holds.
                    let stored = table.find(number, &values).filter(|stored| !rows.contains_key(stored));
                    if let Some(other) = seen.get(&values).copied().or(stored) {
                        return Err(self.duplicate(&table.schema, columns, &values, uuid, other));
                    }
                    seen.insert(values, uuid);
                }
            }
        }
        Ok(())
    }

    fn duplicate(&self, table: &TableSchema, index: &[usize], values: &[Datum], a: Uuid, b: Uuid) -> Error {
        let (first, second) = (a.min(b), a.max(b));
        let names = index.iter().map(|at| format!("\"{}\"", table.name_of(Column::At(*at))));
        let columns = if index.len() == 1 { "column" } else { "columns" };
        Error::constraint(format!(
            "Transaction causes multiple rows in \"{}\" table to have identical values ({}) for index on {columns} {}.  \
             First row, with UUID {first}, {}  Second row, with UUID {second}, {}",
            table.name,
            enumeration(values.iter().map(Datum::to_string)),
            enumeration(names),
            self.history(&table.name, index, first),
            self.history(&table.name, index, second),
        ))
    }

    /// Where a row of a duplicate pair came from.
    fn history(&self, table: &str, index: &[usize], uuid: Uuid) -> String {
        let touched = self.touched.get(table).and_then(|rows| rows.get(&uuid));
        match touched.map(|touched| (&touched.old, &touched.new)) {
            Some((None, _)) => "was inserted by this transaction.".into(),
            Some((Some(old), Some(new))) if index_values(old, index) == index_values(new, index) => {
                "existed in the database before this transaction, which modified some of the row's columns but not \
                 any columns in this index."
                    .into()
            }
            Some((Some(old), _)) => {
                let values = enumeration(index_values(old, index).iter().map(Datum::to_string));
                format!("had the following index values before the transaction: {values}.")
            }
            None => "existed in the database before this transaction and was not modified by the transaction.".into(),
        }
    }

    fn finish(self) -> Commit {
        let rows = self.touched.into_values().flat_map(BTreeMap::into_values);
        let change = |Touched { old, new }| {
            let new = new.map(|mut row| {
                row.renew_version();
                Arc::new(row)
            });
            Change { old, new }
        };
        Commit { changes: rows.map(change).collect(), comment: self.comment }
    }
}

/// "a", "a and b", "a, b, and c"
fn enumeration(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.as_slice() {
        [a, b] => format!("{a} and {b}"),
        [most @ .., last] if !most.is_empty() => format!("{}, and {last}", most.join(", ")),
        _ => items.concat(),
    }
}
