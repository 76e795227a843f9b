//! `--timeout`.

use super::log;
use std::time::Duration;

/// Reads what stands behind `-t` or `-T`: whole seconds, at least one.
pub fn parse_seconds(text: &str) -> Option<Duration> {
    text.parse::<u32>().ok().filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
}

/// Ends the process by SIGALRM when the time is over, as the stock tools do: callers look for that signal.
pub fn die_after(timeout: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(timeout);
        log::warn("fatal_signal", "terminating with signal 14 (Alarm clock)");
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::ALARM);
    });
}
