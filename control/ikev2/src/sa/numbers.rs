//! Numbers that must not be given out twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use super::SessionId;
use crate::config::PeerId;
use crate::crypto::Rng;
use crate::output::ChildId;
use crate::wire::Spi;

/// Bytes of our nonces. At least half of the longest PRF key is asked for (RFC 7296 2.10): PRF_HMAC_SHA2_512 has 64 bytes.
const NONCE: usize = 32;
/// SPIs of ESP below this are reserved (RFC 4303 2.1).
const FIRST_ESP_SPI: u32 = 256;

/// The source of all numbers, and the directory of those that peers call us by.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    session: u64,
    child: u64,
    esp: Leases<u32, ()>,
    ike: Leases<Spi, Owner>,
}

/// Whose an SPI of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An IKE SA of a peer.
    Peer(PeerId, SessionId),
    /// An IKE SA of somebody who has not yet proved anything.
    Stranger(SessionId),
}

/// An SPI that is ours for as long as this lives.
pub(crate) type Own<N> = Arc<N>;

impl Numbers {
    /// Of an IKE SA within the endpoint.
    pub fn session(&mut self) -> SessionId {
        self.session += 1;
        SessionId(self.session)
    }

    /// Of a child SA.
    pub fn child(&mut self) -> ChildId {
        self.child += 1;
        ChildId(self.child)
    }

    /// An SPI of ESP that nothing else here receives by.
    pub fn esp_spi(&mut self, rng: &mut dyn Rng) -> Own<u32> {
        self.esp.lease((), || {
            let mut bytes = [0; 4];
            rng.fill(&mut bytes);
            Some(u32::from_be_bytes(bytes)).filter(|spi| *spi >= FIRST_ESP_SPI)
        })
    }

    /// An SPI of an IKE SA: random, and never zero.
    pub fn ike_spi(&mut self, rng: &mut dyn Rng, owner: Owner) -> Own<Spi> {
        self.ike.lease(owner, || {
            let mut spi = [0; 8];
            rng.fill(&mut spi);
            Some(spi).filter(|spi| *spi != [0; 8])
        })
    }

    /// The IKE SA that is called by `spi`.
    pub fn owner(&self, spi: &Spi) -> Option<Owner> {
        let (lease, owner) = self.ike.0.get(spi)?;
        (lease.strong_count() > 0).then_some(*owner)
    }

    /// The IKE SA that is called by `spi` has a new owner.
    pub fn hand_over(&mut self, spi: &Spi, to: Owner) {
        if let Some((_, owner)) = self.ike.0.get_mut(spi) {
            *owner = to;
        }
    }
}

/// Numbers in use, each with something about its owner; those that nobody holds are swept out now and then.
#[derive(Debug)]
struct Leases<N, T>(HashMap<N, (Weak<N>, T)>, usize);

impl<N, T> Default for Leases<N, T> {
    fn default() -> Leases<N, T> {
        Leases(HashMap::new(), 0)
    }
}

impl<N: Copy + Eq + Hash, T> Leases<N, T> {
    fn lease(&mut self, about: T, mut draw: impl FnMut() -> Option<N>) -> Own<N> {
        let Leases(numbers, alive) = self;
        if numbers.len() > 2 * *alive + 64 {
            numbers.retain(|_, (lease, _)| lease.strong_count() > 0);
            *alive = numbers.len();
        }
        loop {
            let Some(number) = draw() else { continue };
            let taken = numbers.get(&number).is_some_and(|(lease, _)| lease.strong_count() > 0);
            if !taken {
                let own = Arc::new(number);
                numbers.insert(number, (Arc::downgrade(&own), about));
                return own;
            }
        }
    }
}

/// A nonce.
pub(crate) fn nonce(rng: &mut dyn Rng) -> Vec<u8> {
    let mut nonce = vec![0; NONCE];
    rng.fill(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRng;

    struct Few(u8);

    impl Rng for Few {
        fn fill(&mut self, out: &mut [u8]) {
            self.0 = (self.0 + 1) % 4;
            out.fill(self.0);
        }
    }

    #[test]
    fn esp_spi_is_neither_reserved_nor_in_use() {
        let mut numbers = Numbers::default();
        let free_again: Vec<_> = (0..3).map(|_| *numbers.esp_spi(&mut Few(3))).collect();
        assert_eq!(free_again, [0x0101_0101; 3]);
        let one = numbers.esp_spi(&mut Few(0));
        let two = numbers.esp_spi(&mut Few(0));
        assert_eq!((*one, *two), (0x0101_0101, 0x0202_0202));
    }

    #[test]
    fn ike_spi_leads_to_its_owner_while_held() {
        let mut numbers = Numbers::default();
        let owner = Owner::Stranger(SessionId(7));
        let spi = numbers.ike_spi(&mut Few(3), owner);
        assert_eq!(numbers.owner(&[1; 8]), Some(owner));
        let peer = Owner::Peer(PeerId(1), SessionId(7));
        numbers.hand_over(&spi, peer);
        assert_eq!(numbers.owner(&spi), Some(peer));
        drop(spi);
        assert_eq!(numbers.owner(&[1; 8]), None);
    }

    #[test]
    fn forgotten_spis_are_swept() {
        let mut numbers = Numbers::default();
        for _ in 0..1000 {
            numbers.esp_spi(&mut SystemRng::new());
        }
        assert!(numbers.esp.0.len() <= 65, "{}", numbers.esp.0.len());
    }
}
