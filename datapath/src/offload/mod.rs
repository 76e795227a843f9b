//! Making frames fit where they go, and putting them together again.
//!
//! Toward a tunnel, [`fit()`] turns what a container or another tunnel sent, superframes and unfinished checksums
//! included, into frames that the path takes, written straight into the send buffer. What cannot be made to fit is
//! answered by [`too_big`]. Toward local ports, [`coalesce`] puts consecutive TCP segments together again.
//!
//! Contract: pure functions of frame and offload header. Neither is trusted: offsets in a [`VnetHdr`] are checked
//! against the frame's own headers, nothing panics, and no byte is written outside the slots given.
//!
//! [`VnetHdr`]: crate::vnet::VnetHdr
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod fit;

pub use fit::{Fit, FrameSink, fit};
