//! The harness of the end-to-end tests: hosts made of network namespaces, a real Docker Engine and Underpass on each,
//! stock tools, traffic and captures. Everything a test makes is owned by a guard and goes with it, on a panic too.
//!
//! Run by root. A helper that fails panics and says what it ran and what came out: that is a failed test.

pub mod capture;
pub mod cli;
pub mod daemon;
pub mod engine;
pub mod frames;
pub mod guest;
pub mod inject;
pub mod interop;
pub mod keys;
pub mod libreswan;
pub mod netns;
pub mod ovs;
pub mod ovs_ipsec;
pub mod pcap;
pub mod pki;
pub mod sflow;
pub mod strongswan;
pub mod topology;
pub mod traffic;

pub use capture::{Capture, Packets, Watch};
pub use cli::{Out, poll, poll_within};
pub use daemon::Daemon;
pub use engine::{Container, Engine};
pub use frames::Frames;
pub use keys::Keys;
pub use netns::Netns;
pub use topology::Host;
