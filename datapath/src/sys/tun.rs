//! Making TAP devices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6, c_int, c_uint};

use super::check;
use crate::vnet::VNET_LEN;

/// What to ask for, best first: USO needs Linux 6.2, and what a kernel does not know it refuses altogether.
const OFFLOADS: [c_uint; 5] = [
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
    TUN_F_CSUM,
    0,
];

/// Makes the TAP `device` in the calling thread's network namespace, or takes over a persistent one of that name. Frames
/// carry a virtio_net_hdr both ways and may be superframes. Reading and writing do not block. The device goes with the file.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EBUSY when another process has it; EINVAL when a device of that name is no TAP, or the name
/// is longer than 15 bytes or empty; ENOENT when /dev/net/tun is missing.
pub fn open_tap(device: &str) -> io::Result<File> {
    let mut request = interface_request(device)?;
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    let header = VNET_LEN as c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &header) })?;
    set_offloads(&file)?;
    Ok(file)
}

/// Has a TAP stay when its file is closed, with all that was configured on it, or go with it.
pub fn keep_tap(tap: &File, keep: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(keep)) }).map(drop)
}

/// Tells the kernel what superframes it may hand out: the most that it agrees to.
fn set_offloads(tap: &File) -> io::Result<()> {
    let mut result = Ok(());
    for flags in OFFLOADS {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        match check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
        {
            Ok(_) => return Ok(()),
            Err(e) => result = Err(e),
        }
    }
    result
}

pub(super) fn interface_request(device: &str) -> io::Result<libc::ifreq> {
    let name = device.as_bytes();
    // An empty name would have the kernel choose one, a percent sign number them.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(&0) || name.contains(&b'%') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: ifreq is integers, and a union of such and of raw pointers, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}
