//! Mirrors and trust as the files of containerd, of the containers tools and of Docker say, and proxies.

use std::path::Path;
use std::process::Command;

use hull_testkit::registry::{Fault, Faulty};
use hull_testkit::{finish, tier};

use crate::world::{image, import, user};

/// A registry that has the image as `library/app:1` and as `team/app:1`.
fn serving(content: &[u8]) -> Faulty {
    let registry = Faulty::start();
    let made = image(content);
    made.serve(&registry, "library/app", "1");
    made.serve(&registry, "team/app", "1");
    registry
}

fn lines(registry: &Faulty) -> Vec<String> {
    registry.seen().into_iter().map(|seen| seen.line).collect()
}

#[test]
fn hosts_toml_names_mirrors_of_any_host() {
    let (mirror, origin) = (serving(b"mirror"), serving(b"origin"));
    for directory in ["hull", "containerd"] {
        let text = format!(
            "server = \"http://127.0.0.1:{}\"\n[host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
             [host.\"http://127.0.0.1:{}\".header]\nX-Asked-By = \"hull\"\n",
            origin.port, mirror.port, mirror.port
        );
        let home = user().file(&format!("etc/{directory}/certs.d/registry.example/hosts.toml"), &text);
        home.ok(&["pull", "-q", "registry.example/team/app:1"]);
        let seen = mirror.seen();
        assert!(seen[0].line.starts_with("GET /v2/team/app/manifests/1?ns=registry.example"), "{}", seen[0].line);
        assert!(seen.iter().all(|one| one.header("x-asked-by") == Some("hull")), "{seen:?}");
        assert!(lines(&origin).is_empty());
        // It keeps the registry's name, not the mirror's.
        assert_eq!(home.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "registry.example/team/app:1\n");
    }
    // A mirror that fails is passed over; one that may not resolve is asked by digest only.
    let text = format!(
        "server = \"http://127.0.0.1:{}\"\n[host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\"]\n",
        origin.port, mirror.port
    );
    let home = user().file("etc/hull/certs.d/registry.example/hosts.toml", &text);
    mirror.always("/blobs/", Fault::Status(404, ""));
    home.ok(&["pull", "-q", "registry.example/team/app:1"]);
    assert!(lines(&mirror).iter().all(|line| !line.contains("manifests/1")));
    assert!(lines(&origin).iter().any(|line| line.contains("/blobs/")));
    let home = user().file("etc/hull/certs.d/registry.example/hosts.toml", "[host.\"ftp://x\"]\n");
    home.run(&["pull", "-q", "registry.example/team/app:1"]).fails("hosts.toml");
}

#[test]
fn registries_conf_moves_mirrors_and_blocks() {
    let (mirror, moved) = (serving(b"mirror"), serving(b"moved"));
    let text = format!(
        r#"
            unqualified-search-registries = ["127.0.0.1:{moved}"]
            [[registry]]
            prefix = "docker.io/library"
            location = "docker.io/library"
            [[registry.mirror]]
            location = "127.0.0.1:{mirror}/library"
            insecure = true
            [[registry]]
            prefix = "old.example"
            location = "127.0.0.1:{moved}"
            [[registry]]
            prefix = "old.example/secret"
            blocked = true
            [[registry]]
            prefix = "digests.example"
            location = "127.0.0.1:{moved}"
            [[registry.mirror]]
            location = "127.0.0.1:{mirror}"
            pull-from-mirror = "digest-only"
            [aliases]
            short = "old.example/team/app"
        "#,
        mirror = mirror.port,
        moved = moved.port
    );
    let home = user().file("etc/containers/registries.conf", &text);
    home.ok(&["pull", "-q", "docker.io/library/app:1"]);
    assert!(!lines(&mirror).is_empty() && lines(&moved).is_empty());
    home.ok(&["pull", "-q", "old.example/team/app:1"]);
    assert!(lines(&mirror).is_empty() && !lines(&moved).is_empty());
    home.run(&["pull", "-q", "old.example/secret/app:1"])
        .fails("old.example/secret is blocked by")
        .fails("registries.conf");
    home.ok(&["pull", "-q", "digests.example/team/app:1"]);
    assert!(lines(&mirror).is_empty());
    let digest = image(b"mirror").digest();
    home.ok(&["pull", "-q", &format!("digests.example/team/app@{digest}")]);
    assert!(!lines(&mirror).is_empty());
    // Short names: an alias, and where else to look.
    assert_eq!(home.ok(&["pull", "-q", "short:1"]), "old.example/team/app:1\n");
    assert_eq!(home.ok(&["pull", "-q", "team/app:1"]), format!("127.0.0.1:{}/team/app:1\n", moved.port));
    assert_eq!(home.ok(&["images", "--format", "{{.Repository}}", "old.example/team/app:1"]), "old.example/team/app\n");
    home.ok(&["image", "inspect", "short:1"]);
    let wrong = user().file("etc/containers/registries.conf", "[[registry]]\nblocked = 1\nlocation = \"x\"\n");
    wrong.run(&["pull", "-q", "old.example/a"]).fails("registries.conf: line 2");
}

#[test]
fn dockers_mirrors_are_for_its_own_registry() {
    let mirror = serving(b"mirror");
    let text = format!(r#"{{"registry-mirrors":["http://127.0.0.1:{}/"]}}"#, mirror.port);
    let home = user().file("etc/docker/daemon.json", &text);
    assert_eq!(home.ok(&["pull", "-q", "app:1"]), "docker.io/library/app:1\n");
    assert!(lines(&mirror)[0].starts_with("GET /v2/library/app/manifests/1"));
    let wrong = user().file("etc/docker/daemon.json", r#"{"registry-mirrors":["127.0.0.1"]}"#);
    wrong.run(&["pull", "-q", "app:1"]).fails("daemon.json");
}

#[test]
fn plain_http_is_for_what_is_configured() {
    // Names that exist nowhere, by a proxy that answers for all of them.
    let proxy = serving(b"proxied");
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let proxied = || user().with("http_proxy", &address).with("https_proxy", &address);
    let done = proxied().run(&["pull", "-q", "registry.example/team/app:1"]);
    done.fails("registry.example/team/app:1");
    let seen = lines(&proxy);
    assert!(!seen.is_empty() && seen.iter().all(|line| line == "CONNECT registry.example:443"), "{seen:?}");
    for (file, text) in [
        ("docker/daemon.json", r#"{"insecure-registries":["registry.example"]}"#),
        ("containers/registries.conf", "[[registry]]\nlocation = \"registry.example\"\ninsecure = true\n"),
        ("hull/certs.d/registry.example/hosts.toml", "server = \"http://registry.example\"\n"),
    ] {
        let home = proxied().file(&format!("etc/{file}"), text);
        home.ok(&["pull", "-q", "registry.example/team/app:1"]);
        let seen = lines(&proxy);
        assert!(
            seen.iter().any(|line| line.starts_with("GET http://registry.example/v2/team/app/")),
            "{file}: {seen:?}"
        );
        home.run(&["pull", "-q", "other.example/team/app:1"]).fails("other.example");
        assert!(lines(&proxy).iter().all(|line| line.starts_with("CONNECT ")), "{file}");
    }
    // What needs no proxy does not get one, and neither does loopback.
    let home = proxied()
        .with("no_proxy", ".example")
        .file("etc/docker/daemon.json", r#"{"insecure-registries":["registry.example"]}"#);
    home.run(&["pull", "-q", "registry.example/team/app:1"]).fails("registry.example");
    assert!(lines(&proxy).is_empty());
    home.ok(&["pull", "-q", &format!("127.0.0.1:{}/team/app:1", proxy.port)]);
    assert!(lines(&proxy).iter().all(|line| line.starts_with("GET /v2/")));
}

#[test]
fn certificates_by_host() {
    let Some(openssl) = tier::tool("openssl") else { return };
    // As Docker's manual makes one: it calls itself an authority too.
    for kind in ["CA:TRUE", "CA:FALSE"] {
        certificates(&openssl, kind);
    }
}

fn certificates(openssl: &Path, kind: &str) {
    let home = user();
    let mut make = Command::new(openssl);
    make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    make.args(["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=registry", "-addext"]);
    make.args(["subjectAltName=IP:127.0.0.1", "-addext", &format!("basicConstraints=critical,{kind}")]);
    let _ = finish(make.current_dir(home.path())).ok();
    let (certificate, key) = (home.at("cert.pem"), home.at("key.pem"));
    let words = ["registry", "serve", "--listen", "127.0.0.1:0", "--storage"];
    let mut command = home.hull(&words);
    command.arg(home.at("registry")).arg("--tls-cert").arg(&certificate).arg("--tls-key").arg(&key);
    let (_server, port) = crate::ssh::server(&mut command);
    let host = format!("127.0.0.1:{port}");
    let name = format!("{host}/team/app:1");
    let text = std::fs::read_to_string(&certificate).expect("read");
    import(&home, &name, "file", b"content");
    // An authority that nobody knows: neither trusted nor spoken to in plain.
    let done = home.run(&["push", "-q", &name]);
    done.fails("certificate").fails(&host);
    for file in [format!("docker/certs.d/{host}/ca.crt"), format!("hull/certs.d/{host}/ca.pem")] {
        let mut trusting = user().file(&format!("etc/{file}"), &text);
        if file.starts_with("hull") {
            trusting = trusting.file(&format!("etc/hull/certs.d/{host}/hosts.toml"), "ca = \"ca.pem\"\n");
        }
        import(&trusting, &name, "file", b"content");
        trusting.ok(&["push", "-q", &name]);
        trusting.ok(&["rmi", &name]);
        trusting.ok(&["pull", "-q", &name]);
    }
    // Another name than the certificate's is not this server's.
    let named = format!("localhost:{port}");
    let mistaken = user().file(&format!("etc/docker/certs.d/{named}/ca.crt"), &text);
    mistaken.run(&["pull", "-q", &format!("{named}/team/app:1")]).fails("certificate").fails(&named);
    let careless = user().file("etc/docker/daemon.json", format!(r#"{{"insecure-registries":["{host}"]}}"#));
    careless.ok(&["pull", "-q", &name]);
    let broken = user().file(&format!("etc/docker/certs.d/{host}/client.cert"), &text);
    broken.run(&["pull", "-q", &name]).fails("client.key is missing");
}
