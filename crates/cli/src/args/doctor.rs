//! `quiesce doctor` as clap sees it.

use std::path::PathBuf;

use clap::Args;

use super::{Common, examples};

#[derive(Debug, Args)]
#[command(after_help = examples::DOCTOR)]
pub(crate) struct DoctorArgs {
    /// Only these applications: db or applications/db [default: all]
    #[arg(value_name = "APP")]
    pub(crate) applications: Vec<String>,
    /// Look at the files of the scheduler here as well, if it is on this machine
    #[arg(long, value_name = "DIR", env = "QUIESCE_SCHEDULER_DATA_DIR", hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}
