//! What each command does, and how it ends.
//!
//! Owns exit codes and the surroundings a command runs in. One module per command or group of like commands.

mod apply;
#[cfg(feature = "demo")]
mod demo;
mod describe;
mod doctor;
mod forget;
mod get;
mod man;
mod operation;
mod pki;
mod policy;
mod progress;
mod readmit;
mod request;
mod store;
mod tell;
mod token;
mod top;
mod watch;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use quiesce_runtime::secret_file;
use quiesce_runtime::telemetry::chain;

use crate::args::{Cli, ClientCommand, Command, Common, DEFAULT_SCHEDULER, Format};
use crate::client::{Bearer, Client, Target};
use crate::error::Error;
use crate::output::json::{self, Document};
use crate::output::text::Line;
use crate::terminal;

/// What the environment says.
pub(crate) struct Surroundings {
    /// QUIESCE_SCHEDULER.
    pub(crate) scheduler: Option<String>,
    /// QUIESCE_TOKEN_FILE.
    pub(crate) token_file: Option<PathBuf>,
    /// QUIESCE_TOKEN.
    pub(crate) token: Option<String>,
    /// QUIESCE_CA, QUIESCE_CERT, QUIESCE_KEY.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// NO_COLOR: colours are not welcome.
    pub(crate) no_color: bool,
    /// TERM=dumb: the terminal understands no escape sequences at all.
    pub(crate) dumb: bool,
}

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As asked.
    Done,
    /// Something was looked at and has to be mended.
    Problems,
    /// The operation ended another way: DEGRADED, ROLLED_BACK, CANCELLED, ABANDONED.
    AnotherWay,
    /// The operation goes on, the command does not.
    WaitedTooLong,
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Problems => FAILED,
            Self::AnotherWay => 3,
            Self::WaitedTooLong => 4,
        }
    }
}

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code for wrong usage, as clap has it.
const USAGE: u8 = 2;

/// Runs the command to its exit code.
pub(crate) fn run(cli: Cli, surroundings: Surroundings) -> ExitCode {
    let Cli { common, command } = cli;
    match command {
        Command::Client(command) => ended(block_on(client(command, common, surroundings))),
        Command::Pki(args) => ended(pki::run(args.command, common, &surroundings)),
        Command::Store(args) => ended(store::run(args.command, common, &surroundings)),
        Command::Scheduler(args) => serve("scheduler", &common, || quiesce_scheduler::args::run(*args)),
        Command::Agent(args) => serve("agent", &common, || quiesce_agent::run(*args)),
        #[cfg(feature = "demo")]
        Command::Demo(args) => serve("demo", &common, || demo::run(&args, &surroundings)),
        #[cfg(feature = "demo")]
        Command::DemoLedger => quiesce_demo::ledger::program(),
        Command::Completions(args) => ended(man::completions(&args)),
        Command::Man(args) => ended(man::pages(&args)),
    }
}

/// Starts a program that has flags, logging and a runtime of its own.
fn serve(name: &str, common: &Common, run: impl FnOnce() -> ExitCode) -> ExitCode {
    match common.first_set() {
        Some(flag) => {
            note(format!("error: {flag} before `{name}` has no effect; see quiesce {name} --help"));
            ExitCode::from(USAGE)
        }
        None => run(),
    }
}

fn block_on(command: impl Future<Output = Result<Ending, Error>>) -> Result<Ending, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

fn ended(result: Result<Ending, Error>) -> ExitCode {
    match result {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(error) => {
            if !error.is_broken_pipe() {
                error.lines().iter().for_each(note);
            }
            ExitCode::from(FAILED)
        }
    }
}

