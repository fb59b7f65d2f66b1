//! `hull explain`.

use hull_engine::Engine;
use hull_engine::explain::Report;
use hull_oci::spec::one_line;

use super::{Done, Failure};
use crate::output::{format, print};

/// Say where a container stands, what is risky, and where a problem is
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull explain web\n  hull explain --format '{{.Answer.Place}}: {{.Answer.Text}}' web"
)]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Name, ID or unique beginning of an ID
    container: String,
}

pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&one_line(&text));
        out.push('\n');
    };
    line(format!("{} ({}): {}", report.name, &report.id[..report.id.len().min(12)], report.status));
    line(format!("runs {:?} of {}", report.command, report.image));
    for section in &report.sections {
        line(String::new());
        line(section.title.to_owned());
        for fact in &section.facts {
            line(format!("  {:<20} {}", fact.name, fact.value));
            if !fact.means.is_empty() {
                line(format!("  {:<20}   {}", "", fact.means));
            }
        }
    }
    line(String::new());
    line("What is wrong, risky or not usual".to_owned());
    if report.findings.is_empty() {
        line("  nothing".to_owned());
    }
    for finding in &report.findings {
        line(format!("  {:<8} {}", finding.severity.as_str(), finding.text));
    }
    line(String::new());
    line("Is the problem in the namespace, the control group or the file system?".to_owned());
    line(format!("  In {}: {}.", report.answer.place.as_str(), report.answer.text));
    out
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let container = engine.find(&args.container)?;
    let report = engine.explain(&container)?;
    match args.format.as_deref().filter(|text| !text.is_empty()) {
        None => print(text(&report)),
        Some(template) => {
            let document = serde_json::to_value(&report).map_err(|error| Failure::new(error.to_string()))?;
            print(format::document(template, &document).map_err(Failure::new)?);
        }
    }
    Ok(0)
}
