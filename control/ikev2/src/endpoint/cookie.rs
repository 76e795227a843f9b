//! Cookies (RFC 7296 2.6): who sends one back receives what is sent to its address. They cost no memory.

use std::time::{Duration, Instant};

use ring::hmac;

use crate::config::Path;
use crate::crypto::Rng;
use crate::wire::Spi;

/// A secret is used for so long, and accepted for as long again.
const ROTATION: Duration = Duration::from_secs(120);

/// The secrets that cookies are made with.
#[derive(Debug)]
pub(super) struct Cookies {
    current: hmac::Key,
    previous: Option<hmac::Key>,
    since: Option<Instant>,
}

impl Cookies {
    pub fn new(rng: &mut dyn Rng) -> Cookies {
        Cookies { current: key(rng), previous: None, since: None }
    }

    /// The cookie of a request: `HMAC(secret, Ni | IPi | SPIi)`.
    pub fn make(&mut self, now: Instant, rng: &mut dyn Rng, path: Path, spi_i: Spi, nonce: &[u8]) -> Vec<u8> {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= ROTATION {
            self.previous = Some(std::mem::replace(&mut self.current, key(rng)));
            self.since = Some(now);
        }
        hmac::sign(&self.current, &octets(path, spi_i, nonce)).as_ref().to_vec()
    }

    /// Whether a cookie is one that the request was given, not long ago.
    pub fn check(&self, path: Path, spi_i: Spi, nonce: &[u8], cookie: &[u8]) -> bool {
        let octets = octets(path, spi_i, nonce);
        let right = |key: &hmac::Key| hmac::verify(key, &octets, cookie).is_ok();
        right(&self.current) || self.previous.as_ref().is_some_and(right)
    }
}

fn key(rng: &mut dyn Rng) -> hmac::Key {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    hmac::Key::new(hmac::HMAC_SHA256, &secret)
}

fn octets(path: Path, spi_i: Spi, nonce: &[u8]) -> Vec<u8> {
    let ip = match path.remote.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    [&ip.octets()[..], &spi_i, nonce].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SystemRng;

    fn from(remote: &str) -> Path {
        Path { local: "10.9.0.1:500".parse().unwrap(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn good_for_one_address_spi_and_nonce_until_two_secrets_later() {
        let rng = &mut SystemRng::new();
        let start = Instant::now();
        let mut cookies = Cookies::new(rng);
        let path = from("10.9.0.2:500");
        let cookie = cookies.make(start, rng, path, [1; 8], b"nonce");
        assert!(cookies.check(path, [1; 8], b"nonce", &cookie));
        assert!(
            cookies.check(from("10.9.0.2:61000"), [1; 8], b"nonce", &cookie),
            "a NAT may change the port"
        );
        assert!(!cookies.check(from("10.9.0.3:500"), [1; 8], b"nonce", &cookie));
        assert!(!cookies.check(path, [2; 8], b"nonce", &cookie));
        assert!(!cookies.check(path, [1; 8], b"other", &cookie));
        assert!(!cookies.check(path, [1; 8], b"nonce", &cookie[1..]));
        let other = cookies.make(start + ROTATION, rng, path, [1; 8], b"nonce");
        assert_ne!(cookie, other);
        assert!(cookies.check(path, [1; 8], b"nonce", &cookie));
        cookies.make(start + 2 * ROTATION, rng, path, [1; 8], b"nonce");
        assert!(!cookies.check(path, [1; 8], b"nonce", &cookie));
        assert!(cookies.check(path, [1; 8], b"nonce", &other));
    }
}
