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

/// The rows about networks: the contender, what it does, the row it is compared with, and what is wanted.
const NETWORK_ROWS: &[(&str, &str, &str, &str)] = &[
    ("hull-none", "`hull run --rm --network none` of `true`", "hull-none", ""),
    ("hull-bridge", "`hull run --rm` on the bridge", "hull-none", ""),
    ("hull-bridge-more", "of that, the bridge", "", "2.5 ms"),
    ("hull-ports", "`hull run --rm -p` of 200 ports", "hull-none", ""),
    ("hull-ports-more", "of that, the ports", "", "2 ms"),
    ("hull-first", "`hull run -d`, containers 1 to 10 of a bridge", "hull-first", ""),
    ("hull-last", "containers 491 to 500", "hull-first", "ratio 2"),
    ("hull-many-rm", "`hull rm -f` of these 500", "", ""),
    ("hull-run", "`hull run --rm` on the bridge, docker's daemon running", "hull-run", ""),
    ("docker-run", "`docker run --rm`", "hull-run", "ratio 20"),
    ("podman-run", "`podman run --rm`", "hull-run", "ratio 20"),
    ("hull-run-ports", "`hull run --rm -p` of 200 ports, docker's daemon running", "hull-run-ports", ""),
    ("docker-run-ports", "`docker run --rm -p` of 200 ports", "hull-run-ports", ""),
    ("podman-run-ports", "`podman run --rm -p` of 200 ports", "hull-run-ports", ""),
    ("hull-port-rate", "bytes from the LAN through hull's published port", "docker-port-rate", "ratio 0.97"),
    ("docker-port-rate", "through docker's", "docker-port-rate", ""),
    ("podman-port-rate", "through podman's", "docker-port-rate", ""),
    ("hull-port-trip", "a round trip through hull's published port", "docker-port-trip", "ratio 1.03"),
    ("docker-port-trip", "through docker's", "docker-port-trip", ""),
    ("podman-port-trip", "through podman's", "docker-port-trip", ""),
    ("hull-near-rate", "bytes from container to container, hull", "docker-near-rate", "ratio 0.97"),
    ("docker-near-rate", "docker", "docker-near-rate", ""),
    ("podman-near-rate", "podman", "docker-near-rate", ""),
    ("hull-near-trip", "a round trip from container to container, hull", "docker-near-trip", "ratio 1.03"),
    ("docker-near-trip", "docker", "docker-near-trip", ""),
    ("podman-near-trip", "podman", "docker-near-trip", ""),
];

/// The rows about a container's life.
const LIFE_ROWS: &[(&str, &str, &str, &str)] = &[
    ("hull-monitor", "memory (PSS) of hull's monitor of one idle container", "hull-monitor", "300 KiB"),
    ("podman-monitor", "of podman's conmon", "hull-monitor", ""),
    ("docker-monitor", "of docker's containerd-shim", "hull-monitor", ""),
    ("hull-monitor-many", "of each monitor of 100 idle containers", "hull-monitor", "300 KiB"),
    ("hull-monitor-running", "of each monitor of 1 000", "hull-monitor", "300 KiB"),
    ("hull-exec", "`hull exec` of `true`", "hull-exec", "10 ms"),
    ("docker-exec", "`docker exec`", "hull-exec", ""),
    ("podman-exec", "`podman exec`", "hull-exec", ""),
    ("beside-alone-p50", "a request to a container that echoes, alone: half take at most", "beside-alone-p50", ""),
    ("beside-alone-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-bomb-p50", "beside a fork bomb: half take at most", "beside-alone-p50", ""),
    ("beside-bomb-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-hog-p50", "beside a memory hog: half take at most", "beside-alone-p50", ""),
    ("beside-hog-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-flood-p50", "beside a log flood: half take at most", "beside-alone-p50", ""),
    ("beside-flood-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-filler-p50", "beside a disk filler: half take at most", "beside-alone-p50", ""),
    ("beside-filler-p99", "99 of 100", "beside-alone-p99", ""),
    ("beside-all-p50", "beside all four: half take at most", "beside-alone-p50", ""),
    ("beside-all-p99", "99 of 100", "beside-alone-p99", ""),
    ("hull-beside-exec", "`hull exec` of `true` beside all four", "hull-exec", ""),
    ("hull-beside-run", "`hull run --rm` of `true` beside all four", "", ""),
    ("hull-beside-ps", "`hull ps` beside all four", "", ""),
    ("hull-beside-rm", "`hull rm -f` of the four and the neighbour", "", ""),
    ("hull-batch-none", "100 × `hull run -d --network none`", "", "2000 ms"),
    ("hull-batch-none-rm", "`hull rm -f` of these 100", "", "1000 ms"),
    ("hull-batch-bridge", "100 × `hull run -d` on the bridge", "", "2000 ms"),
    ("hull-batch-bridge-rm", "`hull rm -f` of these 100", "", "1000 ms"),
    ("hull-create", "1 000 × `hull create`", "", ""),
    ("hull-ps-created", "`hull ps -a` of these 1 000", "", "50 ms"),
    ("hull-created-rm", "`hull rm` of these 1 000", "", ""),
    ("hull-running", "1 000 × `hull run -d --network none`", "", ""),
    ("hull-ps-running", "`hull ps` of 1 000 that run", "", "50 ms"),
    ("hull-running-stop", "`hull stop -t 0` of these 1 000", "", ""),
    ("hull-running-rm", "`hull rm` of these 1 000", "", ""),
];

