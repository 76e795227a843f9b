//! How a run can end early.

/// Why a command gave up. The text is what stands behind `ovs-vsctl: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A mistake of the user's or an answer from the database that ends the run with status 1.
    #[error("{0}")]
    Fatal(String),
    /// End at once with this status and without a word (`br-exists`).
    #[error("exit status {0}")]
    Exit(u8),
}

pub type Result<T> = std::result::Result<T, Error>;

/// An error with this text.
pub fn fatal<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Fatal(message.into()))
}
