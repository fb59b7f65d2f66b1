//! `hull update`.

use hull_engine::config::Limits;
use hull_engine::update::Changes;
use hull_engine::{Engine, flags};

use super::{Done, Failure, containers};
use crate::output::print;

/// Change limits and restart policy of containers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull update --memory 512m --memory-swap 1g web\n  hull update --restart unless-stopped $(hull ps -q)"
)]
pub(super) struct Args {
    /// Share of block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Microseconds of processor time in a period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Length of a real-time period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Microseconds of real-time in a period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Share when processors are short
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Number of processors
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Processors that it may use, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most memory
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory that it keeps when memory is short
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Most memory and swap together; -1 is unlimited swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Most tasks; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Restart policy: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

fn value<T>(
    flag: &str,
    text: Option<&String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    text.map(|text| super::values::value(flag, text, parse(text))).transpose()
}

impl Args {
    fn changes(&self) -> Result<Changes, Failure> {
        let size = |flag: &str, text: &Option<String>| value(flag, text.as_ref(), flags::bytes);
        // Zero is Docker's way to leave a limit as it is.
        let limits = Limits {
            blkio_weight: self.blkio_weight.filter(|weight| *weight != 0),
            cpu_period: self.cpu_period.filter(|period| *period != 0),
            cpu_quota: self.cpu_quota.filter(|quota| *quota != 0),
            cpu_rt_period: self.cpu_rt_period.filter(|period| *period != 0),
            cpu_rt_runtime: self.cpu_rt_runtime.filter(|runtime| *runtime != 0),
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            nano_cpus: value("--cpus", self.cpus.as_ref().filter(|text| *text != "0"), flags::cpus)?,
            cpuset_cpus: value("--cpuset-cpus", self.cpuset_cpus.as_ref(), flags::cpu_list)?.unwrap_or_default(),
            cpuset_mems: value("--cpuset-mems", self.cpuset_mems.as_ref(), flags::cpu_list)?.unwrap_or_default(),
            memory: size("--memory", &self.memory)?.filter(|bytes| *bytes != 0),
            memory_reservation: size("--memory-reservation", &self.memory_reservation)?.filter(|bytes| *bytes != 0),
            memory_swap: value("--memory-swap", self.memory_swap.as_ref(), flags::bytes_or_unlimited)?
                .filter(|bytes| *bytes != 0),
            pids: self.pids_limit,
            ..Limits::default()
        };
        // A wrong number is the client's error, a wrong policy was the daemon's.
        let restart = value("--restart", self.restart.as_ref(), flags::restart);
        Ok(Changes { limits, restart: restart.map_err(|failure| Failure::new(failure.message))? })
    }

    fn any(&self) -> bool {
        let texts = [
            &self.cpus,
            &self.cpuset_cpus,
            &self.cpuset_mems,
            &self.memory,
            &self.memory_reservation,
            &self.memory_swap,
            &self.restart,
        ];
        texts.iter().any(|text| text.is_some())
            || self.blkio_weight.is_some()
            || self.cpu_period.is_some()
            || self.cpu_quota.is_some()
            || self.cpu_rt_period.is_some()
            || self.cpu_rt_runtime.is_some()
            || self.cpu_shares.is_some()
            || self.pids_limit.is_some()
    }
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    if !args.any() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let changes = args.changes()?;
    containers::each(engine, &args.containers, |name, container| {
        engine.update(container, &changes)?;
        print(format_args!("{name}\n"));
        Ok(())
    })
}
