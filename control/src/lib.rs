//! Everything slow: the daemon and its command line.
#![deny(unsafe_code)]

// the process
pub mod detach;
pub mod logging;
pub mod pidfile;
pub mod privileges;
pub mod rundir;

// from rows to devices
pub mod devices;
pub mod reconcile;
