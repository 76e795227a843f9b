//! The way to a tunnel's far end, as the kernel sees it now: source address, MTU and the link it leaves by.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use lru::LruCache;

use super::netlink::{Links, Netlink};

/// What to assume of a path that is not there, in bytes.
pub const DEFAULT_MTU: u32 = 1500;
/// Far ends whose path is remembered between two looks at the routes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Paths that one look for changes asks for.
const LOOKS: usize = 256;

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The address that packets leave from.
    pub source: Option<IpAddr>,
    /// The largest IP packet in bytes that gets there unbroken, as far as the kernel knows.
    pub mtu: u32,
    /// Index of the link that packets leave by.
    pub ifindex: u32,
    /// Its name.
    pub link: String,
    /// The router that packets go to first, if there is one.
    pub gateway: Option<IpAddr>,
    /// Whether that link has carrier.
    pub carrier: bool,
}

/// Paths by (remote, local). Tunnels to one host share what was found; it is asked for anew after [`Paths::forget`].
#[derive(Debug)]
pub struct Paths {
    netlink: Netlink,
    known: LruCache<(IpAddr, Option<IpAddr>), Path>,
    /// How many of them have been looked at in this turn for changes.
    looked: usize,
}

impl Paths {
    /// Nothing known yet.
    pub fn new(netlink: Netlink) -> Paths {
        Paths { netlink, known: LruCache::new(REMEMBERED), looked: 0 }
    }

    /// Routes or links may have changed, or the kernel may have learned an MTU.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The way to `remote`, from `local` if that is given.
    pub async fn look_up(
        &mut self,
        remote: IpAddr,
        local: Option<IpAddr>,
        links: &Links,
    ) -> io::Result<Path> {
        if let Some(path) = self.known.get(&(remote, local)) {
            return Ok(path.clone());
        }
        let path = self.ask(remote, local, links).await?;
        self.known.put((remote, local), path.clone());
        Ok(path)
    }

    /// Whether one of the paths that are known is another by now. Where there are many, some of them are looked at, in turn.
    pub async fn changed(&mut self, links: &Links) -> bool {
        let some: Vec<_> =
            self.known.iter().skip(self.looked).take(LOOKS).map(|(k, p)| (*k, p.clone())).collect();
        self.looked = if some.len() < LOOKS { 0 } else { self.looked + LOOKS };
        for ((remote, local), known) in some {
            if self.ask(remote, local, links).await.ok().as_ref() != Some(&known) {
                return true;
            }
        }
        false
    }

    async fn ask(&self, remote: IpAddr, local: Option<IpAddr>, links: &Links) -> io::Result<Path> {
        let way = self.netlink.route_to(remote, local).await?;
        let link = links.by_index(way.link);
        Ok(Path {
            source: way.source,
            mtu: way.mtu.or(link.map(|l| l.mtu)).unwrap_or(DEFAULT_MTU),
            ifindex: way.link,
            gateway: way.gateway,
            link: link.map(|l| l.name.clone()).unwrap_or_default(),
            carrier: link.is_some_and(|l| l.carrier),
        })
    }
}
