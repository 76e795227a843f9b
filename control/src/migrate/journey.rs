//! There and back again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ovsdb::{Database, Datum, RowUpdate, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::addresses::{self, Kept, Refused};
use super::programs::{self, OpenVswitch};
use super::record::{self, Record};
use super::report::{Host, Report};
use super::switch::{self, Promise, Switch};
use crate::cli::Migrate;
use crate::devices::netlink::{Link, Netlink};
use crate::reconcile::wanted::{Wanted, What};
use crate::rundir::{self, RunDir, VSWITCHD};
use crate::{attach, pidfile, privileges};

/// Exit status of a report by which not all will work.
const NOT_ALL_WORKS: u8 = 2;

/// `underpass migrate`.
pub fn run(options: &Migrate, rundir: RunDir) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let place = Place { rundir, runtime };
    if options.back {
        return place.back(options);
    }
    let find = || OpenVswitch::find(&place.rundir, options.db.as_deref());
    let mut ovs = find()?;
    if options.take_over && !ovs.units.is_empty() && programs::is_enabled(switch::UNIT) {
        // Then it has their names, and they are not to be found by them
        programs::systemctl("disable", &[switch::UNIT.to_owned()])?;
        ovs = find()?;
    }
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
        let flows = bridges.map(|bridge| {
            let flows = ovs.flows(&self.rundir, &bridge);
            (bridge, flows)
        });
        let flows: BTreeMap<String, Option<usize>> = flows.collect();
        let links = self.runtime.block_on(async { Netlink::open()?.links().await });
        let links = links.context("cannot list the host's network devices")?;
        let kept = self.keep(&db)?;
        let lacks = privileges::check().err().map(|why| why.to_string());
        let ike_port_taken = ovs.leaves_ike_port_taken();
        Ok(Report::new(&db, &Host { links, flows, kept, ike_port_taken, lacks }))
    }

    fn take_over(&self, ovs: OpenVswitch, report: &Report, options: &Migrate) -> anyhow::Result<ExitCode> {
        heed_no_signals()?;
        let kept = self.keep(&read(&ovs.db)?)?;
        let ours = Switch::new(&self.rundir, &ovs);
        let record = Record::write(ovs, kept)?;
        let refused_before = switch::ports(&self.rundir)?;
        let shall = |port: &str| {
            let worked = refused_before.get(port).is_some_and(|port| port.error.is_none());
            report.promises(port).filter(|_| worked)
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
                if !ours.is_by_systemd() {
                    see_to_boot(&record.ovs);
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(why) => {
                say(&format!("\nTaking over failed: {why:#}. Going back.\n"));
                let saved = Some(record.copy.as_path());
                at_boot(&record.ovs, &ours, false);
                let back =
                    self.end(&ours, &record).and_then(|()| self.restore_ovs(&record, &record.kept, saved));
                match back {
                    Ok(()) => bail!("Open vSwitch runs again, as before"),
                    Err(e) => bail!("going back failed, too: {e:#}. {}", record.rests()),
                }
            }
        }
    }

    /// Ends the one and starts the other. Gives how long there was none.
    fn replace_ovs(
        &self,
        record: &Record,
        ours: &Switch,
        shall: impl Fn(&str) -> Option<Promise>,
        options: &Migrate,
    ) -> anyhow::Result<Duration> {
        record.ovs.stop_server(&self.rundir)?;
        record.back_up()?;
        self.fix_addresses(&record.ovs.db, &record.kept)?;
        let since = record.ovs.stop_switch(&self.rundir, || at_boot(&record.ovs, ours, true))?;
        self.remove(addresses::is_tunnels_of_ovs)?;
        ours.start()?;
        let refused = self.put_back(&record.kept, &record.ovs.db)?;
        ensure!(refused.is_empty() || options.force, "{}", refused.join("; "));
        let away = match ours.wait(shall, options.patience()) {
            Err(why) if options.force => vec![format!("{why:#}")],
            outcome => outcome?,
        };
        if !away.is_empty() {
            say(&format!("\nWarning: not up yet: {}\n", away.join(", ")));
        }
        Ok(since.elapsed())
    }

    fn back(&self, options: &Migrate) -> anyhow::Result<ExitCode> {
        let db = options.db.clone().unwrap_or_else(rundir::default_db);
        // Beside the file that a symbolic link leads to
        let db = std::fs::canonicalize(&db).with_context(|| format!("cannot find {}", db.display()))?;
        let record = Record::newest(&db)?;
        let runs = pidfile::holder(&self.rundir.pidfile(VSWITCHD)).is_some();
        let is_ours = || OpenVswitch::find(&self.rundir, Some(&record.ovs.db)).is_err();
        ensure!(!runs || is_ours(), "Open vSwitch runs already in {}", self.rundir.path().display());
        heed_no_signals()?;
        let ours = Switch::new(&self.rundir, &record.ovs);
        // What was kept then is for those that we have not now, perhaps because we were killed
        let mut kept = self.keep(&read(&record.ovs.db)?)?;
        let missing = record.kept.iter().filter(|old| kept.iter().all(|new| new.name != old.name));
        let missing: Vec<Kept> = missing.cloned().collect();
        kept.extend(missing);
        let copy = record::back_up_ours(&record.ovs.db)?;
        // Enabled, ours has their names
        at_boot(&record.ovs, &ours, false);
        let since = Instant::now();
        let saved = options.saved.then_some(record.copy.as_path());
        let back = self.end(&ours, &record).and_then(|()| self.restore_ovs(&record, &kept, saved));
        match back {
            Ok(()) => {
                let away = since.elapsed().as_secs_f64();
                say(&format!("Open vSwitch runs again. Tunnels were down for {away:.2} s.\n"));
                say(&format!("conf.db as Underpass had it is {}.\n", copy.display()));
                Ok(ExitCode::SUCCESS)
            }
            Err(why) if runs => {
                say(&format!("Going back failed: {why:#}. Starting Underpass again.\n"));
                let again = record
                    .ovs
                    .stop(&self.rundir)
                    .and_then(|()| if options.saved { record.restore(&copy) } else { Ok(()) })
                    .inspect(|()| at_boot(&record.ovs, &ours, true))
                    .and_then(|()| ours.start())
                    .and_then(|()| self.put_back(&kept, &record.ovs.db));
                let refused = again.context("Underpass did not start either")?;
                warn(&refused);
                bail!("Underpass runs again, as before")
            }
            Err(why) => {
                at_boot(&record.ovs, &ours, true);
                Err(why)
            }
        }
    }

    /// Ends ours, and sees to it that its devices are gone.
    fn end(&self, ours: &Switch, record: &Record) -> anyhow::Result<()> {
        ours.stop()?;
        if pidfile::holder(&self.rundir.pidfile(VSWITCHD)).is_some() {
            return Ok(()); // Open vSwitch has not ended yet, and they are its own
        }
        let names = internal_ports(&read(&record.ovs.db)?);
        self.remove(|link| link.kind == "tun" && names.contains(&link.name))
    }

    fn remove(&self, which: impl Fn(&Link) -> bool) -> anyhow::Result<()> {
        let removed = self.runtime.block_on(async { addresses::remove(&Netlink::open()?, which).await });
        removed.context("cannot remove devices that are left")
    }

    /// Starts what of Open vSwitch does not run, with the configuration in `saved` or as it is now.
    fn restore_ovs(&self, record: &Record, kept: &[Kept], saved: Option<&Path>) -> anyhow::Result<()> {
        // Nothing was changed yet where its server runs still, or no copy was made
        if let Some(saved) = saved.filter(|saved| saved.exists())
            && record.ovs.has_left_the_database(&self.rundir)
            && let Err(why) = record.restore(saved)
        {
            // what is there can be read as well; without a switch there is no network to mend it by
            warn(&[format!("{why:#}; it goes on with what is there")]);
        }
        record.ovs.start(&self.rundir)?;
        warn(&self.put_back(kept, &record.ovs.db)?);
        Ok(())
    }

    /// What the internal ports of a configuration have.
    fn keep(&self, db: &Database) -> anyhow::Result<Vec<Kept>> {
        let names = internal_ports(db);
        let taken = attach::taken_addresses(db);
        let kept = self.runtime.block_on(async { addresses::keep(&Netlink::open()?, &names, &taken).await });
        kept.context("cannot read the addresses of the bridges")
    }

    /// Puts back what those internal ports had that a configuration has. What is refused and matters is returned in words; the
    /// rest is told.
    fn put_back(&self, kept: &[Kept], db: &Path) -> anyhow::Result<Vec<String>> {
        let names = internal_ports(&read(db)?);
        let kept: Vec<Kept> = kept.iter().filter(|kept| names.contains(&kept.name)).cloned().collect();
        let refused = self.runtime.block_on(async { addresses::put_back(&Netlink::open()?, &kept).await })?;
        let (grave, small): (Vec<Refused>, Vec<Refused>) = refused.into_iter().partition(|r| r.grave);
        let words = |refused: Vec<Refused>| refused.into_iter().map(|r| r.words).collect::<Vec<String>>();
        warn(&words(small));
        Ok(words(grave))
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

/// Who starts with the host from now on, and has the names of Open vSwitch's units. Neither may run under these: systemd would
/// take the state of the one for that of the other.
fn at_boot(ovs: &OpenVswitch, ours: &Switch, taken_over: bool) {
    if !ours.is_by_systemd() {
        return;
    }
    let (theirs, ours) = (&ovs.enabled, &[switch::UNIT.to_owned()]);
    let done = if taken_over {
        programs::systemctl("disable", theirs).and_then(|()| programs::systemctl("enable", ours))
    } else {
        programs::systemctl("disable", ours).and_then(|()| programs::systemctl("enable", theirs))
    };
    if let Err(e) = done {
        say(&format!("Warning: which of them starts with the host did not change: {e:#}\n"));
    }
}

/// Where nobody starts ours with the host.
fn see_to_boot(ovs: &OpenVswitch) {
    say("Nothing starts it with the host: see to that, or install underpass.service.\n");
    if !ovs.enabled.is_empty() {
        let units = ovs.enabled.join(" ");
        say(&format!("What starts with the host is Open vSwitch still: `systemctl disable {units}`.\n"));
    }
}

fn warn(words: &[String]) {
    words.iter().for_each(|words| say(&format!("Warning: {words}\n")));
}

/// Half-way is no place to end: neither Ctrl-C nor a terminal that goes away, perhaps with the network, ends anything.
fn heed_no_signals() -> io::Result<()> {
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&noted))?;
    }
    Ok(())
}

/// To a terminal that may be gone.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
