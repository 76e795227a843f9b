//! What is held of a bridge (17.18), and the loop that runs its machines until none moves.

use std::collections::VecDeque;

use crate::PortKey;
use crate::bpdu::Bpdu;
use crate::machines::{self, Others, Step, change, selection, timers, transmit};
use crate::port::{Port, PortConfig, PortStatus, State};
use crate::vector::{BridgeId, Priority, Times};

/// Force Protocol Version (17.13.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// As 802.1D-1998: no agreements, every port waits out the forward delay.
    Stp,
    /// Everything.
    Rstp,
}

/// What operators say of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Who it is.
    pub id: BridgeId,
    /// BridgeTimes: what it tells the others while it is the root.
    pub times: Times,
    /// Which protocol.
    pub version: Version,
    /// TxHoldCount: BPDUs that a port sends at once at most, and a second after that.
    pub transmit_hold_count: u8,
}

impl BridgeConfig {
    /// As the standard recommends.
    pub fn new(id: BridgeId) -> BridgeConfig {
        BridgeConfig { id, times: Times::default(), version: Version::Rstp, transmit_hold_count: 6 }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The port passes this from now on. It is to be in force before the next BPDU leaves.
    State(PortKey, State),
    /// Forget what was learned on the port.
    Flush(PortKey),
    /// Send this out of the port.
    Transmit(PortKey, Bpdu),
}

/// What there is to see of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeStatus {
    /// As configured.
    pub config: BridgeConfig,
    /// rootPriority: the root, what the way there costs, and through whom.
    pub root: Priority,
    /// rootTimes: what holds in the whole tree.
    pub times: Times,
    /// The port that leads to the root; None on the root itself.
    pub root_port: Option<PortKey>,
}

/// rootPriority, rootTimes, rootPortId.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Root {
    pub(crate) priority: Priority,
    pub(crate) times: Times,
    pub(crate) port: Option<PortKey>,
}

/// What the machines of all ports share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: BridgeConfig,
    pub(crate) root: Root,
    pub(crate) actions: VecDeque<Action>,
}

impl Core {
    /// BridgePriority and BridgeTimes: the bridge as its own root.
    pub(crate) fn itself(&self) -> Root {
        let BridgeConfig { id, times, .. } = self.config;
        let priority = Priority { root: id, cost: 0, bridge: id, port: Default::default() };
        Root { priority, times, port: None }
    }
}

/// A bridge's part in the tree; see the crate. What it is told has its effect with [`Bridge::settle`] or [`Bridge::poll`], so that
/// a thousand ports that change at once do not have the machines of all of them run a thousand times.
#[derive(Debug)]
pub struct Bridge {
    core: Core,
    /// By key.
    ports: Vec<Port>,
    /// A machine may have cause to move.
    stirred: bool,
}

/// Rounds of the loop after which it is left to the next event to go on. They are a few; the machines are not to be able to
/// hang the process whatever comes.
const ROUNDS: usize = 10_000;

impl Bridge {
    /// A bridge without ports.
    pub fn new(config: BridgeConfig) -> Bridge {
        let root = Root { priority: Priority::default(), times: config.times, port: None };
        let mut core = Core { config, root, actions: VecDeque::new() };
        core.root = core.itself();
        Bridge { core, ports: Vec::new(), stirred: false }
    }

    /// Follows a change of configuration. Of the version, all ports begin anew (17.13.4).
    pub fn configure(&mut self, config: BridgeConfig) {
        let old = std::mem::replace(&mut self.core.config, config);
        if old == config {
            return;
        }
        if old.version != config.version {
            for i in 0..self.ports.len() {
                self.begin(i);
            }
        }
        self.ports.iter_mut().for_each(|port| {
            port.tx_count = 0;
            port.reselect = true;
            port.selected = false;
        });
        if self.ports.is_empty() {
            self.core.root = self.core.itself();
        }
        self.stirred = true;
    }

    /// Adds a port, which is down, or follows a change of its configuration. A new one passes nothing.
    pub fn set_port(&mut self, key: PortKey, config: PortConfig) {
        match self.ports.binary_search_by_key(&key, |port| port.key) {
            Err(at) => {
                let BridgeConfig { version, times, .. } = self.core.config;
                self.ports.insert(at, Port::new(key, config, version, times));
                self.core.actions.push_back(Action::State(key, State::Discarding));
            }
            Ok(at) => {
                let Some(port) = self.ports.get_mut(at).filter(|port| port.config != config) else { return };
                if port.config.admin_edge != config.admin_edge {
                    // takes effect at once, as operators expect, and not when the link next goes
                    port.oper_edge = config.admin_edge;
                    port.detection = match config.admin_edge {
                        true => machines::detection::State::Edge,
                        false => machines::detection::State::NotEdge,
                    };
                }
                port.config = config;
                (port.reselect, port.selected) = (true, false);
            }
        }
        self.stirred = true;
    }

    /// The port is gone.
    pub fn remove_port(&mut self, key: PortKey) {
        let Ok(at) = self.ports.binary_search_by_key(&key, |port| port.key) else { return };
        self.ports.remove(at);
        // as when it had gone down: the others' roles are chosen without it
        self.ports.iter_mut().take(1).for_each(|port| port.reselect = true);
        self.stirred = true;
        self.core.actions.retain(|action| !matches!(action, Action::Transmit(k, _) | Action::State(k, _) | Action::Flush(k) if *k == key));
        if self.ports.is_empty() {
            self.core.root = self.core.itself();
        }
    }

