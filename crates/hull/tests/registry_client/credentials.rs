//! Where a credential goes, and where it never does.

use std::os::unix::fs::PermissionsExt as _;

use hull_oci::image::{Descriptor, media_type};
use hull_testkit::json;
use hull_testkit::registry::{Fault, Faulty};

use hull_testkit::Home;

use crate::world::{Made, image, login, noise, user};

/// `u:p`, as Basic has it.
const BASIC: &str = "Basic dTpw";

fn basic() -> Fault {
    Fault::Status(401, "WWW-Authenticate: Basic realm=\"r\"\r\n")
}

fn bearer(realm: &str) -> Fault {
    let headers = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
    Fault::Answer(401, headers, b"{}".to_vec())
}

/// A registry that wants to know who asks for its manifests, and a user whom it knows.
fn known(made: &Made) -> (Faulty, Home, String) {
    let registry = Faulty::start();
    made.serve(&registry, "team/app", "1");
    let host = format!("127.0.0.1:{}", registry.port);
    let home = user().file("docker/config.json", login(&host));
    (registry, home, format!("{host}/team/app:1"))
}

#[test]
fn not_to_where_a_redirect_leads() {
    let made = image(&noise(100_000, 3));
    let (registry, home, name) = known(&made);
    registry.fail("manifests/1", basic());
    registry.fail("manifests/1", Fault::Redirect);
    registry.fail(&made.blob(), Fault::Redirect);
    registry.fail(&made.id(), Fault::Redirect);
    home.ok(&["pull", "-q", &name]);
    let (mut own, mut foreign) = (0, 0);
    for seen in registry.seen() {
        let authorization = seen.header("authorization");
        if seen.header("host").is_some_and(|host| host.starts_with("localhost")) {
            foreign += 1;
            assert_eq!(authorization, None, "{}", seen.line);
        } else {
            own += usize::from(authorization == Some(BASIC));
        }
    }
    assert!(own >= 2 && foreign == 3, "{own} {foreign}");
}

#[test]
fn not_to_a_layers_other_place() {
    let elsewhere = Faulty::start();
    let made = image(b"foreign");
    elsewhere.put("/layers/one", "application/octet-stream", &made.layer);
    let layer = Descriptor {
        urls: vec![format!("http://localhost:{}/layers/one", elsewhere.port)],
        ..Descriptor::of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &made.layer)
    };
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
        "config": Descriptor::of(media_type::DOCKER_CONFIG, &made.config), "layers": [layer]});
    let (registry, home, name) = known(&made);
    registry.put("/v2/team/app/manifests/1", media_type::DOCKER_MANIFEST, manifest.to_string().as_bytes());
    registry.always(&made.blob(), Fault::Status(404, ""));
    registry.fail("manifests/1", basic());
    home.ok(&["pull", "-q", &name]);
    assert!(registry.seen().iter().any(|seen| seen.header("authorization") == Some(BASIC)));
    let there = elsewhere.seen();
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(there[0].header("authorization"), None);
    // A place that is not encrypted is none, and the registry's own refusal is not hidden.
    let layer = Descriptor { urls: vec!["http://192.0.2.1/layer".to_owned()], ..layer };
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST,
        "config": Descriptor::of(media_type::DOCKER_CONFIG, &made.config), "layers": [layer]});
    registry.put("/v2/team/app/manifests/2", media_type::DOCKER_MANIFEST, manifest.to_string().as_bytes());
    let other = user();
    let second = format!("{}:2", name.trim_end_matches(":1"));
    other.run(&["pull", "-q", &second]).fails("which is not encrypted");
}

