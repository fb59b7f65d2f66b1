//! `hull images` and `hull rmi`.

use std::time::{Duration, SystemTime};

use hull_engine::{Engine, Error, inspect};

use super::{Done, Failure};
use crate::output::{self, print, short, table};

/// List images
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull images\n  hull images -q")]
pub(super) struct Args {
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
}

/// Remove images
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull rmi mine")]
pub(super) struct Rmi {
    /// Names, IDs or unique beginnings of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let images = engine.images.list().map_err(Error::from)?;
    let id = |id: &str| if args.no_trunc { id.to_owned() } else { short(id).to_owned() };
    if args.quiet {
        for image in &images {
            print(format_args!("{}\n", id(&image.id)));
        }
        return Ok(0);
    }
    let now = SystemTime::now();
    let mut rows = Vec::new();
    for image in &images {
        let created = SystemTime::UNIX_EPOCH + Duration::from_secs(image.created);
        let age = inspect::age(now.duration_since(created).unwrap_or_default());
        let unnamed = ["<none>:<none>".to_owned()];
        for name in if image.names.is_empty() { &unnamed[..] } else { &image.names } {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
            rows.push(vec![
                repository.to_owned(),
                tag.to_owned(),
                id(&image.id),
                format!("{age} ago"),
                size(image.size),
            ]);
        }
    }
    print(table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows));
    Ok(0)
}

/// Decimal units with three digits, as Docker shows sizes of images.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.digits$}{}", UNITS[unit])
}

pub(super) fn remove(engine: &Engine, args: &Rmi) -> Done {
    let containers = engine.list()?;
    let mut failed = false;
    for name in &args.images {
        let user = engine
            .images
            .find(name)
            .ok()
            .and_then(|image| containers.iter().find(|(container, _)| container.image_id == image.id));
        if let Some((container, _)) = user {
            output::error(format_args!("image {name} is in use by container {}", short(&container.id)));
            failed = true;
            continue;
        }
        match engine.images.remove(name) {
            Ok(lines) => lines.iter().for_each(|line| print(format_args!("{line}\n"))),
            Err(error) => {
                output::error(error);
                failed = true;
            }
        }
    }
    if failed { Err(Failure { message: String::new(), code: 1 }) } else { Ok(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(size(643), "643B");
        assert_eq!(size(4_260_000), "4.26MB");
        assert_eq!(size(128_400_000), "128MB");
        assert_eq!(size(12_340), "12.3kB");
    }
}
