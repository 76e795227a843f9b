//! Octets that only the two ends may know.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret octets: wiped when dropped, never printed, compared in constant time.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `octets`, which nobody else wipes from now on. A `Vec` that grew by itself has left copies behind:
    /// allocate it in its full length.
    pub fn new(octets: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(octets))
    }

    /// The octets themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Secret {
        Secret::new(octets.to_vec())
    }
}

impl From<Vec<u8>> for Secret {
    fn from(octets: Vec<u8>) -> Secret {
        Secret::new(octets)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_neither_octets_nor_length() {
        let text = format!("{:?} {:#?}", Secret::from(&b"abc"[..]), Some(Secret::new(vec![7; 99])));
        assert_eq!(text, "Secret(..) Some(\n    Secret(..),\n)");
    }

    #[test]
    fn equal_means_same_octets() {
        let a = Secret::from(&b"abc"[..]);
        assert_eq!(a, a.clone());
        assert_ne!(a, Secret::from(&b"abd"[..]));
        assert_ne!(a, Secret::from(&b"ab"[..]));
        assert_ne!(a, Secret::default());
    }
}
