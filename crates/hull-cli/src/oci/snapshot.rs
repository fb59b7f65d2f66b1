//! `checkpoint` and `restore`.

use std::path::PathBuf;

use hull_runtime::checkpoint::{CgroupMode, CheckpointOptions, ImageOptions, RestoreOptions};

use super::args::Parsed;
use super::{CommandError, Globals, foreground, id, launch, streams};

/// Saves a running container, and deletes it unless it is left running.
pub(super) fn checkpoint(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let id = id(parsed)?;
    let options = CheckpointOptions {
        image: image(parsed)?,
        leave_running: parsed.on("leave-running"),
        pre_dump: parsed.on("pre-dump"),
        page_server: text(parsed, "page-server").map(|address| page_server(&address)).transpose()?,
        status_fd: text(parsed, "status-fd").map(|number| status_fd(&number)).transpose()?,
    };
    hull_runtime::checkpoint::checkpoint(&globals.root, id, &options)?;
    if !options.leave_running && !options.pre_dump {
        launch::remove(globals, id);
    }
    Ok(0)
}

/// Runs a saved container; unless detached waits for it and deletes it.
pub(super) fn restore(globals: &Globals, parsed: &Parsed) -> Result<u8, CommandError> {
    let detach = parsed.on("detach");
    let (spec, mut options) = launch::prepare(globals, parsed)?;
    let id = options.id.clone();
    launch::check_console(&spec, options.streams.console.is_some(), detach)?;
    let console = launch::take_console(&spec, &mut options)?;
    let restoring = RestoreOptions {
        image: image(parsed)?,
        lsm_profile: text(parsed, "lsm-profile"),
        lsm_mount_context: text(parsed, "lsm-mount-context"),
    };
    if !detach && !parsed.on("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| CommandError::new(format!("become subreaper: {errno}")))?;
    }
    let running = hull_runtime::checkpoint::restore(&spec, options, &restoring)?;
    let attended = || {
        if let Some(path) = parsed.get("pid-file") {
            streams::write_pid_file(path, running.pid)?;
        }
        let terminal = console.map(foreground::Console::receive).transpose()?;
        if detach { Ok(0) } else { foreground::attend(&running, terminal) }
    };
    let result = attended();
    if result.is_err() || (!detach && !parsed.on("keep")) {
        launch::remove(globals, &id);
    }
    result
}

fn text(parsed: &Parsed, name: &str) -> Option<String> {
    parsed.get(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

fn image(parsed: &Parsed) -> Result<ImageOptions, CommandError> {
    let path = |name: &str| parsed.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cgroup_mode = match text(parsed, "manage-cgroups-mode") {
        None => CgroupMode::default(),
        Some(name) => CgroupMode::from_name(&name).ok_or_else(|| {
            CommandError::new(format!("--manage-cgroups-mode: expected soft, full, strict or ignore, found {name:?}"))
        })?,
    };
    let empty_network = match text(parsed, "empty-ns").as_deref() {
        None => false,
        Some("network") => true,
        Some(other) => return Err(CommandError::new(format!("--empty-ns: expected network, found {other:?}"))),
    };
    Ok(ImageOptions {
        image_path: path("image-path").unwrap_or_else(|| PathBuf::from("checkpoint")),
        work_path: path("work-path"),
        parent_path: path("parent-path"),
        tcp_established: parsed.on("tcp-established"),
        tcp_skip_in_flight: parsed.on("tcp-skip-in-flight"),
        ext_unix_sk: parsed.on("ext-unix-sk"),
        shell_job: parsed.on("shell-job"),
        file_locks: parsed.on("file-locks"),
        link_remap: parsed.on("link-remap"),
        lazy_pages: parsed.on("lazy-pages"),
        auto_dedup: parsed.on("auto-dedup"),
        empty_network,
        cgroup_mode,
    })
}

fn page_server(address: &str) -> Result<(String, u16), CommandError> {
    address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok().filter(|port| *port != 0)?)))
        .filter(|(host, _)| !host.is_empty())
        .map(|(host, port)| (host.trim_matches(['[', ']']).to_owned(), port))
        .ok_or_else(|| CommandError::new(format!("--page-server: expected ADDRESS:PORT, found {address:?}")))
}

fn status_fd(number: &str) -> Result<std::os::fd::OwnedFd, CommandError> {
    number.parse().ok().filter(|number| *number > 2).and_then(hull_sys::clone::take_inherited_fd).ok_or_else(|| {
        CommandError::new(format!("--status-fd: expected the number of an open descriptor above 2, found {number:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:99").unwrap(), ("10.0.0.1".into(), 99));
        assert_eq!(page_server("[::1]:99").unwrap(), ("::1".into(), 99));
        for wrong in ["", "host", ":1", "host:", "host:0", "host:65536", "host:x"] {
            assert!(page_server(wrong).is_err(), "{wrong}");
        }
    }
}
