//! The MODP groups of RFC 3526: powers of 2 modulo a safe prime, in constant time.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U512, U2048, U3072, U4096, Uint};
use zeroize::Zeroizing;

use super::{Rng, Secret};
use crate::proposal::Group;

/// A private value. Its length depends on the group alone, and with it the time of an exponentiation.
pub struct Exponent {
    value: Zeroizing<U512>,
    bits: u32,
}

/// A private value and its public counterpart, which is as long as the modulus. None if `group` is no MODP group.
pub fn generate(group: Group, rng: &mut dyn Rng) -> Option<(Exponent, Vec<u8>)> {
    let exponent = Exponent::random(exponent_bits(group)?, rng);
    let mut generator = vec![0; group.public_len()];
    *generator.last_mut()? = 2;
    let public = power(group, &generator, &exponent)?;
    Some((exponent, public.as_bytes().to_vec()))
}

/// `peer ^ exponent`, as long as the modulus. None if `peer` is not as long, or not between 1 and p - 1 without these
/// two (RFC 6989, section 2.1): the only values in a group of a safe prime whose powers are few.
pub fn agree(group: Group, exponent: &Exponent, peer: &[u8]) -> Option<Secret> {
    power(group, peer, exponent)
}

/// Whether `peer` is as long as the modulus, and between 1 and p - 1 without these two. False if `group` is no MODP group.
pub fn is_public(group: Group, peer: &[u8]) -> bool {
    match group {
        Group::Modp2048 => base(&MODP_2048, peer).is_some(),
        Group::Modp3072 => base(&MODP_3072, peer).is_some(),
        Group::Modp4096 => base(&MODP_4096, peer).is_some(),
        Group::Ecp256 | Group::Ecp384 | Group::Curve25519 => false,
    }
}

/// Bits of a private value: RFC 3526, section 8, in its higher estimate of what the modulus is worth, rounded up to
/// whole words.
fn exponent_bits(group: Group) -> Option<u32> {
    match group {
        Group::Modp2048 => Some(320),
        Group::Modp3072 => Some(448),
        Group::Modp4096 => Some(512),
        Group::Ecp256 | Group::Ecp384 | Group::Curve25519 => None,
    }
}

impl Exponent {
    /// Of exactly `bits` bits, 512 at most: the first is set, so that it is short by no chance.
    fn random(bits: u32, rng: &mut dyn Rng) -> Exponent {
        let mut octets = Zeroizing::new([0; U512::BYTES]);
        rng.fill(&mut *octets);
        octets[0] |= 0x80;
        let value = U512::from_be_slice(&*octets).wrapping_shr(U512::BITS - bits);
        Exponent { value: Zeroizing::new(value), bits }
    }
}

fn power(group: Group, base: &[u8], exponent: &Exponent) -> Option<Secret> {
    match group {
        Group::Modp2048 => power_modulo(&MODP_2048, base, exponent),
        Group::Modp3072 => power_modulo(&MODP_3072, base, exponent),
        Group::Modp4096 => power_modulo(&MODP_4096, base, exponent),
        Group::Ecp256 | Group::Ecp384 | Group::Curve25519 => None,
    }
}

/// A number of the group, with neither of those whose powers are few.
fn base<const LIMBS: usize>(params: &FixedMontyParams<LIMBS>, octets: &[u8]) -> Option<Uint<LIMBS>> {
    if octets.len() != Uint::<LIMBS>::BYTES {
        return None;
    }
    let base = Uint::from_be_slice(octets);
    let last = params.modulus().as_ref().wrapping_sub(&Uint::ONE);
    (base > Uint::ONE && base < last).then_some(base)
}

fn power_modulo<const LIMBS: usize>(
    params: &FixedMontyParams<LIMBS>,
    octets: &[u8],
    exponent: &Exponent,
) -> Option<Secret> {
    let base = base(params, octets)?;
    let power =
        Zeroizing::new(FixedMontyForm::new(&base, params).pow_bounded_exp(&*exponent.value, exponent.bits));
    let power = Zeroizing::new(power.retrieve());
    let octets = Zeroizing::new(power.to_be_bytes());
    Some(Secret::from((*octets).as_ref()))
}

type Modulus<const LIMBS: usize> = LazyLock<FixedMontyParams<LIMBS>>;

