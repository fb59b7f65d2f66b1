//! `hull cp`.

use std::io::IsTerminal as _;

use hull_engine::Engine;
use hull_engine::cp::{Copied, Options};

use super::{Done, Failure, archives};
use crate::output::{self, units};

/// Copy files between a container and the host
///
/// A path of a container counts from its root, whether it runs or not. '-' is a tar archive on standard input or output.
/// Files keep their owners on the way into a container, and are the caller's on the way out.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull cp web:/etc/nginx/nginx.conf .\n  hull cp site/. web:/srv/www\n  hull cp web:/var/log - | tar -t"
)]
pub(super) struct Args {
    /// Keep owners on the way out too
    #[arg(short, long)]
    archive: bool,
    /// Copy what a source that is a link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say how much was copied
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of the host, or '-'
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, a path of the host, or '-'
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
}

/// A container and a path of it, unless the text is a path of the host, as Docker tells them apart.
fn split(text: &str) -> (Option<&str>, &str) {
    if text.starts_with(['/', '.']) {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) => (Some(container), path),
        None => (None, text),
    }
}

fn left_out(copied: &Copied) {
    if let Some(first) = copied.left_out.first() {
        let more = match copied.left_out_count - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let reason = "left out: sockets, devices and the destination itself are not copied";
        output::error(format_args!("warning: {}{more}: {reason}", first.display()));
    }
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let options = Options { archive: args.archive, follow: args.follow_link };
    let (source, destination) = (split(&args.source), split(&args.destination));
    let copied = match (source, destination) {
        ((Some(_), _), (Some(_), _)) => {
            return Err(Failure::new(
                "copying between containers is not supported; use a directory of this machine in between",
            ));
        }
        ((None, _), (None, _)) => {
            return Err(Failure::new(
                "must specify at least one container source; use CONTAINER:PATH for one of the two",
            ));
        }
        ((Some(name), path), (None, "-")) => {
            let container = engine.find(name)?;
            let report =
                archives::to_stdout("a file", |output| Ok(engine.stream_from(&container, path, options, output)?))?;
            super::commit::warn(&report);
            return Ok(0);
        }
        ((Some(name), path), (None, local)) => engine.copy_from(&engine.find(name)?, path, local, options)?,
        ((None, "-"), (Some(name), path)) => engine.stream_to(&engine.find(name)?, path, std::io::stdin().lock())?,
        ((None, local), (Some(_), _)) if std::fs::symlink_metadata(local).is_err() => {
            let shown = std::path::absolute(local).unwrap_or_else(|_| local.into());
            let error = std::fs::symlink_metadata(local).err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
            return Err(Failure::new(super::opening(&shown, &error).replacen("open", "lstat", 1)));
        }
        ((None, local), (Some(name), path)) => engine.copy_to(&engine.find(name)?, local, path, options)?,
    };
    left_out(&copied);
    if !args.quiet && args.source != "-" && std::io::stderr().is_terminal() {
        let shown = &args.destination;
        output::warning(format_args!("Successfully copied {} to {shown}", units::size(copied.bytes)));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_from_paths() {
        assert_eq!(split("web:/a"), (Some("web"), "/a"));
        assert_eq!(split("web:a:b"), (Some("web"), "a:b"));
        assert_eq!(split("./web:a"), (None, "./web:a"));
        assert_eq!(split("/web:a"), (None, "/web:a"));
        assert_eq!(split("-"), (None, "-"));
        assert_eq!(split("file"), (None, "file"));
    }
}
