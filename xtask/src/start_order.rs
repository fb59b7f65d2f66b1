//! `cargo xtask start-order`: which functions a start runs, written to `crates/hull/start.ld`.
//!
//! The linker puts the sections named there beside each other, so that a start touches few pages of the binary. The
//! command builds the release binary with a map of its sections, follows some starts instruction by instruction, and
//! lists every section that was entered, one start after the other: first those of the container's process before its
//! `execve` (each of its pages is a fault of its own), then the others in the order in which they were first entered.
//!
//! A name that is gone when the binary is linked is ignored, and what is new is linked among the rest, so an old list does
//! no harm; but what is inlined changes with the code, and memory grows again until the list is made anew: before a
//! release, that is. Names lose the hashes in them unless they would then mean too many others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_sys::trace;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::{Result, bench, cargo, check, target_directory, workspace};

/// A wildcard may bring this many bytes that no start runs, or a quarter of those that one does.
const MOST_STRANGE: u64 = 2048;

/// The signal of a traced process's stop that is no signal to it.
const TRAP: i32 = 5;
const STOP: i32 = 19;

/// One input section of executable code in the linked binary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Section {
    address: u64,
    size: u64,
    file: String,
    name: String,
}

/// Builds, traces, and writes the list.
pub(crate) fn run() -> Result<()> {
    let directory = target_directory().join("start-order");
    std::fs::create_dir_all(&directory)?;
    let map = directory.join("map");
    let link = format!("link-arg=-Wl,-Map={}", map.display());
    let words = ["rustc", "--release", "--locked", "--package", "hull", "--bin", "hull", "--", "-C", &link];
    check(&mut cargo(&words))?;
    let sections = sections(&std::fs::read_to_string(&map)?);
    if sections.is_empty() {
        return Err(format!("{}: no sections: is the linker lld?", map.display()).into());
    }
    let binary = crate::release::built()?;
    let stage = directory.join("stage");
    bench::fill_bundles(&stage)?;
    let mut touched = Touched::default();
    let network = Network::new()?;
    let traced = starts(&stage).into_iter().try_for_each(|words| -> Result<()> {
        println!("hull {}", words.join(" "));
        // What only the first start does, such as making the database, is no part of the others.
        let enter = network.enter();
        check(
            Command::new("nsenter").arg(&enter).arg(&binary).args(&words).stdin(Stdio::null()).stdout(Stdio::null()),
        )?;
        touched.starts += 1;
        follow(&binary, &words, &enter, &sections, &mut touched)
    });
    std::fs::remove_dir_all(&stage)?;
    traced?;
    let list = list(&sections, &touched);
    let path = workspace().join("crates/hull/start.ld");
    println!("{}: {} sections of {} entered", path.display(), touched.places.len(), sections.len());
    std::fs::write(&path, list)?;
    Ok(())
}

/// The commands whose starts are followed, the most important first.
fn starts(stage: &Path) -> Vec<Vec<String>> {
    let stage = stage.display();
    let engine = format!("--root {stage}/root --state {stage}/state run --rm");
    [
        format!("oci --root {stage}/oci run --bundle {stage}/plain plain"),
        format!("oci --root {stage}/oci run --bundle {stage}/seccomp seccomp"),
        format!("{engine} --network none --rootfs {stage}/rootfs true"),
        format!("{engine} --network none hello"),
        format!("{engine} --network bridge hello"),
    ]
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .to_vec()
}

/// A network that is nobody's, and the process that keeps it. It is no child of this one, which waits for all of its own.
#[derive(Debug)]
struct Network(Pid);

impl Network {
    fn new() -> Result<Self> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let script = "unshare --net sleep 100000 >/dev/null 2>&1 & echo $!";
        let said = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).output()?;
        let number = String::from_utf8(said.stdout)?.trim().parse()?;
        let keeper = Self(Pid::from_raw(number).ok_or("no process ID")?);
        let path = format!("/proc/{number}/ns/net");
        for _ in 0..400 {
            if std::fs::read_link(&path).is_ok_and(|other| other != own) {
                return Ok(keeper);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("unshare --net: no network namespace".into())
    }

    /// The argument of nsenter(1).
    fn enter(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.0.as_raw_nonzero())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
    }
}

/// The sections that were entered: in which order, by which start first, and whether by a process other than its first.
#[derive(Debug, Default)]
struct Touched {
    places: BTreeMap<usize, (usize, usize, bool)>,
    starts: usize,
}

impl Touched {
    fn enter(&mut self, section: usize, child: bool) {
        let order = self.places.len();
        let place = self.places.entry(section).or_insert((order, self.starts, false));
        place.2 |= child && place.1 == self.starts;
    }
}

/// A traced process: where its code lies, once it runs the binary.
#[derive(Debug, Default)]
struct Process {
    /// From, to, and what to subtract.
    code: Option<(u64, u64, u64)>,
    known: bool,
}

