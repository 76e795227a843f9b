//! `ovs-vsctl` for hosts that do not have it: the same grammar, output and exit codes.
//!
//! Read in this order: `options` → `commands` (what is asked for) → `connection`, `view` (what is there) → `transaction`
//! (what is to change) → `wait` (until the switch has done it). Commands run against the view alone; if the database
//! has changed by the time of the commit, the server says so and everything runs again.
//!
//! Known differences from the stock tool: commands for Auto Attach and for conntrack zones are missing; remotes are
//! `unix:` and `tcp:`; nothing below a warning is logged; `--dry-run` ends instead of hanging, and so does a run whose
//! server goes away; rows are listed in order of their UUIDs.

pub(crate) mod alarm;
mod column;
mod commands;
mod condition;
pub(crate) mod connection;
mod error;
pub(crate) mod getopt;
pub(crate) mod log;
pub(crate) mod options;
mod output;
mod record;
mod symbols;
mod text;
mod transaction;
mod view;
mod wait;

use commands::{Context, Invocation, Plan};
use connection::Connection;
use error::{Error, Result, fatal};
use options::{Options, Request};
use output::Output;
use ovsdb::{Schema, Uuid};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use transaction::{Transaction, by_name, by_uuid};
pub use wait::error_of;

/// What messages begin with, whatever name we were called by.
const NAME: &str = "ovs-vsctl";

/// Runs `ovs-vsctl` with these arguments (without the program's name). `rundir` is where the database's socket is
/// looked for, unless `--db` says otherwise.
pub fn main(args: Vec<OsString>, rundir: &Path) -> ExitCode {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match run(&args, rundir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Exit(status)) => ExitCode::from(status),
        Err(Error::Fatal(message)) => {
            log::complain(NAME, &message);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String], rundir: &Path) -> Result<()> {
    let mut options = match options::parse(args, rundir)? {
        Request::Run(options) => options,
        Request::Help => return print(HELP),
        Request::Version => return print(&version()),
        Request::ListCommands => return print(&commands::listing()),
        Request::ListOptions => return print(&options::listing()),
    };
    let local = std::mem::take(&mut options.local);
    let calls = commands::parse(args.get(options.commands_at..).unwrap_or_default(), local)?;
    if let Some(timeout) = options.timeout {
        alarm::die_after(timeout);
    }
    if calls.iter().any(|call| call.command.writes) {
        log::count();
    }
    let schema = ovsdb::open_vswitch::schema();
    let mut plan = Plan { schema: &schema, needs: view::Needs::new() };
    record::need(&mut plan.needs, "Open_vSwitch", "cur_cfg");
    for call in &calls {
        call.prepare(&mut plan)?;
    }
    let session = Session { options: &options, calls: &calls, schema: &schema, comment: comment(args) };
    session.run(&plan.needs, rundir)
}

/// One run of commands that are known to be well-formed.
struct Session<'a> {
    options: &'a Options,
    calls: &'a [Invocation],
    schema: &'a Schema,
    /// For the database's log.
    comment: String,
}

/// What the server made of a transaction.
struct Committed {
    /// The UUIDs that inserted rows got, by the names that they had.
    uuids: BTreeMap<Uuid, Uuid>,
    /// The configuration that the switch has to reach; None if there is nothing to wait for.
    next_cfg: Option<i64>,
}

