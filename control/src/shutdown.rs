//! The end: asked for by a signal or a command, heard of at any time, and forced by a second signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::Notify;

/// Signals closer together than this are one wish: `timeout`, for one, signals a process and then its group.
const SAME_WISH: Duration = Duration::from_millis(300);

/// Whether the process is to end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    asked: Arc<AtomicBool>,
    cleanup: Arc<AtomicBool>,
    wake: Arc<Notify>,
}

impl Shutdown {
    /// Listens for SIGTERM, SIGINT and SIGHUP from now on, in a thread of its own: a second one must work even
    /// when the main thread hangs. It ends the process at once, with nothing tidied up.
    pub fn on_signals() -> io::Result<Shutdown> {
        let shutdown = Shutdown::default();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let asked = shutdown.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut first = None::<Instant>;
            for signal in signals.forever() {
                match first {
                    None => first = Some(Instant::now()),
                    Some(at) if at.elapsed() < SAME_WISH => {}
                    Some(_) => signal_hook::low_level::exit(128 + signal),
                }
                asked.ask();
            }
        })?;
        Ok(shutdown)
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Asks for an end after which nothing is left on the host.
    pub fn ask_cleanup(&self) {
        self.cleanup.store(true, Relaxed);
        self.ask();
    }

    /// Whether nothing shall be left on the host.
    pub fn cleans_up(&self) -> bool {
        self.cleanup.load(Relaxed)
    }

    /// Whether it was asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Waits until it is asked for.
    pub async fn wait(&self) {
        while !self.asked() {
            self.wake.notified().await;
        }
    }
}
