//! The process around the engines: database, reconciler and datapath, wired together on one thread.
//!
//! 1. Claim the run directory and the database. 2. Start the datapath. 3. Listen. 4. Apply the configuration.
//! 5. Go on applying it whenever rows, devices or the datapath change. 6. Undo what was made, keep what was configured.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use datapath::handle::Datapath;
use ovsdb::Uuid;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::attach;
use crate::bfd::Sessions;
use crate::bond::Bonds;
use crate::cfm::Points;
use crate::claim::{self, Pids, SocketFile, patiently};
use crate::db_server::DbServer;
use crate::identity::Identity;
use crate::ipsec::Ipsec;
use crate::logging::Vlog;
use crate::reconcile::Reconciler;
use crate::rundir::{MONITOR_IPSEC, OVSDB_SERVER, RunDir, VSWITCHD};
use crate::shutdown::Shutdown;
use crate::snooping::Snooping;
use crate::spanning::Spanning;
use crate::unixctl::coverage::{self, Coverage};
use crate::unixctl::{Commands, commands, server};
use crate::{cli, privileges};

/// How long clients may take to read their last answers.
const FAREWELL: Duration = Duration::from_millis(500);

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
    /// The run directory and the database in it are for this run alone.
    pub temporary: bool,
    /// Internal ports stay on the host when this ends.
    pub keep_ports: bool,
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
    /// What protects tunnels.
    pub ipsec: Rc<Ipsec>,
    /// What keeps bridges free of loops.
    pub spanning: Rc<Spanning>,
    /// The log.
    pub vlog: Arc<Vlog>,
    /// Asked when it is to end.
    pub shutdown: Shutdown,
    /// Rates of the drop counters.
    pub coverage: RefCell<Coverage>,
    /// Internal ports stay on the host when it ends.
    keep_ports: bool,
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
    let pids = Pids::claim(&config.rundir, config.pidfile.as_deref())?;
    if !config.temporary {
        return run_claimed(config, vlog, shutdown, stages);
    }
    remove_if_there(&config.db)?; // of one that was killed
    let outcome = run_claimed(config, vlog, shutdown, stages);
    remove_if_there(&config.db)?;
    remove_if_there(&ovsdb::lock_path(&config.db))?;
    drop(pids);
    // Stays if somebody else has put something there.
    let _ = std::fs::remove_dir(config.rundir.path());
    outcome
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn run_claimed(
    config: &Config,
    vlog: Arc<Vlog>,
    shutdown: Shutdown,
    stages: &mut dyn Stages,
) -> anyhow::Result<()> {
    let db = open_database(config)?;
    let datapath = Rc::new(Datapath::start(config.workers).context("cannot start the datapath")?);
    let ipsec = Rc::new(Ipsec::new(datapath.clone()));
    let daemon = Rc::new(Daemon {
        rundir: config.rundir.clone(),
        db: Rc::new(RefCell::new(db)),
        changed: Rc::default(),
        spanning: Rc::new(Spanning::new(datapath.clone(), ipsec.state())),
        ipsec,
        datapath,
        vlog,
        shutdown,
        coverage: RefCell::default(),
        keep_ports: config.keep_ports,
        started: Instant::now(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let served = tasks.block_on(&runtime, daemon.clone().serve(stages));
    drop(tasks);
    // The workers end here, with the last that refers to them
    drop(daemon);
    served
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
    // /etc/openvswitch may not be there yet; a path that leads nowhere is a mistake.
    if let Some(dir) = config.db.parent()
        && !dir.exists()
    {
        std::fs::create_dir(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    let open = || ovsdb::open(&config.db, ovsdb::open_vswitch::schema());
    let (db, journal) = patiently(open, |e| matches!(e, ovsdb::OpenError::Locked { .. }))?;
    let mut server = ovsdb::Server::new(db, Box::new(journal));
    let identity = Identity::of_host(config.rundir.path(), &config.db);
    introduce(&mut server, &identity).context("cannot write this host's identity to the database")?;
    Ok(server)
}

/// `underpass detach` where no daemon runs, perhaps because it was killed. False: nothing was attached.
pub fn detach_offline(db: &Path, device: &str) -> anyhow::Result<bool> {
    if !db.exists() {
        return Ok(false);
    }
    let (database, journal) = ovsdb::open(db, ovsdb::open_vswitch::schema())?;
    let server = RefCell::new(ovsdb::Server::new(database, Box::new(journal)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let undone = runtime.block_on(attach::detach_without_daemon(&server, device));
    undone.with_context(|| format!("cannot give {device} back what it had"))
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
        let wrote = Rc::<Notify>::default();
        let owner = self.rundir.path().display().to_string();
        let identity = self.system_id();
        let (datapath, ipsec, spanning) = (self.datapath.clone(), self.ipsec.clone(), self.spanning.clone());
        let reconciler = Reconciler::new(datapath, ipsec, spanning, &owner, &identity, wrote.clone()).await;
        let mut reconciler = reconciler.context("cannot look after the host's network devices")?;
        if self.keep_ports {
            reconciler.keep_ports(self.shutdown.clone());
        }
        reconciler.serve_openflow(&self.rundir, &self.db);
        let _db_file = self.serve_database(wrote)?;
        let (stopped, on_stopped) = watch::channel(false);
        let _ctl_files = [
            self.serve_commands(VSWITCHD, commands::vswitchd(), on_stopped.clone())?,
            self.serve_commands(OVSDB_SERVER, commands::ovsdb_server(), on_stopped.clone())?,
            self.serve_commands(MONITOR_IPSEC, commands::monitor_ipsec(), on_stopped)?,
        ];
        tokio::task::spawn_local(self.clone().sample_coverage());

        reconciler.run_once(&self.db).await;
        tracing::info!("ovs-vswitchd (Open vSwitch) {}, Underpass {}", cli::OVS_VERSION, cli::VERSION);
        let ready = stages.ready(&self);
        if ready.is_err() {
            self.shutdown.ask();
        }
        reconciler.run(&self.db, &self.changed, self.shutdown.wait()).await;
        tracing::info!("exiting");
        // Whoever asked for the end by a command hears of it now.
        let _ = stopped.send(true);
        let _ = tokio::time::timeout(FAREWELL, stopped.closed()).await;
        ready
    }

    /// Lets clients in. `wrote` is told when rows were written on our own account.
    fn serve_database(&self, wrote: Rc<Notify>) -> Result<SocketFile, claim::Error> {
        let (listener, file) = SocketFile::listen(self.rundir.db_sock())?;
        let server = DbServer::new(self.db.clone(), self.changed.clone());
        let flushing = server.clone();
        tokio::task::spawn_local(async move {
            loop {
                wrote.notified().await;
                flushing.flush();
            }
        });
        tokio::task::spawn_local(server.serve(listener));
        Ok(file)
    }

    fn serve_commands(
        self: &Rc<Self>,
        target: &str,
        commands: Commands<Daemon>,
        stopped: watch::Receiver<bool>,
    ) -> Result<SocketFile, claim::Error> {
        let (listener, file) = SocketFile::listen(self.rundir.ctl(target, std::process::id()))?;
        tokio::task::spawn_local(server::serve(listener, Rc::new(commands), self.clone(), stopped));
        Ok(file)
    }

    async fn sample_coverage(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(coverage::PERIOD);
        loop {
            ticks.tick().await;
            self.coverage.borrow_mut().sample(self.drops().map(|(_, n)| n));
        }
    }

    /// What tells this host from others; [`introduce`] has seen to it.
    fn system_id(&self) -> String {
        let server = self.db.borrow();
        let id = server
            .db()
            .rows("Open_vSwitch")
            .find_map(|(_, row)| row.map_get("external_ids", "system-id").map(str::to_owned));
        id.unwrap_or_default()
    }

    /// The BFD sessions.
    pub fn bfd(&self) -> Rc<Sessions> {
        self.ipsec.state().borrow().bfd.clone()
    }

    /// The maintenance points of CFM.
    pub fn cfm(&self) -> Rc<Points> {
        self.ipsec.state().borrow().cfm.clone()
    }

    /// The tables of bridges with multicast snooping.
    pub fn snooping(&self) -> Rc<Snooping> {
        self.ipsec.state().borrow().snooping.clone()
    }

    /// The bonds.
    pub fn bonds(&self) -> Rc<Bonds> {
        self.ipsec.state().borrow().bonds.clone()
    }

    /// The interface that stands for the bond that `interface` is a member of, where addresses are concerned.
    pub fn bond_holder(&self, bridge: &str, interface: &str) -> Option<String> {
        let state = self.ipsec.state();
        let state = state.borrow();
        let bridge = state.bridges.get(bridge)?;
        let bond = bridge.ports.get(interface)?.bond.as_ref()?;
        bridge.holders.get(bond).cloned()
    }

    /// Names and values of the drop counters.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.datapath.drops().into_iter().map(|(why, n)| (why.name(), n))
    }
}
