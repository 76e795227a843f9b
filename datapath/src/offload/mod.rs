//! Making frames fit where they go, and putting them together again.
//!
//! Toward a tunnel, [`fit()`] turns what a container or another tunnel sent, superframes and unfinished checksums
//! included, into frames that the path takes, written straight into the send buffer. What cannot be made to fit is
//! answered by [`too_big()`]. Toward local ports, a [`Coalescer`] puts consecutive TCP segments and UDP datagrams together
//! again.
//!
//! Contract: functions of frame and offload header alone. Neither is trusted: offsets in a [`VnetHdr`] are checked
//! against the frame's own headers, nothing panics, and no byte is written outside the slots given.
//!
//! [`VnetHdr`]: crate::vnet::VnetHdr
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod coalesce;
mod finish;
mod fit;
mod fragment;
mod mss;
mod nested;
mod recognize;
mod segment;
mod too_big;
mod whole;

pub use coalesce::Coalescer;
pub use finish::finish_checksum;
pub use fit::{Fit, FrameSink, fit};
pub use mss::clamp_mss;
pub use recognize::recognize;
pub use too_big::{MAX_ANSWER, too_big};
pub use whole::{Whole, whole};

#[cfg(test)]
pub(crate) mod testing;
