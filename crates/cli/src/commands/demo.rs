//! `quiesce demo`: the story is told by its own crate; this only says what it is told with.

use std::env;
use std::process::ExitCode;

use quiesce_demo::story::{Look, Options};

use super::{FAILED, Surroundings, note};
use crate::args::DemoArgs;

/// The hidden subcommand that makes this binary the application of the demonstration.
const LEDGER: &str = "demo-ledger";

pub(super) fn run(args: &DemoArgs, surroundings: &Surroundings) -> ExitCode {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            note(format!("error: cannot find this program to start it again: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    quiesce_demo::run(Options {
        program,
        ledger: vec![LEDGER.into()],
        keep: args.keep,
        look: Look { no_color: surroundings.no_color, dumb: surroundings.dumb },
    })
}
