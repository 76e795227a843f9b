//! The commands: their grammar, and the table of all of them.

mod bridge;
mod controller;
mod database;
mod overview;
mod port;
mod topology;

use super::error::{Result, fatal};
use super::log;
use super::output::Output;
use super::symbols::Symbols;
use super::transaction::Transaction;
use super::view::{Needs, View};
use ovsdb::{Schema, Uuid};
use std::collections::BTreeMap;
use topology::Topology;

/// One command as the table lists it.
#[derive(Debug)]
pub struct Command {
    pub name: &'static str,
    /// Fewest and most arguments.
    min: usize,
    max: usize,
    /// The arguments for shell completion: `!` required, `?` optional, `*` any number, `+` at least one.
    usage: &'static str,
    /// An option that ends in `=` takes an argument.
    options: &'static [&'static str],
    prepare: fn(&Invocation, &mut Plan<'_>) -> Result<()>,
    run: fn(&Invocation, &mut Context<'_>) -> Result<Output>,
    /// Whether it may change the database.
    pub writes: bool,
}

const MANY: usize = usize::MAX;

fn all() -> impl Iterator<Item = &'static Command> {
    [overview::COMMANDS, bridge::COMMANDS, port::COMMANDS, controller::COMMANDS, database::COMMANDS]
        .into_iter()
        .flatten()
}

/// The options of all commands, without dashes, and whether each takes an argument.
pub fn local_options() -> Vec<(&'static str, bool)> {
    let spelled = all().flat_map(|command| command.options);
    let mut options: Vec<_> = spelled
        .map(|option| {
            let name = option.trim_start_matches('-');
            (name.trim_end_matches('='), name.ends_with('='))
        })
        .collect();
    options.sort_unstable();
    options.dedup();
    options
}

/// `--commands`: one line each of options, name and arguments.
pub fn listing() -> String {
    let mut lines: Vec<String> = all()
        .map(|command| {
            let options: String = command.options.iter().map(|option| format!("[{option}] ")).collect();
            format!("{options},{},{}\n", command.name, command.usage)
        })
        .collect();
    lines.sort();
    lines.concat()
}

/// A command with its options and arguments, as typed.
#[derive(Debug)]
pub struct Invocation {
    pub command: &'static Command,
    options: BTreeMap<String, Option<String>>,
    args: Vec<String>,
}

impl Invocation {
    pub fn prepare(&self, plan: &mut Plan<'_>) -> Result<()> {
        (self.command.prepare)(self, plan)
    }

    pub fn run(&self, context: &mut Context<'_>) -> Result<Output> {
        (self.command.run)(self, context)
    }

    /// The argument at this position; empty if there is none.
    fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    fn args_from(&self, at: usize) -> &[String] {
        self.args.get(at..).unwrap_or_default()
    }

    fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    fn option(&self, option: &str) -> Option<&str> {
        self.options.get(option)?.as_deref()
    }

    /// The command as typed, for messages.
    fn typed(&self) -> String {
        let option = |(name, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        };
        let words = self.options.iter().map(option).chain([self.command.name.to_owned()]);
        words.chain(self.args.iter().cloned()).collect::<Vec<_>>().join(" ")
    }
}

/// Splits the command line at each `--`. The first command also has the options that stood before it.
pub fn parse(args: &[String], local: Vec<(String, Option<String>)>) -> Result<Vec<Invocation>> {
    let mut local = Some(local);
    let mut invocations = Vec::new();
    for words in args.split(|arg| arg == "--").filter(|words| !words.is_empty()) {
        invocations.push(parse_one(words, local.take().unwrap_or_default())?);
    }
    match invocations.is_empty() {
        true => fatal("missing command name (use --help for help)"),
        false => Ok(invocations),
    }
}

