//! There and back again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ovsdb::{Database, Datum, RowUpdate, Server};

use super::addresses::{self, Kept};
use super::programs::{self, OpenVswitch};
use super::record::{self, Record};
use super::report::{Host, Report};
use super::switch::{self, Switch};
use crate::cli::Migrate;
use crate::devices::netlink::Netlink;
use crate::reconcile::wanted::{Wanted, What};
use crate::rundir::{self, RunDir, VSWITCHD};
use crate::shutdown::Shutdown;
use crate::{attach, pidfile};

/// Exit status of a report by which not all will work.
const NOT_ALL_WORKS: u8 = 2;

/// `underpass migrate`.
pub fn run(options: &Migrate, rundir: RunDir) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let place = Place { rundir, runtime };
    if options.back {
        return place.back(options);
    }
    let ovs = OpenVswitch::find(&place.rundir, options.db.as_deref())?;
    let report = place.report(&ovs)?;
    say(&format!(
        "Open vSwitch in {}, {}, with {}:\n\n{report}",
        place.rundir.path().display(),
        ovs.run_by(),
        ovs.db.display()
    ));
    if options.take_over {
        ensure!(
            report.all_works() || options.force,
            "nothing was changed: with --force it takes over although not all will work"
        );
        return place.take_over(ovs, &report, options);
    }
    Ok(if report.all_works() { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL_WORKS) })
}

/// Where it happens.
struct Place {
    rundir: RunDir,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn report(&self, ovs: &OpenVswitch) -> anyhow::Result<Report> {
        let db = read(&ovs.db)?;
        let bridges = Wanted::from_database(&db).bridges.into_keys();
        let flows = bridges.filter_map(|bridge| {
            let flows = ovs.flows(&self.rundir, &bridge)?;
            Some((bridge, flows))
        });
        let flows: BTreeMap<String, usize> = flows.collect();
        let links = self.runtime.block_on(async { Netlink::open()?.links().await });
        let links = links.context("cannot list the host's network devices")?;
        Ok(Report::new(&db, &Host { links, flows, ike_port_taken: ovs.leaves_ike_port_taken() }))
    }

    fn take_over(&self, ovs: OpenVswitch, report: &Report, options: &Migrate) -> anyhow::Result<ExitCode> {
        // Half-way is no place to end; so a terminal that goes away, perhaps with the network, ends nothing
        let _signals = Shutdown::on_signals()?;
        let kept = self.keep(&read(&ovs.db)?)?;
        let ours = Switch::new(&self.rundir, &ovs);
        let record = Record::write(ovs, kept)?;
        let refused_before = switch::ports(&self.rundir)?;
        let shall = |port: &str| {
            let worked = refused_before.get(port).is_some_and(|port| port.error.is_none());
            worked && report.promises(port)
        };
        match self.replace_ovs(&record, &ours, shall, options) {
            Ok(away) => {
                say(&format!(
                    "\nUnderpass has taken over. Tunnels were down for {:.2} s.\n",
                    away.as_secs_f64()
                ));
                say(&format!(
                    "`underpass migrate --back` goes back; conf.db as it was is {}.\n",
                    record.copy.display()
                ));
                at_boot(&record.ovs, &ours, true);
                Ok(ExitCode::SUCCESS)
            }
            Err(why) => {
                say(&format!("\nTaking over failed: {why:#}. Going back.\n"));
                let back = ours.stop().and_then(|()| self.restore_ovs(&record, &record.kept, true));
                match back {
                    Ok(_) => bail!("Open vSwitch runs again, as before"),
                    Err(e) => bail!(
                        "going back failed, too: {e:#}. Nothing is lost: the configuration is in {}, and the addresses \
                         of its ports are in the file of that name with .json; start Open vSwitch and put them back",
                        record.copy.display()
                    ),
                }
            }
        }
    }

    /// Ends the one and starts the other. Gives how long there was none.
    fn replace_ovs(
        &self,
        record: &Record,
        ours: &Switch,
        shall: impl Fn(&str) -> bool,
        options: &Migrate,
    ) -> anyhow::Result<Duration> {
        record.ovs.stop_server(&self.rundir)?;
        record.back_up()?;
        self.fix_addresses(&record.ovs.db, &record.kept)?;
        let since = Instant::now();
        record.ovs.stop_switch(&self.rundir)?;
        ours.start()?;
        self.put_back(&record.kept)?;
        match ours.wait(shall, options.patience()) {
            Err(why) if options.force => say(&format!("\nWarning: {why:#}\n")),
            outcome => outcome?,
        }
        Ok(since.elapsed())
    }

