//! Continuity checks of Connectivity Fault Management (IEEE 802.1ag), in frames as Open vSwitch sends them on its ports.
//!
//! Nothing here does I/O: a [`Point`] is told of time and of frames, and says when it wants to send which frame. Time is in
//! milliseconds of any clock that goes on steadily.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![warn(missing_docs)]

mod ccm;
mod config;
mod fault;
mod point;
mod show;
#[cfg(test)]
mod tests;

pub use config::{Config, Vlan};
pub use fault::{Faults, Odd};
pub use point::{Point, Status};

/// Milliseconds of a steady clock.
pub type Millis = i64;
