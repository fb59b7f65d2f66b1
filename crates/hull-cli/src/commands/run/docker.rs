//! Flags of `run` and `create` that Docker has for machines of another kind, or no longer: accepted where that changes
//! nothing, with a line that says so.

use clap::ArgAction;
use hull_engine::flags;

use crate::commands::Failure;
use crate::commands::values::read_text;
use crate::output;

/// A label file larger than this is refused.
const MAX_LABEL_FILE: u64 = 1 << 20;

/// Flags that have no meaning here, and labels of files.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Docker {
    /// Read labels from a file
    #[arg(long = "label-file", value_name = "FILE")]
    label_files: Vec<std::path::PathBuf>,
    /// Windows only: use --cpus
    #[arg(long, value_name = "N", hide = true)]
    cpu_count: Option<i64>,
    /// Windows only: use --cpus
    #[arg(long, value_name = "N", hide = true)]
    cpu_percent: Option<i64>,
    /// Windows only: use --device-read-bps and --device-write-bps
    #[arg(long, value_name = "SIZE", hide = true)]
    io_maxbandwidth: Option<String>,
    /// Windows only: use --device-read-iops and --device-write-iops
    #[arg(long, value_name = "N", hide = true)]
    io_maxiops: Option<u64>,
    /// Windows only, but for 'default'
    #[arg(long, value_name = "NAME", hide = true)]
    isolation: Option<String>,
    /// No longer in kernels: --memory includes it
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,
    /// Accepted: images are verified as 'hull pull --verify-key' says
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set, hide = true, value_name = "BOOL")]
    disable_content_trust: bool,
    /// Not with Hull: mount the socket of 'hull serve'
    #[arg(long, hide = true)]
    use_api_socket: bool,
}

impl Docker {
    /// Labels of files, `NAME=VALUE` a line.
    pub(super) fn labels(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut labels = Vec::new();
        for path in &self.label_files {
            let text =
                read_text(path, MAX_LABEL_FILE).map_err(|reason| Failure::usage(format!("--label-file: {reason}")))?;
            let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                let pair = flags::pair(line).map_err(|reason| format!("{}: {reason}", path.display()));
                labels.push(pair.map_err(|reason| Failure::usage(format!("--label-file: {reason}")))?);
            }
        }
        Ok(labels)
    }

    /// Says which flags do nothing, and refuses what cannot be left undone.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if let Some(name) = self.isolation.as_deref().filter(|name| !matches!(*name, "" | "default")) {
            return Err(Failure::usage(format!("invalid isolation {name:?} on linux; use --security and --userns")));
        }
        if self.use_api_socket {
            return Err(Failure::usage("--use-api-socket: there is no daemon; use 'hull serve' and -v of its socket"));
        }
        let without = [
            (self.cpu_count.is_some(), "--cpu-count", "is for Windows; use --cpus"),
            (self.cpu_percent.is_some(), "--cpu-percent", "is for Windows; use --cpus"),
            (self.io_maxbandwidth.is_some(), "--io-maxbandwidth", "is for Windows; use --device-read-bps"),
            (self.io_maxiops.is_some(), "--io-maxiops", "is for Windows; use --device-read-iops"),
            (
                self.kernel_memory.is_some(),
                "--kernel-memory",
                "is no longer in kernels; use --memory, which includes it",
            ),
        ];
        for (_, flag, why) in without.into_iter().filter(|(given, ..)| *given) {
            output::warning(format_args!("WARNING: {flag} does not apply: it {why}"));
        }
        Ok(())
    }
}
