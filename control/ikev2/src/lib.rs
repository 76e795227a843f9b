//! IKEv2 (RFC 7296) without I/O: datagrams and time in; datagrams, keys and deadlines out.
//!
//! [`Endpoint`] holds every peer and every IKE SA. A datagram passes `wire` → `endpoint` (whose is it?) → `sa` (one state
//! or exchange a file), which uses `proposal`, `crypto` and `auth`; what is to be done comes back as [`Output`].
#![forbid(unsafe_code)]

pub mod auth;
mod config;
pub mod crypto;
mod endpoint;
mod output;
pub mod proposal;
mod sa;
mod selector;
mod status;
pub mod wire;

pub use config::{Encapsulation, Lifetimes, Limits, NAT_PORT, PORT, Path, PeerConfig, PeerId};
pub use endpoint::Endpoint;
pub use output::{Child, ChildId, ChildUse, Direction, Event, Output, UdpPorts};
pub use selector::Selector;
pub use status::{ChildState, ChildStatus, IkeSecrets, IkeState, IkeStatus, PeerState, PeerStatus};
