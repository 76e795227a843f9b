//! Which sockets a worker receives from.

use std::collections::HashMap;
use std::sync::Arc;

use crate::port::{LocalPort, Underlay};
use crate::snapshot::{PortId, PortKind, Snapshot};
use crate::sys::epoll::Epoll;

/// Token of the eventfd by which control wakes the worker.
pub(super) const WAKE: u64 = 0;

/// Something to receive from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// Frames of a port.
    Local(PortId, Arc<LocalPort>),
    /// Packets of any tunnel.
    Underlay(Arc<Underlay>),
}

impl Source {
    /// Which one it is: the socket itself, and the port that it feeds.
    fn identity(&self) -> (usize, Option<PortId>) {
        match self {
            Source::Local(id, port) => (Arc::as_ptr(port).addr(), Some(*id)),
            Source::Underlay(underlay) => (Arc::as_ptr(underlay).addr(), None),
        }
    }

    fn watch(&self, epoll: &Epoll, token: u64) -> std::io::Result<()> {
        match self {
            Source::Local(_, port) => epoll.add(&**port, token),
            Source::Underlay(underlay) => epoll.add(&**underlay, token),
        }
    }

    fn unwatch(&self, epoll: &Epoll) {
        // a descriptor that is not watched any more is what we want
        let _ = match self {
            Source::Local(_, port) => epoll.del(&**port),
            Source::Underlay(underlay) => epoll.del(&**underlay),
        };
    }
}

/// The sources of one worker, by epoll token. Tokens are never used twice, so an event that was already fetched when
/// its source went cannot hit another.
#[derive(Debug, Default)]
pub(super) struct Sources {
    by_token: HashMap<u64, Source>,
    last_token: u64,
}

impl Sources {
    /// The source behind `token`, if it is still there.
    pub(super) fn get(&self, token: u64) -> Option<&Source> {
        self.by_token.get(&token)
    }

    /// Watches what `snapshot` gives to worker `index` of `workers`, and nothing else.
    pub(super) fn update(&mut self, epoll: &Epoll, snapshot: &Snapshot, index: usize, workers: usize) {
        let wanted = wanted(snapshot, index, workers).into_iter();
        let mut wanted: HashMap<_, _> = wanted.map(|source| (source.identity(), source)).collect();
        self.by_token.retain(|_, have| {
            let stays = wanted.remove(&have.identity()).is_some();
            if !stays {
                have.unwatch(epoll);
            }
            stays
        });
        for source in wanted.into_values() {
            self.last_token += 1;
            if source.watch(epoll, self.last_token).is_ok() {
                self.by_token.insert(self.last_token, source);
            }
        }
    }

    /// Stops listening to a source that failed; it stays known, so that the same one is not taken up again.
    pub(super) fn mute(&mut self, epoll: &Epoll, token: u64) {
        if let Some(source) = self.by_token.get(&token) {
            source.unwatch(epoll);
        }
    }
}

/// Local ports by their own choice of worker, underlays round robin from the last worker down to the second: with two
/// workers each direction has its own, whatever the road.
fn wanted(snapshot: &Snapshot, index: usize, workers: usize) -> Vec<Source> {
    let ports = snapshot.ports.iter().flatten().filter(|p| p.worker % workers == index);
    let local = ports.filter_map(|p| match &p.kind {
        PortKind::Local(local) => Some(Source::Local(p.id, Arc::clone(local))),
        PortKind::Tunnel(_) | PortKind::Patch(_) => None,
    });
    let spread = workers.saturating_sub(1).max(1);
    let underlays = snapshot.underlays.iter().enumerate();
    let underlays = underlays.filter(|(i, _)| workers - 1 - i % spread == index);
    local.chain(underlays.map(|(_, u)| Source::Underlay(Arc::clone(u)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{BridgeId, Port};

    /// A device's frames stay in order because one worker reads it; the first worker is left to local ports, if there is another.
    #[test]
    fn each_source_has_one_worker() {
        let local = |i: usize| {
            let port = LocalPort::memory().unwrap().0;
            let kind = PortKind::Local(Arc::new(port));
            Some(Arc::new(Port {
                worker: i,
                ..Port::new(PortId(i as u16), BridgeId(0), 1 + i as u16, "p", kind)
            }))
        };
        // of any kind: none is received from here
        let underlay = || Arc::new(Underlay::udp4(0).unwrap());
        let snapshot = Snapshot {
            ports: (0..4).map(local).collect(),
            underlays: (0..3).map(|_| underlay()).collect(),
            ..Snapshot::default()
        };
        // the workers of the four ports and of the three sockets
        let table = [
            (1, [0, 0, 0, 0], [0, 0, 0]),
            (2, [0, 1, 0, 1], [1, 1, 1]),
            (3, [0, 1, 2, 0], [2, 1, 2]),
            (4, [0, 1, 2, 3], [3, 2, 1]),
            (8, [0, 1, 2, 3], [7, 6, 5]),
        ];
        for (workers, ports, underlays) in table {
            let mut got = ([usize::MAX; 4], [usize::MAX; 3]);
            for index in 0..workers {
                for source in wanted(&snapshot, index, workers) {
                    let owner = match &source {
                        Source::Local(id, _) => &mut got.0[usize::from(id.0)],
                        Source::Underlay(one) => {
                            let place = snapshot.underlays.iter().position(|u| Arc::ptr_eq(u, one));
                            &mut got.1[place.unwrap()]
                        }
                    };
                    assert_eq!(
                        std::mem::replace(owner, index),
                        usize::MAX,
                        "read by two of {workers} workers"
                    );
                }
            }
            assert_eq!(got, (ports, underlays), "{workers} workers");
        }
    }
}
