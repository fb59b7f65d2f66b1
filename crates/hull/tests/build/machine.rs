//! A directory of one test's own with a context, and the variables of a caller kept away from its builds.

use std::path::PathBuf;
use std::process::Command;

use hull_testkit::{Finished, Home, finish, home};

/// A home with a context in which the probe is.
pub(crate) struct Machine {
    pub(crate) home: Home,
}

/// A build sees nothing of who runs the tests.
pub(crate) fn alone(command: &mut Command) -> &mut Command {
    for name in ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env_remove("ACTIONS_RUNTIME_TOKEN").env_remove("ACTIONS_RESULTS_URL");
    command.env_remove("SOURCE_DATE_EPOCH").env_remove("BUILDKIT_PROGRESS").env_remove("HULL_SECURITY")
}

impl Machine {
    pub(crate) fn new() -> Option<Self> {
        let machine = Self { home: home!()? };
        std::fs::create_dir(machine.context()).expect("create directory");
        std::fs::copy(hull_testkit::probe(), machine.context().join("probe")).expect("copy the probe");
        Some(machine)
    }

    /// With a file `f` of this text in the context.
    pub(crate) fn with(text: &str) -> Option<Self> {
        let machine = Self::new()?;
        machine.write("f", text);
        Some(machine)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// A file of the context.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.context().join(name), text).expect("write");
    }

    /// `hull build` of the context.
    pub(crate) fn command(&self, dockerfile: &str, words: &[&str]) -> Command {
        // A directory of its own: builds of one home may run at the same time.
        let path = tempfile::tempdir_in(self.home.path()).expect("temporary directory").keep().join("Dockerfile");
        std::fs::write(&path, dockerfile).expect("write");
        let mut command = self.home.hull(&["build", "--network=none", "--progress=plain", "--cgroup-parent"]);
        command.arg(self.home.name()).args(words).arg("-f").arg(path).arg(self.context());
        alone(&mut command).env("HOME", self.home.path());
        command
    }

    #[track_caller]
    pub(crate) fn build(&self, dockerfile: &str, words: &[&str]) -> Finished {
        finish(&mut self.command(dockerfile, words))
    }

    /// What a command prints.
    #[track_caller]
    pub(crate) fn text(&self, words: &[&str]) -> String {
        self.home.run(words).ok().text().to_owned()
    }
}
