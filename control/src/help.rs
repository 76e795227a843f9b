//! What helps people type: completions for shells and a manual page for each command, made of the same description as the
//! parser.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// bash's knows more than a parser does: devices of this host, and the commands of a running switch.
const BASH: &str = include_str!("../../dist/completions/underpass");
/// The page of the program as a whole.
const OVERVIEW: &str = "underpass.8";

/// Completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    if shell == Shell::Bash {
        return BASH.into();
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "underpass", &mut script);
    script
}

/// The manual page of each command, by file name: `underpass-pki.8`, `underpass-pki-init.8`.
pub fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = Cli::command();
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, "underpass", &mut pages)?;
    Ok(pages)
}

fn add_pages(of: &clap::Command, prefix: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for command in of.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let name = format!("{prefix}-{}", command.get_name());
        let mut page = Vec::new();
        let titled = command.clone().display_name(name.clone());
        Man::new(titled)
            .section("8")
            .source("Underpass")
            .manual("System Manager's Manual")
            .render(&mut page)?;
        page.extend(b".SH SEE ALSO\n.BR underpass (8)\n");
        pages.push((format!("{name}.8"), page));
        add_pages(command, &name, pages)?;
    }
    Ok(())
}

/// Writes them to a directory, beside [`OVERVIEW`].
pub fn write_pages(directory: &Path) -> io::Result<()> {
    pages()?.into_iter().try_for_each(|(name, page)| std::fs::write(directory.join(name), page))?;
    std::fs::write(directory.join(OVERVIEW), include_str!("../../dist/man/underpass.8"))
}
