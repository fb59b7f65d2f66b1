//! What a container may have left on the machine. Everything is found by a text that only one test uses.

use std::path::{Path, PathBuf};

/// Lines of this process's mount table that contain `text`.
#[must_use]
pub fn mounts(text: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Cgroup directories, in all hierarchies, whose path contains `text`; children before parents.
#[must_use]
pub fn cgroups(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut roots: Vec<PathBuf> = vec!["/sys/fs/cgroup".into()];
    if let Ok(entries) = std::fs::read_dir("/sys/fs/cgroup") {
        roots.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    for root in roots {
        walk(&root, text, 0, &mut found);
    }
    found.sort();
    found.dedup();
    found.reverse();
    found
}

fn walk(dir: &Path, text: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if path.to_string_lossy().contains(text) {
            found.push(path.clone());
        }
        if depth < 6 {
            walk(&path, text, depth + 1, found);
        }
    }
}

/// Processes whose command line or cgroup contains `text`, as `pid command line`; the caller is left out.
#[must_use]
pub fn processes(text: &str) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let status = String::from_utf8_lossy(&read("stat")).into_owned();
        let zombie = status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        if pid != own && !zombie && (command.contains(text) || cgroup.contains(text)) {
            found.push((pid, command));
        }
    }
    found
}

/// One line for everything that is left, empty if nothing is.
#[must_use]
pub fn report(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = mounts(text).into_iter().map(|line| format!("mount {line}")).collect();
    lines.extend(cgroups(text).into_iter().map(|path| format!("cgroup {}", path.display())));
    lines.extend(processes(text).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
    lines
}

/// Removes what [`report`] finds. For use when a test has failed already.
pub fn clear(text: &str) {
    for (pid, _) in processes(text) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for _ in 0..50 {
        let groups = cgroups(text);
        if groups.is_empty() {
            break;
        }
        for group in groups {
            let _ = std::fs::write(group.join("freezer.state"), "THAWED");
            let _ = std::fs::remove_dir(&group);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for line in mounts(text) {
        if let Some(target) = line.split(' ').nth(4).filter(|target| target.contains(text)) {
            let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}
