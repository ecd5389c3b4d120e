//! The program `quiesce-agent`: flags, logging and signals around the life of an agent, and a supervised application in
//! it.
//!
//! Owns what is particular to a process of its own. What happens in the life is the business of [`crate::life`].

use std::process::ExitCode;
use std::sync::Arc;

use quiesce_runtime::signals;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::{self, chain};
use quiesce_runtime::trace_context::TraceContext;
use tracing::{error, info, warn};

use crate::application::Application;
use crate::args::{AgentArgs, Settings, Surroundings};
use crate::credential::Credential;
use crate::hold::HoldFile;
use crate::hook::{Drain, HookOptions, Records};
use crate::host::{Commands, Host};
use crate::journal::{self, Journal};
use crate::life::{self, FAILURE, Parts, Reach};
use crate::process::helper_command::CommandLine;
use crate::supervise::{self, Supervisor};

/// Wrong flags.
const USAGE: u8 = 2;
/// `EX_CONFIG`: this instance was deleted for good, and starting it again takes a decision.
const DELETED: u8 = 78;
/// Why an agent could not begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("cannot use the state directory")]
    Journal(#[from] journal::OpenError),
    #[error("cannot supervise the application")]
    Supervise(#[from] supervise::OpenError),
    #[error("cannot receive signals")]
    Signals(#[from] signals::InstallError),
    #[error(transparent)]
    Life(#[from] life::BeginError),
}

/// Runs an agent until its application has ended, and returns the exit code of the process: that of the application,
/// 128 + signal if a signal ended it, 2 for wrong flags, 78 for an instance that was deleted for good. Sets up logging
/// and a runtime of its own; call it from `main`, behind [`take_part`](crate::take_part).
pub fn run(args: AgentArgs) -> ExitCode {
    let telemetry = args.telemetry();
    let (named, insecurity) = (args.instance.is_some(), args.reach.insecurity());
    let (settings, reach) = match args.resolve(Surroundings::read()) {
        Ok(resolved) => resolved,
        Err(problems) => return usage(&problems),
    };
    if let Err(error) = telemetry::init(&telemetry) {
        return usage(&[chain(&error).to_string()]);
    }
    if !named {
        info!(instance = settings.identity.instance(), "this instance has no name of its own, so it is called that");
    }
    if let Some(insecurity) = insecurity {
        warn!("{insecurity}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::from(FAILURE);
        }
    };
    let code = runtime.block_on(Box::pin(live(settings, reach, &Host::linux(), &Tasks::new())));
    // Blocking work that is left is at most a file being written; the exit does not wait for a slow disk.
    runtime.shutdown_background();
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "problems with flags come before there is a log")]
fn usage(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("error: {problem}");
    }
    eprintln!("\nFor more information, try '--help'.");
    ExitCode::from(USAGE)
}

/// One life of an agent on `host`, from its start to its exit code, see [`run`]. Everything it does runs as a task of
/// `tasks` or in this future, so that aborting the ones and dropping the other is a crash.
pub async fn live(settings: Settings, reach: Reach, host: &Host, tasks: &Tasks) -> u8 {
    match begin(settings, reach, host, tasks).await {
        Ok(code) => code,
        Err(error) => {
            error!(error = %chain(&error), "the agent cannot begin");
            FAILURE
        }
    }
}

/// Opens what an earlier life left on `host`, and begins another.
async fn begin(settings: Settings, reach: Reach, host: &Host, tasks: &Tasks) -> Result<u8, BeginError> {
    let asked = host.signals.to_end()?;
    let journal = Journal::open(host, &settings.state_dir).await?;
    let supervisor = Supervisor::open(settings.supervise, journal.clone(), tasks).await?;
    if let Some(hold) = supervisor.status().borrow().hold.as_ref().filter(|hold| hold.deleted) {
        error!("{}", HoldFile::new(Arc::clone(&host.files), journal.directory()).note(hold));
        return Ok(DELETED);
    }
    info!(state_dir = %journal.directory().display(), "the agent remembers what it must");
    let app: Arc<dyn Application> = Arc::new(supervisor.clone());
    tasks.spawn("signals for the application", async move {
        if let Err(error) = supervisor.forward_signals().await {
            warn!(%error, "signals are not forwarded to the application");
        }
    });
    let mut options = HookOptions::new(settings.identity);
    options.machine = host.machine.clone();
    let drain = |command| drain_by(command, Arc::clone(&host.commands));
    options.drain = settings.drain_command.map(drain);
    let parts = Parts {
        options,
        records: Records::among(Arc::clone(&host.files), journal.directory()),
        reach,
        credential: Credential::open(settings.join_token_file, Arc::clone(&host.files), journal.directory()),
        agent_id: journal.contents().agent_id,
        stop_order: settings.stop_order,
        labels: settings.labels,
        policy: settings.policy,
        standby: settings.standby,
        start: settings.start,
        grace: settings.grace,
    };
    Ok(Box::pin(life::live(app, parts, asked, tasks)).await?)
}

/// A drain command finds what it is for in its environment.
fn drain_by(command: CommandLine, commands: Arc<dyn Commands>) -> Drain {
    Arc::new(move |order| {
        let (command, commands) = (command.clone(), Arc::clone(&commands));
        Box::pin(async move {
            let mut variables = vec![
                ("QUIESCE_OPERATION".to_owned(), order.operation),
                ("QUIESCE_KIND".to_owned(), order.kind.to_string()),
            ];
            variables
                .extend(order.grace.map(|grace| ("QUIESCE_GRACE_SECONDS".to_owned(), grace.as_secs().to_string())));
            variables.extend(order.trace.iter().flat_map(TraceContext::variables));
            let helper = commands.run(&command, &variables, None);
            match helper.map_err(|error| format!("cannot run {command}: {error}"))?.await {
                Ok(Some(exit)) if exit.code == Some(0) => Ok(()),
                Ok(Some(exit)) => Err(match (exit.code, exit.signal) {
                    (Some(code), _) => format!("{command} exited with {code}"),
                    (None, signal) => format!("{command} was ended by signal {}", signal.unwrap_or(0)),
                }),
                Ok(None) => Err(format!("{command} was lost")),
                Err(error) => Err(format!("cannot wait for {command}: {error}")),
            }
        })
    })
}
