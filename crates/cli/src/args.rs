//! The command line as clap sees it: commands, flags, their help.
//!
//! Owns names, defaults and help texts. It reads no environment and talks to nobody; what a command does stands in
//! [`crate::commands`].

mod doctor;
mod examples;
mod pki;
mod store;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quiesce_runtime::duration;

pub(crate) use doctor::DoctorArgs;
pub(crate) use pki::{PkiArgs, PkiCommand, PkiInitArgs, PkiIssueArgs, PkiShowArgs};
pub(crate) use store::{BackupArgs, CheckArgs, RestoreArgs, StoreArgs, StoreCommand};
pub(crate) use token::{TokenArgs, TokenCommand, TokenCreateArgs, TokenRevokeArgs, TokenRole};

/// Where the scheduler answers when nobody says otherwise.
pub(crate) const DEFAULT_SCHEDULER: &str = "http://127.0.0.1:7600";

/// Stops stateful applications safely before they are moved or deleted, and proves that they stopped.
#[derive(Debug, Parser)]
#[command(name = "quiesce", version, after_help = examples::QUIESCE, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every command of a client has; they may stand before or behind the command's name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Common {
    /// Where the scheduler answers [env: QUIESCE_SCHEDULER] [default: http://127.0.0.1:7600]
    #[arg(long, value_name = "URL")]
    pub(crate) scheduler: Option<String>,
    /// Prove who calls with the token in this file, which nobody else may read [env: QUIESCE_TOKEN_FILE; the token itself:
    /// QUIESCE_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust a scheduler at https:// whose certificate these CAs have signed (PEM) [env: QUIESCE_CA] [default: the
    /// system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Show the scheduler this certificate (PEM) [env: QUIESCE_CERT]
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key of --cert (PEM), for its owner alone to read [env: QUIESCE_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How to print the result; json and yaml are the proto3 JSON mapping of the contract [default: table]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

impl Common {
    /// The flags behind the command's name win over those before it.
    pub(crate) fn over(self, outer: Self) -> Self {
        Self {
            scheduler: self.scheduler.or(outer.scheduler),
            token_file: self.token_file.or(outer.token_file),
            ca: self.ca.or(outer.ca),
            cert: self.cert.or(outer.cert),
            key: self.key.or(outer.key),
            output: self.output.or(outer.output),
        }
    }

    /// The first flag given that is for TLS alone, by its name.
    pub(crate) fn first_of_tls(&self) -> Option<&'static str> {
        let files = [(&self.ca, "--ca"), (&self.cert, "--cert"), (&self.key, "--key")];
        files.into_iter().find(|(file, _)| file.is_some()).map(|(_, flag)| flag)
    }

    /// The first flag given, by its name.
    pub(crate) fn first_set(&self) -> Option<&'static str> {
        let scheduler = self.scheduler.as_ref().map(|_| "--scheduler");
        let token_file = self.token_file.as_ref().map(|_| "--token-file");
        scheduler.or(token_file).or(self.first_of_tls()).or(self.output.map(|_| "--output"))
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: tables, pages, a live view.
    #[default]
    Table,
    /// proto3 JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Client(ClientCommand),
    /// Run the scheduler
    #[command(after_help = examples::SCHEDULER)]
    Scheduler(Box<quiesce_scheduler::args::SchedulerArgs>),
    /// Check the state a scheduler keeps, back it up, restore it
    Store(StoreArgs),
    /// Make certificates for TLS, where nobody else does
    Pki(PkiArgs),
    /// Run an application under an agent that stops it, proves that it stopped, and keeps it stopped
    #[command(after_help = examples::AGENT)]
    Agent(Box<quiesce_agent::args::AgentArgs>),
    /// See it all on this machine, in half a minute: migrations under load, a rollback, a crash, a deletion
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
    /// The application that `demo` moves about
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    DemoLedger,
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages of all commands
    Man(ManArgs),
}

