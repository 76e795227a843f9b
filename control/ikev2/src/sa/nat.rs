//! Is a NAT between us (RFC 7296 2.23), and does ESP travel in UDP for it or for another reason?

use std::net::{IpAddr, SocketAddr};

use ring::digest;

use crate::config::{Encapsulation, NAT_PORT, Path};
use crate::output::UdpPorts;
use crate::wire::{Notify, Payload, Spi, notify};

/// How Underpass makes itself known, so that two of them take the faster road.
pub(crate) const VENDOR_ID: &[u8] = b"Underpass IKEv2 1";

/// What was found between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Nat {
    /// A NAT stands before us.
    pub local: bool,
    /// A NAT stands before the peer, or it says so.
    pub remote: bool,
    /// We say that one stands before us.
    pub faked: bool,
}

impl Nat {
    /// From what the peer said about `path`, and whether we disguised ourselves.
    pub fn detect(
        ours: Encapsulation,
        spi_i: Spi,
        spi_r: Spi,
        path: Path,
        said: &[Notify],
        faked: bool,
    ) -> Nat {
        if ours == Encapsulation::Esp || !knows_nat(said) {
            return Nat::default();
        }
        let wrong = |kind, address: SocketAddr| {
            let ours = hash(spi_i, spi_r, address);
            let mut hashes = said.iter().filter(|n| n.kind == kind).peekable();
            // A peer may name several of its addresses. One that names none knows nothing of NATs
            hashes.peek().is_some() && hashes.all(|n| n.data != ours)
        };
        Nat {
            local: wrong(notify::NAT_DETECTION_DESTINATION_IP, path.local),
            remote: wrong(notify::NAT_DETECTION_SOURCE_IP, path.remote),
            faked,
        }
    }

    /// Whether ESP goes in UDP.
    pub fn encapsulates(self) -> bool {
        self.local || self.remote || self.faked
    }

    /// Where IKE goes once this is known: to port 4500 if ESP will (RFC 7296 2.23).
    pub fn path(self, path: Path) -> Path {
        if !self.encapsulates() || path.local.port() == NAT_PORT {
            return path;
        }
        Path {
            local: SocketAddr::new(path.local.ip(), NAT_PORT),
            remote: SocketAddr::new(path.remote.ip(), NAT_PORT),
        }
    }

    /// The ports of ESP in UDP on a path where IKE has moved to port 4500.
    pub fn udp(self, path: Path) -> Option<UdpPorts> {
        let moved = path.local.port() == NAT_PORT;
        (self.encapsulates() && moved).then_some(UdpPorts { local: NAT_PORT, remote: path.remote.port() })
    }
}

/// Whether a peer that said this knows of NATs at all.
pub(crate) fn knows_nat(said: &[Notify]) -> bool {
    said.iter().any(|n| n.kind == notify::NAT_DETECTION_SOURCE_IP)
}

/// Whether to say that a NAT stands before us when none does.
pub(crate) fn fakes(ours: Encapsulation, peer_is_underpass: bool) -> bool {
    match ours {
        Encapsulation::Udp => true,
        Encapsulation::Auto => peer_is_underpass,
        Encapsulation::Esp => false,
    }
}

/// The two notifications that let the peer find a NAT. Whoever insists on protocol 50 sends none: as for a peer that
/// knows nothing of NATs, ESP stays out of UDP.
pub(crate) fn notifies(ours: Encapsulation, spi_i: Spi, spi_r: Spi, path: Path, fake: bool) -> Vec<Payload> {
    if ours == Encapsulation::Esp {
        return Vec::new();
    }
    // An address that nobody has
    let nowhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0);
    let source = hash(spi_i, spi_r, if fake { nowhere } else { path.local });
    let destination = hash(spi_i, spi_r, path.remote);
    vec![
        Payload::Notify(Notify::new(notify::NAT_DETECTION_SOURCE_IP, source)),
        Payload::Notify(Notify::new(notify::NAT_DETECTION_DESTINATION_IP, destination)),
    ]
}

/// `SHA-1(SPIi | SPIr | address | port)`: no secret, no proof, only a fingerprint.
fn hash(spi_i: Spi, spi_r: Spi, address: SocketAddr) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&spi_i);
    context.update(&spi_r);
    match address.ip() {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    context.update(&address.port().to_be_bytes());
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const I: Spi = [1; 8];
    const R: Spi = [2; 8];

    fn path(local: &str, remote: &str) -> Path {
        Path { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn said(ours: Encapsulation, path: Path, fake: bool) -> Vec<Notify> {
        let notifies = notifies(ours, I, R, path, fake).into_iter();
        notifies.map(|p| if let Payload::Notify(n) = p { n } else { panic!("{p:?}") }).collect()
    }

    #[test]
    fn nothing_between() {
        let said = said(Encapsulation::Auto, path("10.9.0.1:500", "10.9.0.2:500"), false);
        let nat = Nat::detect(Encapsulation::Auto, I, R, path("10.9.0.2:500", "10.9.0.1:500"), &said, false);
        assert_eq!(nat, Nat::default());
        assert!(!nat.encapsulates());
    }

    #[test]
    fn peer_behind_a_nat() {
        let said = said(Encapsulation::Auto, path("192.168.0.7:500", "10.9.0.2:500"), false);
        let here = path("10.9.0.2:500", "10.9.0.1:61000");
        let nat = Nat::detect(Encapsulation::Auto, I, R, here, &said, false);
        assert_eq!(nat, Nat { remote: true, ..Nat::default() });
        assert_eq!(nat.path(here), path("10.9.0.2:4500", "10.9.0.1:4500"));
        assert_eq!(nat.udp(here), None);
        let moved = path("10.9.0.2:4500", "10.9.0.1:61001");
        assert_eq!(nat.udp(moved), Some(UdpPorts { local: 4500, remote: 61001 }));
    }

    #[test]
    fn we_behind_a_nat() {
        let said = said(Encapsulation::Auto, path("10.9.0.2:500", "10.9.0.1:61000"), false);
        let nat =
            Nat::detect(Encapsulation::Auto, I, R, path("192.168.0.7:500", "10.9.0.2:500"), &said, false);
        assert_eq!(nat, Nat { local: true, ..Nat::default() });
    }

    #[test]
    fn disguise_is_taken_for_a_nat_before_the_peer() {
        let said = said(Encapsulation::Udp, path("10.9.0.1:500", "10.9.0.2:500"), true);
        let nat = Nat::detect(Encapsulation::Auto, I, R, path("10.9.0.2:500", "10.9.0.1:500"), &said, false);
        assert_eq!(nat, Nat { remote: true, ..Nat::default() });
    }

    #[test]
    fn who_insists_on_protocol_50_says_nothing() {
        let said = said(Encapsulation::Esp, path("192.168.0.7:500", "10.9.0.2:500"), false);
        assert!(said.is_empty());
        let nat = Nat::detect(Encapsulation::Auto, I, R, path("10.9.0.2:500", "10.9.0.1:61000"), &said, true);
        assert!(!nat.encapsulates());
    }

    #[test]
    fn one_of_several_addresses_is_enough() {
        let mut said = said(Encapsulation::Auto, path("10.9.9.9:500", "10.9.0.2:500"), false);
        said.push(Notify::new(notify::NAT_DETECTION_SOURCE_IP, hash(I, R, "10.9.0.1:500".parse().unwrap())));
        let nat = Nat::detect(Encapsulation::Auto, I, R, path("10.9.0.2:500", "10.9.0.1:500"), &said, false);
        assert_eq!(nat, Nat::default());
    }
}