impl Session<'_> {
    fn run(&self, needs: &view::Needs, rundir: &Path) -> Result<()> {
        let lost = |error: connection::Error| {
            Error::Fatal(format!("{}: database connection failed ({error})", self.options.db))
        };
        let mut connection = self.connect(rundir).map_err(lost)?;
        let mut view = connection.subscribe(needs).map_err(lost)?;
        loop {
            let mut context = Context::new(self.schema, &view);
            let mut outputs = Vec::new();
            for call in self.calls {
                outputs.push(call.run(&mut context)?);
                if context.try_again {
                    break;
                }
            }
            if context.try_again {
                connection.wait_for_update(&mut view).map_err(lost)?;
                continue;
            }
            context.symbols.check()?;
            let Some(committed) = self.commit(&mut connection, &context)? else {
                // Whatever was in the way is on its way to us.
                drop(context);
                connection.wait_for_update(&mut view).map_err(lost)?;
                continue;
            };
            let new = context.new_interfaces.iter().map(|row| committed.uuids.get(row).unwrap_or(row));
            let new: Vec<Uuid> = new.copied().collect();
            drop(context);
            self.print(outputs, &committed.uuids)?;
            if let Some(next_cfg) = committed.next_cfg {
                wait::wait_for_switch(&mut connection, &mut view, next_cfg).map_err(lost)?;
                wait::check_interfaces(&view, &new);
            }
            return Ok(());
        }
    }

    fn connect(&self, rundir: &Path) -> std::result::Result<Connection, connection::Error> {
        loop {
            match Connection::open(&self.options.db, rundir) {
                Err(_) if self.options.retry => std::thread::sleep(Duration::from_secs(1)),
                outcome => return outcome,
            }
        }
    }

    /// Commits what the commands want changed. None: the database has changed meanwhile, and they must run again.
    fn commit(&self, connection: &mut Connection, context: &Context<'_>) -> Result<Option<Committed>> {
        let mut operations = context.txn.operations();
        let unchanged = operations.is_empty();
        if unchanged || self.options.dry_run {
            return Ok(Some(Committed { uuids: BTreeMap::new(), next_cfg: None }));
        }
        let select_at = self.options.wait.then(|| {
            operations.extend(bump_next_cfg(&context.txn, context.root));
            operations.len() - 1
        });
        operations.push(json!({ "op": "comment", "comment": self.comment }));
        let names: Vec<Option<Uuid>> = operations.iter().map(inserted_as).collect();
        let results = match connection.transact(operations) {
            Ok(results) => results,
            Err(error) => return fatal(format!("transaction error: {error}")),
        };
        if let Some(error) = results.iter().find(|result| result.get("error").is_some()) {
            if error["error"] == "timed out" {
                return Ok(None);
            }
            log::warn("ovsdb_idl", &format!("transaction error: {error}"));
            return fatal(format!("transaction error: {error}"));
        }
        let uuid_of = |result: &Value| result["uuid"][1].as_str().and_then(ovsdb::parse_uuid_text);
        let pairs = names.into_iter().zip(&results);
        let uuids = pairs.filter_map(|(name, result)| Some((name?, uuid_of(result)?))).collect();
        let next_cfg = select_at.and_then(|at| results.get(at)?["rows"][0]["next_cfg"].as_i64());
        Ok(Some(Committed { uuids, next_cfg }))
    }

    fn print(&self, outputs: Vec<Output>, uuids: &BTreeMap<Uuid, Uuid>) -> Result<()> {
        let mut tables = 0;
        let mut text = String::new();
        for output in outputs {
            let printed = match output {
                Output::Table(table) => {
                    tables += 1;
                    text += &table.render(&self.options.style, tables == 1);
                    continue;
                }
                Output::Text(text) => text,
                Output::Created(row) => format!("{}\n", uuids.get(&row).unwrap_or(&row)),
            };
            text += &if self.options.oneline { output::one_line(&printed) } else { printed };
        }
        print(&text)
    }
}

/// The switch works towards `next_cfg` and says in `cur_cfg` how far it has come. The last operation tells the number.
fn bump_next_cfg(txn: &Transaction<'_>, root: Uuid) -> [Value; 2] {
    let target = match txn.view.row("Open_vSwitch", root) {
        Some(_) => by_uuid(root),
        None => by_name(root),
    };
    [
        json!({ "op": "mutate", "table": "Open_vSwitch", "where": target, "mutations": [["next_cfg", "+=", 1]] }),
        json!({ "op": "select", "table": "Open_vSwitch", "where": target, "columns": ["next_cfg"] }),
    ]
}

/// The row that an insert makes, as it is called in this run.
fn inserted_as(operation: &Value) -> Option<Uuid> {
    let name = operation.get("uuid-name")?.as_str()?.strip_prefix("row")?;
    ovsdb::parse_uuid_text(&name.replace('_', "-"))
}

/// What the database's log will say of this run: the command line and who called it.
fn comment(args: &[String]) -> String {
    let parent = std::os::unix::process::parent_id();
    let command = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
    let command = command.split(|byte| *byte == 0).next().unwrap_or_default();
    let caller = match command {
        [] => format!("pid {parent}"),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    let quoted =
        args.iter().map(|arg| match arg.contains([' ', '\t', '\n', '\\', '\'', '"']) || arg.is_empty() {
            true => Value::from(arg.as_str()).to_string(),
            false => arg.clone(),
        });
    let words = std::iter::once("ovs-vsctl".to_owned()).chain(quoted);
    format!("ovs-vsctl (invoked by {caller}): {}", words.collect::<Vec<_>>().join(" "))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fatal(format!("write to stdout failed ({error})"))
        }
        _ => Ok(()),
    }
}

fn version() -> String {
    let schema = ovsdb::open_vswitch::schema();
    format!("{NAME} (Open vSwitch) {}\nDB Schema {}\n", crate::cli::OVS_VERSION, schema.version)
}

const HELP: &str = include_str!("help.txt");