/// The rows about builds.
const BUILD_ROWS: &[(&str, &str, &str, &str)] = &[
    ("hull-small", "small project, nothing changed: `hull build`", "hull-small", "30 ms"),
    ("docker-small", "`docker build` (BuildKit)", "hull-small", "ratio 10"),
    ("buildah-small", "`buildah build --layers`", "hull-small", ""),
    ("hull-first", "10 000 files of 100 MB, first build: `hull build`", "hull-first", ""),
    ("docker-first", "`docker build`", "hull-first", "ratio 3"),
    ("buildah-first", "`buildah build --layers`", "hull-first", ""),
    ("hull-again", "the same, nothing changed: `hull build`", "hull-again", "150 ms"),
    ("docker-again", "`docker build`", "hull-again", ""),
    ("buildah-again", "`buildah build --layers`", "hull-again", ""),
    ("hull-one", "the same, one file changed: `hull build`", "hull-one", "500 ms"),
    ("docker-one", "`docker build`", "hull-one", ""),
    ("buildah-one", "`buildah build --layers`", "hull-one", ""),
    ("hull-ten", "ten independent stages that compute: `hull build`", "hull-ten", ""),
    ("docker-ten", "`docker build`", "hull-ten", ""),
    ("buildah-ten", "`buildah build --layers --jobs 10`", "hull-ten", ""),
    ("hull-lone", "one of these stages alone: `hull build`", "hull-lone", ""),
    ("docker-lone", "`docker build`", "hull-lone", ""),
    ("buildah-lone", "`buildah build --layers`", "hull-lone", ""),
];

/// The rows about the Engine API.
const API_ROWS: &[(&str, &str, &str, &str)] = &[
    ("hull-cli-run", "`docker run --rm` through `hull serve`", "hull-cli-run", ""),
    ("docker-cli-run", "through dockerd", "hull-cli-run", "ratio 5"),
    ("hull-cli-run-none", "`docker run --rm --network none` through `hull serve`", "hull-cli-run-none", ""),
    ("docker-cli-run-none", "through dockerd", "hull-cli-run-none", "ratio 5"),
    ("hull-cli-exec", "`docker exec` through `hull serve`", "hull-cli-exec", ""),
    ("docker-cli-exec", "through dockerd", "hull-cli-exec", ""),
    ("hull-cli-ps", "`docker ps -a` through `hull serve`", "hull-cli-ps", ""),
    ("docker-cli-ps", "through dockerd", "hull-cli-ps", ""),
    ("hull-api-run", "requests to create, start, wait for and remove a container: `hull serve`", "hull-api-run", ""),
    ("docker-api-run", "dockerd", "hull-api-run", "ratio 5"),
    ("hull-api-ping", "`GET /_ping`: `hull serve`", "hull-api-ping", ""),
    ("docker-api-ping", "dockerd", "hull-api-ping", ""),
    ("hull-api-list", "`GET /containers/json?all=1` of 50: `hull serve`", "hull-api-list", ""),
    ("docker-api-list", "dockerd", "hull-api-list", ""),
    ("hull-api-inspect", "`GET /containers/ID/json`: `hull serve`", "hull-api-inspect", ""),
    ("docker-api-inspect", "dockerd", "hull-api-inspect", ""),
    ("hull-api-image", "`GET /images/NAME/json`: `hull serve`", "hull-api-image", ""),
    ("docker-api-image", "dockerd", "hull-api-image", ""),
    ("hull-serve-idle", "anonymous memory of `hull serve` before the first request", "", ""),
    ("hull-serve", "after all of them", "hull-serve", ""),
    ("docker-dockerd", "of dockerd", "hull-serve", ""),
    ("docker-containerd", "of its containerd", "hull-serve", ""),
];

