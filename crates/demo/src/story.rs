//! `quiesce demo`: the whole story on one machine, told while it happens, and checked.
//!
//! Scheduler and agents are real processes of the same binary; the ledger runs below each agent; the bucket and the
//! client live in this process. A scene says what is about to happen and why that is hard, then what happens, then what
//! was checked. The first scene whose check fails ends the story.
//!
//! Whatever happens, no process outlives [`run`].

mod family;
mod follow;
mod judge;
mod scenes;
mod show;
mod stage;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quiesce_runtime::signals::{InstallError, Signals};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::timeout;

pub use self::show::Look;

use self::judge::Finding;
use self::scenes::{SCENES, Scene, Tally};
use self::show::{Show, Style, seconds};
use self::stage::Stage;
use crate::bucket::BucketError;
use crate::ledger::chain;
use crate::ledger::fence::FenceError;
use crate::load::AskError;
use crate::s3;

/// The whole story takes half a minute on a slow machine.
const STORY_TIME_MAX: Duration = Duration::from_secs(120);

/// The longest scene takes six seconds on an idle machine.
const SCENE_TIME_MAX: Duration = Duration::from_secs(45);

/// What the story is told with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary that knows the subcommands `scheduler` and `agent`.
    pub program: PathBuf,
    /// The arguments that make the same binary the ledger.
    pub ledger: Vec<OsString>,
    /// Keep the directory with state and logs.
    pub keep: bool,
    /// What the environment says about the output.
    pub look: Look,
}

/// Why the story could not go on.
#[derive(Debug, thiserror::Error)]
enum StoryError {
    #[error("cannot {what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the child {name}")]
    Start {
        name: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the bucket")]
    S3(#[from] s3::StartError),
    #[error("cannot receive signals")]
    Signals(#[from] InstallError),
    #[error("the scheduler's address is no address")]
    Address(#[source] tonic::transport::Error),
    #[error("the scheduler refused: {}", .0.message())]
    Refused(#[from] tonic::Status),
    #[error("the scheduler does not answer")]
    Silent,
    #[error("the scheduler's answer lacks what it must have")]
    Empty,
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error("cannot read the final state from the bucket")]
    Final(#[from] FenceError),
    #[error("cannot ask the ledger")]
    Ask(#[from] AskError),
    #[error("there is no {0} in this scene")]
    Absent(&'static str),
    #[error("the child {name} has ended before its time")]
    Gone { name: &'static str },
    #[error("{name} did not end within {} s", limit.as_secs())]
    DidNotEnd { name: &'static str, limit: Duration },
    #[error("the scene did not come to its end within {} s", SCENE_TIME_MAX.as_secs())]
    SceneTooLong,
}

/// How the story ended.
enum Ending {
    Good,
    /// With what failed.
    Bad(String),
    /// By a signal: its name and number.
    Interrupted(String, i32),
}

/// Tells the story. The exit code: 0 if every check was passed, 1 if not, 128 and the signal after Ctrl-C.
pub fn run(options: Options) -> ExitCode {
    let mut show = Show::new(options.look);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = StoryError::Io { what: "start the runtime", source };
            show.say(&format!("FAILED: {}", chain(&error)), Style::Bad);
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(Box::pin(tell(options, &mut show)))
}

async fn tell(options: Options, show: &mut Show) -> ExitCode {
    let keep = options.keep;
    // Before anything is started, so that no signal finds children and the default handler.
    let prepared = match listen() {
        Ok(signals) => Stage::set(options).await.map(|stage| (signals, stage)),
        Err(error) => Err(error),
    };
    let ((mut signals, mut hang_up), mut stage) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            show.say(&format!("FAILED: {}", chain(&error)), Style::Bad);
            return ExitCode::FAILURE;
        }
    };
    show.say("quiesce demo", Style::Bold);
    show.say("On this machine: a scheduler, two clusters with an agent each, an S3 bucket,", Style::Plain);
    show.say("an application with state, and a client that never stops writing to it.", Style::Plain);
    show.say(&format!("State and logs: {}", stage.directory().display()), Style::Dim);

    let begin = Instant::now();
    let mut tally = Tally::default();
    let ending = tokio::select! {
        ending = timeout(STORY_TIME_MAX, play(&mut stage, show, &mut tally)) => ending.unwrap_or_else(|_| {
            Ending::Bad(format!("the story did not come to its end within {} s", STORY_TIME_MAX.as_secs()))
        }),
        signal = signals.next() => Ending::Interrupted(signal.to_string(), signal.number()),
        _ = hang_up.recv() => Ending::Interrupted("SIGHUP".to_owned(), SignalKind::hangup().as_raw_value()),
    };
    let ending = nobody_left(&stage, ending);
    conclude(stage, show, ending, &tally, begin.elapsed(), keep)
}

/// Everything that may end the story from outside; a terminal that is closed would otherwise leave the children.
fn listen() -> Result<(Signals, unix::Signal), StoryError> {
    let hang_up = unix::signal(SignalKind::hangup());
    Ok((Signals::install()?, hang_up.map_err(|source| StoryError::Io { what: "listen for SIGHUP", source })?))
}

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Ending {
    for (number, Scene { title, why, play }) in (1..).zip(SCENES) {
        show.gap();
        show.say(&format!("{number}  {title}"), Style::Bold);
        show.paragraph(why);
        let findings = match timeout(SCENE_TIME_MAX, play(stage, show, tally)).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(error)) => return Ending::Bad(format!("scene {number}, {title}: {}", chain(&error))),
            Err(_) => return Ending::Bad(format!("scene {number}, {title}: {}", StoryError::SceneTooLong)),
        };
        for Finding { good, text } in &findings {
            show.outcome(*good, text);
        }
        if let Some(bad) = findings.iter().find(|finding| !finding.good) {
            return Ending::Bad(format!("scene {number}, {title}: {}", bad.text));
        }
    }
    Ending::Good
}

/// A good story has let everybody go. One that was cut off has not, and that is no news.
fn nobody_left(stage: &Stage, ending: Ending) -> Ending {
    let left = stage.family().members();
    match (ending, left.first()) {
        (Ending::Good, Some(first)) => {
            let (pid, command) = (first.pid, &first.command);
            Ending::Bad(format!("{} processes were left and had to be killed: {pid} {command}", left.len()))
        }
        (ending, _) => ending,
    }
}

/// Takes the stage down, and says how it went.
fn conclude(stage: Stage, show: &mut Show, ending: Ending, tally: &Tally, took: Duration, keep: bool) -> ExitCode {
    let keep = keep || matches!(ending, Ending::Bad(_));
    let kept = stage.take_down(keep);
    show.gap();
    let code = match ending {
        Ending::Good => {
            tally.show(show);
            show.line(&[("PASSED", Style::Good), (&format!(" in {}, no process left", seconds(took)), Style::Plain)]);
            ExitCode::SUCCESS
        }
        Ending::Bad(reason) => {
            show.line(&[("FAILED", Style::Bad), (&format!(" {reason}"), Style::Plain)]);
            ExitCode::FAILURE
        }
        Ending::Interrupted(signal, number) => {
            show.line(&[(&format!("ended by {signal}, no process left"), Style::Warning)]);
            ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
        }
    };
    match kept {
        Ok(Some(directory)) => {
            show.say(&format!("The logs are in {}", directory.join("logs").display()), Style::Plain);
            code
        }
        Ok(None) => code,
        Err(error) => {
            show.say(&format!("cannot remove the temporary directory: {error}"), Style::Bad);
            ExitCode::FAILURE
        }
    }
}
