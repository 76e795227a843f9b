//! Everything slow: the daemon and its command line.
#![deny(unsafe_code)]

// the process
pub mod bfd;
pub mod cfm;
pub mod claim;
pub mod cli;
pub mod daemon;
pub mod detach;
pub mod identity;
pub mod logging;
pub mod pidfile;
pub mod privileges;
pub mod rundir;
pub mod secret;
pub mod shutdown;
pub mod up;
pub mod watch;

// what ovs-vsctl talks to
pub mod db_server;

// from rows to devices
pub mod attach;
pub mod bond;
pub mod devices;
pub mod ipsec;
pub mod loops;
pub mod reconcile;
pub mod sflow;
pub mod snooping;
pub mod spanning;
pub mod status;
mod system;

// what ovs-appctl and ovs-ofctl see
pub mod openflow;
pub mod unixctl;

// the command line
pub mod appctl;
pub mod help;
pub mod keys;
pub mod migrate;
pub mod pki;
pub mod vsctl;
