//! Flags of `quiesce store`: what works on the files of a scheduler, and needs none to run.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Common, examples};

#[derive(Debug, Args)]
#[command(after_help = examples::STORE)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check every page, every record, and what records say of each other
    Check(CheckArgs),
    /// Save everything to one file, which is whole or not there
    Backup(BackupArgs),
    /// Make a new store of a backup. It begins a new life: what happened since is lost
    Restore(RestoreArgs),
}

/// Which store.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataDirArgs {
    /// Where the scheduler keeps its state [default: as for quiesce scheduler]
    #[arg(long, value_name = "DIR", env = "QUIESCE_SCHEDULER_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = examples::STORE_CHECK)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) store: DataDirArgs,
    /// Check this backup instead
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    pub(crate) backup: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::STORE_BACKUP)]
pub(crate) struct BackupArgs {
    /// The file to write; one that is there is never overwritten
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) store: DataDirArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::STORE_RESTORE)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) store: DataDirArgs,
    /// Restore over a data directory that is not empty; the store in it is kept beside the new one
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}
