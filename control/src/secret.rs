//! Text that nothing shows: no log, no error, no `Debug`.

use std::fmt;

use zeroize::Zeroizing;

/// What stands for a secret wherever one would be shown.
pub const MASK: &str = "(hidden)";

/// A secret in memory, wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a copy.
    pub fn new(text: &str) -> SecretText {
        SecretText(Zeroizing::new(text.to_owned()))
    }

    /// For the one place that uses it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_it() {
        let secret = SecretText::new("swordfish");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "(hidden) Some(\n    (hidden),\n)");
        assert_eq!(secret.reveal(), "swordfish");
    }
}
