//! The database server without I/O: it takes bytes and time, and gives bytes and deadlines.
//!
//! `rpc` answers the requests; here stand the sessions, what they wait for, and the one way in which a commit is made.

use crate::database::{Change, Database};
use crate::error::{Error, Tag};
use crate::execution::{Client, Outcome, execute};
use crate::framing::{Framer, FramingError};
use crate::journal::Journal;
use crate::locks::Locks;
use crate::monitor::Monitor;
use crate::open_vswitch;
use crate::record;
use crate::schema::{AtomType, BaseType, ColumnSchema, ColumnType, Schema, TableSchema};
use crate::transaction::{Commit, Transaction};
use crate::value::{Atom, Datum};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The most that one session may have of monitors, of locks and of waiting transactions.
pub(crate) const MAX_PER_SESSION: usize = 256;

/// One client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// Why a session must be closed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("no such session")]
    Unknown,
    #[error("the stream is no JSON-RPC: {0}")]
    Framing(#[from] FramingError),
    #[error("the stream is no JSON-RPC: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a message is no JSON-RPC: {0}")]
    Message(&'static str),
}

/// What a session is to be sent.
#[derive(Debug)]
pub struct Transmit {
    pub session: SessionId,
    pub bytes: Vec<u8>,
    /// It may tell of this many records, so it should not leave before as many are [`durable`](Server::durable): then nobody
    /// is told of a commit that a crash of the host undoes.
    pub after: u64,
    /// What to send instead if the disk refuses these records.
    pub refused: Option<Vec<u8>>,
}

/// The new values of some columns of one row.
#[derive(Debug, Clone)]
pub struct RowUpdate {
    pub table: &'static str,
    pub row: Uuid,
    pub columns: Vec<(&'static str, Datum)>,
}

/// The databases "Open_vSwitch" and "_Server" with their sessions, monitors, locks and waiting transactions.
pub struct Server {
    pub(crate) id: Uuid,
    pub(crate) db: Database,
    /// Database _Server, which says what databases there are. It never changes.
    pub(crate) catalogue: Database,
    journal: Box<dyn Journal>,
    last_session: u64,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) locks: Locks,
    blocked: Vec<Blocked>,
    /// The database's serial when all of `blocked` were last tried.
    tried: u64,
    transmit: VecDeque<Transmit>,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    framer: Framer,
    /// When the message that the framer is in the middle of began.
    begun: Option<Instant>,
    /// With the client's id for it; the key is that id's text.
    pub(crate) monitors: BTreeMap<String, (Value, Which, Monitor)>,
    /// Every lock asked for and not given up, those that were stolen included.
    pub(crate) locks: BTreeSet<String>,
}

/// One of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    OpenVSwitch,
    Catalogue,
}

/// A transaction whose `wait` is not satisfied yet.
#[derive(Debug)]
struct Blocked {
    session: SessionId,
    id: Value,
    db: Which,
    /// The request's params, database name first.
    params: Vec<Value>,
    since: Instant,
    deadline: Option<Instant>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (serial, sessions) = (self.db.serial(), self.sessions.len());
        f.debug_struct("Server").field("serial", &serial).field("sessions", &sessions).finish_non_exhaustive()
    }
}

impl Server {
    /// A server for `db`, which `journal` keeps. Makes the one row of table Open_vSwitch if it is not there.
    pub fn new(db: Database, journal: Box<dyn Journal>) -> Server {
        let mut server = Server {
            id: Uuid::new_v4(),
            catalogue: catalogue(&db),
            db,
            journal,
            last_session: 0,
            sessions: BTreeMap::new(),
            locks: Locks::default(),
            blocked: Vec::new(),
            tried: 0,
            transmit: VecDeque::new(),
        };
        if server.db.rows("Open_vSwitch").next().is_none() {
            let insert = json!([{ "op": "insert", "table": "Open_vSwitch", "row": {} }]);
            for result in server.transact(&insert, Instant::now()) {
                if let Some(error) = result.get("error") {
                    // A client's first transaction makes the row as well, as with a new ovsdb-server.
                    tracing::error!("cannot make the row of table Open_vSwitch: {error}");
                }
            }
        }
        server
    }

