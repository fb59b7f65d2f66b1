//! `hull history`.

use std::time::SystemTime;

use hull_engine::Engine;

use super::{Done, Failure};
use crate::output::format::{Listing, Row};
use crate::output::{ellipsis, print, units};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Waste", "WASTE"),
    ("Comment", "COMMENT"),
];

/// Show what made an image, with the size of each step
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull history hello\n  hull history --no-trunc --format '{{.Size}} {{.CreatedBy}}' hello"
)]
pub(super) struct Args {
    /// Print by a template, or 'json', or 'table TEMPLATE'
    #[arg(long, value_name = "TEMPLATE", default_value = "", hide_default_value = true)]
    format: String,
    /// Print sizes and times for people; --human=false prints bytes and dates
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        action = clap::ArgAction::Set,
        default_value_t = true,
        hide_default_value = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    human: bool,
    /// Do not shorten IDs and instructions
    #[arg(long)]
    no_trunc: bool,
    /// Choose this platform where there are several
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]", value_parser = hull_oci::image::Platform::parse)]
    platform: Option<hull_oci::image::Platform>,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show how much of each layer is wasted; 'hull image explore' says why
    #[arg(long)]
    waste: bool,
    /// Image
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let image = engine.images.find_on(&args.image, args.platform.as_ref())?;
    let now = SystemTime::now();
    // Docker's fields are all that a format sees that does not ask for more.
    let waste = args.waste || args.format.contains(".Waste");
    let mut wasted = std::collections::HashMap::new();
    if waste {
        let report = hull_image::explore::explore(&engine.images, &image)?;
        wasted.extend(report.layers.into_iter().map(|layer| (layer.diff_id, layer.wasted + layer.optional)));
    }
    let rows = image.history().into_iter().enumerate().map(|(index, step)| {
        let id = match (index, args.no_trunc) {
            (0, true) => image.id.to_string(),
            (0, false) => image.id.short().to_owned(),
            _ => "<missing>".to_owned(),
        };
        let instruction = step.created_by.replace('\t', " ");
        let date = step.created.map_or_else(String::new, units::rfc3339);
        let since = match step.created {
            None => "N/A".to_owned(),
            Some(created) if args.human => units::ago(created, now),
            Some(_) => date.clone(),
        };
        let row = Row::new("image.historyContext")
            .with("ID", id)
            .with("CreatedSince", since)
            .with("CreatedAt", date)
            .with("CreatedBy", if args.no_trunc { instruction } else { ellipsis(&instruction, 45) })
            .with("Size", if args.human { units::size(step.size) } else { step.size.to_string() })
            .with("Comment", step.comment);
        if !waste {
            return row;
        }
        let bytes = step.layer.and_then(|layer| wasted.get(&layer).copied()).unwrap_or(0);
        row.with("Waste", if args.human { units::size(bytes) } else { bytes.to_string() })
    });
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let waste = if args.waste { "{{.Waste}}\t" } else { "" };
    let table = format!("{{{{.ID}}}}\t{{{{.{created}}}}}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{waste}{{{{.Comment}}}}");
    let format = if args.quiet { "{{.ID}}" } else { &args.format };
    print(Listing { format, table: &table, raw: None, headers: HEADERS }.render(rows).map_err(Failure::new)?);
    Ok(0)
}
