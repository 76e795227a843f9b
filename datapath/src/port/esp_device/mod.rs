//! ESP (protocol 50) by trains. The kernel cuts and joins UDP datagrams, sixty at a time, but hands ESP on packet by packet at
//! several times the cost. So ESP travels as UDP as far as the kernel cuts and joins, and as itself on the wire:
//!
//! ```text
//! worker -> one train -> [lane: cut; program: UDP header off] -> NIC === wire === NIC -> [program: UDP header on] -> joined -> UDP socket
//! ```
//! Outward, [`Lane`] is a veth pair of our own whose far end runs a program on each packet that comes out of it, and
//! redirects it to the underlay's device. Inward, [`Inlet`] runs one in the device's driver. Neither checks anything that
//! [`crate::esp`] would check: a packet that the inlet has given a header is opened as any other, and one that somebody sends
//! with such a header in the first place is no more than ESP in UDP.
//!
//! Whatever either cannot do goes by the raw socket: IPv6, fragments, devices whose driver knows no XDP.

mod inlet;
mod lane;
mod programs;

pub use inlet::{Attached, Inlet};
pub use lane::{Batch, Hop, Hops, Lane, Ways};
