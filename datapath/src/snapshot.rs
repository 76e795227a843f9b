//! What workers forward by: an immutable picture of bridges, ports and tunnels. Control makes a new one for each
//! change and publishes it through [`crate::handle::Datapath`]; a worker takes it up between two batches.
//!
//! What must outlive a picture (sockets, the FDB, counters, a path's MTU) is held by `Arc` inside it, and the next
//! picture shares it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::counters::{DropReason, PortCounters};
use crate::esp::{InboundSa, OutboundSa};
use crate::fdb::Fdb;
use crate::mirror::{Mirror, PortSet};
use crate::multicast::{Audience, Groups as MulticastGroups};
use crate::police::Policer;
use crate::port::{DeviceRoad, LocalPort, RxRoad, Underlay};
use crate::sflow::Sampler;
use crate::tunnel::{Demux, Tunnel, Way};
use crate::vlan::{VlanLimit, VlanPolicy, VlanSet};

/// Index of a port in [`Snapshot::ports`]. Small and dense. Reused only after every worker has taken up a snapshot
/// without the port and the port's FDB entries have been flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Index of a bridge in [`Snapshot::bridges`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u16);

/// Index of what is protected between two hosts in [`Snapshot::policies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(pub u16);

/// Inbound SAs by SPI.
pub type InboundSas = HashMap<u32, Arc<InboundSa>, foldhash::fast::RandomState>;

/// OpenFlow port number, as the `ofport` column has it. 65534 is the bridge's own port, `LOCAL`.
pub type OfPort = u16;

/// One picture of what is to be done; see the module.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up with each publication; set by [`crate::handle::Datapath::publish`].
    pub generation: u64,
    /// By [`BridgeId`]. A removed bridge leaves a hole until its id is used again.
    pub bridges: Vec<Option<Arc<Bridge>>>,
    /// By [`PortId`], with holes likewise.
    pub ports: Vec<Option<Arc<Port>>>,
    /// Which tunnel a received packet belongs to.
    pub demux: Demux,
    /// Sockets that tunnel packets arrive on.
    pub underlays: Vec<Arc<Underlay>>,
    /// The way out for tunnels that have [`Tunnel::egress`].
    pub device: Option<Arc<DeviceRoad>>,
    /// By [`PolicyId`], with holes likewise.
    pub policies: Vec<Option<Arc<Policy>>>,
    /// What ESP packets are opened with.
    pub inbound: InboundSas,
}

/// What IPsec protects: one kind of tunnels between two hosts, GRE or VXLAN or Geneve to one port.
#[derive(Debug)]
pub struct Policy {
    /// The name of a tunnel of it, for logs.
    pub name: String,
    /// This host, if the tunnels say.
    pub local: Option<IpAddr>,
    /// The other.
    pub remote: IpAddr,
    /// What packets are sent by; None while there is nothing.
    pub outbound: Option<Arc<OutboundSa>>,
    /// `options:plaintext=allow`: what cannot be sent in ESP goes in the clear, and is taken in the clear.
    pub may_send_plain: bool,
}

/// A learning switch.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Its name, for logs.
    pub name: String,
    /// Who is where.
    pub fdb: Arc<Fdb>,
    /// Every port of it that forwards: where unknown destinations and groups go.
    pub flood: Vec<PortId>,
    /// Ports that forward, and that floods do not reach: only what somebody there has asked for.
    pub no_flood: Vec<PortId>,
    /// `other_config:forward-bpdu`: also forward reserved group addresses.
    pub forward_bpdu: bool,
    /// It runs STP or RSTP: BPDUs are passed up to control.
    pub spanning: bool,
    /// VLANs without learning, whose frames go to all their ports.
    pub flood_vlans: Option<Arc<VlanSet>>,
    /// How many tags of a frame count.
    pub vlan_limit: VlanLimit,
    /// Who is given copies of what.
    pub mirrors: Vec<Mirror>,
    /// Ports that copies leave by and nothing else. They take nothing in.
    pub watchers: PortSet,
    /// Multicast snooping: who hears what. None: frames to groups go to all ports.
    pub groups: Option<Arc<MulticastGroups>>,
    /// What its own probes for loops are known by. None: it sends none.
    pub probe: Option<u64>,
    /// Takes samples of what enters by its ports. None: nobody asks for any.
    pub sampler: Option<Arc<Sampler>>,
}

/// A port of a bridge.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its place in the snapshot.
    pub id: PortId,
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its OpenFlow number.
    pub ofport: OfPort,
    /// Its name, for logs.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// What passed through it.
    pub counters: Arc<PortCounters>,
    /// Which worker receives from it (local ports only; taken modulo the number of workers).
    pub worker: usize,
    /// What a spanning tree or its bond lets pass.
    pub stp: StpState,
    /// Control watches the way that begins there.
    pub watch: Option<Watch>,
    /// Its VLANs. None: a trunk of all.
    pub vlan: Option<Arc<VlanPolicy>>,
    /// Whom it is kept apart from.
    pub groups: Groups,
    /// What it is held to. None: no limits.
    pub policer: Option<Arc<Policer>>,
    /// UDP leaves by it one datagram a frame, for somebody who reads frames.
    pub lone_datagrams: bool,
}

/// What comes in by a port for control, which watches the way that begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// BFD control packets to one of these IPv4 addresses.
    pub bfd: Option<[[u8; 4]; 2]>,
    /// Continuity checks (IEEE 802.1ag) to this Ethernet address.
    pub cfm: Option<[u8; 6]>,
}

