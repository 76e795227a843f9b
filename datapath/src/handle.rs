//! The one handle that control holds: publish a snapshot, know when it is in force, read counters, hear events.
#![allow(unused_variables, missing_docs, clippy::unimplemented)] // bodies follow

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::counters::Drop;
use crate::snapshot::{PortId, Snapshot};

/// What the datapath tells control. Delivered at most once a port until read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The kernel found a packet of this tunnel too big: look its path MTU up again.
    PathMtu(PortId),
    /// The device behind this port is gone or down.
    PortFailed(PortId),
}

/// Running workers.
#[derive(Debug)]
pub struct Datapath {}

impl Datapath {
    /// Starts `workers` threads (1 to MAX_WORKERS) in the calling thread's network namespace.
    pub fn start(workers: usize) -> io::Result<Datapath> {
        unimplemented!()
    }
    /// Puts a snapshot in force and returns its generation (the field in `snapshot` is set here).
    pub fn publish(&self, snapshot: Snapshot) -> u64 {
        unimplemented!()
    }
    /// Waits until every worker goes by `generation` or a later one. False: the time ran out.
    pub fn wait_applied(&self, generation: u64, timeout: Duration) -> bool {
        unimplemented!()
    }
    /// Readable when [`Datapath::events`] has something (an eventfd).
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// Takes what has happened since the last call.
    pub fn events(&self) -> Vec<Event> {
        unimplemented!()
    }
    /// Every drop counter, summed over workers.
    pub fn drops(&self) -> Vec<(Drop, u64)> {
        unimplemented!()
    }
    /// Stops and joins the workers.
    pub fn stop(self) {}
}