fn parse_one(words: &[String], local: Vec<(String, Option<String>)>) -> Result<Invocation> {
    let mut options: BTreeMap<String, Option<String>> = local.into_iter().collect();
    let mut words = words.iter();
    let name = loop {
        let Some(word) = words.next() else { return fatal("missing command name (use --help for help)") };
        if !word.starts_with('-') {
            break word;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if options.insert(name.to_owned(), value).is_some() {
            return fatal(format!("'{name}' option specified multiple times"));
        }
    };
    let Some(command) = all().find(|command| command.name == name) else {
        return fatal(format!("unknown command '{name}'; use --help for help"));
    };
    for (option, value) in &options {
        check_option(command, option, value.is_some())?;
    }
    let args: Vec<String> = words.cloned().collect();
    if args.len() < command.min {
        return fatal(format!("'{name}' command requires at least {} arguments", command.min));
    }
    if args.len() > command.max {
        let hint = match args.iter().any(|arg| arg.starts_with('-')) {
            true => " (note that options must precede command names and follow a \"--\" argument)",
            false => "",
        };
        return fatal(format!("'{name}' command takes at most {} arguments{hint}", command.max));
    }
    Ok(Invocation { command, options, args })
}

fn check_option(command: &Command, option: &str, has_value: bool) -> Result<()> {
    let name = command.name;
    let takes_value = |known: &&&str| known.trim_end_matches('=') == option;
    match command.options.iter().find(takes_value).map(|known| known.ends_with('=')) {
        None => fatal(format!("'{name}' command has no '{option}' option")),
        Some(true) if !has_value => {
            fatal(format!("missing argument to '{option}' option on '{name}' command"))
        }
        Some(false) if has_value => {
            fatal(format!("'{option}' option on '{name}' does not accept an argument"))
        }
        Some(_) => Ok(()),
    }
}

/// What is gathered before the database is asked: which columns the commands will look at.
#[derive(Debug)]
pub struct Plan<'s> {
    pub schema: &'s Schema,
    pub needs: Needs,
}

impl<'s> Plan<'s> {
    fn need(&mut self, table: &str, columns: &[&str]) {
        let known = self.needs.entry(table.to_owned()).or_default();
        known.extend(columns.iter().map(|column| (*column).to_owned()));
    }

    fn warn(&self, message: &str) {
        log::warn("db_ctl_base", message);
    }
}

/// What commands work on while they run.
#[derive(Debug)]
pub struct Context<'v> {
    pub txn: Transaction<'v>,
    pub symbols: Symbols,
    /// The row of table Open_vSwitch.
    pub root: Uuid,
    /// Interfaces whose fate the user wants to hear of.
    pub new_interfaces: Vec<Uuid>,
    /// A condition is not met yet: run everything again when the database has changed.
    pub try_again: bool,
    topology: Option<Topology>,
}

impl<'v> Context<'v> {
    /// Starts a run. An empty database gets its root row first.
    pub fn new(schema: &'v Schema, view: &'v View) -> Context<'v> {
        let mut txn = Transaction::new(schema, view);
        let root = match view.rows("Open_vSwitch").next() {
            Some((uuid, _)) => uuid,
            None => {
                let uuid = Uuid::new_v4();
                txn.rely_on_empty("Open_vSwitch");
                txn.insert("Open_vSwitch", uuid, false);
                uuid
            }
        };
        let (symbols, new_interfaces) = (Symbols::default(), Vec::new());
        Context { txn, symbols, root, new_interfaces, try_again: false, topology: None }
    }

    /// Which bridges, ports and interfaces there are; everything that this rests on must still hold at the commit.
    fn topology(&mut self) -> Result<&mut Topology> {
        let topology = match self.topology.take() {
            Some(topology) => topology,
            None => Topology::read(&mut self.txn, self.root)?,
        };
        Ok(self.topology.insert(topology))
    }

    /// A column was changed behind the topology's back.
    fn changed(&mut self, table: &str, column: &str) {
        if topology::rests_on(table, column) {
            self.forget_topology();
        }
    }

    /// Rows were changed behind the topology's back.
    fn forget_topology(&mut self) {
        self.topology = None;
    }
}