    pub fn connect(&mut self) -> SessionId {
        self.last_session += 1;
        let id = SessionId(self.last_session);
        self.sessions.insert(id, Session::default());
        id
    }

    /// Forgets a session: its monitors, its waiting transactions and what is still to be sent to it. Its locks go on
    /// to the next in line.
    pub fn disconnect(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.blocked.retain(|blocked| blocked.session != id);
        self.transmit.retain(|transmit| transmit.session != id);
        for name in session.locks {
            self.release_lock(&name, id);
        }
    }

    /// Takes bytes from a client. On an error the session must be closed; nothing more is taken from it.
    pub fn receive(&mut self, id: SessionId, mut bytes: &[u8], now: Instant) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let session = self.sessions.get_mut(&id).ok_or(SessionError::Unknown)?;
            let (message, rest) = session.framer.push(bytes)?;
            bytes = rest;
            let mid_message = message.is_none() && session.framer.is_mid_message();
            session.begun = mid_message.then(|| session.begun.unwrap_or(now));
            if let Some(message) = message {
                self.message(id, serde_json::from_slice(&message)?, now)?;
            }
        }
        Ok(())
    }

    /// What to send next, in order for each session.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmit.pop_front()
    }

    /// The records of all commits until now.
    pub fn committed(&self) -> u64 {
        self.journal.appended()
    }

    /// How many records are durable.
    pub fn durable(&self) -> u64 {
        self.journal.durable()
    }

    /// Whether the disk refuses to keep the rest. Until it does not, commits fail.
    pub fn disk_fails(&self) -> bool {
        self.journal.failing()
    }

    /// Has `wake` called, on any thread, whenever more is durable or the disk has refused.
    pub fn on_durable(&mut self, wake: Box<dyn Fn() + Send>) {
        self.journal.on_durable(wake);
    }

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.blocked.iter().filter_map(|blocked| blocked.deadline).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |blocked: &Blocked| blocked.deadline.is_some_and(|deadline| deadline <= now);
        let (due, waiting) = std::mem::take(&mut self.blocked).into_iter().partition(due);
        self.blocked = waiting;
        self.attempt_all(due, now);
        self.retry_blocked(now);
    }

    /// Since when this session has owed the rest of a message that it began.
    pub fn unfinished_since(&self, id: SessionId) -> Option<Instant> {
        self.sessions.get(&id)?.begun
    }

    /// Database Open_vSwitch.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// Runs a transaction for the program itself: the array of operations in, the reply's array out. A `wait` that
    /// is not satisfied fails at once.
    pub fn transact(&mut self, operations: &Value, now: Instant) -> Vec<Value> {
        let Some(operations) = operations.as_array() else {
            return vec![Error::syntax(operations, "array expected").to_json()];
        };
        let client = Client { owns_lock: &|_| false, elapsed: None };
        match execute(&self.db, operations, &client) {
            Outcome::Done { results, commit } => {
                let results = self.finish(results, commit);
                self.retry_blocked(now);
                results
            }
            Outcome::Blocked { .. } => Vec::new(),
        }
    }

    /// Sets columns of rows in one transaction, writing only what differs; rows that are gone are passed over.
    /// True if something changed. Ephemeral columns alone cause no record in the journal.
    pub fn update_rows(&mut self, updates: &[RowUpdate], now: Instant) -> Result<bool, Error> {
        let mut transaction = Transaction::new(&self.db);
        for RowUpdate { table, row: uuid, columns } in updates {
            let Some(row) = transaction.row(table, *uuid) else { continue };
            let schema = row.schema().clone();
            let differs = |(name, datum): &&(&str, Datum)| row.get(name).is_some_and(|old| old != datum);
            let different: Vec<&(&str, Datum)> = columns.iter().filter(differs).collect();
            for (name, datum) in different {
                let Some(column) = schema.resolve(name) else { continue };
                datum.check(schema.type_of(column))?;
                if let Some(row) = transaction.modify(table, *uuid) {
                    row.set(column, datum.clone());
                }
            }
        }
        let commit = transaction.prepare()?;
        let changed = !commit.changes.is_empty();
        self.commit(commit)?;
        self.retry_blocked(now);
        Ok(changed)
    }

    /// Starts a client's transaction; the reply may come later.
    pub(crate) fn start_transaction(
        &mut self,
        session: SessionId,
        id: Value,
        db: Which,
        params: Vec<Value>,
        now: Instant,
    ) {
        let own = self.blocked.iter().filter(|blocked| blocked.session == session);
        let (mut count, mut duplicate) = (0, false);
        own.for_each(|blocked| {
            count += 1;
            duplicate |= blocked.id == id;
        });
        if duplicate {
            return self.send(session, json!({ "id": id, "error": "duplicate request ID" }));
        }
        let request = Blocked { session, id, db, params, since: now, deadline: None };
        if let Some(blocked) = self.attempt(request, now) {
            if count >= MAX_PER_SESSION {
                let error = Error::new(Tag::ResourcesExhausted, "too many transactions are waiting");
                return self.send(session, json!({ "id": blocked.id, "error": error.to_json() }));
            }
            self.blocked.push(blocked);
        }
        self.retry_blocked(now);
    }

    /// Ends a waiting transaction without an effect.
    pub(crate) fn cancel(&mut self, session: SessionId, id: &Value) {
        let of_request = |blocked: &Blocked| blocked.session == session && blocked.id == *id;
        if let Some(at) = self.blocked.iter().position(of_request) {
            let blocked = self.blocked.remove(at);
            self.send(session, json!({ "id": blocked.id, "error": "canceled" }));
        }
    }

    /// Runs a transaction and replies. Gives it back if it has to wait (longer).
    fn attempt(&mut self, mut request: Blocked, now: Instant) -> Option<Blocked> {
        let session = request.session;
        let client = Client {
            owns_lock: &|name| self.locks.owner(name) == Some(session),
            elapsed: Some(now.saturating_duration_since(request.since)),
        };
        let operations = request.params.get(1..).unwrap_or_default();
        match execute(self.database(request.db), operations, &client) {
            Outcome::Done { results, commit } => {
                let before = self.committed();
                let mut results = self.finish(results, commit);
                let reply = |results: &[Value]| json!({ "id": request.id, "result": results, "error": null });
                self.send(session, reply(&results));
                if self.committed() != before
                    && let Some(sent) = self.transmit.back_mut().filter(|sent| sent.session == session)
                {
                    let error = "the disk did not take it: it is in force, but would be lost with the host";
                    results.push(Error::new(Tag::Io, error).to_json());
                    sent.refused = Some(reply(&results).to_string().into_bytes());
                }
                None
            }
            Outcome::Blocked { timeout } => {
                // Beyond a year nobody can tell it from never.
                let timeout = timeout.filter(|timeout| *timeout < Duration::from_secs(365 * 86_400));
                request.deadline = timeout.map(|timeout| request.since + timeout);
                Some(request)
            }
        }
    }

    /// Gives waiting transactions another try if something was committed. One that commits in its turn gives all
    /// others a try.
    fn retry_blocked(&mut self, now: Instant) {
        while self.tried != self.db.serial() {
            self.tried = self.db.serial();
            let blocked = std::mem::take(&mut self.blocked);
            self.attempt_all(blocked, now);
        }
    }

    fn attempt_all(&mut self, requests: Vec<Blocked>, now: Instant) {
        for request in requests {
            let still_blocked = self.attempt(request, now);
            self.blocked.extend(still_blocked);
        }
    }

    /// Commits what a transaction left; an error is added to its results.
    fn finish(&mut self, mut results: Vec<Value>, commit: Option<Commit>) -> Vec<Value> {
        if let Some(commit) = commit
            && let Err(error) = self.commit(commit)
        {
            results.push(error.to_json());
        }
        results
    }

    /// Writes a commit down, makes it visible, then known to the monitors.
    fn commit(&mut self, commit: Commit) -> Result<(), Error> {
        let Commit { changes, comment } = commit;
        if changes.is_empty() {
            return Ok(());
        }
        if let Some(record) = record::encode(&changes, &comment, self.journal.date()) {
            self.journal.append(&record).map_err(|error| Error::new(Tag::Io, error.to_string()))?;
        }
        self.db.apply(&changes);
        self.notify_monitors(&changes);
        if self.journal.wants_compaction() {
            let snapshot = record::snapshot(&self.db, "compacting database online", self.journal.date());
            self.journal.compact(&self.db.schema().to_json(), &snapshot);
        }
        Ok(())
    }

    fn notify_monitors(&mut self, changes: &[Change]) {
        for (session, state) in &self.sessions {
            for (id, _, monitor) in state.monitors.values().filter(|(_, db, _)| *db == Which::OpenVSwitch) {
                if let Some(updates) = monitor.update(changes) {
                    let (session, bytes) =
                        (*session, monitor.notification(id, updates).to_string().into_bytes());
                    let after = self.journal.appended();
                    self.transmit.push_back(Transmit { session, bytes, after, refused: None });
                }
            }
        }
    }

    pub(crate) fn database(&self, which: Which) -> &Database {
        match which {
            Which::OpenVSwitch => &self.db,
            Which::Catalogue => &self.catalogue,
        }
    }

    pub(crate) fn release_lock(&mut self, name: &str, session: SessionId) {
        if let Some(owner) = self.locks.unlock(name, session) {
            self.send(owner, json!({ "id": null, "method": "locked", "params": [name] }));
        }
    }

    pub(crate) fn send(&mut self, session: SessionId, message: Value) {
        if self.sessions.contains_key(&session) {
            let (bytes, after) = (message.to_string().into_bytes(), self.committed());
            self.transmit.push_back(Transmit { session, bytes, after, refused: None });
        }
    }
}

