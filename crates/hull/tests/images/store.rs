//! Many `hull` commands on one store, and commands that are killed: the next one works and nothing is left.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::{Home, finish, home};

/// A home with the archive `a.tar`.
fn home() -> Home {
    let home = home!(plain).here();
    for number in 0..40_u8 {
        home.write(&format!("files/file{number}"), vec![number; 50_000]);
    }
    finish(Command::new("tar").args(["-cf", "a.tar", "files"]).current_dir(home.path())).ok();
    home
}

fn start(home: &Home, words: &[&str]) -> Child {
    home.hull(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hull starts")
}

/// `system check` finds nothing, and no command has left anything.
#[track_caller]
pub(crate) fn assert_sound(home: &Home, when: &str) {
    let check = home.run(&["system", "check"]);
    assert_eq!(check.code, 0, "{when}: {}{}", check.stdout, check.stderr);
    assert_eq!(home.unfinished(), [""; 0], "{when}");
}

#[test]
fn commands_share_a_store() {
    let home = home();
    let children: Vec<Child> = (0..4)
        .flat_map(|number| {
            let name = format!("app{}", number % 2);
            [
                start(&home, &["import", "a.tar", &name]),
                start(&home, &["images"]),
                start(&home, &["image", "prune", "-f"]),
            ]
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("waited for");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Each import makes another image, as its time differs: the names are on the last ones.
    let listed = home.ok(&["images", "--format", "{{.Repository}}"]);
    let mut named: Vec<_> = listed.lines().filter(|line| *line != "<none>").collect();
    named.sort_unstable();
    assert_eq!(named, ["app0", "app1"]);
    assert_sound(&home, "after it");
}

#[test]
fn killed_imports_removals_and_prunes_leave_nothing() {
    let home = home();
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    for round in 0..60 {
        let words: &[&str] = match round % 3 {
            0 => &["import", "a.tar", "app"],
            1 => &["rmi", "-f", "app"],
            _ => &["image", "prune", "-a", "-f"],
        };
        if round % 3 != 0 {
            home.ok(&["import", "a.tar", "app"]);
        }
        let mut child = start(&home, words);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(500 + random % 40_000));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        // The next command cleans up; each third one looks at everything.
        home.ok(&["images"]);
        if round % 3 == 2 {
            assert_sound(&home, "after it");
        }
    }
    home.ok(&["import", "a.tar", "app"]);
    home.ok(&["rmi", "app"]);
    assert_sound(&home, "after it");
}
