//! Network devices: what there are, and changes to them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Netlink, gone_is_fine, kernel_error};

/// Counters that the kernel keeps for a link, by the names of the `statistics` column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinkStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub rx_multicast_packets: u64,
    pub rx_over_err: u64,
    pub rx_crc_err: u64,
    pub rx_frame_err: u64,
    pub rx_missed_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub collisions: u64,
}

/// A network device as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index; never 0 for a real link.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `bridge`, `veth`, `tun`; empty for hardware.
    pub kind: String,
    /// Index of the bridge or bond that it belongs to; 0: none.
    pub master: u32,
    /// Index of the device that it is made on, or of its peer (IFLA_LINK); 0: none.
    pub below: u32,
    /// Ethernet address; zero when it has none of six bytes.
    pub mac: [u8; 6],
    /// In bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Has carrier.
    pub carrier: bool,
    /// How often the carrier came or went.
    pub carrier_changes: u32,
    /// `ip link set … alias`.
    pub alias: String,
    /// The kernel's counters.
    pub stats: LinkStats,
}

impl Link {
    /// A Linux bridge (not a port of one).
    pub fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }

    /// What there is to it besides its counters.
    pub fn settings(&self) -> Link {
        Link { stats: LinkStats::default(), ..self.clone() }
    }
}

/// All links of a namespace at one moment.
#[derive(Debug, Clone, Default)]
pub struct Links(Vec<Link>);

impl Links {
    /// The link of that name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.0.iter().find(|l| l.name == name)
    }

    /// The link with that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.0.iter().find(|l| l.index == index)
    }

    /// The ports of a bridge or bond.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(move |l| l.master == master)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<T: IntoIterator<Item = Link>>(links: T) -> Links {
        Links(links.into_iter().collect())
    }
}

/// What a new link shall be like.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl NewLink<'_> {
    fn attributes(&self) -> LinkMessageBuilder<LinkUnspec> {
        LinkMessageBuilder::<LinkUnspec>::new()
            .name(self.name)
            .mtu(self.mtu)
            .address(self.mac.to_vec())
            .arp(false)
    }
}

impl Netlink {
    /// Every link there is.
    pub async fn links(&self) -> io::Result<Links> {
        let all: Vec<Link> =
            self.handle.link().get().execute().map_ok(link).try_collect().await.map_err(kernel_error)?;
        Ok(Links(all))
    }

    /// The link of that name; ENODEV when there is none.
    pub async fn link(&self, name: &str) -> io::Result<Link> {
        let mut answers = self.handle.link().get().match_name(name).execute();
        let answer = answers.try_next().await.map_err(kernel_error)?;
        answer.map(link).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Makes a veth pair: `near` here, `far` in the namespace `far_ns`. Neither is up, nor speaks ARP.
    pub async fn add_veth(
        &self,
        near: &NewLink<'_>,
        far: &NewLink<'_>,
        far_ns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut peer = far.attributes().build();
        peer.attributes.push(LinkAttribute::NetNsFd(far_ns.as_raw_fd()));
        let mut message = near.attributes().build();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.handle.link().add(message).execute().await.map_err(kernel_error)
    }

    /// Removes a link that software made. No error when it is gone already.
    pub async fn delete(&self, index: u32) -> io::Result<()> {
        gone_is_fine(self.handle.link().del(index).execute().await.map_err(kernel_error))
    }

    /// Makes the link a port of `master`; 0: of none.
    pub async fn set_master(&self, index: u32, master: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).controller(master)).await
    }

    /// Brings the link up or down.
    pub async fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index);
        self.change(if up { link.up() } else { link.down() }).await
    }

    /// Sets its MTU, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).mtu(mtu)).await
    }

    /// Sets its Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).address(mac.to_vec())).await
    }

    /// Sets its alias, which `ip link` shows.
    pub async fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).alias(alias)).await
    }

    async fn change(&self, message: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
        self.handle.link().change(message.build()).execute().await.map_err(kernel_error)
    }
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = master,
            LinkAttribute::Link(below) => link.below = below,
            LinkAttribute::CarrierChanges(n) => link.carrier_changes = n,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        // a VXLAN device names the one below in words of its own
                        LinkInfo::Data(InfoData::Vxlan(words)) => {
                            let below = |w: &InfoVxlan| {
                                if let InfoVxlan::Link(below) = w { Some(*below) } else { None }
                            };
                            link.below = words.iter().find_map(below).unwrap_or(link.below);
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::Stats64(s) => {
                link.stats = LinkStats {
                    rx_packets: s.rx_packets,
                    rx_bytes: s.rx_bytes,
                    rx_errors: s.rx_errors,
                    rx_dropped: s.rx_dropped,
                    rx_multicast_packets: s.multicast,
                    rx_over_err: s.rx_over_errors,
                    rx_crc_err: s.rx_crc_errors,
                    rx_frame_err: s.rx_frame_errors,
                    rx_missed_errors: s.rx_missed_errors,
                    tx_packets: s.tx_packets,
                    tx_bytes: s.tx_bytes,
                    tx_errors: s.tx_errors,
                    tx_dropped: s.tx_dropped,
                    collisions: s.collisions,
                };
            }
            _ => {}
        }
    }
    link
}
