//! `quiesce man` and `quiesce completions`: what installers need, once.

use std::fs;
use std::io::{self, Write as _};

use clap::CommandFactory as _;

use super::{Ending, note};
use crate::args::{Cli, CompletionsArgs, ManArgs, Program};
use crate::error::Error;
use crate::manual;

/// The completion script of a shell, for one of the programs.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Ending, Error> {
    let (mut command, name) = match args.program {
        Program::Quiesce => (Cli::command(), "quiesce"),
        Program::QuiesceAgent => (quiesce_agent::args::Program::command(), "quiesce-agent"),
    };
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().write_all(&script)?;
    Ok(Ending::Done)
}

/// Writes the manual pages, in place of those that are there.
pub(super) fn pages(args: &ManArgs) -> Result<Ending, Error> {
    let unwritten =
        |path: &std::path::Path, error: io::Error| Error::input(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(&args.directory).map_err(|error| unwritten(&args.directory, error))?;
    let pages = manual::pages();
    for page in &pages {
        let path = args.directory.join(&page.file);
        fs::write(&path, &page.text).map_err(|error| unwritten(&path, error))?;
    }
    note(format!("{} pages are in {dir}; look: man {dir}/quiesce.1", pages.len(), dir = args.directory.display()));
    Ok(Ending::Done)
}
