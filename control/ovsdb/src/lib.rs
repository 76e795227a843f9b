//! OVSDB (RFC 7047) without sockets and clocks: bytes and time in, bytes and deadlines out.
//!
//! `value` and `schema` say what a database may hold, `row` and `database` hold it. A request takes this way:
//! `framing` → `server` → `rpc` → `execution` (with `condition`, `mutation`) → `transaction` → `record` → `journal`,
//! and back through `monitor`. `log` is the file's format, `file` opens one, `durable` writes to it and waits
//! for the disk, which is `medium`.
#![forbid(unsafe_code)]

mod condition;
mod database;
mod diff;
mod durable;
mod error;
mod execution;
mod file;
mod framing;
mod journal;
mod locks;
pub mod log;
mod medium;
mod monitor;
mod mutation;
pub mod open_vswitch;
mod parser;
mod record;
mod row;
mod rpc;
pub mod schema;
mod server;
mod transaction;
mod types;
mod value;

pub use database::Database;
pub use error::{Error, Tag};
pub use file::{FileJournal, OpenError, lock_path, open, read};
pub use framing::{FramingError, MAX_DEPTH, MAX_MESSAGE};
pub use journal::{Journal, NoJournal};
pub use row::Row;
pub use schema::Schema;
pub use server::{RowUpdate, Server, SessionError, SessionId, Transmit};
pub use uuid::Uuid;
pub use value::{Atom, Datum, Real, Symbols, parse_uuid_text};
