//! What operators get to see.

use std::net::IpAddr;
use std::time::Duration;

use crate::auth::Identity;
use crate::config::{Path, PeerId};
use crate::crypto::Secret;
use crate::output::{ChildId, ChildUse, UdpPorts};
use crate::proposal::{EspSuite, IkeSuite};
use crate::selector::Selector;
use crate::wire::Spi;

/// A peer and all of its SAs.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// As configured.
    pub peer: PeerId,
    /// As configured.
    pub name: String,
    /// Our address, as configured or as the peer found us.
    pub local: Option<IpAddr>,
    /// The peer's address.
    pub remote: IpAddr,
    /// Whether traffic can flow.
    pub state: PeerState,
    /// What went wrong last, in words for the operator. Empties when a child SA comes up.
    pub last_error: Option<String>,
    /// When the next attempt begins, if none is under way.
    pub retry_in: Option<Duration>,
    /// Oldest first.
    pub ike: Vec<IkeStatus>,
    /// Oldest first.
    pub children: Vec<ChildStatus>,
}

/// Whether traffic can flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing is there and nothing is tried: we wait for the peer, or for the next attempt.
    Down,
    /// An IKE SA is being made, or one stands without a child SA.
    Connecting,
    /// There are child SAs for all that is protected.
    Up,
}

/// How far an IKE SA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IkeState {
    /// IKE_SA_INIT or IKE_AUTH is under way.
    Connecting,
    /// Both ends are authenticated.
    Established,
    /// The request to rekey it is under way.
    Rekeying,
    /// Another has taken its place; it waits to be deleted.
    Rekeyed,
    /// The request to delete it is under way.
    Deleting,
}

/// An IKE SA.
#[derive(Debug, Clone)]
pub struct IkeStatus {
    /// How far it is.
    pub state: IkeState,
    /// Whether we are its original initiator.
    pub initiator: bool,
    /// The initiator's SPI.
    pub spi_i: Spi,
    /// The responder's SPI; zero before it is known.
    pub spi_r: Spi,
    /// Where its messages go.
    pub path: Path,
    /// Its algorithms, once chosen.
    pub suite: Option<IkeSuite>,
    /// Who we say we are.
    pub local_id: Option<Identity>,
    /// Who the peer has proved to be.
    pub remote_id: Option<Identity>,
    /// Since it was established, or since it was begun.
    pub age: Duration,
    /// Until it is rekeyed.
    pub rekey_in: Option<Duration>,
    /// Until it is deleted, whatever happens.
    pub expires_in: Option<Duration>,
    /// Since the peer's last authentic message.
    pub heard: Option<Duration>,
    /// A NAT stands before us.
    pub nat_local: bool,
    /// A NAT stands before the peer, or the peer says so to have ESP in UDP.
    pub nat_remote: bool,
    /// The peer is Underpass.
    pub underpass: bool,
}

/// How far a child SA is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// In use, or about to be.
    Installed,
    /// The request to rekey it is under way.
    Rekeying,
    /// Another has taken its place; it waits to be deleted.
    Rekeyed,
    /// The request to delete it is under way.
    Deleting,
    /// Deleted; received by for a while, for packets under way.
    Draining,
}

/// A child SA.
#[derive(Debug, Clone)]
pub struct ChildStatus {
    /// Its name.
    pub id: ChildId,
    /// What it is for.
    pub selector: Selector,
    /// How far it is.
    pub state: ChildState,
    /// SPI by which we receive.
    pub spi_in: u32,
    /// SPI by which we send.
    pub spi_out: u32,
    /// Its algorithms.
    pub suite: EspSuite,
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// ESP travels in UDP between these ports.
    pub udp: Option<UdpPorts>,
    /// Since it was installed.
    pub age: Duration,
    /// Until it is rekeyed.
    pub rekey_in: Option<Duration>,
    /// Until it is deleted, whatever happens.
    pub expires_in: Option<Duration>,
    /// What has passed, as last told by [`crate::Endpoint::traffic`].
    pub traffic: ChildUse,
    /// Whether it is the one of those for its traffic that we send by.
    pub outbound: bool,
}

/// The keys of an IKE SA: enough to decrypt its messages in a capture.
#[derive(Debug, Clone)]
pub struct IkeSecrets {
    /// Whose it is.
    pub peer: PeerId,
    /// The initiator's SPI.
    pub spi_i: Spi,
    /// The responder's SPI.
    pub spi_r: Spi,
    /// Its algorithms.
    pub suite: IkeSuite,
    /// Encrypts what the initiator sends; with AES-GCM its last 4 octets are the salt.
    pub sk_ei: Secret,
    /// Encrypts what the responder sends.
    pub sk_er: Secret,
    /// Authenticates what the initiator sends; empty with AES-GCM.
    pub sk_ai: Secret,
    /// Authenticates what the responder sends.
    pub sk_ar: Secret,
}
