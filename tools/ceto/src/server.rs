//! `ceto server`: a node as its configuration file says.

use std::path::PathBuf;

use clap::Args;

use crate::config::Config;
use crate::start::{self, Neighbours, StartError};

/// Arguments of `ceto server`.
#[derive(Args)]
pub(crate) struct ServerArguments {
    /// Configuration file
    #[arg(long, default_value = "conf/ceto.yaml")]
    config: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &ServerArguments) -> Result<(), StartError> {
    let config = Config::load(&arguments.config).map_err(|error| StartError::Usage(error.to_string()))?;
    start::run(&config, "info", Neighbours::Configured)
}
