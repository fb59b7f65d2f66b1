use std::fs;

use super::*;

struct Machine {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        let sources = Sources {
            containerd: vec![at("containerd")],
            containers: vec![at("registries.conf")],
            daemon: at("daemon.json"),
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certificates: vec![at("certs.d")],
        };
        Self { directory, sources }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("create");
        fs::write(path, text).expect("write");
        self
    }

    fn endpoints(&self, reference: &str) -> Result<Vec<Endpoint>, HostsError> {
        endpoints(&self.sources, &reference.parse().expect("reference"))
    }

    fn addresses(&self, reference: &str) -> Vec<String> {
        let found = self.endpoints(reference).expect("endpoints");
        found.iter().map(|one| format!("{}{}/{}", one.host, one.prefix, one.repository)).collect()
    }
}

#[test]
fn nothing_configured() {
    let machine = Machine::new();
    assert_eq!(machine.addresses("debian"), ["registry-1.docker.io/v2/library/debian"]);
    assert_eq!(machine.endpoints("debian").expect("endpoints")[0].scheme, Scheme::Https);
    for loopback in ["localhost:5000/a", "127.0.0.1:5000/a", "[::1]:5000/a", "localhost/a"] {
        let found = machine.endpoints(loopback).expect("endpoints");
        assert_eq!((found[0].scheme, found[0].verify), (Scheme::Either, true), "{loopback}");
    }
    assert_eq!(machine.endpoints("localhost.evil.example/a").expect("endpoints")[0].scheme, Scheme::Https);
}

#[test]
fn hosts_toml() {
    let machine = Machine::new().file(
        "containerd/docker.io/hosts.toml",
        r#"
            server = "https://registry-1.docker.io"
            [host."https://b.example:8443/base"]
              capabilities = ["pull", "resolve"]
              ca = "ca.pem"
              client = [["c.pem", "k.pem"]]
              [host."https://b.example:8443/base".header]
                X-Token = ["one", "two"]
            [host."http://a.example/v2/proxy"]
              override_path = true
              capabilities = ["pull"]
              skip_verify = true
        "#,
    );
    assert_eq!(
        machine.addresses("debian"),
        [
            "b.example:8443/base/v2/library/debian",
            "a.example/v2/proxy/library/debian",
            "registry-1.docker.io/v2/library/debian"
        ]
    );
    let found = machine.endpoints("debian").expect("endpoints");
    let base = machine.sources.containerd[0].join("docker.io");
    assert_eq!(found[0].authorities, [base.join("ca.pem")]);
    assert_eq!(found[0].identities, [(base.join("c.pem"), Some(base.join("k.pem")))]);
    assert_eq!(found[0].headers.len(), 2);
    assert_eq!((found[0].pull, found[0].resolve, found[0].push), (true, true, false));
    assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
    assert_eq!((found[1].scheme, found[1].verify, found[1].resolve), (Scheme::Http, false, false));
    assert!(found[2].push && found[2].namespace.is_none());
}

#[test]
fn hosts_toml_for_ports_and_for_all() {
    let machine = Machine::new()
        .file("containerd/r.example_5000_/hosts.toml", "server = \"https://other.example\"")
        .file("containerd/_default/hosts.toml", "[host.\"https://cache.example\"]\n");
    assert_eq!(machine.addresses("r.example:5000/a/b"), ["other.example/v2/a/b"]);
    assert_eq!(machine.addresses("quay.io/a/b"), ["cache.example/v2/a/b", "quay.io/v2/a/b"]);
}

#[test]
fn registries_conf() {
    let machine = Machine::new()
        .file(
            "registries.conf",
            r#"
                unqualified-search-registries = ["quay.io", "docker.io"]
                [[registry]]
                prefix = "docker.io"
                location = "docker.io"
                [[registry.mirror]]
                location = "mirror.example/hub"
                insecure = true
                [[registry.mirror]]
                location = "digests.example"
                pull-from-mirror = "digest-only"
                [[registry]]
                prefix = "old.example/team"
                location = "new.example/moved"
                [[registry]]
                prefix = "*.corp.example"
                insecure = true
                [[registry]]
                location = "bad.example"
                blocked = true
                [aliases]
                app = "r.example/team/app"
            "#,
        )
        .file("registries.conf.d/50.conf", "[[registry]]\nlocation = \"good.example\"\n");
    assert_eq!(
        machine.addresses("debian"),
        ["mirror.example/v2/hub/library/debian", "registry-1.docker.io/v2/library/debian"]
    );
    let found = machine.endpoints("debian").expect("endpoints");
    assert_eq!((found[0].scheme, found[0].verify, found[0].push), (Scheme::Either, false, false));
    let digest = format!("debian@sha256:{}", "0".repeat(64));
    assert_eq!(machine.addresses(&digest).len(), 3);
    assert_eq!(machine.addresses("old.example/team/app"), ["new.example/v2/moved/app"]);
    assert_eq!(machine.addresses("old.example/teams/app"), ["old.example/v2/teams/app"]);
    assert_eq!(machine.endpoints("x.corp.example/a").expect("endpoints")[0].scheme, Scheme::Either);
    assert_eq!(machine.endpoints("corp.example.evil/a").expect("endpoints")[0].scheme, Scheme::Https);
    assert!(matches!(machine.endpoints("bad.example/a"), Err(HostsError::Blocked { .. })));
    assert_eq!(machine.addresses("good.example/a"), ["good.example/v2/a"]);
    let candidates = |short| containers::candidates(&machine.sources.containers, short).expect("candidates");
    assert_eq!(candidates("app:1"), ["r.example/team/app:1"]);
    assert_eq!(candidates("debian"), ["quay.io/debian", "docker.io/debian"]);
}

#[test]
fn docker_files() {
    let machine = Machine::new()
        .file(
            "daemon.json",
            r#"{"registry-mirrors":["http://m.example/"],"insecure-registries":["10.0.0.0/8","i.example:5000","h.example"],"debug":true}"#,
        )
        .file("certs.d/i.example:5000/ca.crt", "")
        .file("certs.d/i.example:5000/client.cert", "")
        .file("certs.d/i.example:5000/client.key", "");
    assert_eq!(machine.addresses("debian")[0], "m.example/v2/library/debian");
    let scheme = |name: &str| machine.endpoints(name).expect("endpoints").pop().expect("one").scheme;
    for (name, expected) in [
        ("10.1.2.3:5000/a", Scheme::Either),
        ("11.1.2.3:5000/a", Scheme::Https),
        ("i.example:5000/a", Scheme::Either),
        ("i.example:5001/a", Scheme::Https),
        ("h.example:1/a", Scheme::Either),
        ("quay.io/a", Scheme::Https),
    ] {
        assert_eq!(scheme(name), expected, "{name}");
    }
    let own = machine.endpoints("i.example:5000/a").expect("endpoints").remove(0);
    assert_eq!((own.authorities.len(), own.identities.len()), (1, 1));
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let machine = Machine::new().file("registries.conf", "\n[[registry]]\nblocked = \"yes\"\n");
    let message = machine.endpoints("debian").expect_err("refused").to_string();
    assert!(message.contains("registries.conf: line 3"), "{message}");
    let machine = Machine::new().file("containerd/docker.io/hosts.toml", "[host.\"ftp://x\"]\n");
    assert!(machine.endpoints("debian").expect_err("refused").to_string().contains("ftp"));
    let machine = Machine::new().file("daemon.json", "{");
    assert!(machine.endpoints("debian").is_err());
}
