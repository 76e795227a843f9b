//! The state machines of 17.22 to 17.31. Each `step` makes one transition of one port, and says whether there was one.
//!
//! A machine that leaves a state at once (UCT in the standard's figures) passes through it within a step.

pub(crate) mod change;
pub(crate) mod detection;
pub(crate) mod information;
pub(crate) mod migration;
pub(crate) mod receive;
pub(crate) mod roles;
pub(crate) mod selection;
pub(crate) mod states;
pub(crate) mod timers;
pub(crate) mod transmit;

use crate::bridge::Core;
use crate::port::Port;

/// The other ports of the bridge, for what the standard does to the whole tree.
#[derive(Debug)]
pub(crate) struct Others<'a> {
    pub(crate) before: &'a mut [Port],
    pub(crate) after: &'a mut [Port],
}

impl Others<'_> {
    fn each(&mut self) -> impl Iterator<Item = &mut Port> {
        self.before.iter_mut().chain(self.after.iter_mut())
    }

    fn all(&self, what: impl Fn(&Port) -> bool) -> bool {
        self.before.iter().chain(self.after.iter()).all(what)
    }

    /// allSynced (17.20.3).
    fn all_synced(&self, port: &Port) -> bool {
        port.is_synced() && self.all(Port::is_synced)
    }

    /// reRooted (17.20.10).
    fn re_rooted(&self) -> bool {
        self.all(|port| port.timers.rr_while == 0)
    }

    /// setSyncTree (17.21.14).
    fn set_sync_tree(&mut self, port: &mut Port) {
        port.sync = true;
        self.each().for_each(|other| other.sync = true);
    }

    /// setReRootTree (17.21.13).
    fn set_re_root_tree(&mut self, port: &mut Port) {
        port.re_root = true;
        self.each().for_each(|other| other.re_root = true);
    }

    /// setTcPropTree (17.21.18).
    fn set_tc_prop_tree(&mut self) {
        self.each().for_each(|other| other.tc_prop = true);
    }
}

/// One transition of a machine of one port.
pub(crate) type Step = fn(&mut Port, &mut Others<'_>, &mut Core) -> bool;

/// Those that run before anything is sent, in the order in which news passes through them. Port Role Selection, which belongs to
/// the bridge, and Port Transmit, for which the others are to be at rest, are run by [`crate::bridge`].
pub(crate) const BEFORE_SELECTION: [Step; 4] =
    [receive::step, migration::step, detection::step, information::step];
/// Those that follow once roles are selected.
pub(crate) const AFTER_SELECTION: [Step; 3] = [roles::step, states::step, change::step];
