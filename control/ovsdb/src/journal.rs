//! Where commits are made durable.

use serde_json::Value;
use std::io;

/// The place on disk, or its stand-in in tests.
pub trait Journal {
    /// Adds one record, which outlives the process from here on, and the host once it is durable. On an error nothing of it
    /// may remain.
    fn append(&mut self, record: &Value) -> io::Result<()>;

    /// How many records were added.
    fn appended(&self) -> u64 {
        0
    }

    /// How many of these are durable.
    fn durable(&self) -> u64 {
        0
    }

    /// Whether the disk refuses to make the rest durable.
    fn failing(&self) -> bool {
        false
    }

    /// Has `wake` called, on any thread, whenever `durable` or `failing` may have changed.
    fn on_durable(&mut self, _wake: Box<dyn Fn() + Send>) {}

    /// Whether so much has been appended since the last snapshot that a new one pays.
    fn wants_compaction(&self) -> bool {
        false
    }

    /// Has the schema and one record that makes the present content stand for all that was added, by and by. If that fails,
    /// the old content stays.
    fn compact(&mut self, schema: &Value, snapshot: &Value);

    /// What to stamp records with, in milliseconds since 1970.
    fn date(&self) -> Option<i64> {
        None
    }
}

/// Keeps nothing: for tests and databases that live in memory.
#[derive(Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn append(&mut self, _record: &Value) -> io::Result<()> {
        Ok(())
    }

    fn compact(&mut self, _schema: &Value, _snapshot: &Value) {}
}
