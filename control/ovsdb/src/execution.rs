//! The operations of a `transact` request (RFC 7047 section 5.2).

use crate::condition::{Condition, unknown_column};
use crate::database::Database;
use crate::error::{Error, Tag};
use crate::mutation::Mutation;
use crate::parser::Parser;
use crate::row::Row;
use crate::schema::{Column, TableSchema};
use crate::transaction::{Commit, Transaction};
use crate::value::{Datum, Symbols, parse_uuid_text};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// What became of a list of operations.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The reply, and what to commit if nothing failed.
    Done { results: Vec<Value>, commit: Option<Commit> },
    /// A `wait` is not satisfied yet. It gives up when this much time has passed since the request, if ever.
    Blocked { timeout: Option<Duration> },
}

/// Who runs the operations.
pub(crate) struct Client<'a> {
    /// Whether this client owns the lock of that name.
    pub(crate) owns_lock: &'a dyn Fn(&str) -> bool,
    /// Time since the request. None: the client cannot wait.
    pub(crate) elapsed: Option<Duration>,
}

struct Execution<'a> {
    transaction: Transaction<'a>,
    symbols: Symbols,
    client: &'a Client<'a>,
    /// The shortest timeout of the `wait`s seen so far.
    timeout: Option<Duration>,
    blocked: bool,
}

/// Runs operations against `db` without changing it.
pub(crate) fn execute(db: &Database, operations: &[Value], client: &Client<'_>) -> Outcome {
    let mut execution = Execution {
        transaction: Transaction::new(db),
        symbols: Symbols::default(),
        client,
        timeout: None,
        blocked: false,
    };
    let mut results = Vec::with_capacity(operations.len());
    for (number, operation) in operations.iter().enumerate() {
        let what = format!("ovsdb operation {} of {}", number + 1, operations.len());
        match execution.operation(Parser::new(operation, what)) {
            Ok(result) => results.push(Value::Object(result)),
            Err(_) if execution.blocked => return Outcome::Blocked { timeout: execution.timeout },
            Err(error) => {
                results.push(error.to_json());
                results.resize(operations.len(), Value::Null);
                return Outcome::Done { results, commit: None };
            }
        }
    }
    match execution.transaction.prepare() {
        Ok(commit) => Outcome::Done { results, commit: Some(commit) },
        Err(error) => {
            results.push(error.to_json());
            Outcome::Done { results, commit: None }
        }
    }
}

type OpResult = Result<Map<String, Value>, Error>;

impl<'a> Execution<'a> {
    fn operation(&mut self, mut parser: Parser<'_>) -> OpResult {
        let op = parser.id("op");
        let result = match op.unwrap_or_default() {
            "insert" => self.insert(&mut parser),
            "select" => self.select(&mut parser),
            "update" => self.update(&mut parser),
            "mutate" => self.mutate(&mut parser),
            "delete" => self.delete(&mut parser),
            "wait" => self.wait(&mut parser),
            "commit" => {
                // Every commit is durable here.
                parser.required_bool("durable");
                Ok(Map::new())
            }
            "abort" => Err(Error::new(Tag::Aborted, "aborted by request")),
            "comment" => {
                if let Some(comment) = parser.string("comment") {
                    self.transaction.add_comment(comment);
                }
                Ok(Map::new())
            }
            "assert" => self.assert(&mut parser),
            unknown => {
                parser.fail(&format!("No operation \"{unknown}\""));
                Ok(Map::new())
            }
        };
        let writes = matches!(op, Some("insert" | "update" | "mutate" | "delete" | "commit"));
        // A complaint about the form goes before any other.
        if let Err(error) = parser.finish() {
            self.blocked = false;
            return Err(error);
        }
        let database = &self.transaction.db().schema().name;
        if let (Ok(_), true, Some(op)) = (&result, writes && database.starts_with('_'), op) {
            let details = format!("{op} operation not allowed on table in reserved database {database}");
            return Err(Error::new(Tag::NotAllowed, details));
        }
        result
    }

