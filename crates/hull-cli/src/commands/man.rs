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

    /// Words of a shell's line up to what is not ours: a pipe, a redirection, a closing bracket, or a remark.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for letter in line.split("   ").next().unwrap_or_default().chars() {
            match (quote, letter) {
                (Some(open), _) if open == letter => quote = None,
                (None, '"' | '\'') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, ' ') => words.extend(word.take()),
                (None, '|' | '>' | ')' | ';' | '&' | '#') if word.is_none() || letter == ')' => break,
                _ => word.get_or_insert_default().push(letter),
            }
        }
        words.extend(word);
        words
    }

    #[test]
    fn every_example_is_a_command_line() {
        use clap::Parser as _;
        let mut root = Cli::command();
        root.build();
        let mut pages = Vec::new();
        collect(&root, "hull", &mut pages);
        let mut count = 0;
        for (name, command) in pages {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter(|line| line.starts_with("  ")) {
                let Some(at) = line.find("hull ") else { continue };
                // What another command prints is a word.
                let mut line = line[at..].to_owned();
                while let Some(begin) = line.find("$(") {
                    let end = line[begin..].find(')').map_or(line.len(), |end| begin + end + 1);
                    line.replace_range(begin..end, "x");
                }
                let words = words(&line);
                count += 1;
                // The runtime's command line is another parser's.
                if words.get(1).is_some_and(|word| word == "oci") {
                    continue;
                }
                let parsed = Cli::try_parse_from(&words);
                let help = |error: &clap::Error| {
                    matches!(error.kind(), clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion)
                };
                if let Err(error) = parsed
                    && !help(&error)
                {
                    panic!("{name}: {line}: {words:?}: {error}");
                }
            }
        }
        assert!(count > 150, "{count} examples");
    }
}
