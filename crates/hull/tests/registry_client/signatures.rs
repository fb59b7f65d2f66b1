//! Signing, verifying and policies as a user types them, against Debian's docker-registry.

use hull_testkit::Home;
use hull_testkit::registry::Peer;

use crate::world::{import, user};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/p256.key");
const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/p256.pub");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hull-trust/tests/data/ed.pub");

/// A user whose policy is their own, and accepts everything at first.
fn signer() -> Home {
    let home = user().with("COSIGN_PASSWORD", "tide");
    policy(&home, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    home
}

fn policy(home: &Home, text: &str) {
    home.write(".config/containers/policy.json", text);
}

#[track_caller]
fn refused(home: &Home, code: i32, words: &[&str], expected: &str) {
    let finished = home.run(words);
    assert_eq!(finished.code, code, "{words:?}: {}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{words:?}: {}", finished.stderr);
    assert!(finished.stderr.contains(expected), "{words:?}: {}", finished.stderr);
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
    let (one, two) = (signer(), signer());
    import(&one, &signed_name, "file", signed_name.as_bytes());
    import(&one, &plain, "file", plain.as_bytes());
    one.ok(&["push", "--sign-key", KEY, &signed_name]);
    one.ok(&["push", &plain]);
    refused(&two, 1, &["pull", "--quiet", "--verify-key", PUBLIC, &plain], "has none");
    refused(&two, 1, &["pull", "--quiet", "--verify-key", OTHER, &signed_name], "another key");
    refused(&two, 1, &["pull", "--quiet", "--verify-key", KEY, &signed_name], "it is a private key");
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
    let (one, two) = (signer(), signer());
    import(&one, &name, "file", name.as_bytes());
    import(&one, &plain, "file", plain.as_bytes());
    one.ok(&["push", "--sign-key", KEY, &name]);
    one.ok(&["push", &plain]);
    two.ok(&["pull", "--quiet", &plain]);
    policy(&two, &signed(PUBLIC, &host));
    two.ok(&["pull", "--quiet", &name]);
    let again = two.run(&["run", "--rm", "--network", "none", &name, "/no-such-program"]);
    assert!(again.code != 0 && !again.stderr.contains("refused"), "{}", again.stderr);
    // Pulled before there was a policy.
    refused(&two, 125, &["run", "--rm", "--network", "none", &plain, "/x"], "is refused by transports.docker");
    refused(&two, 1, &["pull", "--quiet", &plain], "has none");
    let id = two.ok(&["images", "-q", &plain]);
    refused(&two, 125, &["run", "--rm", "--network", "none", id.trim(), "/x"], "is refused by");
    // The key is no longer trusted.
    policy(&two, &signed(OTHER, &host));
    refused(&two, 125, &["run", "--rm", "--network", "none", &name, "/x"], "another key");
    // What was made here is nobody's to sign.
    import(&two, "mine:1", "file", "mine:1".as_bytes());
    let mine = two.run(&["run", "--rm", "--network", "none", "mine:1", "/no-such-program"]);
    assert!(!mine.stderr.contains("refused"), "{}", mine.stderr);
    policy(&two, "{}");
    refused(&two, 125, &["run", "--rm", "--network", "none", &name, "/x"], "policy.json: it has no `default`");
}