/// The Markdown table about the Engine API.
pub(super) fn api(figures: &Figures, options: &Options, size: u64) -> String {
    aims(figures, options, size, "podman", API_ROWS)
}

/// The rows about the command line.
const COMMAND_LINE_ROWS: &[(&str, &str, &str, &str)] = &[
    ("hull-version", "`hull --version`", "hull-version", "2 ms"),
    ("docker-version", "`docker --version`", "hull-version", ""),
    ("podman-version", "`podman --version`", "hull-version", ""),
    ("hull-ps", "`hull ps` of 100 containers that run", "hull-ps", "10 ms"),
    ("docker-ps", "`docker ps`", "hull-ps", ""),
    ("podman-ps", "`podman ps`", "hull-ps", ""),
    ("hull-complete", "completion of `hull stop` with these 100 names", "hull-complete", "20 ms"),
    ("docker-complete", "of `docker stop`", "hull-complete", ""),
    ("podman-complete", "of `podman stop`", "hull-complete", ""),
];

/// The Markdown table about the command line.
pub(super) fn command_line(figures: &Figures, options: &Options, size: u64) -> String {
    aims(figures, options, size, "podman", COMMAND_LINE_ROWS)
}

/// The Markdown table about builds.
pub(super) fn builds(figures: &Figures, options: &Options, size: u64) -> String {
    aims(figures, options, size, "buildah", BUILD_ROWS)
}

/// The Markdown table about networks.
pub(super) fn network(figures: &Figures, options: &Options, size: u64) -> String {
    aims(figures, options, size, "podman", NETWORK_ROWS)
}

/// The Markdown table about a container's life.
pub(super) fn life(figures: &Figures, options: &Options, size: u64) -> String {
    aims(figures, options, size, "podman", LIFE_ROWS)
}

/// A table of several units, with what is wanted.
fn aims(figures: &Figures, options: &Options, size: u64, third: &str, rows: &[(&str, &str, &str, &str)]) -> String {
    let mut text = String::new();
    let version = |name: &str| figures.versions.get(name).map_or("-", String::as_str);
    let _ = writeln!(
        text,
        "Measured {}, kernel {}, {} runs each where no other number is given, {} ms pause before each, load at the end {}; \
         {}; {}; {}. Release binary: {:.2} MB.\n",
        today(),
        version("kernel"),
        options.runs,
        options.pause,
        version("load").split(' ').next().unwrap_or_default(),
        version("hull"),
        version("docker"),
        version(third),
        size as f64 / 1e6
    );
    text.push_str("| work | median | best | ratio of medians | wanted |\n|---|---:|---:|---:|---:|\n");
    for (name, work, against, wanted) in rows {
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
    fn units_are_written_and_the_best_rate_is_the_highest() {
        let output = "bench hull-port-rate MBps 900 1100\nbench docker-port-rate MBps 1000\nbench hull-monitor KiB 212\n\
                      bench hull-bridge-more us 1500 1700\nbench hull-port-trip us 25.04\nversion kernel 6.1\n";
        let options = Options { runs: 30, pause: 50, peers_root: None, binary: None, vm: false, dry: true };
        let figures = read(output).unwrap();
        let table = network(&figures, &options, 4_000_000);
        assert!(table.contains("published port | 1000 MB/s | 1100 MB/s | 1.00 | ratio 0.97 |"), "{table}");
        assert!(table.contains("| of that, the bridge | 1.60 ms | - | - | 2.5 ms |"), "{table}");
        assert!(table.contains("| 25.0 µs | 25.0 µs | - | ratio 1.03 |"), "{table}");
        assert!(life(&figures, &options, 1).contains("| 212 KiB | 212 KiB | 1.00 | 300 KiB |"), "{table}");
    }

    #[test]
    fn a_section_is_replaced_in_place() {
        let document = "# B\n\n<!-- host -->\nold\n<!-- /host -->\n\nafter\n";
        let replaced = replace(document, "host", "new\n");
        assert_eq!(replaced, "# B\n\n<!-- host -->\nnew\n<!-- /host -->\n\nafter\n");
        assert!(replace("# B\n", "vm", "t\n").ends_with("\n\n<!-- vm -->\nt\n<!-- /vm -->\n"));
    }
}