async fn client(command: ClientCommand, outer: Common, surroundings: Surroundings) -> Result<Ending, Error> {
    use ClientCommand::{
        Apply, Cancel, Confirm, Delete, Describe, Doctor, Extend, Forget, Get, Migrate, Readmit, Retry, Token, Top,
        Watch,
    };
    let session = |common: &Common| Session::new(common.clone().over(outer.clone()), &surroundings);
    match command {
        Apply(args) => apply::run(&session(&args.common), args).await,
        Get(args) => get::run(&session(&args.common), args).await,
        Describe(args) => describe::run(&session(&args.common), args).await,
        Migrate(args) => Box::pin(request::migrate(&session(&args.common), args)).await,
        Delete(args) => Box::pin(request::delete(&session(&args.common), args)).await,
        Watch(args) => watch::run(&session(&args.common), args).await,
        Top(args) => Box::pin(top::run(&session(&args.common), args)).await,
        Doctor(args) => Box::pin(doctor::run(&session(&args.common), args)).await,
        Cancel(args) => operation::cancel(&session(&args.common), args).await,
        Retry(args) => operation::retry(&session(&args.common), args).await,
        Confirm(args) => operation::confirm(&session(&args.common), args).await,
        Extend(args) => operation::extend(&session(&args.common), args).await,
        Forget(args) => forget::run(&session(&args.common), args).await,
        Token(args) => token::run(&session, args).await,
        Readmit(args) => readmit::run(&session(&args.common), args).await,
    }
}

/// Where a command talks to and how it prints.
#[derive(Debug)]
struct Session {
    target: Target,
    proof: Proof,
    format: Format,
    /// Columns and rows; `None`: the standard output is no terminal.
    terminal: Option<(usize, usize)>,
    color: bool,
    /// Lines can be redrawn in place.
    live: bool,
}

/// Where the token of the caller is. The flag wins over the environment, a file over a bare token.
enum Proof {
    None,
    File(PathBuf),
    Token(String),
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File(_) => "File(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

impl Proof {
    fn read(&self) -> Result<Bearer, Error> {
        match self {
            Self::None => Bearer::new(None),
            Self::Token(token) => Bearer::new(Some(token)),
            Self::File(path) => {
                let token = secret_file::read(path)
                    .map_err(|error| Error::Input { problem: chain(&error).to_string(), advice: Vec::new() })?;
                Bearer::new(Some(&token))
            }
        }
    }
}

impl Session {
    fn new(common: Common, surroundings: &Surroundings) -> Self {
        let terminal = terminal::size();
        let flag = common.first_of_tls();
        let proof = match (common.token_file, &surroundings.token_file, &surroundings.token) {
            (Some(path), _, _) => Proof::File(path),
            (None, Some(path), _) => Proof::File(path.clone()),
            (None, None, Some(token)) => Proof::Token(token.clone()),
            (None, None, None) => Proof::None,
        };
        Self {
            target: Target {
                flag,
                url: common
                    .scheduler
                    .or_else(|| surroundings.scheduler.clone())
                    .unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
                ca: common.ca.or_else(|| surroundings.ca.clone()),
                cert: common.cert.or_else(|| surroundings.cert.clone()),
                key: common.key.or_else(|| surroundings.key.clone()),
            },
            proof,
            format: common.output.unwrap_or_default(),
            terminal,
            color: terminal.is_some() && !surroundings.no_color && !surroundings.dumb,
            live: terminal.is_some() && !surroundings.dumb,
        }
    }

    async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.target, self.proof.read()?).await
    }

    /// Columns to keep within, if anything limits them.
    fn width(&self) -> Option<usize> {
        self.terminal.map(|(columns, _)| columns)
    }

    /// Prints lines for people.
    fn print(&self, lines: &[Line]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        for line in lines {
            terminal::write_line(&mut out, line, self.color)?;
        }
        Ok(out.flush()?)
    }

    /// Prints a resource: as lines for people, or as the document it is.
    fn show(&self, document: &Document, lines: impl FnOnce() -> Vec<Line>) -> Result<(), Error> {
        match self.format {
            Format::Table => self.print(&lines()),
            Format::Json | Format::Yaml => Ok(json::write(&mut io::stdout().lock(), self.format, document)?),
        }
    }
}

/// Says something to people on the standard error; the standard output is for results. That nobody reads it any more is
/// no reason to stop.
fn note(text: impl AsRef<str>) {
    drop(writeln!(io::stderr(), "{}", text.as_ref()));
}