/// The groups that a port is in. No frame passes from one port of a group to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups(u8);

impl Groups {
    /// In none.
    pub const NONE: Groups = Groups(0);
    /// Column `protected`: stations that may reach what is common, and not each other.
    pub const PROTECTED: Groups = Groups(1);
    /// `other_config:split-horizon`: tunnels of a full mesh, in which every host hears every other directly.
    pub const SPLIT_HORIZON: Groups = Groups(2);

    /// In these and in those.
    pub fn and(self, other: Groups) -> Groups {
        Groups(self.0 | other.0)
    }

    /// Whether ports in these and in those are kept apart.
    #[inline]
    pub fn meet(self, other: Groups) -> bool {
        self.0 & other.0 != 0
    }
}

/// What may pass through a port: what a spanning tree says (IEEE 802.1D-2004 7.4), or its bond. Frames that control injects
/// always do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StpState {
    /// Everything: also of ports that no spanning tree looks after.
    #[default]
    Forwarding,
    /// Nothing, but addresses are learned.
    Learning,
    /// Nothing but BPDUs, which are passed up. What 802.1D-1998 calls listening is this, too.
    Blocking,
    /// Nothing at all.
    Disabled,
    /// Nothing: another member of its bond is the active one.
    Backup,
}

impl StpState {
    /// Why a frame does not pass where not all do.
    #[cold]
    pub fn refusal(self) -> DropReason {
        match self {
            StpState::Backup => DropReason::BondBackup,
            StpState::Forwarding | StpState::Learning | StpState::Blocking | StpState::Disabled => {
                DropReason::NotForwarding
            }
        }
    }
}

/// What a port is.
#[derive(Debug, Clone)]
pub enum PortKind {
    /// A device of this host: packet socket or TAP.
    Local(Arc<LocalPort>),
    /// A tunnel to another host.
    Tunnel(Arc<Tunnel>),
    /// The way into another bridge.
    Patch(Arc<Patch>),
}

/// One end of a pair of patch ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// `options:peer`.
    pub name: String,
    /// The port of that name, if it is a patch port whose peer is this one.
    pub peer: Option<PortId>,
}

impl Bridge {
    /// Without ports, and with nothing about it that is not usual.
    pub fn new(name: impl Into<String>, fdb: Arc<Fdb>) -> Bridge {
        Bridge {
            name: name.into(),
            fdb,
            flood: Vec::new(),
            no_flood: Vec::new(),
            forward_bpdu: false,
            spanning: false,
            flood_vlans: None,
            vlan_limit: VlanLimit::One,
            mirrors: Vec::new(),
            watchers: PortSet::default(),
            groups: None,
            probe: None,
            sampler: None,
        }
    }

    /// The ports that a frame which has no single destination goes to.
    #[inline]
    pub fn hearing<'a>(&'a self, audience: Audience<'a>) -> impl Iterator<Item = PortId> + 'a {
        let asked: &[PortId] = match audience {
            Audience::All => &[],
            Audience::Some(_) => &self.no_flood,
        };
        self.flood.iter().chain(asked).copied().filter(move |port| audience.has(*port))
    }
}

impl Port {
    /// With counters of its own, and with nothing about it that is not usual.
    pub fn new(
        id: PortId,
        bridge: BridgeId,
        ofport: OfPort,
        name: impl Into<String>,
        kind: PortKind,
    ) -> Port {
        let (name, counters, stp) = (name.into(), Arc::default(), StpState::Forwarding);
        Port {
            id,
            bridge,
            ofport,
            name,
            kind,
            counters,
            worker: 0,
            stp,
            vlan: None,
            groups: Groups::NONE,
            policer: None,
            lone_datagrams: false,
            watch: None,
        }
    }
}

impl Snapshot {
    /// The port with that id.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Arc<Port>> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// The bridge with that id.
    #[inline]
    pub fn bridge(&self, id: BridgeId) -> Option<&Arc<Bridge>> {
        self.bridges.get(usize::from(id.0))?.as_ref()
    }

    /// The host pair with that id.
    #[inline]
    pub fn policy(&self, id: PolicyId) -> Option<&Arc<Policy>> {
        self.policies.get(usize::from(id.0))?.as_ref()
    }

    /// How a packet of `tunnel` goes out. In the clear only where nothing else was asked for.
    ///
    /// # Errors
    /// It must be protected, and there is no SA.
    #[inline]
    pub fn way(&self, tunnel: &Tunnel) -> Result<Way<'_>, DropReason> {
        let Some(id) = tunnel.policy else {
            return Ok(tunnel.config.in_udp.map_or(Way::Plain, Way::InUdp));
        };
        match self.policy(id).map(|p| (p.outbound.as_deref(), p.may_send_plain)) {
            Some((Some(sa), _)) => Ok(Way::Protected(sa)),
            Some((None, true)) => Ok(tunnel.config.in_udp.map_or(Way::Plain, Way::InUdp)),
            Some((None, false)) | None => Err(DropReason::EspNoOutbound),
        }
    }

    /// The longest frame (Ethernet header included) that passes through `tunnel` as it is. Until there is an SA the road with
    /// the most headers is taken for granted.
    #[inline]
    pub fn max_frame(&self, tunnel: &Tunnel) -> usize {
        tunnel.max_frame(self.way(tunnel).map_or(RxRoad::Udp, |way| way.road()))
    }
}
