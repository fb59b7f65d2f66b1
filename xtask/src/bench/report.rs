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
    versions: BTreeMap<String, String>,
}

/// The table's rows: the contender, what it does, and what it is compared with.
const ROWS: &[(&str, &str, &str)] = &[
    ("hull-plain", "`hull oci run` of `true`, no seccomp", "crun-plain"),
    ("crun-plain", "`crun run`, no seccomp", "crun-plain"),
    ("runc-plain", "`runc run`, no seccomp", "crun-plain"),
    ("hull-seccomp", "`hull oci run` of `true`, default profile", "crun-seccomp"),
    ("crun-seccomp", "`crun run`, default profile", "crun-seccomp"),
    ("runc-seccomp", "`runc run`, default profile", "crun-seccomp"),
    ("hull-run", "`hull run --rm --network none`, default profile, the engine's whole job", "crun-plain"),
    ("hull-run-d", "20 × `hull run -d`", "crun-run-d"),
    ("crun-run-d", "20 × `crun run --detach`", "crun-run-d"),
    ("hull-rm", "20 × `hull rm -f`", "crun-rm"),
    ("crun-rm", "20 × `crun delete --force`", "crun-rm"),
];

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
        let map = if unit == "KiB" { &mut figures.peaks } else { &mut figures.times };
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

/// The Markdown table.
pub(super) fn table(figures: &Figures, options: &Options, size: u64) -> String {
    let mut text = String::new();
    let version = |name: &str| figures.versions.get(name).map_or("-", String::as_str);
    let _ = writeln!(
        text,
        "Measured {}, kernel {}, {} runs each, {} ms pause before each; {}; {}; {}. Release binary: {:.2} MB.\n",
        today(),
        version("kernel"),
        options.runs,
        options.pause,
        version("hull"),
        version("crun"),
        version("runc"),
        size as f64 / 1e6
    );
    text.push_str("| work | median ms | min ms | ratio of medians | peak memory MB |\n|---|---:|---:|---:|---:|\n");
    for (name, work, against) in ROWS {
        let Some(times) = figures.times.get(*name) else { continue };
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = figures.times.get(*against).map(|base| median(times) / median(base));
        let peak = figures.peaks.get(*name).map(|peaks| median(peaks) / 1024.0);
        let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let _ = writeln!(
            text,
            "| {work} | {:.2} | {:.2} | {} | {} |",
            median(times) / 1000.0,
            least / 1000.0,
            or_dash(ratio),
            or_dash(peak)
        );
    }
    text
}

/// The rows about images: the contender, what it does, and the row it is compared with.
const IMAGE_ROWS: &[(&str, &str, &str)] = &[
    ("hull-load", "`hull load -i image.tar`", "hull-load"),
    ("hull-load-stdin", "`hull load < image.tar`", "hull-load"),
    ("umoci-unpack", "`umoci unpack` of the same layout", "hull-load"),
    ("podman-load", "`podman load -i image.tar`", "hull-load"),
    ("hull-rmi", "`hull rmi`", "hull-rmi"),
    ("umoci-rm", "`rm -rf` of umoci's bundle", "hull-rmi"),
    ("podman-rmi", "`podman rmi`", "hull-rmi"),
    ("hull-mount-60", "`hull image mount` of 60 layers", "hull-mount-60"),
    ("hull-unmount-60", "`hull image unmount` of 60 layers", "hull-mount-60"),
];

/// The rows about pulling.
const PULL_ROWS: &[(&str, &str, &str)] = &[
    ("hull-pull", "`hull pull`", "hull-pull"),
    ("docker-pull", "`docker pull`", "hull-pull"),
    ("podman-pull", "`podman pull`", "hull-pull"),
    ("gunzip", "`gzip -dc` of the layers, one after the other", "hull-pull"),
];

/// The Markdown table about pulling.
pub(super) fn pulls(figures: &Figures, about: &str) -> String {
    rows(figures, about, &["docker", "podman", "registry"], PULL_ROWS)
}

/// The Markdown table about images.
pub(super) fn images(figures: &Figures, about: &str) -> String {
    rows(figures, about, &["umoci", "podman"], IMAGE_ROWS)
}

fn rows(figures: &Figures, about: &str, programs: &[&str], rows: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    let version = |name: &str| figures.versions.get(name).map_or("-", String::as_str);
    let programs: Vec<&str> = programs.iter().map(|name| version(name)).collect();
    let (kernel, programs) = (version("kernel"), programs.join("; "));
    let _ = writeln!(text, "Measured {}, kernel {kernel}; {programs}. The image: {about}.\n", today());
    text.push_str("| work | median ms | min ms | ratio of medians |\n|---|---:|---:|---:|\n");
    for (name, work, against) in rows {
        let Some(times) = figures.times.get(*name) else { continue };
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let ratio = figures.times.get(*against).map_or(1.0, |base| median(times) / median(base));
        let _ = writeln!(text, "| {work} | {:.1} | {:.1} | {ratio:.2} |", median(times) / 1000.0, least / 1000.0);
    }
    text
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
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(now.map_or(0, |since| since.as_secs() / 86_400))
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date(day: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut day) = (1970, day);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_778), "2026-11-21");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_become_rows_with_ratios() {
        let output = "noise\nbench hull-plain us 2000 4000 3000\nbench crun-plain us 6000\nbench hull-plain KiB 2048\n\
                      version kernel 6.1\nbench hull-plain us 3000\n";
        let options = Options { runs: 3, pause: 50, peers_root: None, binary: None, vm: false, dry: true };
        let table = table(&read(output).unwrap(), &options, 4_000_000);
        assert!(table.contains("| `hull oci run` of `true`, no seccomp | 3.00 | 2.00 | 0.50 | 2.00 |"), "{table}");
        assert!(table.contains("kernel 6.1") && table.contains("4.00 MB"), "{table}");
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
