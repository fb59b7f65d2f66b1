//! `hull pull`, `push`, `login` and `logout` as a user types them, against Debian's docker-registry.

use std::path::Path;

use hull_testkit::registry::Peer;

use crate::world::{import, user};

#[test]
fn what_is_pushed_can_be_pulled() {
    let Some(peer) = Peer::start("") else { return };
    let name = format!("127.0.0.1:{}/team/app:v1", peer.port);
    let (one, two) = (user(), user());
    let id = import(&one, &name, "file", b"content");
    let pushed = one.ok(&["push", &name]);
    let lines: Vec<&str> = pushed.lines().collect();
    assert_eq!(lines[0], format!("The push refers to repository [127.0.0.1:{}/team/app]", peer.port));
    assert!(lines.iter().any(|line| line.ends_with(": Pushed")), "{pushed}");
    let last = lines.last().expect("lines");
    let digest = last.strip_prefix("v1: digest: ").and_then(|rest| rest.split(' ').next()).expect("digest");
    assert!(digest.starts_with("sha256:") && last.contains(" size: "), "{last}");

    let pulled = two.ok(&["pull", &name]);
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], format!("v1: Pulling from 127.0.0.1:{}/team/app", peer.port));
    assert!(lines.iter().any(|line| line.ends_with(": Pull complete")), "{pulled}");
    assert!(lines.contains(&format!("Digest: {digest}").as_str()), "{pulled}");
    assert!(lines.contains(&format!("Status: Downloaded newer image for {name}").as_str()), "{pulled}");
    assert_eq!(lines.last(), Some(&name.as_str()));
    assert_eq!(two.ok(&["images", "-q", "--no-trunc"]).trim(), id);
    assert!(two.ok(&["pull", &name]).contains(&format!("Status: Image is up to date for {name}")));
    let quiet = two.run(&["pull", "--quiet", &format!("127.0.0.1:{}/team/app@{digest}", peer.port)]).ok();
    assert_eq!(quiet.stdout.trim(), format!("127.0.0.1:{}/team/app@{digest}", peer.port));
    assert_eq!(two.ok(&["system", "check"]).trim(), "No problems found");
}

#[test]
fn refusals_are_one_line() {
    let Some(peer) = Peer::start("") else { return };
    let home = user();
    let host = format!("127.0.0.1:{}", peer.port);
    for (words, expected) in [
        (vec!["pull".to_owned(), format!("{host}/no/app")], "manifest unknown"),
        (vec!["pull".to_owned(), "team/Upper".to_owned()], "must be lowercase"),
        (vec!["pull".to_owned(), "-a".to_owned(), format!("{host}/no/app:1")], "--all-tags"),
        (vec!["push".to_owned(), format!("{host}/no/app")], "An image does not exist locally with the tag"),
        (vec!["pull".to_owned(), "127.0.0.1:1/app".to_owned()], "127.0.0.1:1"),
        (vec!["login".to_owned(), "a b".to_owned()], "no registry"),
        (vec!["login".to_owned(), "--password-stdin".to_owned(), host.clone()], "--username"),
        (vec!["login".to_owned(), host.clone()], "non TTY"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let finished = home.run(&words);
        assert_eq!(finished.code, 1, "{words:?}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{words:?}: {}", finished.stderr);
    }
    assert_eq!(home.ok(&["images", "-q"]), "");
}

#[test]
fn a_login_is_kept_and_used() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let htpasswd = directory.path().join("htpasswd");
    // user "hull", password "secret"
    std::fs::write(&htpasswd, "hull:$2b$05$K434y7jG27rqQ5ApkRkCn.5T6FJ.V5qMg2MJblmBeQZmVx6jgi29K\n").expect("write");
    let more = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
    let Some(peer) = Peer::start(&more) else { return };
    let home = user();
    let host = format!("127.0.0.1:{}", peer.port);
    let name = format!("{host}/app:1");
    import(&home, &name, "file", b"x");
    let refused = home.run(&["push", &name]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("access denied") && refused.stderr.contains("hull login"), "{}", refused.stderr);
    let wrong = home.run(&["login", "-u", "hull", "-p", "wrong", &host]);
    assert_eq!(wrong.code, 1, "{}", wrong.stderr);
    let done = home.run(&["login", "-u", "hull", "-p", "secret", &host]).ok();
    assert_eq!(done.stdout, "Login Succeeded\n");
    let file = home.path().join("docker/config.json");
    assert!(done.stderr.contains(&*file.to_string_lossy()), "{}", done.stderr);
    assert_eq!(mode(&file), 0o600);
    home.ok(&["push", &name]);
    assert_eq!(home.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
    assert_eq!(home.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
    assert_eq!(home.run(&["pull", &name]).code, 1);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
}
