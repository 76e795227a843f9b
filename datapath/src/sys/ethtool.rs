//! What drivers say of their devices (linux/ethtool.h): speed, kind of link, version.

use std::io;
use std::os::fd::AsRawFd;

use libc::c_ulong;
use socket2::{Domain, Socket, Type};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::check;
use super::tun::interface_request;

const SIOCETHTOOL: c_ulong = 0x8946;
const ETHTOOL_GSET: u32 = 1;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_cmd`: a link's settings. Supported, advertised and the other end's are bits (`SUPPORTED_…`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Settings {
    cmd: u32,
    supported: u32,
    advertising: u32,
    speed: u16,
    duplex: u8,
    port: u8,
    phy_address: u8,
    transceiver: u8,
    autoneg: u8,
    mdio_support: u8,
    maxtxpkt: u32,
    maxrxpkt: u32,
    speed_hi: u16,
    eth_tp_mdix: u8,
    eth_tp_mdix_ctrl: u8,
    lp_advertising: u32,
    reserved: [u32; 2],
}

/// `struct ethtool_drvinfo`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// How a link runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// In Mb/s; None: not known, mostly for want of a carrier.
    pub speed: Option<u32>,
    /// Both ways at once; None: not known.
    pub full_duplex: Option<bool>,
    /// What it runs on.
    pub medium: Medium,
    /// It negotiates.
    pub autoneg: bool,
    /// `SUPPORTED_…` of linux/ethtool.h.
    pub supported: u32,
    /// `ADVERTISED_…`, the same bits.
    pub advertised: u32,
    /// What the other end advertises.
    pub peer: u32,
}

/// What a link runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Twisted pair; virtual devices say so, too.
    Copper,
    /// Fibre.
    Fiber,
    /// Something else, or nothing.
    Other,
}

/// Who drives a device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the keys of the column `status`, without their prefix
pub struct Driver {
    pub name: String,
    pub version: String,
    pub firmware: String,
}

/// How the link of `device` runs, in the calling thread's network namespace.
///
/// # Errors
/// ENODEV; EOPNOTSUPP: its driver does not say.
pub fn link(device: &str) -> io::Result<Link> {
    let s: Settings = ask(device, ETHTOOL_GSET)?;
    let speed = u32::from(s.speed_hi) << 16 | u32::from(s.speed);
    Ok(Link {
        speed: Some(speed).filter(|s| *s != 0 && *s != u32::MAX && *s != u32::from(u16::MAX)),
        full_duplex: match s.duplex {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        medium: match s.port {
            0 => Medium::Copper,
            3 => Medium::Fiber,
            _ => Medium::Other,
        },
        autoneg: s.autoneg == 1,
        supported: s.supported,
        advertised: s.advertising,
        peer: s.lp_advertising,
    })
}

/// Who drives `device`, in the calling thread's network namespace.
///
/// # Errors
/// ENODEV; EOPNOTSUPP: it has no driver that says.
pub fn driver(device: &str) -> io::Result<Driver> {
    let info: DriverInfo = ask(device, ETHTOOL_GDRVINFO)?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    };
    Ok(Driver { name: text(&info.driver), version: text(&info.version), firmware: text(&info.fw_version) })
}

/// Every question here has an answer of a fixed size, which begins with the number of the question.
fn ask<T: FromBytes + IntoBytes + Immutable>(device: &str, question: u32) -> io::Result<T> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut answer = T::new_zeroed();
    if let Some(command) = answer.as_mut_bytes().first_chunk_mut() {
        *command = question.to_ne_bytes();
    }
    let mut request = interface_request(device)?;
    request.ifr_ifru.ifru_data = answer.as_mut_bytes().as_mut_ptr().cast();
    // SAFETY: SIOCETHTOOL reads one ifreq, which `request` is, and the kernel writes the answer to the question there: as
    // much as linux/ethtool.h says for it, which is the size of `answer`, for which any bytes are valid.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!((size_of::<Settings>(), size_of::<DriverInfo>()), (44, 196));
    }

    #[test]
    fn no_such_device() {
        assert_eq!(link("nosuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(driver("nosuch0").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(link("").is_err());
    }
}
