//! Port State Transition (17.30): has the switch do what the role decided.

use super::Others;
use crate::Action;
use crate::bridge::Core;
use crate::port::{self, Port};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Discarding,
    Learning,
    Forwarding,
}

pub(crate) fn step(port: &mut Port, _: &mut Others<'_>, core: &mut Core) -> bool {
    let next = match port.states {
        State::Discarding if port.learn => State::Learning,
        State::Learning if !port.learn => State::Discarding,
        State::Learning if port.forward => State::Forwarding,
        State::Forwarding if !port.forward => State::Discarding,
        _ => return false,
    };
    port.states = next;
    (port.learning, port.forwarding) = (next != State::Discarding, next == State::Forwarding);
    port.seconds_in_state = 0;
    let passes = match next {
        State::Discarding => port::State::Discarding,
        State::Learning => port::State::Learning,
        State::Forwarding => port::State::Forwarding,
    };
    core.actions.push_back(Action::State(port.key, passes));
    true
}
