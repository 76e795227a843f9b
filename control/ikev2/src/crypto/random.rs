//! Where nonces, SPIs, initialization vectors and MODP exponents come from.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of octets that nobody can predict. Tests bring their own, so that nonces decide as they wish.
pub trait Rng {
    /// Fills all of `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// The kernel's generator.
#[derive(Clone, Debug)]
pub struct SystemRng(SystemRandom);

impl SystemRng {
    /// The generator; it holds no state of its own.
    pub fn new() -> SystemRng {
        SystemRng(SystemRandom::new())
    }
}

impl Default for SystemRng {
    fn default() -> SystemRng {
        SystemRng::new()
    }
}

impl Rng for SystemRng {
    fn fill(&mut self, out: &mut [u8]) {
        // getrandom(2) of a kernel that has booted does not fail. Should it ever, no key may be made of zeros, and
        // nothing can go on without keys
        if self.0.fill(out).is_err() {
            tracing::error!("the kernel's random number generator failed");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_rng_fills_all_of_it_anew() {
        let mut rng = SystemRng::new();
        let (mut one, mut two) = ([0; 64], [0; 64]);
        rng.fill(&mut one);
        rng.fill(&mut two);
        assert_ne!(one, two);
        // 2^-128 that a half is left as it was
        assert_ne!(one[..32], [0; 32]);
        assert_ne!(one[32..], [0; 32]);
    }
}
