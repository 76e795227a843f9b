//! What `ovs-appctl` speaks to: one socket a target, JSON-RPC requests by name with string arguments, text back.

pub mod commands;
pub mod coverage;
pub mod server;

use std::ops::RangeInclusive;

/// Text for stdout, or the text of a failure.
pub type Reply = Result<String, String>;
/// What a command does with its arguments.
pub type Run<C> = Box<dyn Fn(&C, &[String]) -> Reply>;

/// A command of one target; `C` is what it may look at.
pub struct Command<C> {
    /// As it is typed.
    pub name: &'static str,
    /// Its arguments, for `list-commands`.
    pub usage: &'static str,
    /// How many arguments it takes.
    pub args: RangeInclusive<usize>,
    /// What it does.
    pub run: Run<C>,
    /// Whether `list-commands` has it. Old names are answered only.
    pub listed: bool,
    /// Whether the answer waits until the process has cleaned up (`exit`).
    pub answered_at_exit: bool,
}

impl<C> Command<C> {
    /// A command that is answered at once.
    pub fn new(
        name: &'static str,
        usage: &'static str,
        args: RangeInclusive<usize>,
        run: impl Fn(&C, &[String]) -> Reply + 'static,
    ) -> Command<C> {
        Command { name, usage, args, run: Box::new(run), listed: true, answered_at_exit: false }
    }

    /// The same, for those who know of it.
    pub fn unlisted(mut self) -> Command<C> {
        self.listed = false;
        self
    }

    /// The same, answered last of all.
    pub fn at_exit(mut self) -> Command<C> {
        self.answered_at_exit = true;
        self
    }
}

impl<C> std::fmt::Debug for Command<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Command({})", self.name)
    }
}

/// The commands of a target.
#[derive(Debug)]
pub struct Commands<C>(Vec<Command<C>>);

impl<C> Commands<C> {
    /// With `list-commands`, which every target has.
    pub fn new(commands: impl IntoIterator<Item = Command<C>>) -> Commands<C> {
        let mut commands: Vec<_> = commands.into_iter().collect();
        commands.push(Command::new("list-commands", "", 0..=0, |_, _| Ok(String::new())));
        commands.sort_by_key(|c| c.name);
        Commands(commands)
    }

    /// Runs a command. The flag says that the answer has to wait for the end of the process.
    pub fn run(&self, context: &C, name: &str, args: &[String]) -> (Reply, bool) {
        let Some(command) = self.0.iter().find(|c| c.name == name) else {
            let unknown = format!(
                "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            );
            return (Err(unknown), false);
        };
        let (least, most) = (command.args.start(), command.args.end());
        if args.len() < *least {
            (Err(format!("\"{name}\" command requires at least {least} arguments")), false)
        } else if args.len() > *most {
            (Err(format!("\"{name}\" command takes at most {most} arguments")), false)
        } else if name == "list-commands" {
            (Ok(self.list()), false)
        } else {
            ((command.run)(context, args), command.answered_at_exit)
        }
    }

    /// What they are called, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|c| c.name).collect()
    }

    fn list(&self) -> String {
        let each = self.0.iter().filter(|c| c.listed).map(|c| format!("  {:<23} {}\n", c.name, c.usage));
        std::iter::once("The available commands are:\n".to_owned()).chain(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_and_arity() {
        let commands = Commands::new([
            Command::new("version", "", 0..=0, |_: &u8, _| Ok("1".into())),
            Command::new("fdb/show", "bridge", 1..=1, |_, args| Err(format!("no {}", args.join(",")))),
            Command::new("exit", "[--cleanup]", 0..=1, |_, _| Ok(String::new())).at_exit(),
        ]);
        let run = |name: &str, args: &[&str]| {
            commands.run(&0, name, &args.iter().map(|s| s.to_string()).collect::<Vec<_>>())
        };
        let fail = |s: &str| (Err(s.to_owned()), false);
        assert_eq!(run("version", &[]), (Ok("1".into()), false));
        assert_eq!(run("version", &["x"]), fail("\"version\" command takes at most 0 arguments"));
        assert_eq!(run("fdb/show", &[]), fail("\"fdb/show\" command requires at least 1 arguments"));
        assert_eq!(run("fdb/show", &["br0"]), fail("no br0"));
        assert_eq!(run("exit", &[]), (Ok(String::new()), true));
        assert_eq!(
            run("nosuch/cmd", &[]),
            fail(
                "\"nosuch/cmd\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            )
        );
        assert_eq!(
            run("list-commands", &[]).0.unwrap(),
            "The available commands are:\n  exit                    [--cleanup]\n  fdb/show                bridge\n  \
             list-commands           \n  version                 \n"
        );
    }
}
