//! Bidirectional Forwarding Detection in asynchronous mode (RFC 5880), in frames as Open vSwitch sends them on its ports.
//!
//! Nothing here does I/O: a [`Session`] is told of time and of frames, and says when it wants to send which frame. Time is in
//! milliseconds of any clock that goes on steadily.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![warn(missing_docs)]

mod config;
mod frame;
mod packet;
mod session;
mod show;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use packet::{Diagnostic, Packet, State};
pub use session::Session;

/// Milliseconds of a steady clock.
pub type Millis = i64;
