//! A throw-away OCI bundle.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Finished, default_spec, finish, leak};

/// A bundle with a root file system that holds only `/probe`, an ID, a state root and a cgroup that nobody else uses.
///
/// Dropping it deletes the container by force and panics if a mount, cgroup or process is left, or a state directory.
#[derive(Debug)]
pub struct Bundle {
    hull: PathBuf,
    dir: TempDir,
    name: String,
    spec: Value,
    checked: bool,
    user: Option<u32>,
}

impl Bundle {
    /// A new bundle for the binary `hull`.
    ///
    /// # Panics
    /// If the temporary directory cannot be filled.
    #[must_use]
    pub fn new(hull: impl Into<PathBuf>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hull-test-{}-{}x", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("temporary directory");
        // Mapped users must be able to walk down to the root file system.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let rootfs = dir.path().join("rootfs");
        for sub in ["", "proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir(rootfs.join(sub)).expect("create root file system");
        }
        std::fs::copy(crate::probe(), rootfs.join("probe")).expect("copy the probe");
        let spec = default_spec(&format!("/{name}"));
        Self { hull: hull.into(), dir, name, spec, checked: true, user: None }
    }

    /// The ID of the container that the methods without an ID act on.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.name
    }

    /// The bundle's directory, for files on the "host".
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The container's root file system.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// The state root.
    #[must_use]
    pub fn state_root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The container's directory in one v1 hierarchy.
    #[must_use]
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(controller).join(&self.name)
    }

    /// The binary under test.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.hull
    }

    /// The configuration as it will be written.
    #[must_use]
    pub fn spec(&self) -> &Value {
        &self.spec
    }

    /// Changes the configuration.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Sets one field by its JSON pointer; the parent must exist.
    #[must_use]
    pub fn set(self, pointer: &str, value: Value) -> Self {
        self.edit(|spec| {
            let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
            spec.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"))[key] = value;
        })
    }

    /// Adds a mount after the default ones.
    #[must_use]
    pub fn mount(self, mount: Value) -> Self {
        self.edit(|spec| spec["mounts"].as_array_mut().expect("mounts").push(mount))
    }

    /// Gives the process these capabilities in the bounding, permitted and effective set.
    #[must_use]
    pub fn caps(self, names: &[&str]) -> Self {
        self.set("/process/capabilities", json!({"bounding": names, "effective": names, "permitted": names}))
    }

    /// Lets the container run the probe with these arguments.
    #[must_use]
    pub fn probe(self, args: &[&str]) -> Self {
        let words: Vec<&str> = std::iter::once("/probe").chain(args.iter().copied()).collect();
        self.set("/process/args", json!(words))
    }

    /// Writes `config.json`.
    pub fn write(&self) -> &Self {
        let text = serde_json::to_vec_pretty(&self.spec).expect("serialize");
        std::fs::write(self.dir().join("config.json"), text).expect("write config.json");
        self
    }

    /// `hull oci --root STATE WORDS...`, standard input empty.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.hull);
        command.arg("oci").arg("--root").arg(self.state_root()).args(words).stdin(Stdio::null()).current_dir("/");
        if let Some(user) = self.user {
            // Changing the user drops the supplementary groups too.
            command.uid(user).gid(user).env_remove("XDG_RUNTIME_DIR");
        }
        command
    }

    /// Runs `hull oci --root STATE WORDS...`.
    #[track_caller]
    pub fn oci(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    /// The command for `create` or `run` of this bundle.
    #[must_use]
    pub fn bundle_command(&self, verb: &str, flags: &[&str]) -> Command {
        self.write();
        let mut command = self.command(&[verb]);
        command.arg("--bundle").arg(self.dir()).args(flags).arg(&self.name);
        command
    }

    /// Lets an ordinary user without any privilege own the bundle and run the binary, with the configuration that such a
    /// user would have: a user namespace that maps the user to root, no limits, the machine's network.
    ///
    /// # Panics
    /// If the bundle's files cannot be given to the user.
    #[must_use]
    pub fn rootless(mut self, user: u32) -> Self {
        // A checkout need not be readable for others.
        let copy = self.dir().join("hull");
        std::fs::copy(&self.hull, &copy).expect("copy the binary");
        self.hull = copy;
        self.user = Some(user);
        self.write();
        give(self.dir(), user);
        self.edit(|spec| {
            let linux = spec["linux"].as_object_mut().expect("linux");
            linux.remove("resources");
            linux.remove("cgroupsPath");
            let one = json!([{"containerID": 0, "hostID": user, "size": 1}]);
            linux.insert("uidMappings".to_owned(), one.clone());
            linux.insert("gidMappings".to_owned(), one);
            let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|one| one["type"] != "network");
            namespaces.push(json!({"type": "user"}));
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|one| one["type"] != "cgroup");
            for mount in mounts {
                mount["options"].as_array_mut().into_iter().for_each(|list| list.retain(|one| one != "gid=5"));
                if mount["type"] == "sysfs" {
                    *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
                }
            }
        })
    }

    /// Runs the container in the foreground.
    #[track_caller]
    pub fn run(&self) -> Finished {
        finish(&mut self.bundle_command("run", &[]))
    }

    /// Creates the container.
    #[track_caller]
    pub fn create(&self) -> Finished {
        finish(&mut self.bundle_command("create", &[]))
    }

    /// Runs the container in the background.
    #[track_caller]
    pub fn run_detached(&self) -> &Self {
        let _ = finish(&mut self.bundle_command("run", &["--detach"])).ok();
        self
    }

    /// Runs a command of the container's ID: `act("start")`.
    #[track_caller]
    pub fn act(&self, verb: &str) -> Finished {
        self.oci(&[verb, &self.name])
    }

    /// Runs the probe in the running container.
    #[track_caller]
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Finished {
        let mut words = vec!["exec"];
        words.extend(flags);
        words.extend([self.name.as_str(), "/probe"]);
        words.extend(args);
        self.oci(&words)
    }

    /// The state document.
    #[track_caller]
    pub fn state(&self) -> Value {
        let state = self.act("state").ok();
        serde_json::from_str(&state.stdout).unwrap_or_else(|error| panic!("{error}: {}", state.stdout))
    }

    /// The container's first process.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let state = self.state();
        state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_else(|| panic!("no pid: {state}"))
    }

    /// Waits up to 10 seconds for a status.
    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        let begin = Instant::now();
        loop {
            let state = self.state();
            if state["status"] == status {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "not {status}: {state}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits up to 10 seconds for a container that another thread starts.
    #[track_caller]
    pub fn wait_running(&self) {
        let begin = Instant::now();
        while !self.act("state").stdout.contains("\"running\"") {
            assert!(begin.elapsed() < Duration::from_secs(10), "not running");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills and deletes the container, and asserts that both work.
    #[track_caller]
    pub fn delete(&self) {
        let _ = self.oci(&["delete", "--force", &self.name]).ok();
    }

    /// What is left of the container on the machine.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut lines = leak::report(&self.name);
        if let Ok(entries) = std::fs::read_dir(self.state_root()) {
            let names = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
            lines.extend(names.map(|path| format!("state {}", path.display())));
        }
        lines
    }

    /// Asserts that nothing is left, giving the kernel half a second to reap what was killed.
    #[track_caller]
    pub fn assert_clean(&self) {
        let left = self.settled();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    /// For tests that break things on purpose: dropping cleans up but asserts nothing.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }
}

/// Gives a directory and all in it to a user.
fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("chown");
    if std::fs::symlink_metadata(path).expect("stat").is_dir() {
        for entry in std::fs::read_dir(path).expect("read directory").flatten() {
            give(&entry.path(), user);
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let _ = self.command(&["delete", "--force", &self.name]).stderr(Stdio::null()).stdout(Stdio::null()).status();
        let left = if failing || !self.checked { Vec::new() } else { self.settled() };
        leak::clear(&self.name);
        assert!(left.is_empty(), "left behind after `delete --force`:\n{}", left.join("\n"));
    }
}

impl Bundle {
    /// What is still left after the kernel had half a second to reap what was killed.
    #[must_use]
    pub fn settled(&self) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let left = self.left();
            if left.is_empty() || begin.elapsed() > Duration::from_millis(500) {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
