//! `hull system check`: what the machine lacks, and what is damaged of what is stored.

use hull_engine::Engine;
use hull_engine::readiness::{Check, Weight};
use hull_oci::spec::one_line;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::output::{format, print, warning};

/// Say what this machine lacks and what mends it; read everything that is stored, and name what is damaged
///
/// The exit code is 1 when containers cannot work here or something that is stored is damaged.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull system check\n  hull system check --machine\n  hull system check --repair\n  hull system check --format json"
)]
pub(super) struct Args {
    /// Make again what can be made from what is whole, and remove what nothing needs
    #[arg(long)]
    repair: bool,
    /// Show everything that was looked at on this machine, and leave what is stored alone
    #[arg(long, conflicts_with = "repair")]
    machine: bool,
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

fn lines(checks: &[&Check]) -> Vec<String> {
    let mut lines = Vec::new();
    for check in checks {
        lines.push(format!("{:<7} {}: {}", check.weight.as_str(), check.name, check.found));
        if !check.used_for.is_empty() {
            lines.push(format!("        used for: {}", check.used_for));
        }
        if !check.mend.is_empty() {
            lines.push(format!("        to mend:  {}", check.mend));
        }
    }
    lines.iter().map(|line| one_line(line)).collect()
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let checks = engine.readiness()?;
    let useless = checks.iter().any(|check| check.weight == Weight::Needed);
    let template = args.format.as_deref().filter(|text| !text.is_empty());
    let problems = if args.machine { Vec::new() } else { engine.images.check(args.repair)? };
    let left = problems.iter().filter(|problem| !problem.repaired).count();
    let code = u8::from(useless || left > 0);
    if let Some(template) = template {
        let stored: Vec<Value> = problems
            .iter()
            .map(|problem| json!({ "Problem": problem.to_string(), "Repaired": problem.repaired }))
            .collect();
        let machine = serde_json::to_value(&checks).map_err(|error| Failure::new(error.to_string()))?;
        let document = json!({ "Machine": machine, "Stored": stored });
        print(format::document(template, &document).map_err(Failure::new)?);
        return Ok(code);
    }
    if args.machine {
        for line in lines(&checks.iter().collect::<Vec<_>>()) {
            print(format_args!("{line}\n"));
        }
        return Ok(code);
    }
    // Beside the report on what is stored, which scripts read.
    let lacking: Vec<&Check> = checks.iter().filter(|check| check.weight != Weight::Fine).collect();
    lines(&lacking).iter().for_each(warning);
    for problem in &problems {
        print(format_args!("{problem}\n"));
    }
    match (problems.len(), left) {
        (0, _) => print("No problems found\n"),
        (_, 0) => print("All problems are repaired\n"),
        _ => {}
    }
    Ok(code)
}
