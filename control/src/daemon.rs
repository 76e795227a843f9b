//! The process around the engines: database, reconciler and datapath, wired together on one thread.
//!
//! 1. Claim the run directory and the database. 2. Start the datapath. 3. Listen. 4. Apply the configuration.
//! 5. Go on applying it whenever rows, devices or the datapath change. 6. Undo what was made, keep what was configured.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use datapath::handle::Datapath;
use ovsdb::Uuid;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::claim::{Pids, SocketFile, lock_database};
use crate::identity::Identity;
use crate::logging::Vlog;
use crate::rundir::{OVSDB_SERVER, RunDir, VSWITCHD};
use crate::shutdown::Shutdown;
use crate::unixctl::coverage::{self, Coverage};
use crate::unixctl::{commands, server};
use crate::{cli, privileges};

/// What the command line says.
#[derive(Debug)]
pub struct Config {
    /// Where sockets and pid files go.
    pub rundir: RunDir,
    /// The database.
    pub db: PathBuf,
    /// One more pid file.
    pub pidfile: Option<PathBuf>,
    /// Threads that forward.
    pub workers: usize,
}

/// What the parts of the daemon share. Everything here lives on one thread.
pub struct Daemon {
    /// Where it is.
    pub rundir: RunDir,
    /// The configuration.
    pub db: Rc<RefCell<ovsdb::Server>>,
    /// Told after each transaction that changed something.
    pub changed: Rc<Notify>,
    /// What forwards.
    pub datapath: Rc<Datapath>,
    /// The log.
    pub vlog: Arc<Vlog>,
    /// Asked when it is to end.
    pub shutdown: Shutdown,
    /// Rates of the drop counters.
    pub coverage: RefCell<Coverage>,
    /// When it began.
    pub started: Instant,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("rundir", &self.rundir).finish_non_exhaustive()
    }
}

/// What is done besides at two points of the way.
pub trait Stages {
    /// The database is loaded, nothing is applied yet.
    fn loaded(&mut self, daemon: &Daemon) -> anyhow::Result<()>;
    /// Tools can connect, and the configuration is in force.
    fn ready(&mut self, daemon: &Daemon) -> anyhow::Result<()>;
}

/// Runs until `shutdown` is asked for. An error means that it never became ready, and that nothing is left behind.
pub fn run(
    config: &Config,
    vlog: Arc<Vlog>,
    shutdown: Shutdown,
    stages: &mut dyn Stages,
) -> anyhow::Result<()> {
    privileges::check()?;
    raise_file_limit();
    let _pids = Pids::claim(&config.rundir, config.pidfile.as_deref())?;
    let _lock = lock_database(&config.db)?;
    let db = open_database(config)?;
    let datapath = Datapath::start(config.workers).context("cannot start the datapath")?;
    let daemon = Rc::new(Daemon {
        rundir: config.rundir.clone(),
        db: Rc::new(RefCell::new(db)),
        changed: Rc::default(),
        datapath: Rc::new(datapath),
        vlog,
        shutdown,
        coverage: RefCell::default(),
        started: Instant::now(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, daemon.serve(stages))
}

/// A port takes a few descriptors, a client one: let there be as many as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("cannot raise the limit of open files: {e}");
    }
}

fn open_database(config: &Config) -> anyhow::Result<ovsdb::Server> {
    let db = ovsdb::Database::new(ovsdb::open_vswitch::schema());
    let mut server = ovsdb::Server::new(db, Box::new(ovsdb::NoJournal));
    let identity = Identity::of_host(config.rundir.path(), &config.db);
    introduce(&mut server, &identity).context("cannot write this host's identity to the database")?;
    Ok(server)
}

fn introduce(server: &mut ovsdb::Server, identity: &Identity) -> anyhow::Result<()> {
    let (row, has_system_id) = {
        let row = server.db().rows("Open_vSwitch").next();
        let has = |row: &ovsdb::Row| row.map_get("external_ids", "system-id").is_some();
        (row.as_ref().map(|(uuid, _): &(Uuid, _)| *uuid), row.is_some_and(|(_, row)| has(row)))
    };
    let version = server.db().schema().version.clone();
    transact(server, &identity.transaction(row, has_system_id, &version))
}

/// Runs a transaction of our own; an error in any of its operations is one of the whole.
pub fn transact(server: &mut ovsdb::Server, ops: &Value) -> anyhow::Result<()> {
    match server.transact(ops, Instant::now()).iter().find(|reply| reply.get("error").is_some()) {
        None => Ok(()),
        Some(reply) => anyhow::bail!("{reply}"),
    }
}

impl Daemon {
    async fn serve(self: Rc<Self>, stages: &mut dyn Stages) -> anyhow::Result<()> {
        stages.loaded(&self)?;
        let pid = std::process::id();
        let (_db_listener, _db_file) = SocketFile::listen(self.rundir.db_sock())?;
        let (vswitchd, _vswitchd_file) = SocketFile::listen(self.rundir.ctl(VSWITCHD, pid))?;
        let (ovsdb_server, _ovsdb_file) = SocketFile::listen(self.rundir.ctl(OVSDB_SERVER, pid))?;

        let (stopped, on_stopped) = watch::channel(false);
        let tables = [(vswitchd, commands::vswitchd()), (ovsdb_server, commands::ovsdb_server())];
        for (listener, commands) in tables {
            let serving = server::serve(listener, Rc::new(commands), self.clone(), on_stopped.clone());
            tokio::task::spawn_local(serving);
        }
        tokio::task::spawn_local(self.clone().sample_coverage());

        stages.ready(&self)?;
        tracing::info!("ovs-vswitchd (Open vSwitch) {}, Underpass {}", cli::OVS_VERSION, cli::VERSION);
        self.shutdown.wait().await;
        tracing::info!("exiting");
        // Whoever asked for the end by a command hears of it now; a moment for the answer to leave.
        let _ = stopped.send(true);
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn sample_coverage(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(coverage::PERIOD);
        loop {
            ticks.tick().await;
            self.coverage.borrow_mut().sample(self.drops().map(|(_, n)| n));
        }
    }

    /// Names and values of the drop counters.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.datapath.drops().into_iter().map(|(why, n)| (why.name(), n))
    }
}
