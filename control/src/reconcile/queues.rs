//! Receive queues whose ESP workers read past the sockets ([`Queue`]): opened, read, and only then fed; unfed, read to their end, and
//! only then closed. So nothing is lost when they come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::port::esp_device::{Attached, Queue};

use super::Reconciler;
use super::trains::GRACE;
use crate::devices::reason;

/// How long queues that another program has are left to it.
const RETRY: Duration = Duration::from_secs(10);

/// A device that has the inlet.
#[derive(Debug)]
pub(super) struct Intake {
    attached: Attached,
    /// Its queues are to be opened then; None: they are open, or cannot be.
    due: Option<Instant>,
}

/// A queue that workers read.
#[derive(Debug)]
pub struct Reading {
    /// Itself.
    pub queue: Arc<Queue>,
    /// Nothing comes there since then.
    unfed: Option<Instant>,
}

impl Intake {
    pub(super) fn new(attached: Attached) -> Intake {
        Intake { attached, due: Some(Instant::now()) }
    }

    /// Opens queues of the device of that name, if it is time to.
    fn open(&mut self, device: &str) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        match self.attached.open_queues(device) {
            Ok(()) => {
                let count = self.attached.queues().len();
                tracing::info!("{device}: {count} of its receive queues are read by AF_XDP");
            }
            // mostly our own sockets of a moment ago
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => self.due = Some(Instant::now() + RETRY),
            Err(e) => tracing::info!("{device}: its receive queues are not read by AF_XDP: {}", reason(&e)),
        }
    }
}

impl Reconciler {
    /// Has workers read the queues of devices that have the inlet, and feeds them.
    pub(super) async fn follow_queues(&mut self) {
        for (index, device) in self.trains.intakes() {
            if let Some(link) = self.links.by_index(*index) {
                device.open(&link.name);
            }
        }
        let devices = self.trains.intakes();
        let fed: Vec<_> = devices.flat_map(|(_, device)| device.attached.queues().iter().cloned()).collect();
        self.dirty |= follow(&mut self.state.borrow_mut().queues, fed);
        if self.dirty && !self.settle().await {
            return;
        }
        for (_, device) in self.trains.intakes() {
            if let Err(e) = device.attached.feed() {
                tracing::warn!("ESP does not come to the receive queues that are read: {}", reason(&e));
            }
        }
    }
}

/// Adds to the queues that are read those of `fed` that are not there, and closes those that have been out of it for long enough. True:
/// something has changed.
fn follow(reading: &mut Vec<Reading>, fed: Vec<Arc<Queue>>) -> bool {
    let before = reading.len();
    for one in reading.iter_mut() {
        if !fed.iter().any(|queue| Arc::ptr_eq(queue, &one.queue)) {
            one.unfed.get_or_insert_with(Instant::now);
        }
    }
    reading.retain(|one| one.unfed.is_none_or(|since| since.elapsed() < GRACE));
    let mut changed = reading.len() != before;
    for queue in fed {
        if !reading.iter().any(|one| Arc::ptr_eq(&queue, &one.queue)) {
            reading.push(Reading { queue, unfed: None });
            changed = true;
        }
    }
    changed
}
