//! Everything slow: the daemon and its command line.
#![deny(unsafe_code)]
