//! Named locks that clients hold and wait for (RFC 7047 sections 4.1.8-4.1.10).

use crate::server::SessionId;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// The first in a queue owns the lock.
    queues: BTreeMap<String, VecDeque<SessionId>>,
}

impl Locks {
    pub(crate) fn owner(&self, name: &str) -> Option<SessionId> {
        self.queues.get(name)?.front().copied()
    }

    /// Queues up for the lock. True if it is owned at once.
    pub(crate) fn lock(&mut self, name: &str, session: SessionId) -> bool {
        let queue = self.queues.entry(name.to_owned()).or_default();
        queue.push_back(session);
        queue.len() == 1
    }

    /// Takes the lock from its owner, who is given back and no longer in the queue.
    pub(crate) fn steal(&mut self, name: &str, session: SessionId) -> Option<SessionId> {
        let queue = self.queues.entry(name.to_owned()).or_default();
        let victim = queue.pop_front();
        queue.push_front(session);
        victim
    }

    /// Gives up the lock or the place in its queue. The new owner, if it changed.
    pub(crate) fn unlock(&mut self, name: &str, session: SessionId) -> Option<SessionId> {
        let queue = self.queues.get_mut(name)?;
        let owned = queue.front() == Some(&session);
        queue.retain(|other| *other != session);
        let next = queue.front().copied();
        if queue.is_empty() {
            self.queues.remove(name);
        }
        next.filter(|_| owned)
    }
}