    /// portEnabled (17.19.18): whether frames can pass at all.
    pub fn set_enabled(&mut self, key: PortKey, enabled: bool) {
        let Some(port) = self.port_mut(key).filter(|port| port.port_enabled != enabled) else { return };
        port.port_enabled = enabled;
        port.uptime = 0;
        port.hears_itself = false;
        self.stirred = true;
    }

    /// mcheck (17.19.13): finds out anew whether the neighbour speaks RSTP.
    pub fn check_migration(&mut self, key: PortKey) {
        if self.core.config.version == Version::Rstp
            && let Some(port) = self.port_mut(key)
        {
            port.mcheck = true;
            self.stirred = true;
        }
    }

    /// What came in by the port to the bridge group address, from LLC on.
    pub fn receive(&mut self, key: PortKey, payload: &[u8]) {
        // A port holds one at a time
        if self.port_mut(key).is_some_and(|port| port.rcvd_bpdu.is_some()) {
            self.settle();
        }
        let BridgeConfig { id, version, .. } = self.core.config;
        let Some(port) = self.port_mut(key) else { return };
        match Bpdu::decode(payload) {
            Err(_) => port.errors += 1,
            // so that its sender finds out that STP is spoken here
            Ok(Bpdu::Rapid(_)) if version == Version::Stp => port.errors += 1,
            Ok(bpdu) => {
                port.received += 1;
                if let Bpdu::Config(message) | Bpdu::Rapid(message) = bpdu
                    && (message.priority.bridge, message.priority.port) == (id, port.config.id)
                {
                    // 9.3.4: its own says nothing of the tree
                    port.hears_itself = true;
                    return;
                }
                port.rcvd_bpdu = Some(bpdu);
                self.stirred = true;
            }
        }
    }

    /// A second has passed.
    pub fn tick(&mut self) {
        // what came before it was in time
        self.settle();
        self.ports.iter_mut().for_each(timers::tick);
        self.stirred = true;
    }

    /// Has everybody forget what was learned, as if the topology had changed.
    pub fn force_topology_change(&mut self) {
        for port in &mut self.ports {
            self.core.actions.push_back(Action::Flush(port.key));
            if port.change == change::State::Active {
                change::new_tc_while(port, &self.core);
                port.new_info = true;
            }
        }
        self.stirred = true;
    }

    /// Has the machines do what they have cause for.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.stirred) {
            self.run();
        }
    }

    /// The next thing to do, once all machines are at rest.
    pub fn poll(&mut self) -> Option<Action> {
        self.settle();
        self.core.actions.pop_front()
    }

    /// Takes back what [`Bridge::poll`] gave last and could not be done yet: it comes first again.
    pub fn defer(&mut self, action: Action) {
        self.core.actions.push_front(action);
    }

    /// How the bridge stands; as of when it last settled, like all that is told of it.
    pub fn status(&self) -> BridgeStatus {
        let Core { config, root, .. } = &self.core;
        BridgeStatus { config: *config, root: root.priority, times: root.times, root_port: root.port }
    }

    /// How each port stands, by key.
    pub fn ports(&self) -> impl Iterator<Item = (PortKey, PortStatus)> {
        self.ports.iter().map(|port| (port.key, port.status()))
    }

    /// How one port stands.
    pub fn port(&self, key: PortKey) -> Option<PortStatus> {
        let at = self.ports.binary_search_by_key(&key, |port| port.key).ok()?;
        self.ports.get(at).map(Port::status)
    }

    fn port_mut(&mut self, key: PortKey) -> Option<&mut Port> {
        let at = self.ports.binary_search_by_key(&key, |port| port.key).ok()?;
        self.ports.get_mut(at)
    }

    /// BEGIN, for one port.
    fn begin(&mut self, i: usize) {
        let BridgeConfig { version, times, .. } = self.core.config;
        let Some(port) = self.ports.get_mut(i) else { return };
        let new = Port::new(port.key, port.config, version, times);
        self.core.actions.push_back(Action::State(port.key, State::Discarding));
        self.core.actions.push_back(Action::Flush(port.key));
        let Port { port_enabled, sent, received, errors, uptime, .. } = *port;
        *port = Port { port_enabled, sent, received, errors, uptime, ..new };
    }

    /// Runs the machines until none moves. What is sent is told once all others are at rest, so that nobody hears of what was
    /// so for a moment only.
    fn run(&mut self) {
        for _ in 0..ROUNDS {
            let mut moved = self.step_all(&machines::BEFORE_SELECTION);
            moved |= selection::step(&mut self.ports, &mut self.core);
            moved |= self.step_all(&machines::AFTER_SELECTION);
            if !moved && !self.step_all(&[transmit::step]) {
                return;
            }
        }
    }

    /// Each machine of each port as often as it moves.
    fn step_all(&mut self, steps: &[Step]) -> bool {
        let mut moved = false;
        for i in 0..self.ports.len() {
            let (before, rest) = self.ports.split_at_mut(i);
            let Some((port, after)) = rest.split_first_mut() else { break };
            let mut others = Others { before, after };
            for step in steps {
                moved |= step(port, &mut others, &mut self.core);
            }
        }
        moved
    }
}
