//! Health checks: the flags of `run` and `create`, and `hull healthcheck run`.

use hull_engine::config::{HealthConfig, Unhealthy};
use hull_engine::{Engine, time};

use super::{Done, Failure};

/// Commands on the health of containers.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Healthcheck {
    /// Check a container's health now; the exit code is that of the check
    Run(Run),
}

/// Check a container's health now; the exit code is that of the check
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull healthcheck run web")]
pub(super) struct Run {
    /// Name, ID or unique beginning of an ID
    container: String,
}

impl Healthcheck {
    pub(super) fn main(self, engine: &Engine) -> Done {
        let Self::Run(Run { container }) = self;
        let code = engine.find(&container).and_then(|container| engine.check_health(&container));
        code.map(|code| u8::try_from(code).unwrap_or(255)).map_err(|error| Failure::start(&error))
    }
}

/// How a container's health is found out.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Shell command that says whether the container is healthy
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    health_cmd: Option<String>,
    /// Between checks [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Health")]
    health_interval: Option<String>,
    /// Time of a check [default: 30s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Health")]
    health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true, help_heading = "Health")]
    health_retries: Option<i64>,
    /// Time after the start while failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Health")]
    health_start_period: Option<String>,
    /// Between checks in that time [default: 5s]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = "Health")]
    health_start_interval: Option<String>,
    /// Do not check, whatever the image says
    #[arg(long, help_heading = "Health")]
    no_healthcheck: bool,
    /// When it is unhealthy: none, kill (and the restart policy decides), restart or stop
    #[arg(long, value_name = "ACTION", default_value = "none", hide_default_value = true, help_heading = "Health")]
    health_on_failure: String,
}

fn duration(flag: &str, text: Option<&String>) -> Result<u64, Failure> {
    let Some(text) = text else { return Ok(0) };
    if text.starts_with('-') {
        return Err(Failure::usage(format!("{flag} cannot be negative")));
    }
    match time::duration(text) {
        Some(1..1_000_000) => Err(Failure::usage(format!(
            "{flag}: {} in Healthcheck cannot be less than 1ms",
            flag.trim_start_matches("--health-")
        ))),
        Some(nanoseconds) => Ok(nanoseconds),
        None => Err(Failure::usage(format!("{flag}: {text:?} is not a duration such as 1m30s"))),
    }
}

impl Flags {
    /// What they ask for, if they ask for anything.
    pub(super) fn config(&self) -> Result<Option<HealthConfig>, Failure> {
        let retries = match self.health_retries {
            Some(number) if number < 0 => return Err(Failure::usage("--health-retries cannot be negative")),
            Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
            None => 0,
        };
        let config = HealthConfig {
            test: self.health_cmd.iter().flat_map(|line| ["CMD-SHELL".to_owned(), line.clone()]).collect(),
            interval: duration("--health-interval", self.health_interval.as_ref())?,
            timeout: duration("--health-timeout", self.health_timeout.as_ref())?,
            start_period: duration("--health-start-period", self.health_start_period.as_ref())?,
            start_interval: duration("--health-start-interval", self.health_start_interval.as_ref())?,
            retries,
        };
        let asked = config != HealthConfig::default();
        if self.no_healthcheck {
            if asked {
                return Err(Failure::usage("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..config }));
        }
        Ok(asked.then_some(config))
    }

    pub(super) fn on_unhealthy(&self) -> Result<Unhealthy, Failure> {
        Ok(match self.health_on_failure.as_str() {
            "" | "none" => Unhealthy::None,
            "kill" => Unhealthy::Kill,
            "restart" => Unhealthy::Restart,
            "stop" => Unhealthy::Stop,
            other => {
                let expected = "expected none, kill, restart or stop";
                return Err(Failure::usage(format!("--health-on-failure: {other:?}: {expected}")));
            }
        })
    }
}
