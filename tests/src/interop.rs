//! What the tests ask of another IKEv2 implementation, whoever wrote it.

use std::time::Duration;

use crate::capture::Capture;
use crate::cli::poll;
use crate::guest::Guest;
use crate::keys::Keys;
use crate::pki::Pair;
use crate::topology::{Host, Shell, UNDERLAY, reaches};
use crate::traffic::{self, Sequence};

/// How the two ends prove who they are.
#[derive(Debug, Clone, Copy)]
pub enum Auth<'a> {
    /// By a key that both know.
    Psk(&'a str),
    /// By certificates of one authority.
    Authority {
        /// The peer's own.
        own: &'a Pair,
        /// Who signed both.
        authority: &'a Pair,
        /// The name in ours.
        name: &'a str,
    },
    /// By this very certificate of ours.
    Pinned {
        /// The peer's own.
        own: &'a Pair,
        /// Ours.
        other: &'a Pair,
    },
}

/// A connection in transport mode for GRE, as the peer is to be configured.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The peer's own address.
    pub local: &'a str,
    /// Ours.
    pub remote: &'a str,
    /// Proof.
    pub auth: Auth<'a>,
    /// Algorithms of the IKE SA, in the peer's own words.
    pub ike: &'a str,
    /// Algorithms of ESP, likewise.
    pub esp: &'a str,
    /// Whether it forces ESP into UDP.
    pub udp: bool,
    /// Whether GRE packets make it initiate; until the SA stands it lets none out or in.
    pub trap: bool,
    /// Further lines for the connection, in the peer's own words.
    pub more: &'a str,
}

/// A running implementation with one connection.
pub trait Peer {
    /// Starts the negotiation from its side, and waits until IKE and child SA stand there.
    fn initiate(&self);
    /// Replaces the child SA.
    fn rekey_child(&self);
    /// Replaces the IKE SA.
    fn rekey_ike(&self);
    /// Deletes the IKE SA with everything under it.
    fn terminate(&self);
    /// How many child SAs stand on its side.
    fn children(&self) -> usize;
    /// State and log, for a failure's text.
    fn describe(&self) -> String;
}

/// Underpass on a host, someone else in a guest:
/// ```text
///   [ br0 10.0.11.1/16 ─ gre0  hA 192.0.2.1 ]── ESP ──[ 192.0.2.2  the kernel's ─ gretap or OVS 10.0.42.1/16 ]
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Where Underpass runs.
    pub host: &'a Host,
    /// Where the peer runs.
    pub guest: &'a Guest<'a>,
}

/// The peer's address in the overlay.
pub const FAR: &str = "10.0.42.1";

impl Scene<'_> {
    /// The guest's end of the tunnel by its kernel alone. Its MTU leaves room for ESP, which gretap does not know of.
    #[track_caller]
    pub fn gretap(&self) {
        let [ours, theirs] = UNDERLAY;
        self.guest.sh(&format!(
            "ip link add g mtu 1400 type gretap local {theirs} remote {ours}; ip link set g addrgenmode none; ip addr add {FAR}/16 dev g; ip link set g up"
        ));
    }

    /// Captures what is on the wire.
    #[track_caller]
    pub fn capture(&self, filter: &str) -> Capture {
        Capture::start(&self.guest.wire, "w0", filter)
    }

    /// Makes our end anew; `words` are what is set of gre0 besides remote_ip.
    #[track_caller]
    pub fn tunnel(&self, words: &str) {
        self.host.vsctl("--if-exists del-port gre0");
        self.host.vsctl(&format!(
            "add-port br0 gre0 -- set interface gre0 options:remote_ip={} {words}",
            UNDERLAY[1]
        ));
    }

    /// Waits until both sides call it up and frames cross.
    #[track_caller]
    pub fn up(&self, peer: &dyn Peer) {
        reaches(self.host, FAR);
        self.host.wait_for("interface", "gre0", "status:ipsec", "up");
        self.host.wait_for("interface", "gre0", "error", "[]");
        poll("a child SA at the peer", || (peer.children() > 0).then_some(()));
    }

    /// Pings and TCP both ways; all that is on the wire meanwhile opens with our keys and is right in every layer.
    #[track_caller]
    pub fn exchange(&self, udp: bool) {
        let capture = self.capture("");
        traffic::ping(self.host, FAR, 5);
        traffic::ping(self.guest, &self.host.docker0(), 5);
        traffic::tcp(self.host, self.guest, FAR, 500_000);
        traffic::tcp(self.guest, self.host, &self.host.docker0(), 500_000);
        let keys = Keys::export(self.host);
        let mut seen = capture.stop();
        seen.open_with(keys);
        seen.assert_clean_within(1500);
        assert_eq!(seen.outer("ip proto 50") > 0, !udp, "the road is another one");
    }

    /// Rekeys both SAs from both sides under a numbered stream each way. Gives what came of the streams.
    #[track_caller]
    pub fn rekeys(&self, peer: &dyn Peer) -> [traffic::Stream; 2] {
        // both may have begun, or the peer twice
        let children = peer.children();
        let streams = [
            Sequence::start(self.host, self.guest, FAR, 4500, 500, 500),
            Sequence::start(self.guest, self.host, &self.host.docker0(), 4500, 500, 500),
        ];
        let pause = || std::thread::sleep(Duration::from_millis(1200));
        pause();
        peer.rekey_child();
        pause();
        self.host.appctl("ipsec/rekey gre0 child");
        pause();
        peer.rekey_ike();
        pause();
        self.host.appctl("ipsec/rekey gre0 ike");
        pause();
        peer.rekey_child();
        let streams = streams.map(Sequence::finish);
        traffic::ping(self.host, FAR, 3);
        poll("no more child SAs at the peer", || (1..=children).contains(&peer.children()).then_some(()));
        streams
    }
}
