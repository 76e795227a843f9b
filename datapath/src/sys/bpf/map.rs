//! Maps: what programs and we both read and write.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;
use zerocopy::{Immutable, IntoBytes};

use super::{bpf, call_for_fd, check_long, object_name};

// bpf_cmd
const LOOKUP: c_int = 1;
const UPDATE: c_int = 2;
const DELETE: c_int = 3;
// flags of an update
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// What a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MapKind {
    /// Any key, found by hashing.
    Hash = 1,
    /// By index, a u32; every entry is there from the start, zeroed.
    Array = 2,
    /// AF_XDP sockets by queue.
    XskMap = 17,
    /// Devices to redirect to, by any key. What is put in is looked up in the calling thread's network namespace; a device that
    /// goes leaves the map. Linux 5.4.
    DevMapHash = 25,
}

/// A map in the kernel. Keys and values are of the lengths that it was made with: others are refused here.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

/// `union bpf_attr` for BPF_MAP_CREATE, as far as it is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct CreateAttr {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
    ifindex: u32,
}

/// For what is done with an entry.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct EntryAttr {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Map {
    /// A map of `entries` entries, whose keys and values have that many bytes.
    ///
    /// # Errors
    /// EPERM: CAP_BPF is missing. EINVAL: this kernel knows no such map.
    pub fn new(kind: MapKind, key: usize, value: usize, entries: u32, name: &str) -> io::Result<Map> {
        let attr = CreateAttr {
            kind: kind as u32,
            key: key as u32,
            value: value as u32,
            entries,
            flags: 0,
            inner: 0,
            node: 0,
            name: object_name(name),
            ifindex: 0,
        };
        // SAFETY: nothing but numbers in it.
        let fd = unsafe { call_for_fd(super::MAP_CREATE, &attr) }?;
        Ok(Map { fd, key, value })
    }

    /// Puts `value` under `key`, whether there was one or not.
    ///
    /// # Errors
    /// E2BIG: it is full, or has no such index. InvalidInput: not its lengths.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.call(UPDATE, key, value.as_ptr() as u64, ANY)
    }

    /// Puts `value` under `key` if nothing is there. In a [`MapKind::DevMapHash`] that differs also from putting there what it has
    /// already: the kernel takes the old entry out first, and a packet that comes just then finds none.
    ///
    /// # Errors
    /// As [`Map::insert`].
    pub fn add(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.call(UPDATE, key, value.as_ptr() as u64, NO_EXIST) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Takes the entry under `key` away.
    ///
    /// # Errors
    /// ENOENT: there is none. InvalidInput: not its lengths, or an array, whose entries stay.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        self.call(DELETE, key, 0, ANY)
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// ENOENT: there is none. InvalidInput: not its lengths.
    pub fn get(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value];
        self.call(LOOKUP, key, value.as_mut_ptr() as u64, ANY)?;
        Ok(value)
    }

    /// `value` is the address of as many bytes as a value has, if `command` uses it.
    fn call(&self, command: c_int, key: &[u8], value: u64, flags: u64) -> io::Result<()> {
        if key.len() != self.key {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let map = self.fd.as_raw_fd() as u32;
        let attr = EntryAttr { map, padding: 0, key: key.as_ptr() as u64, value, flags };
        let mut bytes = [0; size_of::<EntryAttr>()];
        bytes.copy_from_slice(attr.as_bytes());
        // SAFETY: key and value are borrowed by the callers here and have the lengths that the map was made with. No kind of map
        // here keeps a value for each processor, of which the kernel would read and write more than one.
        check_long(unsafe { bpf(command, &mut bytes) }).map(drop)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
