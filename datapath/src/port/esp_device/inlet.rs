//! Inward: our ESP gets a UDP header in the driver.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use super::programs;
use crate::sys::bpf::{Link, Map, MapKind, Program};

/// Inbound SAs that there is room for.
const SPIS: u32 = 16384;

/// What tells our ESP from others': destination and SPI.
type Key = (Ipv4Addr, u32);

/// The program, and whose packets it takes. It works on each device for as long as its [`Attached`] is held.
#[derive(Debug)]
pub struct Inlet {
    program: Program,
    spis: Map,
    known: Mutex<BTreeSet<Key>>,
}

/// The inlet at work on a device.
#[derive(Debug)]
pub struct Attached {
    _link: Link,
}

impl Inlet {
    /// One that gives packets to UDP port `port`.
    ///
    /// # Errors
    /// EPERM: CAP_BPF or CAP_SYS_ADMIN is missing, or eBPF is locked down. Others: this kernel is too old.
    pub fn open(port: u16) -> io::Result<Inlet> {
        let spis = Map::new(MapKind::Hash, size_of::<[u8; 8]>(), size_of::<u32>(), SPIS, "up_esp_spis")?;
        let program = programs::inward(spis.as_fd(), port)?;
        Ok(Inlet { program, spis, known: Mutex::default() })
    }

    /// Puts it to work on the device with that index, in the calling thread's network namespace.
    ///
    /// # Errors
    /// EBUSY: another XDP program is there. Others: the driver knows no XDP, or not at this MTU or with these queues.
    pub fn attach(&self, ifindex: u32) -> io::Result<Attached> {
        Ok(Attached { _link: self.program.attach_in_driver(ifindex)? })
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
