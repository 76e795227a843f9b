//! Runs the engines: brings them BPDUs and seconds, and does what they say, in their order.

use std::rc::Rc;
use std::time::Duration;

use datapath::slow_path::FrameKind;
use datapath::snapshot::PortId;
use datapath::wire::ethernet::{BRIDGE_GROUP, HEADER};
use rstp::Action;
use rstp::bpdu::Bpdu;
use tokio::time::MissedTickBehavior;

use super::Spanning;
use crate::reconcile::publish::{self, Published, readable};

/// What engines count time by.
const TICK: Duration = Duration::from_secs(1);
/// When to try again to have workers go by what was decided.
const AGAIN: Duration = Duration::from_millis(100);
/// The shortest frame of Ethernet, its checksum not counted.
const LEAST: usize = 60;

impl Spanning {
    /// Runs until [`Spanning::end`] is called.
    pub async fn run(self: Rc<Self>) {
        let frames = self.datapath.frames_fd(FrameKind::Bpdu).and_then(publish::listen);
        let mut ticks = tokio::time::interval(TICK);
        // seconds that this process slept through made nobody's word older
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.carry_out().await;
            tokio::task::yield_now().await;
            tokio::select! {
                () = self.ending.notified() => return,
                () = self.work.notified() => {}
                () = tokio::time::sleep(AGAIN), if self.owed.get() => {}
                () = readable(frames.as_ref()) => self.receive(),
                _ = ticks.tick() => {
                    self.receive();
                    self.trees.borrow_mut().values_mut().for_each(|tree| tree.engine.tick());
                }
            }
        }
    }

    /// BPDUs that came in.
    fn receive(&self) {
        for frame in self.datapath.frames(FrameKind::Bpdu) {
            self.deliver(frame.port, payload(&frame.bytes).unwrap_or_default());
        }
    }

    /// What came to the bridge group address by a port.
    pub(super) fn deliver(&self, port: PortId, payload: &[u8]) {
        let mut trees = self.trees.borrow_mut();
        let tree = trees.iter_mut().find(|(_, tree)| tree.engine.port(port.0).is_some());
        let Some((bridge, tree)) = tree else { return };
        let named = tree.names.get(&port.0).and_then(|name| Some((name, tree.members.get_mut(name)?)));
        if let Some((name, member)) = named.filter(|(_, member)| member.guard) {
            if !std::mem::replace(&mut member.shut, true) {
                tracing::warn!(
                    "bridge {bridge}: port {name} is shut by its BPDU guard: a bridge is behind it; \
                     to open it, take other_config:bpdu-guard away"
                );
                tree.engine.set_enabled(port.0, false);
                self.shut.set(true);
            }
            return;
        }
        tree.engine.receive(port.0, payload);
    }

    /// Does all that the engines want done. What ports may pass is in force in every worker before the next BPDU leaves, and
    /// before addresses are forgotten; where it cannot be yet, the rest waits.
    pub(super) async fn carry_out(&self) {
        let mut news = self.shut.take();
        let mut owed = self.owed.get() || news;
        let mut stuck = false;
        while let Some((bridge, action)) = self.next() {
            if let Action::State(key, state) = action {
                self.tell(&bridge, key, state);
                (owed, news) = (true, true);
                continue;
            }
            if owed && !self.put_in_force().await {
                self.defer(&bridge, action);
                stuck = true;
                break;
            }
            owed = false;
            match action {
                Action::Flush(key) => {
                    let fdb = self.state.borrow().bridges.get(&bridge).map(|b| b.fdb.clone());
                    fdb.into_iter().for_each(|fdb| fdb.flush_learned(PortId(key)));
                    // hosts are asked again, and until then unknown groups go to all
                    let snooping = self.state.borrow().snooping.clone();
                    snooping.flush(Some(&bridge));
                }
                Action::Transmit(key, bpdu) => self.transmit(&bridge, key, &bpdu),
                Action::State(..) => {}
            }
        }
        if owed && !stuck {
            owed = !self.put_in_force().await;
        }
        self.owed.set(owed);
        if news {
            self.news.notify_one();
        }
    }

    fn next(&self) -> Option<(String, Action)> {
        let mut trees = self.trees.borrow_mut();
        trees.iter_mut().find_map(|(name, tree)| Some((name.clone(), tree.engine.poll()?)))
    }

    fn defer(&self, bridge: &str, action: Action) {
        if let Some(tree) = self.trees.borrow_mut().get_mut(bridge) {
            tree.engine.defer(action);
        }
    }

    /// Has workers go by what ports may pass. False: they do not yet.
    async fn put_in_force(&self) -> bool {
        self.hold_back();
        match publish::publish(&self.datapath, &self.state).await {
            Published::InForce => true,
            Published::Late => {
                tracing::error!(
                    "the datapath has not taken up what a spanning tree decided in time; will try again"
                );
                false
            }
            // The reconciler is about to put one of them away
            Published::EqualTunnels(_) => false,
        }
    }

    fn tell(&self, bridge: &str, key: u16, state: rstp::State) {
        let trees = self.trees.borrow();
        let Some(tree) = trees.get(bridge) else { return };
        if let (Some((name, _)), Some(port)) = (tree.member(key), tree.engine.port(key)) {
            tracing::info!("bridge {bridge}: port {name} is {state:?} ({:?})", port.role);
        }
    }

    fn transmit(&self, bridge: &str, key: u16, bpdu: &Bpdu) {
        let trees = self.trees.borrow();
        let Some((_, member)) = trees.get(bridge).and_then(|tree| tree.member(key)) else { return };
        if !self.datapath.inject(member.id, &frame(member.source, bpdu)) {
            tracing::debug!("bridge {bridge}: a BPDU found no room");
        }
    }
}

/// What a frame's length field counts (IEEE 802.3 3.2.6). None: it has none, or is shorter.
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let (header, rest) = frame.split_at_checked(HEADER)?;
    let len = usize::from(u16::from_be_bytes(*header.last_chunk()?));
    rest.get(..len)
}

/// A BPDU as it goes out (IEEE 802.1D-2004 7.12.3).
fn frame(source: [u8; 6], bpdu: &Bpdu) -> Vec<u8> {
    let payload = bpdu.encode();
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = [&BRIDGE_GROUP[..], &source, &len, &payload].concat();
    frame.resize(frame.len().max(LEAST), 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_padded_and_padding_is_not_read() {
        let sent = frame([2, 0, 0, 0, 0, 1], &Bpdu::TopologyChange);
        assert_eq!((sent.len(), &sent[..14]), (60, &b"\x01\x80\xc2\0\0\0\x02\0\0\0\0\x01\0\x07"[..]));
        assert_eq!(payload(&sent), Some(&b"\x42\x42\x03\0\0\0\x80"[..]));
        assert_eq!(payload(&sent[..15]), None);
        assert_eq!(payload(&sent[..13]), None);
        assert_eq!(payload(&[0xff; 60]), None);
    }
}
