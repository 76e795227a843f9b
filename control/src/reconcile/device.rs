//! By which road plain GRE leaves: whole, for the kernel to cut (`device`), or packet by packet through a raw socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datapath::port::DeviceRoad;
use datapath::snapshot::PortKind;
use datapath::tunnel::Tunnel;
use datapath::tunnel::carry::may_carry;

use super::Reconciler;
use crate::devices::netlink::{Link, Links};
use crate::devices::path::Path;
use crate::devices::reason;
use crate::devices::xfrm::Policies;

/// `other_config:underlay-io`: how packets of tunnels are handed to the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnderlayIo {
    /// By the device road where it is possible and the other end certainly copes.
    #[default]
    Auto,
    /// By raw sockets.
    Raw,
    /// By the device road. A tunnel that cannot says so, and goes by the raw socket.
    Device,
}

impl UnderlayIo {
    /// Reads the option. Err: the warning for the log; it is as if it were not there.
    pub fn read(text: Option<&str>) -> Result<UnderlayIo, String> {
        match text {
            None | Some("auto") => Ok(UnderlayIo::Auto),
            Some("raw") => Ok(UnderlayIo::Raw),
            Some("device") => Ok(UnderlayIo::Device),
            Some(other) => {
                Err(format!("other_config:underlay-io '{other}' is none of 'auto', 'raw' and 'device'"))
            }
        }
    }
}

/// Links that hand packets as they are, neither cut nor with their checksums, to another stack of this machine. Kernels cope with
/// that, and Underpass does; userspace switches on the other end may not.
const PASS_ON: [&str; 2] = ["veth", "netkit"];

/// What the choice depends on beside a tunnel and its path.
#[derive(Debug)]
pub(crate) struct Choice {
    wish: UnderlayIo,
    /// Why the road could not be opened.
    unopened: Option<String>,
    policies: Policies,
    /// The kernel had some when last asked.
    ipsec: bool,
    /// Why tunnels that shall go by the device road do not, by name.
    errors: BTreeMap<String, String>,
}

impl Choice {
    /// Nothing chosen yet. Must be called inside a tokio runtime.
    pub(super) fn new() -> Choice {
        Choice {
            wish: UnderlayIo::Auto,
            unopened: None,
            policies: Policies::open(),
            ipsec: false,
            errors: BTreeMap::new(),
        }
    }

    /// Before tunnels are looked at one by one: takes up what the rows say.
    pub(super) fn begin(&mut self, wish: UnderlayIo) {
        if std::mem::replace(&mut self.wish, wish) != wish {
            self.unopened = None;
        }
        self.ipsec = wish != UnderlayIo::Raw && self.policies.exist();
        self.errors.clear();
    }

    /// What the choice depends on, next hops above all, is worth a look each second.
    pub(super) fn is_eager(&self) -> bool {
        self.wish == UnderlayIo::Device
    }

    /// Returns when something has changed that nobody else tells of.
    pub(super) async fn changed(&mut self) {
        self.policies.changed().await;
    }

    /// Why a tunnel that shall go by the device road does not.
    pub(super) fn error(&self, name: &str) -> Option<&str> {
        self.errors.get(name).map(String::as_str)
    }

    /// A tunnel that shall go by the device road does not.
    pub(super) fn blame(&mut self, name: &str, why: &str) {
        let error = format!("{name}: goes by a raw socket in spite of other_config:underlay-io: {why}");
        self.errors.insert(name.to_owned(), error);
    }

    /// Which device a tunnel's packets may be sent to. Err: none, and why, where that is worth a word.
    fn device(&self, tunnel: &Tunnel, path: &Path, links: &Links) -> Result<u32, Option<&'static str>> {
        let loopback = links.by_name("lo").filter(|link| link.up);
        let passed_on = |link: &Link| PASS_ON.contains(&&*link.kind);
        match self.wish {
            UnderlayIo::Raw => Err(None),
            // of another kind, with roads of their own
            _ if tunnel.policy.is_some() || tunnel.config.in_udp.is_some() => Err(None),
            _ if !may_carry(tunnel) => {
                Err(Some("the kernel does not cut packets with csum, seq or df_default=false, or to a group"))
            }
            _ if self.ipsec => Err(Some("the kernel has IPsec policies, which the road goes around")),
            _ if loopback.is_none() => Err(Some("the device lo is not up")),
            _ if loopback.is_some_and(|lo| lo.index == path.ifindex) => Err(Some("its far end is this host")),
            UnderlayIo::Auto if links.by_index(path.ifindex).is_none_or(passed_on) => Err(None),
            _ => Ok(path.ifindex),
        }
    }
}

