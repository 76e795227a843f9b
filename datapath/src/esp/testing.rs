//! What the tests of this crate make SAs of.

use std::net::IpAddr;

use super::replay::DEFAULT_WINDOW;
use super::{InboundSa, OutboundSa, PAYLOAD, Road, SaConfig, SaKey, Selector, sealed_len};
use crate::snapshot::PolicyId;

pub(crate) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 1));
pub(crate) const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 2));
pub(crate) const SPI: u32 = 0x1234_5678;

pub(crate) fn config() -> SaConfig {
    SaConfig {
        spi: SPI,
        selector: Selector::Gre,
        local: HERE,
        remote: THERE,
        esn: true,
        road: Road::Esp,
        hard_packets: u64::MAX,
        hard_bytes: u64::MAX,
    }
}

pub(crate) fn key() -> SaKey {
    SaKey::aes_gcm(&[0x5a; 36]).unwrap()
}

pub(crate) fn outbound(config: SaConfig) -> OutboundSa {
    OutboundSa::new(config, key())
}

/// The other end of [`outbound`] with the same configuration.
pub(crate) fn inbound(config: SaConfig) -> InboundSa {
    let config = SaConfig { local: config.remote, remote: config.local, ..config };
    InboundSa::new(config, key(), PolicyId(0), DEFAULT_WINDOW)
}

/// The next packet of `sa`.
pub(crate) fn sealed(sa: &OutboundSa, payload: &[u8]) -> Vec<u8> {
    numbered(sa, sa.number(payload.len() as u64, 0).unwrap(), payload)
}

/// The packet of that number.
pub(crate) fn numbered(sa: &OutboundSa, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; sealed_len(payload.len())];
    packet[PAYLOAD..][..payload.len()].copy_from_slice(payload);
    assert!(sa.seal(number, payload.len(), &mut packet));
    packet
}
