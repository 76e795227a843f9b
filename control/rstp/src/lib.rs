//! Rapid spanning tree: IEEE 802.1D-2004 clause 17, its state machines under the standard's names, without I/O.
//!
//! [`Bridge`] is told of ports, of BPDUs and that a second has passed, and gives back [`Action`]s, in order: what a port may
//! pass, whose learned addresses are to be forgotten, which BPDUs to send. A state is to be in force before the BPDU after
//! it leaves; that is what makes agreements true.
//!
//! One engine serves three dialects, as the standard means it to: RST BPDUs, the BPDUs of 802.1D-1998 for a neighbour that
//! knows no others (17.24), and, with [`BridgeConfig::version`] [`Version::Stp`], STP throughout.
//!
//! | file | its one idea |
//! | --- | --- |
//! | `bpdu` | bytes to BPDUs and back (clause 9) |
//! | `vector` | identifiers, priority vectors, times (17.5, 17.6) |
//! | `bridge` | what is held of a bridge, and the loop that runs its machines until none moves |
//! | `port` | what is held of a port (17.19) |
//! | `machines` | the ten state machines, one a file |
//!
//! Where the standard was mended later, in IEEE 802.1Q, the mended form is used, and said.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod bpdu;
mod bridge;
mod machines;
mod port;
#[cfg(test)]
mod tests;
mod vector;

pub use bridge::{Action, Bridge, BridgeConfig, BridgeStatus, Version};
pub use port::{PortConfig, PortStatus, Role, State};
pub use vector::{BridgeId, PortId, Priority, Times};

/// What a port is called by whoever holds the [`Bridge`]. It does not go into BPDUs.
pub type PortKey = u16;
