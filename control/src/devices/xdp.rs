//! What drivers say that they can do with XDP, by the generic netlink family `netdev` (Linux 6.3).

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const NETLINK_GENERIC: i32 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// Bytes of the netlink and the generic netlink header.
const HEADERS: usize = 20;
// linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
// linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 1 << 2;

/// The kernel answers while it is asked.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket to ask by.
#[derive(Debug)]
pub struct XdpFeatures {
    socket: Socket,
    family: u16,
}

impl XdpFeatures {
    /// Speaks of the calling thread's network namespace.
    ///
    /// # Errors
    /// ENOENT: this kernel is too old.
    pub fn open() -> io::Result<XdpFeatures> {
        let socket =
            Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_GENERIC)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut asked = XdpFeatures { socket, family: GENL_ID_CTRL };
        let answer = asked.ask(CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0")?;
        let id = attribute(&answer, CTRL_ATTR_FAMILY_ID).and_then(|id| id.first_chunk().copied());
        asked.family = u16::from_ne_bytes(id.ok_or(io::ErrorKind::InvalidData)?);
        Ok(asked)
    }

    /// Whether packets may be redirected to the device with that index. That may change: a veth's depends on its peer.
    ///
    /// # Errors
    /// What the kernel says. ENODEV: no such device.
    pub fn takes_redirected(&self, ifindex: u32) -> io::Result<bool> {
        let answer = self.ask(NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes())?;
        let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES).and_then(|f| f.first_chunk().copied());
        Ok(u64::from_ne_bytes(features.unwrap_or_default()) & NETDEV_XDP_ACT_NDO_XMIT != 0)
    }

    /// The attributes of the answer to a request with one attribute.
    fn ask(&self, command: u8, kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
        let attribute_len = 4 + value.len();
        let len = HEADERS + attribute_len.next_multiple_of(4);
        let mut request = Vec::with_capacity(len);
        request.extend((len as u32).to_ne_bytes());
        request.extend(self.family.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([command, 1, 0, 0]);
        request.extend((attribute_len as u16).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(value);
        request.resize(len, 0);
        (&self.socket).write_all(&request)?;
        let mut answer = vec![0; 8192];
        let got = (&self.socket).read(&mut answer)?;
        answer.truncate(got);
        let kind = answer.get(4..6).and_then(|k| k.first_chunk().copied()).map(u16::from_ne_bytes);
        if kind == Some(NLMSG_ERROR) {
            let errno = answer.get(16..20).and_then(|e| e.first_chunk().copied()).map(i32::from_ne_bytes);
            return Err(io::Error::from_raw_os_error(-errno.unwrap_or(-libc::EIO)));
        }
        Ok(answer.get(HEADERS..).unwrap_or(&[]).to_vec())
    }
}

/// The value of the first attribute of that kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let found = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(4..len)?;
        if found == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::{in_namespace, ip};

    #[test]
    fn drivers_say_whether_they_take_what_is_redirected() {
        in_namespace(async {
            ip("link add br0 type bridge
                link add v0 type veth peer name v1
                link set v0 up
                link set v1 up");
            let index = |name| datapath_index(name);
            let features = XdpFeatures::open().unwrap();
            assert!(!features.takes_redirected(index("br0")).unwrap());
            // a veth does while its peer takes packets in batches
            assert!(!features.takes_redirected(index("v0")).unwrap());
            let gro = std::process::Command::new("ethtool").args(["-K", "v1", "gro", "on"]).status();
            assert!(gro.unwrap().success());
            assert!(features.takes_redirected(index("v0")).unwrap());
            assert_eq!(features.takes_redirected(999_999).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        });
    }

    fn datapath_index(name: &str) -> u32 {
        nix::net::if_::if_nametoindex(name).unwrap()
    }

    #[test]
    fn attributes_that_lie_about_their_length_end_the_search() {
        let mut bytes = vec![8, 0, 1, 0, 1, 2, 3, 4, 6, 0, 2, 0, 5, 6, 0, 0];
        assert_eq!(attribute(&bytes, 2), Some(&[5, 6][..]));
        assert_eq!(attribute(&bytes, 3), None);
        for lie in [0, 3, 99] {
            bytes[0] = lie;
            assert_eq!(attribute(&bytes, 2), None, "{lie}");
        }
    }
}