/// Database _Server: one row for each database (ovsdb-server(5)).
fn catalogue(db: &Database) -> Database {
    let scalar = |atom_type| ColumnType::scalar(atom_type);
    let optional = |atom_type| ColumnType { min: 0, ..ColumnType::scalar(atom_type) };
    let mut model = BaseType::new(AtomType::String);
    model.choices = vec![Atom::from("clustered"), Atom::from("relay"), Atom::from("standalone")];
    let columns = [
        ("name", scalar(AtomType::String)),
        ("model", ColumnType { key: model, ..scalar(AtomType::String) }),
        ("connected", scalar(AtomType::Boolean)),
        ("leader", scalar(AtomType::Boolean)),
        ("schema", optional(AtomType::String)),
        ("cid", optional(AtomType::Uuid)),
        ("sid", optional(AtomType::Uuid)),
        ("index", optional(AtomType::Integer)),
    ];
    let column = |(name, column_type): (&str, ColumnType)| ColumnSchema {
        name: name.to_owned(),
        column_type,
        ephemeral: false,
        mutable: true,
    };
    let mut table = TableSchema::new("Database", columns.into_iter().map(column).collect());
    table.is_root = true;
    let mut catalogue = Database::new(Schema::new("_Server", "1.2.0", "", vec![table]));
    let schemas = [db.schema().to_json(), catalogue.schema().to_json()];
    let mut transaction = Transaction::new(&catalogue);
    for schema in schemas {
        let Some(table) = catalogue.schema().table("Database") else { break };
        let mut row = crate::row::Row::new(table.clone(), Uuid::new_v4());
        let name = schema.get("name").and_then(Value::as_str).unwrap_or_default();
        let values = [
            ("name", Datum::from(name)),
            ("model", Datum::from("standalone")),
            ("connected", Datum::from(true)),
            ("leader", Datum::from(true)),
            ("schema", Datum::from(schema.to_string())),
        ];
        for (name, value) in values {
            if let Some(column) = table.resolve(name) {
                row.set(column, value);
            }
        }
        transaction.insert(row);
    }
    if let Ok(commit) = transaction.prepare() {
        catalogue.apply(&commit.changes);
    }
    catalogue
}

impl Database {
    /// An empty database Open_vSwitch.
    pub fn open_vswitch() -> Database {
        Database::new(open_vswitch::schema())
    }
}
