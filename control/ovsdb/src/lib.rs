//! OVSDB (RFC 7047) without I/O: values, schemas, transactions, monitors, and the log's format.
//!
//! `value` and `schema` say what a database may hold; `database` and `row` hold it; `server` speaks the protocol.
#![forbid(unsafe_code)]

#[allow(dead_code)] // the transaction engine is what uses it
mod condition;
mod database;
mod diff;
mod error;
mod journal;
mod mutation;
pub mod open_vswitch;
#[allow(dead_code)]
mod row;
pub mod schema;
mod server;
mod transaction;
mod value;

pub use database::Database;
pub use error::{Error, Tag};
pub use journal::{Journal, NoJournal};
pub use row::Row;
pub use schema::Schema;
pub use server::{RowUpdate, Server, SessionError, SessionId};
pub use uuid::Uuid;
pub use value::{Atom, Datum, Real, Symbols, parse_uuid_text};
