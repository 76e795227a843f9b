//! What the tests ask of another IKEv2 implementation, whoever wrote it.

use crate::pki::Pair;

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
