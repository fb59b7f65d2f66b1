//! Many `hull` commands on one store, and commands that are killed: the next one works and nothing is left.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::{Finished, finish};
use tempfile::TempDir;

/// A store with an archive to import.
struct Home {
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let files = directory.path().join("files");
        std::fs::create_dir(&files).expect("directory");
        for number in 0..40_u8 {
            std::fs::write(files.join(format!("file{number}")), vec![number; 50_000]).expect("written");
        }
        let mut tar = Command::new("tar");
        let _ = finish(tar.args(["-cf", "a.tar", "files"]).current_dir(directory.path())).ok();
        Self { directory }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command
            .arg("--root")
            .arg(self.directory.path().join("data"))
            .arg("--state")
            .arg(self.directory.path().join("run"));
        command.args(words).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("hull starts")
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words)).ok()
    }

    /// `system check` finds nothing, and no command has left anything.
    #[track_caller]
    fn assert_sound(&self) {
        let _ = self.ok(&["system", "check"]);
        for name in ["ingest", "trash"] {
            let left = std::fs::read_dir(self.directory.path().join("data").join(name)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{name}");
        }
    }
}

#[test]
fn commands_share_a_store() {
    let home = Home::new();
    let children: Vec<Child> = (0..4)
        .flat_map(|number| {
            let name = format!("app{}", number % 2);
            [home.start(&["import", "a.tar", &name]), home.start(&["images"]), home.start(&["image", "prune", "-f"])]
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("waited for");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Each import makes another image, as its time differs: the names are on the last ones.
    let listed = home.ok(&["images", "--format", "{{.Repository}}"]).stdout;
    let mut named: Vec<_> = listed.lines().filter(|line| *line != "<none>").collect();
    named.sort_unstable();
    assert_eq!(named, ["app0", "app1"]);
    home.assert_sound();
}

#[test]
fn killed_imports_removals_and_prunes_leave_nothing() {
    let home = Home::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    for round in 0..60 {
        let words: &[&str] = match round % 3 {
            0 => &["import", "a.tar", "app"],
            1 => &["rmi", "-f", "app"],
            _ => &["image", "prune", "-a", "-f"],
        };
        if round % 3 != 0 {
            let _ = home.ok(&["import", "a.tar", "app"]);
        }
        let mut child = home.start(words);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(500 + random % 40_000));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        // The next command cleans up; each third one looks at everything.
        let _ = home.ok(&["images"]);
        if round % 3 == 2 {
            home.assert_sound();
        }
    }
    let _ = home.ok(&["import", "a.tar", "app"]);
    let _ = home.ok(&["rmi", "app"]);
    home.assert_sound();
}
