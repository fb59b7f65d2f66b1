//! Medians, ratios, and the table in docs/benchmarks.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::Options;
use crate::Result;

/// What the measuring process printed.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Microseconds of each run, by contender.
    times: BTreeMap<String, Vec<f64>>,
    /// KiB of peak memory, by contender.
    peaks: BTreeMap<String, Vec<f64>>,
    /// Megabytes per second, by contender.
    rates: BTreeMap<String, Vec<f64>>,
    versions: BTreeMap<String, String>,
}

/// Reads the lines `bench NAME UNIT VALUE...` and `version NAME TEXT`.
pub(super) fn read(output: &str) -> Result<Figures> {
    let mut figures = Figures::default();
    for line in output.lines() {
        if let Some((name, text)) = line.strip_prefix("version ").and_then(|rest| rest.split_once(' ')) {
            figures.versions.insert(name.to_owned(), text.trim().to_owned());
        }
        let Some(rest) = line.strip_prefix("bench ") else { continue };
        let mut words = rest.split(' ');
        let (Some(name), Some(unit)) = (words.next(), words.next()) else { continue };
        let values = words.map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
        let map = match unit {
            "KiB" => &mut figures.peaks,
            "MBps" => &mut figures.rates,
            _ => &mut figures.times,
        };
        map.entry(name.to_owned()).or_default().extend(values);
    }
    if figures.times.is_empty() { Err(format!("nothing was measured:\n{output}").into()) } else { Ok(figures) }
}

/// The middle value, or the mean of the two middle ones.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// A row: the contender, what it does in words, the contender it is compared with, and what is wanted; empty words where
/// there is none.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str);

/// What a table has.
#[derive(Debug)]
pub(super) struct Table {
    /// The programs whose versions are named, as the measuring process calls them.
    pub(super) programs: &'static [&'static str],
    pub(super) rows: &'static [Row],
}

/// The Markdown table. `size` is that of the binary in bytes, `about` what is measured.
pub(super) fn table(table: &Table, figures: &Figures, options: &Options, size: u64, about: &str) -> String {
    let mut text = String::new();
    let version = |name: &str| figures.versions.get(name).map_or("-", String::as_str);
    let _ = write!(
        text,
        "Measured {}, kernel {}, {} runs each where no other number is given, {} ms pause before each, load at the end {}; ",
        today(),
        version("kernel"),
        options.runs,
        options.pause,
        version("load").split(' ').next().unwrap_or_default()
    );
    for program in table.programs {
        let _ = write!(text, "{}; ", version(program));
    }
    text.truncate(text.len() - 2);
    let _ = writeln!(
        text,
        ". Release binary: {:.2} MB.{}{about}\n",
        size as f64 / 1e6,
        if about.is_empty() { "" } else { " " }
    );
    text.push_str("| work | median | best | ratio of medians | wanted |\n|---|---:|---:|---:|---:|\n");
    for (name, work, against, wanted) in table.rows {
        let Some((map, values, cell)) = figures.values(name) else { continue };
        let best = values.iter().copied().fold(f64::NAN, if cell(0.0).ends_with("/s") { f64::max } else { f64::min });
        let ratio = map.get(*against).map_or("-".to_owned(), |base| format!("{:.2}", median(values) / median(base)));
        // The least of differences says nothing.
        let best = if name.ends_with("-more") { "-".to_owned() } else { cell(best) };
        let _ = writeln!(text, "| {work} | {} | {best} | {ratio} | {wanted} |", cell(median(values)));
    }
    text
}

impl Figures {
    /// A contender's values, those they stand among, and how one is written.
    #[expect(clippy::type_complexity, reason = "three things of one caller")]
    fn values(&self, name: &str) -> Option<(&BTreeMap<String, Vec<f64>>, &[f64], fn(f64) -> String)> {
        let time = |value: f64| match value.abs() {
            small if small < 500.0 => format!("{value:.1} µs"),
            middle if middle < 1e5 => format!("{:.2} ms", value / 1000.0),
            _ => format!("{:.0} ms", value / 1000.0),
        };
        let kinds: [(_, fn(f64) -> String); 3] = [
            (&self.times, time),
            (&self.peaks, |value| format!("{value:.0} KiB")),
            (&self.rates, |value| format!("{value:.0} MB/s")),
        ];
        kinds.into_iter().find_map(|(map, cell)| Some((map, map.get(name)?.as_slice(), cell)))
    }
}

/// Puts the table between the markers of `section`, or at the end with new markers.
pub(super) fn write(path: &Path, section: &str, table: &str) -> Result<()> {
    let document = std::fs::read_to_string(path)?;
    std::fs::write(path, replace(&document, section, table))?;
    Ok(())
}

fn replace(document: &str, section: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {section} -->"), format!("<!-- /{section} -->"));
    let place = document.find(&begin).zip(document.find(&end));
    match place {
        Some((from, to)) if from < to => {
            format!("{}{begin}\n{table}{}", &document[..from], &document[to..])
        }
        _ => format!("{}\n\n{begin}\n{table}{end}\n", document.trim_end()),
    }
}

/// Today's date, UTC, as `YYYY-MM-DD`.
fn today() -> String {
    hull_oci::time::rfc3339_nanos(std::time::SystemTime::now()).chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    const ROWS: &[Row] = &[
        ("a", "first", "b", "ratio 0.97"),
        ("b-rate", "bytes", "c-rate", ""),
        ("a-more", "of that", "", "2.5 ms"),
        ("a-trip", "there and back", "", ""),
        ("peak", "memory", "peak", ""),
        ("absent", "nobody", "", ""),
    ];

    #[test]
    fn figures_become_rows_with_units_and_ratios() {
        let output = "noise\nbench a us 2000 4000 3000\nbench b us 6000\nbench peak KiB 212\nversion kernel 6.1\n\
                      bench a us 3000\nbench b-rate MBps 900 1100\nbench c-rate MBps 1000\nbench a-more us 1500 1700\n\
                      bench a-trip us 25.04\nversion hull hull 1.0\n";
        let options = Options { runs: 30, pause: 50, peers_root: None, binary: None, vm: false, dry: true };
        let form = Table { programs: &["hull", "crun"], rows: ROWS };
        let table = table(&form, &read(output).unwrap(), &options, 4_000_000, "Ten files.");
        assert!(table.contains("kernel 6.1, 30 runs"), "{table}");
        assert!(table.contains("; hull 1.0; -. Release binary: 4.00 MB. Ten files.\n"), "{table}");
        assert!(table.contains("| first | 3.00 ms | 2.00 ms | 0.50 | ratio 0.97 |"), "{table}");
        assert!(table.contains("| bytes | 1000 MB/s | 1100 MB/s | 1.00 |  |"), "{table}");
        assert!(table.contains("| of that | 1.60 ms | - | - | 2.5 ms |"), "{table}");
        assert!(table.contains("| there and back | 25.0 µs | 25.0 µs | - |  |"), "{table}");
        assert!(table.contains("| memory | 212 KiB | 212 KiB | 1.00 |  |"), "{table}");
        assert!(!table.contains("nobody"), "{table}");
        assert!(read("noise\n").is_err());
    }

    #[test]
    fn a_section_is_replaced_in_place() {
        let document = "# B\n\n<!-- host -->\nold\n<!-- /host -->\n\nafter\n";
        let replaced = replace(document, "host", "new\n");
        assert_eq!(replaced, "# B\n\n<!-- host -->\nnew\n<!-- /host -->\n\nafter\n");
        assert!(replace("# B\n", "vm", "t\n").ends_with("\n\n<!-- vm -->\nt\n<!-- /vm -->\n"));
    }
}
