//! `hull image explore`.

use hull_engine::Engine;
use hull_image::explore::{self, Report, Waste};
use hull_oci::spec::one_line;

use super::{Done, Failure};
use crate::output::{ellipsis, format, print, units};

/// Lines of waste that are shown of each layer.
const SHOWN: usize = 8;

/// Show an image's layers, their files, and what is wasted and why
///
/// Nothing is unpacked. Certainly wasted are files that a later layer deletes, rewrites, or brings again with other
/// owners and modes, and caches; perhaps wasted are duplicates, documentation, build tools and compiled Python.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull image explore mine\n  hull image explore --layer 2 mine\n  hull image explore --format json mine\n  hull image explore --format '{{.Wasted}}' mine"
)]
pub(super) struct Args {
    /// Print by a template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// List the files of this layer, counted from 1 at the lowest
    #[arg(short, long, value_name = "NUMBER")]
    layer: Option<usize>,
    /// Show everything that is wasted, not only the largest
    #[arg(short, long)]
    all: bool,
    /// Image
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let image = engine.images.find(&args.image)?;
    let refused = |error: serde_json::Error| Failure::new(error.to_string());
    let template = args.format.as_deref().filter(|text| !text.is_empty());
    if let Some(number) = args.layer {
        let layer = number.checked_sub(1).and_then(|index| image.layers.get(index)).ok_or_else(|| {
            Failure::new(format!(
                "{} has {} layers, counted from 1: there is no {number}",
                args.image,
                image.layers.len()
            ))
        })?;
        let files = explore::files(&engine.images, layer)?;
        match template {
            Some(template) => {
                let document = serde_json::to_value(&files).map_err(refused)?;
                print(format::document(template, &document).map_err(Failure::new)?);
            }
            None => print(list(&files)),
        }
        return Ok(0);
    }
    let report = explore::explore(&engine.images, &image)?;
    match template {
        Some(template) => {
            let document = serde_json::to_value(&report).map_err(refused)?;
            print(format::document(template, &document).map_err(Failure::new)?);
        }
        None => print(text(&report, args.all)),
    }
    Ok(0)
}

fn list(files: &[explore::FileEntry]) -> String {
    let mut out = String::new();
    for file in files {
        let letter = match file.kind {
            "directory" => 'd',
            "link" => 'l',
            "device" => 'c',
            "fifo" => 'p',
            "removed" => 'x',
            _ => '-',
        };
        let owner = format!("{}:{}", file.uid, file.gid);
        let line = format!("{letter}{:04o} {owner:>11} {:>9}  {}", file.mode, units::size(file.size), file.path);
        out.push_str(&one_line(&line));
        out.push('\n');
    }
    out
}

/// `deleted by layer 2`.
fn why(waste: &Waste) -> String {
    use hull_image::explore::Reason;
    match (waste.reason, waste.other) {
        (Reason::Deleted, Some(layer)) => format!("deleted by layer {layer}"),
        (Reason::Rewritten, Some(layer)) => format!("rewritten by layer {layer}"),
        (Reason::Copied, Some(layer)) => format!("same as in layer {layer}, other owner or mode"),
        (Reason::Duplicate, Some(layer)) => format!("same content as a file of layer {layer}"),
        (Reason::Cache, _) => "cache".to_owned(),
        (Reason::Bytecode, _) => "compiled Python".to_owned(),
        (Reason::Documentation, _) => "documentation".to_owned(),
        (Reason::BuildTools, _) => "build tools".to_owned(),
        (reason, None) => reason.as_str().to_owned(),
    }
}

pub(super) fn text(report: &Report, all: bool) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(one_line(&text).trim_end());
        out.push('\n');
    };
    line(format!("{:>5}  {:>9}  {:>9}  {:>9}  {:>7}  CREATED BY", "LAYER", "SIZE", "WASTED", "PERHAPS", "FILES"));
    for layer in &report.layers {
        line(format!(
            "{:>5}  {:>9}  {:>9}  {:>9}  {:>7}  {}",
            layer.number,
            units::size(layer.size),
            units::size(layer.wasted),
            units::size(layer.optional),
            layer.files,
            ellipsis(&layer.created_by.replace('\t', " "), 60),
        ));
    }
    for layer in report.layers.iter().filter(|layer| !layer.wastes.is_empty()) {
        line(String::new());
        line(format!("Layer {}: {}", layer.number, ellipsis(&layer.created_by, 100)));
        let most = if all { usize::MAX } else { SHOWN };
        for waste in layer.wastes.iter().take(most) {
            let files = if waste.files == 1 { String::new() } else { format!(" ({} files)", waste.files) };
            line(format!("  {:>9}  /{}{files}: {}", units::size(waste.bytes), waste.path, why(waste)));
        }
        let left = layer.wastes.iter().skip(most);
        let (count, bytes) = left.fold((0, 0), |(count, bytes), waste| (count + 1, bytes + waste.bytes));
        if count > 0 {
            line(format!("  {:>9}  in {count} more places: --all shows them", units::size(bytes)));
        }
        let mut reasons: Vec<_> = layer.wastes.iter().take(SHOWN).map(|waste| waste.reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            line(format!("  {:>9}  {}: {}", "->", reason.as_str(), reason.advice()));
        }
    }
    line(String::new());
    let share = |bytes: u64| bytes.saturating_mul(100).checked_div(report.size).unwrap_or(0);
    line(format!(
        "{} in {} layers, {} of them visible; {} wasted ({} %), {} perhaps ({} %)",
        units::size(report.size),
        report.layers.len(),
        units::size(report.visible),
        units::size(report.wasted),
        share(report.wasted),
        units::size(report.optional),
        share(report.optional),
    ));
    out
}
