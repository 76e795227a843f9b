//! IKEv2 (RFC 7296) without I/O.
#![forbid(unsafe_code)]

pub mod auth;
pub mod crypto;
pub mod proposal;
pub mod wire;
