//! What a handshake costs either end: key agreement in each group, keys, and protection of a message.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ikev2::crypto::{Exchanged, IkeKeys, KeyPair, Secret, SystemRng};
use ikev2::proposal::{Encr, Group, IkeSuite, Integ, Prf};

const SUITES: [IkeSuite; 2] = [
    IkeSuite { encr: Encr::AesGcm16_256, integ: None, prf: Prf::HmacSha256, group: Group::Curve25519 },
    IkeSuite {
        encr: Encr::AesCbc256,
        integ: Some(Integ::HmacSha256_128),
        prf: Prf::HmacSha256,
        group: Group::Curve25519,
    },
];
const EXCHANGED: Exchanged<'_> =
    Exchanged { nonce_i: &[1; 32], nonce_r: &[2; 32], spi_i: [3; 8], spi_r: [4; 8] };

fn pair(group: Group) -> Option<KeyPair> {
    KeyPair::generate(group, &mut SystemRng::new()).ok()
}

/// One end of a key exchange: a pair of its own, and the secret.
fn agreement(c: &mut Criterion) {
    let mut g = c.benchmark_group("agreement");
    for group in Group::ALL {
        let peer = pair(group).map(|pair| pair.public().to_vec()).unwrap_or_default();
        g.bench_function(group.to_string(), |b| {
            b.iter(|| pair(group).and_then(|pair| pair.agree(black_box(&peer)).ok()));
        });
    }
}

fn keys(c: &mut Criterion) {
    let shared = Secret::new(vec![5; 32]);
    let mut g = c.benchmark_group("ike_keys");
    for suite in SUITES {
        g.bench_function(suite.to_string(), |b| {
            b.iter(|| IkeKeys::derive(&suite, EXCHANGED, black_box(&shared)));
        });
    }
}

/// Sealing and opening 1 KiB, about an IKE_AUTH with a certificate.
fn protection(c: &mut Criterion) {
    let plain = vec![0x5a; 1024];
    let mut g = c.benchmark_group("seal_and_open");
    g.throughput(Throughput::Bytes(plain.len() as u64));
    for suite in SUITES {
        let keys = IkeKeys::derive(&suite, EXCHANGED, &Secret::new(vec![5; 32]));
        let Ok((mut sender, _)) = keys.protectors(&suite) else { continue };
        let Ok((receiver, _)) = keys.protectors(&suite) else { continue };
        let rng = &mut SystemRng::new();
        g.bench_function(suite.encr.to_string(), |b| {
            b.iter(|| receiver.open(b"header", &sender.seal(b"header", black_box(&plain), rng)));
        });
    }
}

criterion_group!(benches, agreement, keys, protection);
criterion_main!(benches);
