//! OVSDB (RFC 7047) without I/O.
#![forbid(unsafe_code)]
