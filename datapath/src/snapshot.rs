//! What workers forward by: an immutable picture of bridges, ports and tunnels. Control makes a new one for each
//! change and publishes it through [`crate::handle::Datapath`]; a worker takes it up between two batches.
//!
//! What must outlive a picture (sockets, the FDB, counters, a path's MTU) is held by `Arc` inside it, and the next
//! picture shares it.

use std::sync::Arc;

use crate::counters::PortCounters;
use crate::fdb::Fdb;
use crate::port::{LocalPort, Underlay};
use crate::tunnel::{Demux, Tunnel};

/// Index of a port in [`Snapshot::ports`]. Small and dense. Reused only after every worker has taken up a snapshot
/// without the port and the port's FDB entries have been flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Index of a bridge in [`Snapshot::bridges`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u16);

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
}

/// A learning switch.
#[derive(Debug)]
pub struct Bridge {
    /// Its name, for logs.
    pub name: String,
    /// Who is where.
    pub fdb: Arc<Fdb>,
    /// Every port of it: where unknown destinations and groups go.
    pub flood: Vec<PortId>,
    /// `other_config:forward-bpdu`: also forward reserved group addresses.
    pub forward_bpdu: bool,
}

/// A port of a bridge.
#[derive(Debug)]
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
}

/// What a port is.
#[derive(Debug, Clone)]
pub enum PortKind {
    /// A device of this host: packet socket or TAP.
    Local(Arc<LocalPort>),
    /// A tunnel to another host.
    Tunnel(Arc<Tunnel>),
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
}
