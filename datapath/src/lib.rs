//! What a frame passes through.
//!
//! Outward: [`port`] rx → [`slab`] → [`wire`] parse → [`bridge`] learn, look up in the [`fdb`] → another port's
//! [`txq`], or [`tunnel`]: [`offload`] fits it to the path MTU → GRE encap → [`esp`] seals it → underlay tx. Inward:
//! underlay rx → ESP opened → tunnel decap and demultiplexing → bridge → offload coalesces TCP → port tx.
//!
//! [`worker`] threads run that loop in batches. They share no mutable state but the FDB and atomic counters, take a lock
//! only to learn an address, and allocate nothing per frame. What they forward by is an immutable [`snapshot`]; [`handle`] publishes a new
//! one, and says when every worker goes by it.
//!
//! Contract: nothing here panics on any bytes from the wire. [`wire`] and [`offload`] are pure functions over slices.
//! `unsafe` stands in [`sys`] alone.
#![deny(unsafe_code)]
#![warn(missing_docs)]

// what a frame is
pub mod slab;
pub mod vnet;
pub mod wire;
// 1. in and out
pub mod port;
pub mod sys;
pub mod txq;
// 2. switch
pub mod bridge;
pub mod fdb;
pub mod mirror;
pub mod multicast;
pub mod police;
pub mod sflow;
pub mod vlan;
// 3. through a tunnel
pub mod esp;
pub mod offload;
pub mod tunnel;
// how it runs
pub mod counters;
pub mod handle;
mod punt;
pub mod slow_path;
pub mod snapshot;
pub mod worker;