/// What asks a scheduler.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Create or update applications and clusters from a file
    Apply(ApplyArgs),
    /// List resources, or show one
    Get(GetArgs),
    /// Show everything there is to know about one resource, for people
    Describe(DescribeArgs),
    /// Stop an application and start it on another cluster
    Migrate(MigrateArgs),
    /// Stop an application for good and forget it
    Delete(DeleteArgs),
    /// Follow one operation to its end, or all operations
    Watch(WatchArgs),
    /// Watch everything that is going on, full screen
    Top(TopArgs),
    /// Check the setup from here to every hook, and say what to fix
    Doctor(DoctorArgs),
    /// Take an operation back
    Cancel(CancelArgs),
    /// Start a new round of a degraded operation
    Retry(RetryArgs),
    /// Say that your part is done (placement external with confirmation)
    Confirm(ConfirmArgs),
    /// Give the instances of a running operation more time
    Extend(ExtendArgs),
    /// Forget an instance that is gone for good; refused while a copy of it may run
    Forget(ForgetArgs),
    /// Make, list and revoke tokens: what people, services and joining agents prove themselves with
    Token(TokenArgs),
    /// After a restore: say where an application runs, so that it is started and stopped again
    Readmit(ReadmitArgs),
}

/// The kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// What is stopped, moved, deleted.
    #[value(name = "applications", aliases = ["application", "apps", "app"])]
    Application,
    /// Replicas of applications, each with its agent.
    #[value(name = "instances", aliases = ["instance", "inst"])]
    Instance,
    /// Migrations and deletions.
    #[value(name = "operations", aliases = ["operation", "ops", "op"])]
    Operation,
    /// Places where instances run.
    #[value(name = "clusters", aliases = ["cluster"])]
    Cluster,
}

#[derive(Debug, Args)]
#[command(after_help = examples::APPLY)]
pub(crate) struct ApplyArgs {
    /// The file, `-` for the standard input; several documents are fine
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::GET)]
pub(crate) struct GetArgs {
    /// What to list: applications, instances, operations, clusters (app, inst, op do as well)
    #[arg(hide_possible_values = true)]
    pub(crate) kind: Kind,
    /// One resource by name: db, db/db-0 or db-0, op-7f3k, a
    pub(crate) name: Option<String>,
    /// Only what matches, such as `state = DEGRADED AND application = applications/db`
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "name")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::DESCRIBE)]
pub(crate) struct DescribeArgs {
    /// application, instance, operation or cluster
    #[arg(hide_possible_values = true)]
    pub(crate) kind: Kind,
    /// Its name: db, db/db-0 or db-0, op-7f3k, a
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What migrate and delete have in common.
#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// Names this request: repeating it with the same id has no further effect [default: a new UUID]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Why, for people and the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Check everything and show the plan; nothing is stopped
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return as soon as the scheduler has stored the operation, do not follow it
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long to follow; then exit with 4, while the operation goes on
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

/// Overrides of the application's policy, for one operation.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Policy, for this operation only")]
pub(crate) struct PolicyArgs {
    /// How long one attempt may take until the application has ended, such as 90s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) grace_period: Option<Duration>,
    /// By how much the application may prolong that in total
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) max_extension: Option<Duration>,
    /// How long a started instance may take to become ready
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) start_timeout: Option<Duration>,
    /// How often to try, the first time included
    #[arg(long, value_name = "N")]
    pub(crate) attempts: Option<i32>,
    /// With --force: go on even if the end of an instance cannot be verified. Two copies may then run; it stays in the
    /// record for ever
    #[arg(long)]
    pub(crate) allow_unverified: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::MIGRATE)]