/// 2^2048 - 2^1984 - 1 + 2^64 * ([2^1918 pi] + 124476)
static MODP_2048: Modulus<{ U2048::LIMBS }> = LazyLock::new(|| FixedMontyParams::new_vartime(P2048));
const P2048: Odd<U2048> = Odd::<U2048>::from_be_hex(
    "\
     FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

/// 2^3072 - 2^3008 - 1 + 2^64 * ([2^2942 pi] + 1690314)
static MODP_3072: Modulus<{ U3072::LIMBS }> = LazyLock::new(|| FixedMontyParams::new_vartime(P3072));
const P3072: Odd<U3072> = Odd::<U3072>::from_be_hex(
    "\
     FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
);

/// 2^4096 - 2^4032 - 1 + 2^64 * ([2^3966 pi] + 240904)
static MODP_4096: Modulus<{ U4096::LIMBS }> = LazyLock::new(|| FixedMontyParams::new_vartime(P4096));
const P4096: Odd<U4096> = Odd::<U4096>::from_be_hex(
    "\
     FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD\
     EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
     EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F\
     83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
     E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
     15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
     ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C\
     BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
     88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6\
     287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
     93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
);
#[cfg(test)]
mod tests {
    use crypto_bigint::{Limb, NonZero, U4224};

    use super::super::{CryptoError, hex};
    use super::*;

    /// Says the same 64 octets over and over.
    struct Stuck([u8; 64]);

    impl Rng for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            out.copy_from_slice(&self.0[..out.len()]);
        }
    }

    const GROUPS: [Group; 3] = [Group::Modp2048, Group::Modp3072, Group::Modp4096];

    #[test]
    fn moduli_are_those_of_the_formula() {
        assert_eq!(by_formula(2048, 124_476), P2048.as_ref().resize());
        assert_eq!(by_formula(3072, 1_690_314), P3072.as_ref().resize());
        assert_eq!(by_formula(4096, 240_904), P4096.as_ref().resize());
    }

    #[test]
    fn known_answers() {
        let mut count = 0;
        let text = include_str!("../../tests/data/modp.txt");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, values) = line.split_once(' ').unwrap();
            let group = GROUPS.into_iter().find(|group| group.to_string() == name).unwrap();
            let values: Vec<Vec<u8>> = values.split(' ').map(hex).collect();
            let [random, public, peer, shared] = &values[..] else { panic!("{line}") };
            let (exponent, ours) = generate(group, &mut Stuck(random[..].try_into().unwrap())).unwrap();
            assert_eq!(&ours, public, "{name}");
            assert_eq!(agree(group, &exponent, peer).unwrap().as_bytes(), shared, "{name}");
            count += 1;
        }
        assert_eq!(count, 9);
    }

    /// RFC 6989, section 2.1; what others forgot (CVE-2015-3240, CVE-2014-9221).
    #[test]
    fn public_values_outside_the_group_or_of_small_order_are_refused() {
        for group in GROUPS {
            let len = group.public_len();
            let (exponent, public) = generate(group, &mut Stuck([0xa5; 64])).unwrap();
            let modulus = match group {
                Group::Modp2048 => P2048.as_ref().to_be_bytes().as_ref().to_vec(),
                Group::Modp3072 => P3072.as_ref().to_be_bytes().as_ref().to_vec(),
                _ => P4096.as_ref().to_be_bytes().as_ref().to_vec(),
            };
            // The modulus ends with 64 bits set: it can be counted down, and up by clearing them and carrying
            let modulus_less = |by: u8| {
                let mut value = modulus.clone();
                *value.last_mut().unwrap() -= by;
                value
            };
            let mut above = modulus_less(0);
            for octet in above.iter_mut().rev() {
                *octet = octet.wrapping_add(1);
                if *octet != 0 {
                    break;
                }
            }
            let small = |value: u8| [&vec![0; len - 1][..], &[value]].concat();
            let max = vec![0xff; len];
            for refused in [small(0), small(1), modulus_less(1), modulus_less(0), above, max] {
                assert!(agree(group, &exponent, &refused).is_none(), "{group} {refused:x?}");
                assert_eq!(
                    group.check_public(&refused),
                    Err(CryptoError::PublicValue(group)),
                    "{refused:x?}"
                );
            }
            for accepted in [small(2), modulus_less(2), public.clone()] {
                let shared = agree(group, &exponent, &accepted).unwrap();
                assert_eq!(shared.len(), len, "{group}");
                assert_eq!(group.check_public(&accepted), Ok(()), "{group}");
            }
            for wrong in [&public[1..], &[&[0], &public[..]].concat(), &[]] {
                assert!(agree(group, &exponent, wrong).is_none(), "{group}");
            }
        }
        assert!(generate(Group::Curve25519, &mut Stuck([1; 64])).is_none());
    }

    #[test]
    fn an_exponent_is_never_short() {
        let exponent = Exponent::random(320, &mut Stuck([0; 64]));
        assert_eq!(exponent.value.bits(), 320);
        let exponent = Exponent::random(320, &mut Stuck([0xff; 64]));
        assert_eq!(*exponent.value, U512::MAX.wrapping_shr(192));
    }

    /// `2^bits - 2^(bits-64) - 1 + 2^64 * ([2^(bits-130) pi] + c)`
    fn by_formula(bits: u32, c: u64) -> U4224 {
        let power = |exponent: u32| U4224::ONE.wrapping_shl_vartime(exponent);
        let pi = pi(bits - 130 + 64).wrapping_shr_vartime(64);
        let middle = pi.wrapping_add(&U4224::from_u64(c)).wrapping_shl_vartime(64);
        power(bits).wrapping_sub(&power(bits - 64)).wrapping_sub(&U4224::ONE).wrapping_add(&middle)
    }

    /// `2^bits * pi`, a little less: Machin's `16 arctan(1/5) - 4 arctan(1/239)`.
    fn pi(bits: u32) -> U4224 {
        let one = U4224::ONE.wrapping_shl_vartime(bits);
        let fifth = arctan_of_inverse(&one, 5).wrapping_shl_vartime(4);
        fifth.wrapping_sub(&arctan_of_inverse(&one, 239).wrapping_shl_vartime(2))
    }

    /// `1/n - 1/(3 n^3) + 1/(5 n^5) - ...` times `one`
    fn arctan_of_inverse(one: &U4224, n: u64) -> U4224 {
        let over = |value: &U4224, by: u64| value.div_rem_limb(NonZero::new(Limb(by)).unwrap()).0;
        let mut power = over(one, n);
        let mut sum = power;
        for (index, divisor) in (3..).step_by(2).enumerate() {
            power = over(&power, n * n);
            if power == U4224::ZERO {
                break;
            }
            let term = over(&power, divisor);
            sum = if index % 2 == 0 { sum.wrapping_sub(&term) } else { sum.wrapping_add(&term) };
        }
        sum
    }
}
