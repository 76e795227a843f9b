//! `underpass migrate`: from Open vSwitch to Underpass on a running host, and back.
//!
//! Open vSwitch's database is ours, file and format, so what moves is everything around it: who runs ([`programs`]), and the
//! addresses of internal ports, which no database has ([`addresses`]). Open vSwitch goes on forwarding while the database is
//! copied ([`record`]); then it ends, and we begin. Whatever fails on the way, the other one runs again.

mod addresses;
mod journey;
mod programs;
mod record;
mod report;
mod switch;

pub use journey::run;
