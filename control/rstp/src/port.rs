//! What is held of a port: the variables of 17.19 and the timers of 17.17, under the standard's names.

use crate::bpdu::Bpdu;
use crate::machines::{change, detection, information, migration, receive, roles, states};
use crate::vector::{PortId, Priority, Times};
use crate::{PortKey, Version};

/// What a port is to the tree (17.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Without part in it.
    #[default]
    Disabled,
    /// The way to the root.
    Root,
    /// For its segment, the way to the root.
    Designated,
    /// Another way to the root.
    Alternate,
    /// Another port of this bridge serves the segment.
    Backup,
}

/// What a port passes (17.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Discarding,
    /// Nothing, but it learns.
    Learning,
    /// Everything.
    Forwarding,
}

/// What operators say of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortConfig {
    /// Goes into BPDUs.
    pub id: PortId,
    /// PortPathCost: what the way through it costs.
    pub path_cost: u32,
    /// AdminEdge: no bridge is behind it, to begin with.
    pub admin_edge: bool,
    /// AutoEdge: none is behind it if none is heard for three seconds.
    pub auto_edge: bool,
    /// operPointToPointMAC: at most one bridge is behind it. Agreements need it.
    pub point_to_point: bool,
}

impl PortConfig {
    /// As the standard recommends.
    pub fn new(id: PortId, path_cost: u32) -> PortConfig {
        PortConfig { id, path_cost, admin_edge: false, auto_edge: true, point_to_point: true }
    }
}

/// What there is to see of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStatus {
    /// As configured.
    pub config: PortConfig,
    /// Its part.
    pub role: Role,
    /// What it passes.
    pub state: State,
    /// Seconds since that changed.
    pub seconds_in_state: u64,
    /// Seconds since it came up.
    pub uptime: u64,
    /// It is up.
    pub enabled: bool,
    /// operEdge: no bridge is behind it.
    pub edge: bool,
    /// It speaks RST BPDUs.
    pub rapid: bool,
    /// portPriority: who serves the segment.
    pub priority: Priority,
    /// BPDUs sent.
    pub sent: u64,
    /// BPDUs received.
    pub received: u64,
    /// What came instead of BPDUs.
    pub errors: u64,
    /// What it sent last came back to it: its segment has a loop of its own.
    pub hears_itself: bool,
}

/// Where the port's information comes from (17.19.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InfoIs {
    #[default]
    Disabled,
    Aged,
    Mine,
    Received,
}

/// Timers, in seconds to go (17.17).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timers {
    pub(crate) edge_delay_while: u16,
    pub(crate) fd_while: u16,
    pub(crate) hello_when: u16,
    pub(crate) mdelay_while: u16,
    pub(crate) rb_while: u16,
    pub(crate) rcvd_info_while: u16,
    pub(crate) rr_while: u16,
    pub(crate) tc_while: u16,
}

/// A port; see the module.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) key: PortKey,
    pub(crate) config: PortConfig,
    pub(crate) timers: Timers,

    // 17.19
    pub(crate) agree: bool,
    pub(crate) agreed: bool,
    pub(crate) designated_priority: Priority,
    pub(crate) designated_times: Times,
    pub(crate) disputed: bool,
    pub(crate) forward: bool,
    pub(crate) forwarding: bool,
    pub(crate) info_is: InfoIs,
    pub(crate) learn: bool,
    pub(crate) learning: bool,
    pub(crate) mcheck: bool,
    pub(crate) msg_priority: Priority,
    pub(crate) msg_times: Times,
    pub(crate) new_info: bool,
    pub(crate) oper_edge: bool,
    pub(crate) port_enabled: bool,
    pub(crate) port_priority: Priority,
    pub(crate) port_times: Times,
    pub(crate) proposed: bool,
    pub(crate) proposing: bool,
    pub(crate) rcvd_bpdu: Option<Bpdu>,
    pub(crate) rcvd_msg: Option<Bpdu>,
    pub(crate) rcvd_rstp: bool,
    pub(crate) rcvd_stp: bool,
    pub(crate) rcvd_tc: bool,
    pub(crate) rcvd_tc_ack: bool,
    pub(crate) rcvd_tcn: bool,
    pub(crate) re_root: bool,
    pub(crate) reselect: bool,
    pub(crate) role: Role,
    pub(crate) selected: bool,
    pub(crate) selected_role: Role,
    pub(crate) send_rstp: bool,
    pub(crate) sync: bool,
    pub(crate) synced: bool,
    pub(crate) tc_ack: bool,
    pub(crate) tc_prop: bool,
    pub(crate) tx_count: u8,
    pub(crate) updt_info: bool,

    // where its machines stand
    pub(crate) receive: receive::State,
    pub(crate) migration: migration::State,
    pub(crate) detection: detection::State,
    pub(crate) information: information::State,
    pub(crate) roles: roles::State,
    pub(crate) states: states::State,
    pub(crate) change: change::State,

    // for operators
    pub(crate) seconds_in_state: u64,
    pub(crate) uptime: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) errors: u64,
    pub(crate) hears_itself: bool,
}

