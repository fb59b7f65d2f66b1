//! `hull commit`, `hull diff` and `hull export`.

use std::path::PathBuf;

use hull_engine::Engine;
use hull_engine::commit::{CommitOptions, Report};
use hull_engine::events;

use super::names::name;
use super::{Done, Failure, archives};
use crate::output::{self, print};

/// Make an image of a container's changes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull commit web mine:v2\n  hull commit -c 'CMD [\"serve\"]' -m 'with data' web mine:v2"
)]
pub(super) struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// Change a default: CMD, ENTRYPOINT, ENV, LABEL, STOPSIGNAL, USER, WORKDIR, ..., as in a Dockerfile
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Comment of the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Stop the container's processes meanwhile
    #[arg(
        short,
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
    pause: bool,
    /// Container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// List the files that a container changed: A is added, C changed, D deleted
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull diff web")]
pub(super) struct Diff {
    /// Container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Write all files of a container as a tar archive
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull export -o web.tar web\n  hull export web | tar -t")]
pub(super) struct Export {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// What the archive lacks.
pub(super) fn warn(report: &Report) {
    let kinds = [
        (&report.sockets, "left out: an archive has no sockets"),
        (&report.shortened, "padded with zeros: it became shorter while it was read"),
        (&report.mounts, "left out or empty: something is mounted on it"),
    ];
    for (paths, reason) in kinds {
        if let Some(first) = paths.first.first() {
            let more = match paths.count - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            output::error(format_args!("warning: /{}{more}: {reason}", String::from_utf8_lossy(first)));
        }
    }
}

pub(super) fn commit(engine: &Engine, args: Commit) -> Done {
    let container = engine.find(&args.container)?;
    let options = CommitOptions {
        name: args.name.as_deref().map(name).transpose()?,
        author: args.author,
        message: args.message,
        changes: args.changes,
        pause: args.pause,
        config: None,
    };
    let comment = options.message.clone().unwrap_or_default();
    let (image, report) = engine.commit(&container, &options)?;
    warn(&report);
    let id = image.id.to_string();
    events::emit_image(engine, "create", &id, &id);
    let reference = options.name.map(|name| name.familiar()).unwrap_or_default();
    if !reference.is_empty() {
        events::emit_image(engine, "tag", &id, &reference);
    }
    let more = [("comment", comment.as_str()), ("imageID", id.as_str()), ("imageRef", reference.as_str())];
    engine.tell(&container, "commit", &more);
    print(format_args!("{}\n", image.id));
    Ok(0)
}

pub(super) fn diff(engine: &Engine, args: &Diff) -> Done {
    let container = engine.find(&args.container)?;
    let mut text = String::new();
    for change in engine.diff(&container)? {
        text.push_str(&hull_oci::spec::one_line(&change.to_string()));
        text.push('\n');
    }
    print(text);
    Ok(0)
}

pub(super) fn export(engine: &Engine, args: &Export) -> Done {
    let container = engine.find(&args.container)?;
    engine.tell(&container, "export", &[]);
    if let Some(path) = &args.output {
        archives::check_output(path).map_err(|reason| Failure::new(format!("failed to export container: {reason}")))?;
        archives::write_file(path, |file| {
            warn(&engine.export(&container, file)?);
            Ok(())
        })?;
        return Ok(0);
    }
    warn(&archives::to_stdout("the -o flag", |output| Ok(engine.export(&container, output)?))?);
    Ok(0)
}
