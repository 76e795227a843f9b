//! Diffie-Hellman: a key pair for one exchange, and the secret that it shares with the peer's.

use std::fmt;

use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SystemRandom;

use super::{CryptoError, Rng, Secret, modp};
use crate::proposal::Group;

/// A private value and its public counterpart, for one exchange.
pub struct KeyPair {
    group: Group,
    public: Vec<u8>,
    private: Private,
}

enum Private {
    /// X25519 and the NIST curves.
    Curve(EphemeralPrivateKey),
    Modp(modp::Exponent),
}

/// A point on a NIST curve begins with this octet everywhere but in IKE, where only `x | y` goes over the wire
/// (RFC 5903, section 7).
const UNCOMPRESSED: u8 = 4;

impl KeyPair {
    /// A new pair. The private values of curves come from ring's own source of random numbers, which takes no other;
    /// `rng` serves the MODP groups.
    pub fn generate(group: Group, rng: &mut dyn Rng) -> Result<KeyPair, CryptoError> {
        let Some(algorithm) = curve(group) else {
            let (private, public) = modp::generate(group, rng).ok_or(CryptoError::KeyGeneration(group))?;
            return Ok(KeyPair { group, public, private: Private::Modp(private) });
        };
        let failed = |_| CryptoError::KeyGeneration(group);
        let private = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).map_err(failed)?;
        let public = private.compute_public_key().map_err(failed)?;
        let public = match public.as_ref() {
            [UNCOMPRESSED, xy @ ..] if group != Group::Curve25519 => xy.to_vec(),
            u => u.to_vec(),
        };
        Ok(KeyPair { group, public, private: Private::Curve(private) })
    }

    /// The group of both values.
    pub fn group(&self) -> Group {
        self.group
    }

    /// The public value, as it stands in a KE payload.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret shared with the owner of `peer`, the value in a KE payload, after the checks of RFC 6989: MODP values
    /// lie between 1 and p - 1 without these two, points are on the curve, and X25519 does not yield zero. Of a point
    /// the secret is x alone (RFC 5903, section 7), and g^ir has the length of the modulus (RFC 7296, section 2.14).
    pub fn agree(self, peer: &[u8]) -> Result<Secret, CryptoError> {
        let group = self.group;
        group.check_public(peer)?;
        let invalid = CryptoError::PublicValue(group);
        match (self.private, curve(group)) {
            (Private::Curve(private), Some(algorithm)) => {
                let prefix: &[u8] = if group == Group::Curve25519 { &[] } else { &[UNCOMPRESSED] };
                let peer = UnparsedPublicKey::new(algorithm, [prefix, peer].concat());
                // Its only other complaint would be a key of another algorithm
                agreement::agree_ephemeral(private, &peer, |shared| Secret::from(shared)).map_err(|_| invalid)
            }
            (Private::Modp(private), _) => modp::agree(group, &private, peer).ok_or(invalid),
            (Private::Curve(_), None) => Err(invalid),
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Group {
    /// Octets of a public value in a KE payload.
    pub fn public_len(self) -> usize {
        match self {
            Group::Modp2048 => 256,
            Group::Modp3072 => 384,
            Group::Modp4096 => 512,
            Group::Ecp256 => 64,
            Group::Ecp384 => 96,
            Group::Curve25519 => 32,
        }
    }

    /// That `peer` can be the public value of somebody, as far as can be told without an exponentiation: its length, and
    /// for MODP groups that it is none of 0, 1, p - 1 and above. What is refused here costs a flooded host nothing.
    pub fn check_public(self, peer: &[u8]) -> Result<(), CryptoError> {
        let want = self.public_len();
        if peer.len() != want {
            return Err(CryptoError::PublicLength { group: self, got: peer.len(), want });
        }
        match curve(self).is_some() || modp::is_public(self, peer) {
            true => Ok(()),
            false => Err(CryptoError::PublicValue(self)),
        }
    }
}

fn curve(group: Group) -> Option<&'static agreement::Algorithm> {
    match group {
        Group::Curve25519 => Some(&agreement::X25519),
        Group::Ecp256 => Some(&agreement::ECDH_P256),
        Group::Ecp384 => Some(&agreement::ECDH_P384),
        Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SystemRng, hex};
    use super::*;

    fn pair(group: Group) -> KeyPair {
        KeyPair::generate(group, &mut SystemRng::new()).unwrap()
    }

    #[test]
    fn both_ends_come_to_the_same_secret_in_every_group() {
        for group in Group::ALL {
            let (a, b, c) = (pair(group), pair(group), pair(group));
            assert_eq!(a.group(), group);
            assert_eq!(a.public().len(), group.public_len());
            let (to_a, to_b) = (b.public().to_vec(), a.public().to_vec());
            let shared = a.agree(&to_a).unwrap();
            assert_eq!(shared, b.agree(&to_b).unwrap(), "{group}");
            assert_ne!(shared, c.agree(&to_b).unwrap(), "{group}");
            // Of a point, x alone
            let len = match group {
                Group::Ecp256 | Group::Ecp384 => group.public_len() / 2,
                _ => group.public_len(),
            };
            assert_eq!(shared.len(), len, "{group}");
        }
    }

    /// ring takes no private value from outside, so no published secret can be compared with. But where the peer's
    /// public value is the generator, its private value is 1 and the secret is our own public value.
    #[test]
    fn with_the_generator_the_secret_is_our_own_public_value() {
        let p256 = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                    4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let p384 = "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
                    3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f";
        for group in Group::ALL {
            let number = |value: u8, at: usize| {
                let mut octets = vec![0; group.public_len()];
                octets[at] = value;
                octets
            };
            let generator = match group {
                Group::Ecp256 => hex(p256),
                Group::Ecp384 => hex(p384),
                Group::Curve25519 => number(9, 0),
                Group::Modp2048 | Group::Modp3072 | Group::Modp4096 => number(2, group.public_len() - 1),
            };
            let ours = pair(group);
            let public = ours.public().to_vec();
            let shared = ours.agree(&generator).unwrap();
            assert_eq!(shared.as_bytes(), &public[..shared.len()], "{group}");
        }
    }

    #[test]
    fn public_values_of_another_length_are_refused() {
        for group in Group::ALL {
            let public = pair(group).public().to_vec();
            let want = public.len();
            let longer = [&[0], &public[..]].concat();
            let uncompressed = [&[UNCOMPRESSED], &public[..]].concat();
            let compressed = [&[2], &public[..want / 2]].concat();
            for peer in [&[][..], &public[1..], &public[..want - 1], &longer, &uncompressed, &compressed] {
                let refused = CryptoError::PublicLength { group, got: peer.len(), want };
                assert_eq!(pair(group).agree(peer), Err(refused.clone()), "{group}");
                assert_eq!(group.check_public(peer), Err(refused), "{group}");
            }
            assert_eq!(group.check_public(&public), Ok(()), "{group}");
        }
    }

    #[test]
    fn debug_does_not_tell_the_private_value() {
        assert_eq!(format!("{:?}", pair(Group::Modp2048)), "KeyPair { group: Modp2048, .. }");
    }
}