/// MigrateTime (table 17-1), in seconds.
pub(crate) const MIGRATE_TIME: u16 = 3;

impl Port {
    /// A port as every machine's BEGIN leaves it. It is down.
    pub(crate) fn new(key: PortKey, config: PortConfig, version: Version, times: Times) -> Port {
        Port {
            key,
            config,
            timers: Timers {
                edge_delay_while: MIGRATE_TIME,
                fd_while: times.max_age_secs(),
                mdelay_while: MIGRATE_TIME,
                rr_while: times.forward_delay_secs(),
                ..Timers::default()
            },
            agree: false,
            agreed: false,
            designated_priority: Priority::default(),
            designated_times: times,
            disputed: false,
            forward: false,
            forwarding: false,
            info_is: InfoIs::Disabled,
            learn: false,
            learning: false,
            mcheck: false,
            msg_priority: Priority::default(),
            msg_times: times,
            new_info: true,
            oper_edge: config.admin_edge,
            port_enabled: false,
            port_priority: Priority::default(),
            port_times: times,
            proposed: false,
            proposing: false,
            rcvd_bpdu: None,
            rcvd_msg: None,
            rcvd_rstp: false,
            rcvd_stp: false,
            rcvd_tc: false,
            rcvd_tc_ack: false,
            rcvd_tcn: false,
            re_root: true,
            reselect: true,
            role: Role::Disabled,
            selected: false,
            selected_role: Role::Disabled,
            send_rstp: version == Version::Rstp,
            sync: true,
            synced: false,
            tc_ack: false,
            tc_prop: false,
            tx_count: 0,
            updt_info: false,
            receive: receive::State::Discard,
            migration: migration::State::CheckingRstp,
            detection: if config.admin_edge { detection::State::Edge } else { detection::State::NotEdge },
            information: information::State::Disabled,
            roles: roles::State::DisablePort,
            states: states::State::Discarding,
            change: change::State::Inactive,
            seconds_in_state: 0,
            uptime: 0,
            sent: 0,
            received: 0,
            errors: 0,
            hears_itself: false,
        }
    }

    /// FwdDelay (17.20.6), in seconds.
    pub(crate) fn fwd_delay(&self) -> u16 {
        self.designated_times.forward_delay_secs()
    }

    /// forwardDelay (17.20.5), in seconds.
    pub(crate) fn forward_delay(&self) -> u16 {
        if self.send_rstp { self.hello_time() } else { self.fwd_delay() }
    }

    /// HelloTime (17.20.7), in seconds.
    pub(crate) fn hello_time(&self) -> u16 {
        self.designated_times.hello_secs()
    }

    /// MaxAge (17.20.8), in seconds.
    pub(crate) fn max_age(&self) -> u16 {
        self.designated_times.max_age_secs()
    }

    /// What fdWhile begins with on a port that comes up: MaxAge, and FwdDelay as in 802.1D-1998 where that is spoken.
    pub(crate) fn first_delay(&self) -> u16 {
        if self.send_rstp { self.max_age() } else { self.fwd_delay() }
    }

    /// EdgeDelay (17.20.4), in seconds.
    pub(crate) fn edge_delay(&self) -> u16 {
        if self.config.point_to_point { MIGRATE_TIME } else { self.max_age() }
    }

    /// Its role is settled: what most transitions are qualified by.
    pub(crate) fn settled(&self) -> bool {
        self.selected && !self.updt_info
    }

    /// Its part of allSynced (17.20.3, as mended in 802.1Q): a role that is about to change says nothing.
    pub(crate) fn is_synced(&self) -> bool {
        self.settled() && self.role == self.selected_role && (self.synced || self.role == Role::Root)
    }

    pub(crate) fn state(&self) -> State {
        match (self.forwarding, self.learning) {
            (true, _) => State::Forwarding,
            (false, true) => State::Learning,
            (false, false) => State::Discarding,
        }
    }

    pub(crate) fn status(&self) -> PortStatus {
        PortStatus {
            config: self.config,
            role: self.role,
            state: self.state(),
            seconds_in_state: self.seconds_in_state,
            uptime: self.uptime,
            enabled: self.port_enabled,
            edge: self.oper_edge,
            rapid: self.send_rstp,
            priority: self.port_priority,
            sent: self.sent,
            received: self.received,
            errors: self.errors,
            hears_itself: self.hears_itself,
        }
    }
}
