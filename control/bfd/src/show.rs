//! `bfd/show`, as Open vSwitch prints it.

use std::fmt::{self, Write};

use crate::Millis;
use crate::session::Session;

impl Session {
    /// Everything about the session.
    pub fn show(&self, now: Millis) -> String {
        let mut out = String::new();
        // a String takes whatever is written
        let _ = self.write(&mut out, now);
        out
    }

    fn write(&self, out: &mut String, now: Millis) -> fmt::Result {
        let remote = &self.remote;
        writeln!(out, "  Forwarding: {}", self.forwarding(now))?;
        writeln!(out, "  Detect Multiplier: {}", self.config.mult)?;
        writeln!(out, "  Concatenated Path Down: {}", self.config.cpath_down)?;
        writeln!(out, "  TX Interval: Approx {}ms", self.tx_interval())?;
        writeln!(out, "  RX Interval: Approx {}ms", self.rx_interval())?;
        writeln!(out, "  Detect Time: now {:+}ms", self.detect_at - now)?;
        writeln!(out, "  Next TX Time: now {:+}ms", self.next_tx - now)?;
        writeln!(out, "  Last TX Time: now {:+}ms", self.last_tx - now)?;
        writeln!(out)?;
        writeln!(out, "  Local Flags: {}", self.flags.names())?;
        writeln!(out, "  Local Session State: {}", self.state.name())?;
        writeln!(out, "  Local Diagnostic: {}", self.diagnostic.name())?;
        writeln!(out, "  Local Discriminator: {:#x}", self.discriminator)?;
        writeln!(out, "  Local Minimum TX Interval: {}ms", self.slowed_tx())?;
        writeln!(out, "  Local Minimum RX Interval: {}ms", self.min_rx)?;
        writeln!(out)?;
        writeln!(out, "  Remote Flags: {}", remote.flags.names())?;
        writeln!(out, "  Remote Session State: {}", remote.state.name())?;
        writeln!(out, "  Remote Diagnostic: {}", remote.diagnostic.name())?;
        writeln!(out, "  Remote Discriminator: {:#x}", remote.discriminator)?;
        writeln!(out, "  Remote Minimum TX Interval: {}ms", remote.min_tx)?;
        writeln!(out, "  Remote Minimum RX Interval: {}ms", remote.min_rx)?;
        writeln!(out, "  Remote Detect Multiplier: {}", remote.mult)
    }
}
