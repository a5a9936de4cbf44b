//! `corecast serve`: serves, or prints the configuration that it would serve with.

use super::Serve;
use super::process::{gather, print};
use corecast::config::Settings;
use corecast::server::capacity::Capacity;
use corecast::server::machine::Machine;
use corecast::server::signals::{self, Calls};
use corecast::server::{self, log};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

/// `calls` has caught signals since the start of the process.
pub fn run(options: Serve, calls: Option<anyhow::Result<Calls>>) -> anyhow::Result<ExitCode> {
    let calls = calls.unwrap_or_else(signals::catch)?;
    let settings = gather(&options.options.0)?;
    let config = settings.validate()?;
    let strays = Settings::strays(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()));
    if options.print_config {
        print(&settings.to_toml(&config))?;
    } else if options.check_config {
        let machine = Machine::look();
        let capacity = Capacity::of(&config, &machine);
        let pinning = machine.unpinned(config.pin).map_or(String::new(), |why| format!("{why}\n"));
        print(&format!("configuration ok\n{capacity}\n{pinning}"))?;
        let limits = capacity.warnings(&config, &machine);
        let warnings = strays.into_iter().chain(limits).chain(config.live.warnings(SystemTime::now()));
        warnings.for_each(|warning| eprintln!("warning: {warning}"));
    } else {
        let (log, _last_lines) = log::start(config.live.log)?;
        strays.iter().for_each(|stray| tracing::warn!("{stray}"));
        let flags = options.options.0;
        let reread = Arc::new(move || Settings::gather_again(&flags, |name| std::env::var_os(name))?.validate());
        server::run(config, reread, log, calls)?;
    }
    Ok(ExitCode::SUCCESS)
}
