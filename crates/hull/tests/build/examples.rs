//! The services of `examples/`, from a distribution's packages to answers, and once more to the same digest.
//!
//! They take some minutes and a package mirror, which the machine's apt must know, so that only those who ask get them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hull_testkit::{Finished, Home, finish_within, tier};

const LIMIT: Duration = Duration::from_secs(900);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn long(home: &Home, words: &[&str]) -> Finished {
    finish_within(&mut home.hull(words), LIMIT).ok()
}

/// Builds one of them; its image's ID.
fn build(home: &Home, name: &str) -> String {
    let directory = examples().join(name);
    // Packages are fetched as this machine does it, whatever network it is in.
    let words = ["build", "-q", "--network=host", "--allow=network.host", "--host-certificates", "-t", name];
    let mut command = home.hull(&words);
    command.arg(directory).env_remove("SOURCE_DATE_EPOCH");
    finish_within(&mut command, LIMIT).ok().text().to_owned()
}

/// Until a command inside a container says something.
fn says(home: &Home, words: &[&str], expected: &str) {
    let begin = Instant::now();
    loop {
        let said = home.run(words);
        if said.code == 0 && said.stdout.contains(expected) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{words:?}: {} {}", said.stdout, said.stderr);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn root_examples_answer_and_are_the_same_again() {
    if std::env::var_os("HULL_TEST_EXAMPLES").is_none() {
        tier::skip("examples", "takes minutes and a package mirror: set HULL_TEST_EXAMPLES");
        return;
    }
    let Some(home) = Home::new(env!("CARGO_BIN_EXE_hull")) else { return };
    if !Command::new("apt-get").arg("--version").output().is_ok_and(|output| output.status.success()) {
        tier::skip("apt", "this machine's apt knows no mirror");
        return;
    }
    long(&home, &["bootstrap", "debian:bookworm", "--include", "ca-certificates"]);
    let base = home.path().join("base.tar");
    long(&home, &["save", "-o", &base.to_string_lossy(), "debian:bookworm"]);
    let names = ["nginx", "redis", "postgres"];
    let first = names.map(|name| build(&home, name));

    let start = |name: &str, flags: &[&str]| {
        let mut words = vec!["run", "-d", "--network=none", "--cgroup-parent", home.name(), "--name", name];
        words.extend(flags);
        words.push(name);
        home.run(&words).ok();
    };
    start("nginx", &[]);
    says(&home, &["exec", "nginx", "curl", "-fsS", "http://127.0.0.1/"], "nginx, built and served by Hull");
    start("redis", &[]);
    says(&home, &["exec", "redis", "redis-cli", "incr", "counter"], "1");
    start("postgres", &["-e", "POSTGRES_PASSWORD=of-a-test"]);
    let query = ["exec", "postgres", "psql", "-Atc", "select 6 * 7"];
    says(&home, &query, "42");
    // Nobody gets in from elsewhere without the password.
    let elsewhere = ["exec", "postgres", "psql", "-w", "-h", "127.0.0.1", "-Atc", "select 1"];
    assert_ne!(home.run(&elsewhere).code, 0);
    for name in names {
        home.run(&["rm", "-f", "-v", name]).ok();
    }
    home.assert_clean();

    let Some(other) = Home::new(env!("CARGO_BIN_EXE_hull")) else { return };
    long(&other, &["load", "-i", &base.to_string_lossy()]);
    assert_eq!(names.map(|name| build(&other, name)), first);
}
