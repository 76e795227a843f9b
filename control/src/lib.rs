//! Everything slow: the daemon and its command line.
#![deny(unsafe_code)]

// the process
pub mod detach;
pub mod logging;
pub mod pidfile;
pub mod privileges;
pub mod rundir;
