//! `hull man`: the manual, one page for each command, made of the same words as `--help`.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};

use super::{Cli, Done, Failure};

/// Write man pages into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull man /usr/local/share/man/man1 && man hull-run")]
pub(super) struct Args {
    /// The directory; it is made
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn main(args: &Args) -> Done {
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| Failure::new(format!("write {path}: {error}"))
    };
    std::fs::create_dir_all(&args.directory).map_err(fail(&args.directory))?;
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    collect(&root, "hull", &mut pages);
    for (name, command) in pages {
        let page = clap_mangen::Man::new(command.clone().display_name(name.clone()))
            .title(name.to_uppercase())
            .source(format!("hull {}", env!("CARGO_PKG_VERSION")))
            .manual("Hull");
        let path = args.directory.join(format!("{name}.1"));
        let mut text = Vec::new();
        page.render(&mut text).map_err(fail(&path))?;
        std::fs::write(&path, text).map_err(fail(&path))?;
    }
    Ok(0)
}

fn collect<'a>(command: &'a Command, name: &str, pages: &mut Vec<(String, &'a Command)>) {
    pages.push((name.to_owned(), command));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_an_example() {
        let mut root = Cli::command();
        root.build();
        let mut pages = Vec::new();
        collect(&root, "hull", &mut pages);
        let bare = pages.iter().filter(|(_, command)| {
            !command.has_subcommands()
                && !command.get_after_help().is_some_and(|text| text.to_string().contains("Example"))
        });
        let bare: Vec<&str> = bare.map(|(name, _)| name.as_str()).collect();
        assert!(bare.is_empty(), "no example: {bare:?}");
    }
}
