//! Signing, verifying and policies as a user types them, against Debian's docker-registry.

use std::process::{Command, Stdio};

use hull_testkit::registry::Peer;
use hull_testkit::{Finished, finish};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/p256.key");
const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/p256.pub");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/ed.pub");

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// A home whose policy is its own, and accepts everything at first.
    fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().expect("temporary directory") };
        home.policy(r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        home
    }

    fn policy(&self, text: &str) {
        let directory = self.dir.path().join(".config/containers");
        std::fs::create_dir_all(&directory).expect("create");
        std::fs::write(directory.join("policy.json"), text).expect("write");
    }

    fn hull(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        command.arg("--root").arg(self.dir.path().join("data")).arg("--state").arg(self.dir.path().join("run"));
        command.args(words).stdin(Stdio::null()).current_dir("/").env("HOME", self.dir.path());
        command.env("DOCKER_CONFIG", self.dir.path().join("docker")).env("HULL_DISK_BUDGET", "unlimited");
        command.env("COSIGN_PASSWORD", "tide").env_remove("HULL_POLICY").env_remove("XDG_RUNTIME_DIR");
        finish(&mut command)
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        self.hull(words).ok().stdout
    }

    #[track_caller]
    fn refused(&self, code: i32, words: &[&str], expected: &str) {
        let finished = self.hull(words);
        assert_eq!(finished.code, code, "{words:?}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{words:?}: {}", finished.stderr);
    }

    fn import(&self, name: &str) {
        let directory = self.dir.path().join("rootfs");
        std::fs::create_dir_all(&directory).expect("create");
        std::fs::write(directory.join("file"), name).expect("write");
        let tar = self.dir.path().join("rootfs.tar");
        let made = Command::new("tar").arg("-C").arg(&directory).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.expect("tar").success());
        self.ok(&["import", &tar.to_string_lossy(), name]);
    }
}

fn signed(public: &str, host: &str) -> String {
    format!(
        r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"docker":{{"{host}":[{{"type":"sigstoreSigned","keyPath":"{public}"}}]}}}}}}"#
    )
}

#[test]
fn what_is_pushed_with_a_key_is_pulled_with_its_public_one() {
    let Some(peer) = Peer::start("") else { return };
    let (signed_name, plain) =
        (format!("127.0.0.1:{}/team/app:v1", peer.port), format!("127.0.0.1:{}/team/plain:v1", peer.port));
    let (one, two) = (Home::new(), Home::new());
    one.import(&signed_name);
    one.import(&plain);
    one.ok(&["push", "--sign-key", KEY, &signed_name]);
    one.ok(&["push", &plain]);
    two.refused(1, &["pull", "--quiet", "--verify-key", PUBLIC, &plain], "has none");
    two.refused(1, &["pull", "--quiet", "--verify-key", OTHER, &signed_name], "another key");
    two.refused(1, &["pull", "--quiet", "--verify-key", KEY, &signed_name], "it is a private key");
    assert_eq!(two.ok(&["images", "-q"]), "");
    let verdict = two.ok(&["image", "verify", "--key", PUBLIC, &signed_name]);
    assert!(verdict.contains("signed by") && verdict.contains(&format!("as {signed_name:?}")), "{verdict}");
    assert_eq!(two.ok(&["images", "-q"]), "", "verifying keeps nothing");
    two.ok(&["pull", "--quiet", "--verify-key", OTHER, "--verify-key", PUBLIC, &signed_name]);
    // A second signature is added to the first.
    one.ok(&["push", "--quiet", "--sign-key", KEY, &signed_name]);
    two.ok(&["image", "verify", "--key", PUBLIC, &signed_name]);
    assert_eq!(two.ok(&["system", "check"]).trim(), "No problems found");
}

#[test]
fn a_policy_counts_at_pull_and_again_at_run() {
    let Some(peer) = Peer::start("") else { return };
    let host = format!("127.0.0.1:{}", peer.port);
    let (name, plain) = (format!("{host}/team/app:v1"), format!("{host}/team/plain:v1"));
    let (one, two) = (Home::new(), Home::new());
    one.import(&name);
    one.import(&plain);
    one.ok(&["push", "--sign-key", KEY, &name]);
    one.ok(&["push", &plain]);
    two.ok(&["pull", "--quiet", &plain]);
    two.policy(&signed(PUBLIC, &host));
    two.ok(&["pull", "--quiet", &name]);
    let again = two.hull(&["run", "--rm", "--network", "none", &name, "/no-such-program"]);
    assert!(again.code != 0 && !again.stderr.contains("refused"), "{}", again.stderr);
    // Pulled before there was a policy.
    two.refused(125, &["run", "--rm", "--network", "none", &plain, "/x"], "is refused by transports.docker");
    two.refused(1, &["pull", "--quiet", &plain], "has none");
    let id = two.ok(&["images", "-q", &plain]);
    two.refused(125, &["run", "--rm", "--network", "none", id.trim(), "/x"], "is refused by");
    // The key is no longer trusted.
    two.policy(&signed(OTHER, &host));
    two.refused(125, &["run", "--rm", "--network", "none", &name, "/x"], "another key");
    // What was made here is nobody's to sign.
    two.import("mine:1");
    let mine = two.hull(&["run", "--rm", "--network", "none", "mine:1", "/no-such-program"]);
    assert!(!mine.stderr.contains("refused"), "{}", mine.stderr);
    two.policy("{}");
    two.refused(125, &["run", "--rm", "--network", "none", &name, "/x"], "policy.json: it has no `default`");
}