pub(crate) struct MigrateArgs {
    /// The application: db or applications/db
    #[arg(value_name = "APP")]
    pub(crate) application: String,
    /// Where to; may be left out when exactly one other cluster has instances that stand by
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) to: Option<String>,
    /// Kill what has not stopped at the end of the grace period, instead of giving up. May lose data; asks nothing
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::DELETE)]
pub(crate) struct DeleteArgs {
    /// The application: db or applications/db
    #[arg(value_name = "APP")]
    pub(crate) application: String,
    /// Kill at once, without grace; instances that do not answer are given up. May lose data; asks nothing
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) request: RequestArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::WATCH)]
pub(crate) struct WatchArgs {
    /// The operation to follow to its end; without one all operations are followed, without end
    pub(crate) operation: Option<String>,
    /// Go on behind the event with this resume token
    #[arg(long, value_name = "TOKEN")]
    pub(crate) since: Option<String>,
    /// Only operations that match, such as `application = applications/db`
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "operation")]
    pub(crate) filter: Option<String>,
    /// How long to follow; then exit with 4
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::TOP)]
pub(crate) struct TopArgs {
    /// Only operations that match, such as `application = applications/db`
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::CANCEL)]
pub(crate) struct CancelArgs {
    /// The operation: op-7f3k or operations/op-7f3k
    pub(crate) operation: String,
    /// Why, for people and the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::RETRY)]
pub(crate) struct RetryArgs {
    /// The operation: op-7f3k or operations/op-7f3k
    pub(crate) operation: String,
    /// Do not try gracefully again, kill. May lose data; asks nothing
    #[arg(long)]
    pub(crate) force: bool,
    /// Names this request: repeating it with the same id has no further effect [default: a new UUID]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Why, for people and the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::CONFIRM)]
pub(crate) struct ConfirmArgs {
    /// The operation: op-7f3k or operations/op-7f3k
    pub(crate) operation: String,
    /// For people and the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::FORGET)]
pub(crate) struct ForgetArgs {
    /// The instance: db/db-0, applications/db/instances/db-0, or db-0
    pub(crate) instance: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::READMIT)]
pub(crate) struct ReadmitArgs {
    /// The applications: db or applications/db
    #[arg(value_name = "APP", required_unless_present = "all")]
    pub(crate) applications: Vec<String>,
    /// Every application that waits for it, each where the backup says it runs
    #[arg(long, conflicts_with_all = ["applications", "cluster"])]
    pub(crate) all: bool,
    /// Where it runs, if that is not where the backup says
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::EXTEND)]
pub(crate) struct ExtendArgs {
    /// The operation: op-7f3k or operations/op-7f3k
    pub(crate) operation: String,
    /// How much longer than now, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) by: Duration,
    /// Why, for people and the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[cfg(feature = "demo")]
#[derive(Debug, Args)]
#[command(after_help = examples::DEMO)]
pub(crate) struct DemoArgs {
    /// Keep the directory with state and logs, which is otherwise kept after a failure only
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
#[command(after_help = examples::COMPLETIONS)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
    /// Which program's commands and flags
    #[arg(long, value_name = "PROGRAM", value_enum, default_value_t)]
    pub(crate) program: Program,
}

/// The programs of Quiesce that people type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// All of it.
    #[default]
    Quiesce,
    /// The agent alone.
    QuiesceAgent,
}

#[derive(Debug, Args)]
#[command(after_help = examples::MAN)]
pub(crate) struct ManArgs {
    /// Where to: a directory man1 of the manual, or any other; it is made if need be
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use quiesce_agent::args::Program as Agent;
    use quiesce_testkit::examples;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        assert!(examples::check(&Cli::command()) > 20, "the commands of quiesce are not found any more");
        examples::check(&Agent::command());
    }

    #[test]
    fn common_flags_stand_before_or_behind_the_command() {
        let cli = Cli::try_parse_from(["quiesce", "-o", "json", "get", "app", "--scheduler", "http://x"]).unwrap();
        let Command::Client(ClientCommand::Get(args)) = cli.command else { panic!("not get") };
        let common = args.common.over(cli.common);
        assert_eq!(common.output, Some(Format::Json));
        assert_eq!(common.scheduler.as_deref(), Some("http://x"));
    }

    #[test]
    fn kinds_have_short_and_singular_forms() {
        for (text, kind) in [("applications", Kind::Application), ("inst", Kind::Instance), ("op", Kind::Operation)] {
            assert_eq!(Kind::from_str(text, false), Ok(kind));
        }
    }
}