    fn table(&self, parser: &mut Parser<'_>) -> Option<&'a Arc<TableSchema>> {
        let name = parser.id("table")?;
        let table = self.transaction.db().schema().table(name);
        if table.is_none() {
            parser.fail(&format!("No table named {name}."));
        }
        table
    }

    fn insert(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let table = self.table(parser);
        let uuid_text = parser.optional_string("uuid");
        let name = parser.optional_id("uuid-name");
        let row = parser.object("row");
        parser.check()?;
        let (Some(table), Some(values)) = (table, row) else { return Ok(Map::new()) };

        let mut uuid = None;
        if let Some(text) = uuid_text {
            let quoted = json!(text);
            let parsed = parse_uuid_text(text).ok_or_else(|| Error::syntax(&quoted, "bad uuid"))?;
            if !self.transaction.may_create(&table.name, parsed) {
                let details = "This UUID would duplicate a UUID already present within the table or deleted within \
                               the same transaction.";
                return Err(Error::new(Tag::DuplicateUuid, details).at(&quoted));
            }
            uuid = Some(parsed);
        }
        if let Some(name) = name {
            let Some(named) = self.symbols.define(name, uuid) else {
                let details = "This \"uuid-name\" appeared on an earlier \"insert\" operation.";
                return Err(Error::new(Tag::DuplicateUuidName, details).at(&json!(name)));
            };
            uuid = Some(named);
        }
        let (mut row, _) = parse_row(table, values, &mut self.symbols)?;
        // The default of a column need not be one of its allowed values.
        for (column, datum) in table.columns().iter().zip(row.data()) {
            datum.check(&column.column_type)?;
        }
        let uuid = uuid.unwrap_or_else(Uuid::new_v4);
        row.set(Column::Uuid, Datum::scalar(uuid));
        self.transaction.insert(row);
        Ok(Map::from_iter([("uuid".to_owned(), Datum::scalar(uuid).to_json())]))
    }

    fn select(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let table = self.table(parser);
        let clauses = parser.array("where");
        let columns = parser.optional_array("columns");
        let sort = parser.optional_array("sort");
        parser.check()?;
        let (Some(table), Some(clauses)) = (table, clauses) else { return Ok(Map::new()) };
        let condition = Condition::from_json(table, clauses, &mut self.symbols)?;
        let columns = column_set(table, columns)?;
        let sort = sort.map(|sort| column_set(table, Some(sort))).transpose()?.unwrap_or_default();

        let matching = self.transaction.matching(table, &condition);
        let mut rows: Vec<&Row> =
            matching.iter().filter_map(|uuid| self.transaction.row(&table.name, *uuid)).collect();
        // RFC 7047 section 5.2.2: rows that agree in all the columns asked for are given once.
        if !columns.contains(&Column::Uuid) {
            let mut seen = BTreeSet::new();
            rows.retain(|row| seen.insert(values(row, &columns)));
        }
        if !sort.is_empty() {
            rows.sort_by(|a, b| values(a, &sort).cmp(&values(b, &sort)));
        }
        let row_to_json = |row: &Row| -> Value {
            let member = |column: &Column| (table.name_of(*column).to_owned(), row.value(*column).to_json());
            Value::Object(columns.iter().map(member).collect())
        };
        let rows: Vec<Value> = rows.into_iter().map(row_to_json).collect();
        Ok(Map::from_iter([("rows".to_owned(), json!(rows))]))
    }

    fn update(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let table = self.table(parser);
        let clauses = parser.array("where");
        let row = parser.object("row");
        parser.check()?;
        let (Some(table), Some(clauses), Some(row)) = (table, clauses, row) else { return Ok(Map::new()) };
        let (new, columns) = parse_row(table, row, &mut self.symbols)?;
        if let Some(column) = columns.iter().find(|column| !table.is_mutable(**column)) {
            let name = table.name_of(*column);
            let details = format!("Cannot update immutable column {name} in table {}.", table.name);
            return Err(Error::constraint(details).at(parser.json()));
        }
        let condition = Condition::from_json(table, clauses, &mut self.symbols)?;
        let matching = self.transaction.matching(table, &condition);
        for uuid in &matching {
            if let Some(row) = self.transaction.modify(&table.name, *uuid) {
                for column in &columns {
                    row.set(*column, new.value(*column).into_owned());
                }
            }
        }
        Ok(count(matching.len()))
    }

    fn mutate(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let table = self.table(parser);
        let clauses = parser.array("where");
        let mutations = parser.array("mutations");
        parser.check()?;
        let (Some(table), Some(clauses), Some(mutations)) = (table, clauses, mutations) else {
            return Ok(Map::new());
        };
        let mutations = mutations.iter().map(|json| Mutation::from_json(table, json, &mut self.symbols));
        let mutations = mutations.collect::<Result<Vec<_>, _>>()?;
        let condition = Condition::from_json(table, clauses, &mut self.symbols)?;
        let matching = self.transaction.matching(table, &condition);
        for uuid in &matching {
            if let Some(row) = self.transaction.modify(&table.name, *uuid) {
                mutations.iter().try_for_each(|mutation| mutation.apply(row))?;
            }
        }
        Ok(count(matching.len()))
    }

    fn delete(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let clauses = parser.array("where");
        let table = self.table(parser);
        parser.check()?;
        let (Some(table), Some(clauses)) = (table, clauses) else { return Ok(Map::new()) };
        let condition = Condition::from_json(table, clauses, &mut self.symbols)?;
        let matching = self.transaction.matching(table, &condition);
        matching.iter().for_each(|uuid| self.transaction.delete(&table.name, *uuid));
        Ok(count(matching.len()))
    }

    fn wait(&mut self, parser: &mut Parser<'_>) -> OpResult {
        let timeout = parser.optional_integer("timeout");
        let clauses = parser.array("where");
        let columns = parser.optional_array("columns");
        let until = parser.string("until");
        let rows = parser.array("rows");
        let table = self.table(parser);
        parser.check()?;
        let (Some(clauses), Some(until), Some(rows), Some(table)) = (clauses, until, rows, table) else {
            return Ok(Map::new());
        };
        let condition = Condition::from_json(table, clauses, &mut self.symbols)?;
        let columns = column_set(table, columns)?;
        let timeout = match timeout {
            Some(ms) => Some(Duration::from_millis(
                u64::try_from(ms).map_err(|_| Error::syntax(&json!(ms), "timeout must be nonnegative"))?,
            )),
            None => None,
        };
        if !matches!(until, "==" | "!=") {
            return Err(Error::syntax(&json!(until), "\"until\" must be \"==\" or \"!=\""));
        }
        let mut expected = BTreeSet::new();
        for json in rows {
            let Some(row) = json.as_object() else {
                return Err(Error::syntax(json, "row must be JSON object"));
            };
            let (row, _) = parse_row(table, row, &mut self.symbols)?;
            expected.insert(owned_values(&row, &columns));
        }
        let matching = self.transaction.matching(table, &condition);
        let actual = matching.iter().filter_map(|uuid| self.transaction.row(&table.name, *uuid));
        let actual: BTreeSet<Vec<Datum>> = actual.map(|row| owned_values(row, &columns)).collect();
        if (actual == expected) == (until == "==") {
            return Ok(Map::new());
        }
        Err(self.unsatisfied(timeout))
    }

    /// What an unsatisfied `wait` means: it failed, or the whole transaction has to wait.
    fn unsatisfied(&mut self, timeout: Option<Duration>) -> Error {
        let Some(elapsed) = self.client.elapsed else {
            return Error::new(Tag::TimedOut, "\"where\" clause test failed");
        };
        self.timeout = match (self.timeout, timeout) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.blocked = timeout.is_none_or(|timeout| elapsed < timeout);
        Error::new(
            Tag::TimedOut,
            match elapsed.as_millis() {
                0 => "\"where\" clause test failed".to_owned(),
                ms => format!("\"wait\" timed out after {ms} ms"),
            },
        )
    }

    fn assert(&mut self, parser: &mut Parser<'_>) -> OpResult {
        match parser.id("lock") {
            Some(lock) if !(self.client.owns_lock)(lock) => {
                Err(Error::new(Tag::NotOwner, format!("Asserted lock {lock} not held.")))
            }
            _ => Ok(Map::new()),
        }
    }
}

fn count(n: usize) -> Map<String, Value> {
    Map::from_iter([("count".to_owned(), json!(n))])
}

fn values<'r>(row: &'r Row, columns: &[Column]) -> Vec<Cow<'r, Datum>> {
    columns.iter().map(|column| row.value(*column)).collect()
}