    fn back(&self, options: &Migrate) -> anyhow::Result<ExitCode> {
        let db = options.db.clone().unwrap_or_else(rundir::default_db);
        let record = Record::newest(&std::path::absolute(db)?)?;
        let runs = pidfile::holder(&self.rundir.pidfile(VSWITCHD)).is_some();
        let is_ours = || OpenVswitch::find(&self.rundir, Some(&record.ovs.db)).is_err();
        ensure!(!runs || is_ours(), "Open vSwitch runs already in {}", self.rundir.path().display());
        let _signals = Shutdown::on_signals()?;
        let ours = Switch::new(&self.rundir, &record.ovs);
        // What was kept then is for those that we have not now, perhaps because we were killed
        let mut kept = self.keep(&read(&record.ovs.db)?)?;
        let missing = record.kept.iter().filter(|old| kept.iter().all(|new| new.name != old.name));
        let missing: Vec<Kept> = missing.cloned().collect();
        kept.extend(missing);
        let copy = record::back_up_ours(&record.ovs.db)?;
        // Enabled, ours has their name
        at_boot(&record.ovs, &ours, false);
        let since = Instant::now();
        let back = ours.stop().and_then(|()| self.restore_ovs(&record, &kept, options.saved));
        match back {
            Ok(()) => {
                let away = since.elapsed().as_secs_f64();
                say(&format!("Open vSwitch runs again. Tunnels were down for {away:.2} s.\n"));
                say(&format!("conf.db as Underpass had it is {}.\n", copy.display()));
                Ok(ExitCode::SUCCESS)
            }
            Err(why) if runs => {
                say(&format!("Going back failed: {why:#}. Starting Underpass again.\n"));
                let again = self
                    .stop_all(&record.ovs)
                    .and_then(|()| ours.start())
                    .and_then(|()| self.put_back(&kept));
                again.context("Underpass did not start either")?;
                at_boot(&record.ovs, &ours, true);
                bail!("Underpass runs again, as before")
            }
            Err(why) => Err(why),
        }
    }

    /// What of Open vSwitch has started by now.
    fn stop_all(&self, ovs: &OpenVswitch) -> anyhow::Result<()> {
        match OpenVswitch::find(&self.rundir, Some(&ovs.db)) {
            Ok(running) => running.stop_server(&self.rundir).and_then(|()| running.stop_switch(&self.rundir)),
            Err(_) => Ok(()),
        }
    }

    /// Starts Open vSwitch, if it does not run still, with the configuration of before or the one of now.
    fn restore_ovs(&self, record: &Record, kept: &[Kept], saved: bool) -> anyhow::Result<()> {
        self.stop_all(&record.ovs)?;
        if saved && record.copy.exists() {
            record.restore()?;
        }
        record.ovs.start()?;
        self.put_back(kept)
    }

    /// What the internal ports of a configuration have.
    fn keep(&self, db: &Database) -> anyhow::Result<Vec<Kept>> {
        let names = internal_ports(db);
        let taken = attach::taken_addresses(db);
        let kept = self.runtime.block_on(async { addresses::keep(&Netlink::open()?, &names, &taken).await });
        kept.context("cannot read the addresses of the bridges")
    }

    fn put_back(&self, kept: &[Kept]) -> anyhow::Result<()> {
        let refused = self.runtime.block_on(async { addresses::put_back(&Netlink::open()?, kept).await })?;
        refused.iter().for_each(|words| say(&format!("Warning: {words}\n")));
        Ok(())
    }

    /// Has bridges and ports keep the Ethernet addresses that the other switch gave them: neighbours know them by these.
    fn fix_addresses(&self, path: &Path, kept: &[Kept]) -> anyhow::Result<()> {
        let (db, journal) = ovsdb::open(path, ovsdb::open_vswitch::schema())?;
        let server = RefCell::new(Server::new(db, Box::new(journal)));
        let updates: Vec<RowUpdate> =
            kept.iter().filter_map(|kept| with_mac(server.borrow().db(), kept)).collect();
        let written = server.borrow_mut().update_rows(&updates, Instant::now());
        written.map(drop).map_err(|e| anyhow::anyhow!("cannot write {}: {}", path.display(), e.to_json()))
    }
}

/// The row that makes the address of a device last, if it does not say one.
fn with_mac(db: &Database, kept: &Kept) -> Option<RowUpdate> {
    if let Some((row, bridge)) = db.rows("Bridge").find(|(_, row)| row.str("name") == kept.name) {
        let mut config: BTreeMap<&str, &str> = bridge.map("other_config").collect();
        if config.insert("hwaddr", &kept.mac).is_some() {
            return None;
        }
        return Some(RowUpdate { table: "Bridge", row, columns: vec![("other_config", Datum::map(config))] });
    }
    let (row, interface) = db.rows("Interface").find(|(_, row)| row.str("name") == kept.name)?;
    let says_none = interface.opt_str("mac").is_none();
    let columns = vec![("mac", Datum::optional(Some(kept.mac.as_str())))];
    says_none.then_some(RowUpdate { table: "Interface", row, columns })
}

fn internal_ports(db: &Database) -> BTreeSet<String> {
    let wanted = Wanted::from_database(db);
    let ports = wanted.bridges.values().flat_map(|bridge| &bridge.ports);
    ports
        .filter(|(_, port)| matches!(port.what, Ok(What::Internal { .. })))
        .map(|(name, _)| name.clone())
        .collect()
}

fn read(path: &Path) -> anyhow::Result<Database> {
    Ok(ovsdb::read(path, ovsdb::open_vswitch::schema())?.0)
}

/// Who starts with the host from now on.
fn at_boot(ovs: &OpenVswitch, ours: &Switch, taken_over: bool) {
    if !ours.is_by_systemd() {
        if taken_over {
            say("Nothing starts it with the host: see to that, or install underpass.service.\n");
        }
        return;
    }
    let theirs: Vec<String> =
        ovs.units.iter().filter(|unit| unit.starts_with("openvswitch")).cloned().collect();
    let ours = vec![switch::UNIT.to_owned()];
    // Ours has their name as an alias, so theirs must be gone first
    let (ending, beginning) = if taken_over { (theirs, ours) } else { (ours, theirs) };
    let done =
        programs::systemctl("disable", &ending).and_then(|()| programs::systemctl("enable", &beginning));
    if let Err(e) = done {
        say(&format!("Warning: which of them starts with the host did not change: {e:#}\n"));
    }
}

/// To a terminal that may be gone.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