/// Runs one start to its end, instruction by instruction while it is in the binary.
fn follow(binary: &Path, words: &[String], enter: &str, sections: &[Section], touched: &mut Touched) -> Result<()> {
    let inode = std::fs::metadata(binary)?.ino();
    let is_fixed = is_fixed(&std::fs::read(binary)?);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec nsenter \"$0\" \"$@\"", enter]).arg(binary).args(words);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let first = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process ID")?;
    rustix::process::waitpid(Some(first), WaitOptions::UNTRACED)?;
    trace::seize(first)?;
    rustix::process::kill_process(first, Signal::CONT)?;
    let mut processes: HashMap<Pid, Process> = HashMap::new();
    let mut code = None;
    while let Some((pid, status)) = rustix::process::wait(WaitOptions::empty()).or_else(|errno| match errno {
        rustix::io::Errno::CHILD => Ok(None),
        errno => Err(errno),
    })? {
        let Some(signal) = status.stopping_signal() else {
            if pid == first {
                code = status.exit_status();
            }
            processes.remove(&pid);
            continue;
        };
        let process = processes.entry(pid).or_default();
        let event = status.as_raw() >> 16;
        if event == trace::EVENT_EXEC || !process.known {
            *process = Process { code: code_of(pid, inode, is_fixed)?, known: true };
        }
        let signal = if event != 0 || signal == TRAP || signal == STOP { 0 } else { u8::try_from(signal)? };
        let going_on = match process.code {
            Some((from, to, base)) => {
                let at = trace::instruction_pointer(pid)?;
                if (from..to).contains(&at)
                    && let Some(section) = section_at(sections, at - base)
                {
                    touched.enter(section, pid != first);
                }
                trace::step(pid, signal)
            }
            None => trace::resume(pid, signal),
        };
        // A process that was killed meanwhile says so next time.
        match going_on {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if code == Some(0) { Ok(()) } else { Err(format!("hull {}: failed when followed", words.join(" ")).into()) }
}

/// Whether a program runs where it was linked for: `e_type` of its header (elf(5)) is `ET_EXEC`.
fn is_fixed(program: &[u8]) -> bool {
    program.get(16..18) == Some(&[2, 0])
}

/// Where a process has the binary's code, from its maps, and what lies between there and the linker's map: nothing where the
/// binary is linked for one place (`ET_EXEC`). `None` for another program.
fn code_of(pid: Pid, inode: u64, is_fixed: bool) -> Result<Option<(u64, u64, u64)>> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()))?;
    let mut base = None;
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, access, _, _, number, ..] = fields[..] else { continue };
        if number.parse() != Ok(inode) {
            continue;
        }
        let (from, to) = range.split_once('-').ok_or("maps: a line without a range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let base = *base.get_or_insert(if is_fixed { 0 } else { from });
        if access.contains('x') {
            return Ok(Some((from, to, base)));
        }
    }
    Ok(None)
}

/// Reads lld's map: lines of address, address, size, alignment and `FILE:(SECTION)`, in hexadecimal.
fn sections(map: &str) -> Vec<Section> {
    let section = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let size = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        let (file, name) = fields.nth(1)?.rsplit_once(":(")?;
        let name = name.strip_suffix(')')?;
        (size > 0 && name.starts_with(".text")).then(|| Section {
            address,
            size,
            file: file.to_owned(),
            name: name.to_owned(),
        })
    };
    let mut sections: Vec<Section> = map.lines().filter_map(section).collect();
    sections.sort_by_key(|section| section.address);
    sections
}

fn section_at(sections: &[Section], address: u64) -> Option<usize> {
    let index = sections.partition_point(|section| section.address <= address).checked_sub(1)?;
    (address < sections[index].address + sections[index].size).then_some(index)
}

/// A section's pattern in a linker script, without what changes from build to build; `None` where nothing is left that
/// tells it from others.
fn pattern(section: &Section) -> Option<String> {
    let file = section.file.rsplit('/').next().unwrap_or_default();
    if let Some((archive, member)) = file.split_once(".a(") {
        return Some(format!("*{archive}.a:{}({})", member.strip_suffix(')')?, section.name));
    }
    if file.ends_with("crt1.o") {
        return Some(format!("*crt1.o({})", section.name));
    }
    (section.name.len() > ".text.".len()).then(|| format!("*({})", without_hashes(&section.name)))
}