fn owned_values(row: &Row, columns: &[Column]) -> Vec<Datum> {
    columns.iter().map(|column| row.value(*column).into_owned()).collect()
}

/// A row with the given values and defaults for the rest, and which columns were given.
fn parse_row(
    table: &Arc<TableSchema>,
    json: &Map<String, Value>,
    symbols: &mut Symbols,
) -> Result<(Row, Vec<Column>), Error> {
    let mut row = Row::new(table.clone(), Uuid::nil());
    let mut columns = Vec::with_capacity(json.len());
    for (name, value) in json {
        let column = table.resolve(name);
        let column = column.ok_or_else(|| unknown_column(table, name).at(&Value::Object(json.clone())))?;
        row.set(column, Datum::from_json(value, table.type_of(column), Some(symbols))?);
        columns.push(column);
    }
    Ok((row, columns))
}

/// The columns named by `json`, or all of them.
fn column_set(table: &TableSchema, json: Option<&[Value]>) -> Result<Vec<Column>, Error> {
    let Some(names) = json else { return Ok(table.all_columns()) };
    let mut columns = Vec::with_capacity(names.len());
    let json = || json!(names);
    for name in names {
        let column = name.as_str().map(|name| table.resolve(name).ok_or(name));
        match column {
            Some(Ok(column)) if !columns.contains(&column) => columns.push(column),
            Some(Err(name)) => {
                return Err(Error::syntax(&json(), format!("{name} is not a valid column name")));
            }
            _ => return Err(Error::syntax(&json(), "array of distinct column names expected")),
        }
    }
    Ok(columns)
}