impl Reconciler {
    /// Sends a tunnel by the road that suits it now.
    pub(super) fn choose_road(&mut self, name: &str, tunnel: &Tunnel, path: Option<&Path>) {
        // without a route the raw socket says so to each packet
        let device = path.ok_or(None).and_then(|path| self.choice.device(tunnel, path, &self.links));
        let chosen = match device {
            Ok(ifindex) => self.open_device_road().map(|()| ifindex).map_err(Some),
            Err(why) => Err(why.map(str::to_owned)),
        };
        if let Err(Some(why)) = &chosen
            && self.choice.wish == UnderlayIo::Device
        {
            self.choice.blame(name, why);
        }
        let ifindex = chosen.unwrap_or(0);
        if tunnel.egress.swap(ifindex, Relaxed) != ifindex {
            let road = if ifindex == 0 { "a raw socket" } else { "the device road" };
            tracing::info!("{name}: goes by {road}");
        }
    }

    fn open_device_road(&mut self) -> Result<(), String> {
        let mut state = self.state.borrow_mut();
        if state.device.is_some() {
            return Ok(());
        }
        if let Some(why) = &self.choice.unopened {
            return Err(why.clone());
        }
        match DeviceRoad::open() {
            Ok(road) => {
                state.device = Some(Arc::new(road));
                self.dirty = true;
                Ok(())
            }
            Err(e) => {
                let why = reason(&e);
                tracing::info!("tunnels go by raw sockets: {why}");
                self.choice.unopened = Some(why.clone());
                Err(why)
            }
        }
    }

    /// Closes the road while no tunnel goes by it.
    pub(super) fn keep_device_road(&mut self) {
        let mut state = self.state.borrow_mut();
        let ports = state.bridges.values().flat_map(|bridge| bridge.ports.values());
        let taken = ports.into_iter().any(|port| match &port.port.kind {
            PortKind::Tunnel(tunnel) => tunnel.egress.load(Relaxed) != 0,
            PortKind::Local(_) | PortKind::Patch(_) => false,
        });
        if !taken && state.device.take().is_some() {
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use datapath::port::InUdp;
    use datapath::snapshot::PolicyId;
    use datapath::tunnel::TunnelConfig;

    use super::*;

    #[test]
    fn the_option() {
        let read = |text| UnderlayIo::read(text).ok();
        assert_eq!(read(None), Some(UnderlayIo::Auto));
        assert_eq!(read(Some("auto")), Some(UnderlayIo::Auto));
        assert_eq!(read(Some("raw")), Some(UnderlayIo::Raw));
        assert_eq!(read(Some("device")), Some(UnderlayIo::Device));
        assert_eq!(read(Some("Device")), None);
    }

    #[tokio::test]
    async fn a_tunnel_goes_by_the_device_only_where_nothing_is_lost() {
        let link = |index, name: &str, kind: &str| Link {
            index,
            name: name.into(),
            kind: kind.into(),
            up: true,
            ..Link::default()
        };
        let all = [link(1, "lo", ""), link(2, "eth0", ""), link(3, "eth1", "veth")];
        let links: Links = all.into_iter().collect();
        let no_lo: Links = links.iter().filter(|l| l.index != 1).cloned().collect();
        let path = |ifindex| Path {
            source: None,
            mtu: 1500,
            ifindex,
            gateway: None,
            link: String::new(),
            carrier: true,
        };
        let config = TunnelConfig::to([10, 0, 0, 2].into());
        let make = |config: TunnelConfig| Tunnel::new(config, Some([10, 0, 0, 1].into()), 1500);
        let plain = make(config.clone());
        let wish = |wish| Choice { wish, ..Choice::new() };
        let (auto, raw, device) = (wish(UnderlayIo::Auto), wish(UnderlayIo::Raw), wish(UnderlayIo::Device));

        assert_eq!(auto.device(&plain, &path(2), &links), Ok(2));
        assert_eq!(auto.device(&plain, &path(3), &links), Err(None));
        assert_eq!(auto.device(&plain, &path(4), &links), Err(None), "a link not seen yet");
        assert_eq!(raw.device(&plain, &path(2), &links), Err(None));
        assert_eq!(device.device(&plain, &path(2), &links), Ok(2));
        assert_eq!(device.device(&plain, &path(3), &links), Ok(3));

        let here = Err(Some("its far end is this host"));
        assert_eq!(device.device(&plain, &path(1), &links), here);
        assert_eq!(device.device(&plain, &path(2), &no_lo), Err(Some("the device lo is not up")));
        let ipsec = Choice { ipsec: true, ..wish(UnderlayIo::Auto) };
        assert!(matches!(ipsec.device(&plain, &path(2), &links), Err(Some(_))));
        let no_source = Tunnel::new(config.clone(), None, 1500);
        for tunnel in [
            make(TunnelConfig { csum: true, ..config.clone() }),
            make(TunnelConfig { seq: true, ..config.clone() }),
            make(TunnelConfig { df: false, ..config.clone() }),
            make(TunnelConfig { remote: [224, 0, 0, 1].into(), ..config.clone() }),
            no_source,
        ] {
            assert!(matches!(device.device(&tunnel, &path(2), &links), Err(Some(_))), "{tunnel:?}");
        }
        let protected = Tunnel { policy: Some(PolicyId(0)), ..make(config.clone()) };
        for other in [protected, make(TunnelConfig { in_udp: Some(InUdp::Gre), ..config })] {
            assert_eq!(device.device(&other, &path(2), &links), Err(None));
        }
    }
}
