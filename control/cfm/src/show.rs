//! `cfm/show`, as Open vSwitch prints it.

use std::fmt::{self, Write};

use crate::Millis;
use crate::point::Point;

impl Point {
    /// Everything about the point.
    pub fn show(&self, now: Millis) -> String {
        let mut out = String::new();
        // a String takes whatever is written
        let _ = self.write(&mut out, now);
        out
    }

    fn write(&self, out: &mut String, now: Millis) -> fmt::Result {
        let config = &self.config;
        let extended = if config.extended { " extended" } else { "" };
        let forced = if self.forced.is_some() { " fault_override" } else { "" };
        writeln!(out, "MPID {}:{extended}{forced}", config.mpid)?;
        if self.faults().any() {
            writeln!(out, "  fault: {}", self.faults())?;
        }
        match self.health {
            Some(percent) => writeln!(out, "  average health: {percent}")?,
            None => writeln!(out, "  average health: undefined")?,
        }
        writeln!(out, "  opstate: {}", state(!config.down))?;
        writeln!(out, "  remote_opstate: {}", state(self.remote_up))?;
        writeln!(out, "  interval: {}ms", config.interval.millis)?;
        writeln!(out, "  next CCM tx: {}ms", self.next_tx - now)?;
        writeln!(out, "  next fault check: {}ms", self.next_check - now)?;
        for (mpid, remote) in &self.remotes {
            writeln!(out, "Remote MPID {mpid}")?;
            writeln!(out, "  recv since check: {}", remote.heard)?;
            writeln!(out, "  opstate: {}", state(remote.up))?;
        }
        Ok(())
    }
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
