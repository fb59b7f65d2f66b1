//! `hull top`; without a name it is `hull ui`.

use hull_engine::Engine;
use hull_oci::spec::one_line;

use super::{Done, Failure};
use crate::output::print;

/// Show the processes of a container; without a name, a screen of all containers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull top\n  hull top web\n  hull top web -o pid,user,rss,comm")]
pub(super) struct Args {
    /// Name, ID or unique beginning of an ID
    container: Option<String>,
    /// Options of ps
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    options: Vec<String>,
}

/// Docker's columns are at least twenty wide, with three spaces between.
fn table(titles: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(titles).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        let longest = all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        (longest + 3).max(20)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut out = String::new();
    for row in all() {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            // Arguments are the container's own words.
            let cell = one_line(cell);
            match widths.get(column).filter(|_| column < last) {
                Some(width) => out.push_str(&format!("{cell:<width$}")),
                None => out.push_str(&cell),
            }
        }
        out.push('\n');
    }
    out
}

pub(super) fn main(engine: &Engine, args: &Args) -> Done {
    let Some(name) = &args.container else { return super::ui::main(engine, &super::ui::Args::default()) };
    let container = engine.find(name)?;
    let found = engine.processes(&container, &args.options).map_err(Failure::from)?;
    print(table(&found.titles, &found.rows));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_docker_s() {
        let text = table(&["PID".into(), "CMD".into()], &[vec!["7".into(), "sh\x1b -c x".into()]]);
        assert_eq!(text, "PID                 CMD\n7                   sh\\u{1b} -c x\n");
    }
}
