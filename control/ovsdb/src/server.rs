//! The database server: databases, sessions, monitors and locks, without I/O.

use crate::database::Database;
use crate::error::{Error, Tag};
use crate::journal::Journal;
use crate::value::Datum;
use serde_json::Value;
use std::time::Instant;
use uuid::Uuid;

/// One client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// Why a session must be closed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("no such session")]
    Unknown,
}

/// The sans-IO server: feed it bytes and time, take bytes and deadlines from it.
pub struct Server {
    db: Database,
    journal: Box<dyn Journal>,
    sessions: u64,
}

/// The new values of some columns of one row.
#[derive(Debug, Clone)]
pub struct RowUpdate {
    pub table: &'static str,
    pub row: Uuid,
    pub columns: Vec<(&'static str, Datum)>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("serial", &self.db.serial()).finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(db: Database, journal: Box<dyn Journal>) -> Server {
        Server { db, journal, sessions: 0 }
    }

    pub fn connect(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    pub fn disconnect(&mut self, _session: SessionId) {}

    /// Takes bytes from a client. An error means: close this session.
    pub fn receive(&mut self, _session: SessionId, _bytes: &[u8], _now: Instant) -> Result<(), SessionError> {
        Err(SessionError::Unknown)
    }

    /// The next bytes to send, in order for each session.
    pub fn poll_transmit(&mut self) -> Option<(SessionId, Vec<u8>)> {
        None
    }

    /// When `handle_timeout` wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Database Open_vSwitch.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// Runs a transaction for the program itself: the array of operations in, the reply's array out.
    pub fn transact(&mut self, _ops: &Value, _now: Instant) -> Vec<Value> {
        vec![Error::new(Tag::NotSupported, "transactions are not there yet").to_json()]
    }

    /// Sets columns of rows in one transaction, writing only what differs; rows that are gone are passed over.
    /// True if something changed. Ephemeral columns alone cause no record in the journal.
    pub fn update_rows(&mut self, _updates: &[RowUpdate], _now: Instant) -> Result<bool, Error> {
        let _ = &mut self.journal;
        Err(Error::new(Tag::NotSupported, "updates are not there yet"))
    }
}