#[test]
fn not_to_an_unexpected_realm() {
    let made = image(b"x");
    let (registry, home, name) = known(&made);
    for realm in ["http://192.0.2.1/token", "https://auth.evil.example/token", "http://127.0.0.1.evil.example/t"] {
        registry.always("manifests/1", bearer(realm));
        let done = home.run(&["pull", "-q", &name]);
        done.fails("which is not of the same domain").fails(name.split('/').next().expect("host"));
        registry.mend();
    }
    assert!(registry.seen().iter().all(|seen| seen.header("authorization").is_none()));
    // Its own token server gets it, and the registry the token only.
    registry.put("/token", "application/json", br#"{"token":"t"}"#);
    registry.fail("manifests/1", bearer(&format!("http://127.0.0.1:{}/token", registry.port)));
    home.ok(&["pull", "-q", &name]);
    for seen in registry.seen() {
        match seen.header("authorization") {
            Some(BASIC) => assert!(seen.line.starts_with("GET /token?service=s&scope="), "{}", seen.line),
            Some(other) => assert_eq!(other, "Bearer t", "{}", seen.line),
            None => {}
        }
    }
}

#[test]
fn an_identity_token_is_exchanged() {
    let made = image(b"x");
    let (registry, home, name) = known(&made);
    let host = name.split('/').next().expect("host");
    let text = format!(r#"{{"auths":{{"{host}":{{"auth":"PHRva2VuPjo=","identitytoken":"secret"}}}}}}"#);
    let home = home.file("docker/config.json", &text);
    registry.put("/token", "application/json", br#"{"access_token":"t"}"#);
    registry.fail("manifests/1", bearer(&format!("http://127.0.0.1:{}/token", registry.port)));
    home.ok(&["pull", "-q", &name]);
    let seen = registry.seen();
    assert!(seen.iter().any(|one| one.line == "POST /token"), "{seen:?}");
    assert!(seen.iter().all(|one| !one.line.contains("secret")), "{seen:?}");
}

#[test]
fn a_mirror_does_not_get_the_registrys_password() {
    let made = image(b"x");
    let mirror = Faulty::start();
    made.serve(&mirror, "team/app", "1");
    mirror.fail("manifests/1", basic());
    let (registry, home, name) = known(&made);
    let host = name.split('/').next().expect("host");
    let text = format!(
        "server = \"http://{host}\"\n[host.\"http://localhost:{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        mirror.port
    );
    let home = home.file(&format!("etc/hull/certs.d/{host}/hosts.toml"), &text);
    home.ok(&["pull", "-q", &name]);
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    assert!(registry.seen().iter().any(|seen| seen.line.contains("manifests/1")), "the registry itself was asked then");
}

#[test]
fn logins_come_and_go() {
    let registry = Faulty::start();
    registry.put("/v2/", "application/json", b"{}");
    let host = format!("127.0.0.1:{}", registry.port);
    let home = user().file("docker/config.json", r#"{"HttpHeaders":{"X":"y"}}"#);
    let mut command = home.hull(&["login", "-u", "u", "--password-stdin", &host]);
    std::fs::write(home.at("password"), "p\n").expect("write");
    registry.fail("/v2/", basic());
    command.stdin(std::fs::File::open(home.at("password")).expect("open"));
    let done = hull_testkit::finish(&mut command).ok();
    assert_eq!(done.stdout, "Login Succeeded\n");
    assert!(registry.seen().iter().any(|seen| seen.header("authorization") == Some(BASIC)));
    let file = home.at("docker/config.json");
    let kept = std::fs::read_to_string(&file).expect("read");
    assert!(kept.contains("dTpw") && kept.contains("HttpHeaders"), "{kept}");
    assert_eq!(std::fs::metadata(&file).expect("metadata").permissions().mode() & 0o777, 0o600);
    // A wrong password is not kept, and the last one stays.
    registry.always("/v2/", basic());
    home.run(&["login", "-u", "u", "-p", "wrong", &host]);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), kept);
    assert_eq!(home.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
    let after = std::fs::read_to_string(&file).expect("read");
    assert!(!after.contains("dTpw") && after.contains("HttpHeaders"), "{after}");
    assert_eq!(home.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
}

#[test]
fn a_helper_keeps_what_it_is_given() {
    let registry = Faulty::start();
    registry.put("/v2/", "application/json", b"{}");
    let host = format!("127.0.0.1:{}", registry.port);
    let script = "#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/kept\";;\nget) cat > /dev/null; \
                  test -s \"$HOME/kept\" || { echo 'credentials not found in native keychain'; exit 1; }; cat \"$HOME/kept\";;\n\
                  erase) cat > /dev/null; rm -f \"$HOME/kept\";;\nesac\n";
    let home = user().file("bin/docker-credential-test", script).file("docker/config.json", r#"{"credsStore":"test"}"#);
    let program = home.at("bin/docker-credential-test");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let path = format!("{}:{}", home.at("bin").display(), std::env::var("PATH").unwrap_or_default());
    let home = home.with("PATH", path);
    let done = home.run(&["login", "-u", "u", "-p", "p", &host]).ok();
    assert!(!done.stderr.contains("unencrypted"), "{}", done.stderr);
    let kept = std::fs::read_to_string(home.at("kept")).expect("kept");
    assert!(kept.contains(&host) && kept.contains("\"Secret\":\"p\""), "{kept}");
    assert!(!std::fs::read_to_string(home.at("docker/config.json")).expect("read").contains("dTpw"));
    assert_eq!(home.ok(&["logout", &host]), format!("Removing login credentials for {host}\n"));
    assert!(!home.at("kept").exists());
}
