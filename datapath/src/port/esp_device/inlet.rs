//! Inward: our ESP is taken in the driver, into memory of ours where a queue is read, else with a UDP header on to a socket.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::programs;
use super::queue::Queue;
use crate::sys::bpf::{Link, Map, MapKind};
use crate::sys::ethtool;

/// Inbound SAs that there is room for.
const SPIS: u32 = 16384;

/// Receive queues of a device that are read.
const QUEUES: u32 = 8;

/// Packets that there is room for on a device, in all its queues: 8 MB, as the socket has.
const FRAMES: usize = 4096;

/// What tells our ESP from others': destination and SPI.
type Key = (Ipv4Addr, u32);

/// Whose packets are taken. The program works on each device for as long as its [`Attached`] is held.
#[derive(Debug)]
pub struct Inlet {
    port: u16,
    spis: Map,
    known: Mutex<BTreeSet<Key>>,
}

/// The inlet at work on a device.
#[derive(Debug)]
pub struct Attached {
    _link: Link,
    ifindex: u32,
    /// Sockets by receive queue. A queue without one has its packets go on with a UDP header.
    sockets: Map,
    queues: Vec<Arc<Queue>>,
    fed: bool,
}

impl Inlet {
    /// One that gives packets to UDP port `port`, where no queue is read.
    ///
    /// # Errors
    /// EPERM: CAP_BPF or CAP_SYS_ADMIN is missing, or eBPF is locked down. Others: this kernel is too old.
    pub fn open(port: u16) -> io::Result<Inlet> {
        let spis = Map::new(MapKind::Hash, size_of::<[u8; 8]>(), size_of::<u32>(), SPIS, "up_esp_spis")?;
        Ok(Inlet { port, spis, known: Mutex::default() })
    }

    /// Puts it to work on the device with that index, in the calling thread's network namespace.
    ///
    /// # Errors
    /// EBUSY: another XDP program is there. Others: the driver knows no XDP, or not at this MTU or with these queues.
    pub fn attach(&self, ifindex: u32) -> io::Result<Attached> {
        let sockets = Map::new(MapKind::XskMap, size_of::<u32>(), size_of::<u32>(), QUEUES, "up_esp_socks")?;
        let program = programs::inward(self.spis.as_fd(), sockets.as_fd(), self.port)?;
        let link = program.attach_in_driver(ifindex)?;
        Ok(Attached { _link: link, ifindex, sockets, queues: Vec::new(), fed: false })
    }

    /// Takes the packets of these SAs, by local address and SPI, and of no others. Those that find no room go to the raw socket.
    ///
    /// # Errors
    /// What the kernel says; the others are taken all the same.
    pub fn take(&self, wanted: BTreeSet<Key>) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        let bytes = |(local, spi): &Key| {
            let mut key = [0; 8];
            key[..4].copy_from_slice(&local.octets());
            key[4..].copy_from_slice(&spi.to_be_bytes());
            key
        };
        for key in wanted.difference(&known) {
            result = self.spis.insert(&bytes(key), &[0; 4]).and(result);
        }
        for key in known.difference(&wanted) {
            // one that was not there for want of room is what we want
            let _ = self.spis.remove(&bytes(key));
        }
        *known = wanted;
        result
    }
}

impl Attached {
    /// Opens what reads the device's receive queues, all of them or the first [`QUEUES`]. `device` is its name. Nothing comes there
    /// before [`Attached::feed`].
    ///
    /// # Errors
    /// As [`Queue::open`]; nothing is open then.
    pub fn open_queues(&mut self, device: &str) -> io::Result<()> {
        let count = ethtool::receive_queues(device).unwrap_or(1).clamp(1, QUEUES);
        let frames = FRAMES / count.next_power_of_two() as usize;
        let queues = (0..count).map(|queue| Queue::open(self.ifindex, queue, frames).map(Arc::new));
        self.queues = queues.collect::<io::Result<_>>()?;
        self.fed = false;
        Ok(())
    }

    /// What reads receive queues.
    pub fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    /// Has packets come to the queues that are open: workers read them by now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn feed(&mut self) -> io::Result<()> {
        if !self.fed {
            for (index, queue) in (0u32..).zip(&self.queues) {
                self.sockets.insert(&index.to_ne_bytes(), &queue.as_fd().as_raw_fd().to_ne_bytes())?;
            }
            self.fed = true;
        }
        Ok(())
    }
}