/// A mangled name with wildcards for the hashes of either scheme: `17h` with sixteen digits, and `Cs...._`.
fn without_hashes(name: &str) -> String {
    let mut rest = name;
    let mut result = String::new();
    while let Some(character) = rest.chars().next() {
        let hash = |prefix: &str, end: char| {
            let length = rest.strip_prefix(prefix)?.find(|character: char| !character.is_ascii_alphanumeric())?;
            rest[prefix.len() + length..].starts_with(end).then_some((length, prefix.len() + length))
        };
        if let Some(tail) = rest.strip_prefix("17h")
            && tail.get(16..17) == Some("E")
            && tail.as_bytes()[..16].iter().all(u8::is_ascii_hexdigit)
        {
            result.push_str("17h*");
            rest = &tail[16..];
        } else if let Some((length, taken)) = hash("Cs", '_')
            && length >= 8
        {
            result.push_str("Cs*");
            rest = &rest[taken..];
        } else {
            result.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    result
}

/// The linker script.
fn list(sections: &[Section], touched: &Touched) -> String {
    let mut sizes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (index, section) in sections.iter().enumerate() {
        if let Some(pattern) = pattern(section) {
            let (entered, all) = sizes.entry(pattern).or_default();
            *all += section.size;
            *entered += if touched.places.contains_key(&index) { section.size } else { 0 };
        }
    }
    let mut order: Vec<(&usize, &(usize, usize, bool))> = touched.places.iter().collect();
    order.sort_by_key(|(_, (order, start, child))| (*start, !child, *order));
    let mut text = String::from(
        "/* What a start runs, beside each other. Written by `cargo xtask start-order`; names that are gone do no harm. */\n\
         SECTIONS\n{\n  .text.start :\n  {\n",
    );
    let mut written = BTreeSet::new();
    for (&index, _) in order {
        let Some(mut pattern) = pattern(&sections[index]) else { continue };
        let (entered, all) = sizes.get(&pattern).copied().unwrap_or_default();
        if all - entered > MOST_STRANGE.max(entered / 4) && pattern.starts_with("*(") {
            pattern = format!("*({})", sections[index].name);
        }
        if written.insert(pattern.clone()) {
            let _ = writeln!(text, "    {pattern}");
        }
    }
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
          1ca200           1ca200     bf6c    64 .text
          1ca300           1ca300       40     1         /b/hull.o:(.text._ZN4hull4main17h0123456789abcdefE)
          1ca300           1ca300       40     1                 _ZN4hull4main17h0123456789abcdefE
          1ca340           1ca340      100     1         /b/hull.o:(.text._ZN4core3new17h0123456789abcde0E)
          1ca440           1ca440     1000     1         /b/hull.o:(.text._ZN4core3new17h0123456789abcde1E)
          1cb440           1cb440       10     1         /lib/libc.a(malloc.o):(.text)
          1cb450           1cb450       10     1         /b/libring-1.rlib(x.o):(.text)
          1cb460           1cb460        0     1         /b/hull.o:(.text)
";

    #[test]
    fn programs_that_are_linked_for_one_place_are_known_by_their_header() {
        let header = |kind: u8| [[0; 16].as_slice(), &[kind, 0, 62, 0]].concat();
        assert!(is_fixed(&header(2)));
        assert!(!is_fixed(&header(3)) && !is_fixed(b"\x7fELF"));
    }

    #[test]
    fn maps_are_read_and_addresses_found() {
        let sections = sections(MAP);
        assert_eq!(sections.len(), 5);
        assert_eq!(section_at(&sections, 0x1c_a33f), Some(0));
        assert_eq!(section_at(&sections, 0x1c_a340), Some(1));
        assert_eq!(section_at(&sections, 0x1c_a2ff), None);
        assert_eq!(section_at(&sections, 0x1c_b460), None);
    }

    #[test]
    fn what_another_process_entered_comes_first_and_strangers_stay_out() {
        let sections = sections(MAP);
        let mut touched = Touched::default();
        for (section, child) in [(0, false), (1, false), (4, false), (3, true), (0, false)] {
            touched.enter(section, child);
        }
        let text = list(&sections, &touched);
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        // The second of the two `new` is large and was not entered, so the first is named with its hash; the section
        // without a name of its own cannot be told from others.
        assert_eq!(
            lines,
            ["*libc.a:malloc.o(.text)", "*(.text._ZN4hull4main17h*E)", "*(.text._ZN4core3new17h0123456789abcde0E)"]
        );
    }

    #[test]
    fn hashes_of_both_schemes_become_wildcards() {
        assert_eq!(without_hashes("_RNvCsjrHSEGnQ3l9_3std4main"), "_RNvCs*_3std4main");
        assert_eq!(without_hashes("_ZN1a17h0123456789abcdefE"), "_ZN1a17h*E");
        assert_eq!(without_hashes("_ZN3Csx17hE"), "_ZN3Csx17hE");
    }

    #[test]
    fn the_committed_list_is_a_linker_script() {
        let text = std::fs::read_to_string(workspace().join("crates/hull/start.ld")).unwrap();
        assert!(text.contains("  .text.start :\n") && text.ends_with("INSERT BEFORE .text;\n"));
        assert!(text.lines().filter(|line| line.starts_with("    *")).count() > 500);
    }
}
