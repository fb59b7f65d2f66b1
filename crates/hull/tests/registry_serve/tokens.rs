//! Docker's token protocol: the registry's own tokens, and those of another issuer.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hull_oci::Digest;
use hull_testkit::registry::Peer;
use hull_testkit::{Value, finish, json};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair};

use crate::client::{Server, USERS, directory, hull, manifest};

const ANNA: &str = "Basic YW5uYTpzZWNyZXQ=";

fn own(home: &Path, words: &[&str]) -> Server {
    std::fs::write(home.join("users"), USERS).expect("written");
    let mut all = vec!["--htpasswd", "users", "--token"];
    all.extend(words);
    Server::directory(home, &all)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned()
}

/// A token of the server's own.
#[track_caller]
fn ask(server: &Server, authorization: &[(&str, &str)], scope: &str) -> String {
    let target = format!("/token?service=hull-registry&scope={scope}");
    text(&server.send("GET", &target, authorization, b"").is(200).json(), "token")
}

#[test]
fn a_password_buys_tokens_and_tokens_let_in() {
    let home = directory();
    let server = own(home.path(), &[]);
    let challenge = server.get("/v2/").fails(401, "UNAUTHORIZED");
    let realm = "Bearer realm=\"http://x/token\",service=\"hull-registry\"";
    assert_eq!(challenge.header("www-authenticate"), realm, "by the name that the client used");
    let challenge = server.send("PUT", "/v2/a/b/manifests/v1", &[], b"{}").fails(401, "UNAUTHORIZED");
    assert_eq!(challenge.header("www-authenticate"), format!("{realm},scope=\"repository:a/b:pull,push\""));
    // Hosts that would say more than a host.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\",error=\"y\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("answer");
    assert!(!answer.contains("error="), "{answer}");

    server.get("/token?service=hull-registry").fails(401, "UNAUTHORIZED");
    for wrong in ["Basic b3R0bzpzZWNyZXQ=", "Basic YW5uYTp3cm9uZw==", "Basic !", "Bearer x"] {
        server.send("GET", "/token", &[("authorization", wrong)], b"").fails(401, "UNAUTHORIZED");
    }
    server.send("GET", "/token?service=other", &[("authorization", ANNA)], b"").fails(400, "UNSUPPORTED");
    server.send("DELETE", "/token", &[("authorization", ANNA)], b"").fails(405, "UNSUPPORTED");
    // The password itself opens only the token's door.
    server.send("GET", "/v2/", &[("authorization", ANNA)], b"").fails(401, "UNAUTHORIZED");

    let login = [("authorization", ANNA)];
    let push = format!("Bearer {}", ask(&server, &login, "repository:a:pull,push&scope=repository:b:pull"));
    let push = [("authorization", &*push)];
    server.send("GET", "/v2/", &push, b"").is(200);
    server.send("POST", "/v2/a/blobs/uploads/", &push, b"").is(202);
    let digest = Digest::of(b"secret");
    server.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &push, b"secret").is(201);
    server.send("GET", &format!("/v2/a/blobs/{digest}"), &push, b"").is(200);
    for (method, target) in [
        ("POST", "/v2/b/blobs/uploads/"),
        ("GET", "/v2/c/tags/list"),
        ("GET", "/v2/_catalog"),
        ("DELETE", "/v2/a/manifests/v1"),
    ] {
        let refused = server.send(method, target, &push, b"").fails(401, "UNAUTHORIZED");
        assert!(refused.header("www-authenticate").contains("error=\"insufficient_scope\""), "{refused:?}");
    }
    // What may not be read is not mounted, from its repository or from anywhere.
    let other = format!("Bearer {}", ask(&server, &login, "repository:b:pull,push"));
    let other = [("authorization", &*other)];
    for query in ["&from=a", ""] {
        server.send("POST", &format!("/v2/b/blobs/uploads/?mount={digest}{query}"), &other, b"").is(202);
    }
    let both = format!("Bearer {}", ask(&server, &login, "repository:b:pull,push&scope=repository:a:pull"));
    let target = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    server.send("POST", &target, &[("authorization", &both)], b"").is(201);
    // A token with a letter changed.
    let mut broken = push[0].1.to_owned();
    broken.push('A');
    let refused = server.send("GET", "/v2/", &[("authorization", &broken)], b"").fails(401, "UNAUTHORIZED");
    assert!(refused.header("www-authenticate").contains("error=\"invalid_token\""), "{refused:?}");
    let long = "y".repeat(70_000);
    let status = server.send("POST", "/token", &login, long.as_bytes()).status;
    assert_eq!(status, 413);
}

#[test]
fn refresh_tokens_last_as_long_as_the_password() {
    let home = directory();
    let server = own(home.path(), &[]);
    let form = "grant_type=password&username=anna&password=secret&access_type=offline&service=hull-registry&scope=repository:a:pull";
    let answer = server.send("POST", "/token", &[], form.as_bytes()).is(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = answer.json();
    let access = format!("Bearer {}", text(&answer, "access_token"));
    server.send("GET", "/v2/a/tags/list", &[("authorization", &access)], b"").is(404);
    let refresh = text(&answer, "refresh_token");
    // It is no token itself.
    server.send("GET", "/v2/", &[("authorization", &format!("Bearer {refresh}"))], b"").fails(401, "UNAUTHORIZED");
    let form =
        format!("grant_type=refresh_token&service=hull-registry&refresh_token={refresh}&scope=repository:a:pull,push");
    let renew = |server: &Server| server.send("POST", "/token", &[], form.as_bytes());
    let access = format!("Bearer {}", text(&renew(&server).is(200).json(), "access_token"));
    server.send("POST", "/v2/a/blobs/uploads/", &[("authorization", &access)], b"").is(202);
    let access_as_refresh = form.replace(&refresh, access.trim_start_matches("Bearer "));
    server.send("POST", "/token", &[], access_as_refresh.as_bytes()).fails(401, "UNAUTHORIZED");
    for wrong in ["grant_type=password&username=anna&password=wrong", "grant_type=password", "grant_type=refresh_token"]
    {
        server.send("POST", "/token", &[], wrong.as_bytes()).fails(401, "UNAUTHORIZED");
    }
    server.send("POST", "/token", &[], b"grant_type=x").fails(400, "UNSUPPORTED");
    // By a GET too, as Docker does when it logs in. They outlive the server.
    let login = server.send("GET", "/token?offline_token=true&account=anna", &[("authorization", ANNA)], b"").is(200);
    assert!(login.json()["refresh_token"].is_string());
    drop(server);
    let server = own(home.path(), &[]);
    renew(&server).is(200);
    drop(server);
    let other = USERS.replace(
        "anna:$2y$04$a.3/coSeBTsvuod.4nFOGur0.ktTd3N3stz2foS42YtVoDrypjyUi",
        "anna:$2y$04$b.3/coSeBTsvuod.4nFOGur0.ktTd3N3stz2foS42YtVoDrypjyUi",
    );
    std::fs::write(home.path().join("users"), other).expect("written");
    let server = Server::directory(home.path(), &["--htpasswd", "users", "--token"]);
    renew(&server).fails(401, "UNAUTHORIZED");
}

#[test]
fn everybody_may_pull_where_that_is_allowed() {
    for tokens in [true, false] {
        let home = directory();
        std::fs::write(home.path().join("users"), USERS).expect("written");
        let mut words = vec!["--htpasswd", "users", "--anonymous-pull"];
        if tokens {
            words.push("--token");
        }
        let server = Server::directory(home.path(), &words);
        let bearer = |login: &[(&str, &str)], scope: &str| format!("Bearer {}", ask(&server, login, scope));
        let (user, nobody) = if tokens {
            let scope = "repository:a:pull,push,delete";
            (Some(bearer(&[("authorization", ANNA)], scope)), Some(bearer(&[], scope)))
        } else {
            (Some(ANNA.to_owned()), None)
        };
        let send = |who: &Option<String>, method: &str, target: &str, body: &[u8]| {
            let headers: Vec<(&str, &str)> = who.iter().map(|one| ("authorization", one.as_str())).collect();
            server.send(method, target, &headers, body)
        };
        for text in ["{}", "layer"] {
            let target = format!("/v2/a/blobs/uploads/?digest={}", Digest::of(text.as_bytes()));
            send(&nobody, "POST", &target, text.as_bytes()).fails(401, "UNAUTHORIZED");
            send(&user, "POST", &target, text.as_bytes()).is(201);
        }
        let value = manifest("{}", "layer").to_string();
        send(&nobody, "PUT", "/v2/a/manifests/v1", value.as_bytes()).fails(401, "UNAUTHORIZED");
        send(&user, "PUT", "/v2/a/manifests/v1", value.as_bytes()).is(201);
        send(&nobody, "GET", "/v2/a/manifests/v1", b"").is(200);
        send(&nobody, "GET", &format!("/v2/a/blobs/{}", Digest::of(b"layer")), b"").is(200);
        send(&nobody, "GET", "/v2/_catalog", b"").fails(401, "UNAUTHORIZED");
        send(&nobody, "DELETE", "/v2/a/manifests/v1", b"").fails(401, "UNAUTHORIZED");
        // A client learns at the first question how to log in.
        send(&None, "GET", "/v2/", b"").fails(401, "UNAUTHORIZED");
    }
}

/// `hull login`, push and pull, into the store.
#[test]
fn hull_logs_in_and_pushes_with_tokens() {
    let (home, client) = (directory(), directory());
    std::fs::write(home.path().join("users"), USERS).expect("written");
    let server = Server::start(home.path(), &["--htpasswd", "users", "--token"]);
    let host = format!("127.0.0.1:{}", server.port);
    let login = |password: &str| {
        let mut command = hull(client.path(), &["login", "-u", "anna", "--password-stdin", &host]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("hull");
        child.stdin.take().expect("stdin").write_all(password.as_bytes()).expect("written");
        child.wait_with_output().expect("ended")
    };
    assert!(!login("wrong").status.success());
    let name = format!("{host}/team/hello:v1");
    let _ = finish(&mut hull(client.path(), &["tag", "hello", &name])).ok();
    finish(&mut hull(client.path(), &["push", &name])).fails("");
    let output = login("secret");
    assert!(output.status.success(), "{output:?}");
    let _ = finish(&mut hull(client.path(), &["push", &name])).ok();
    let _ = finish(&mut hull(home.path(), &["image", "inspect", "team/hello:v1"])).ok();
    let _ = finish(&mut hull(client.path(), &["rmi", &name])).ok();
    let _ = finish(&mut hull(client.path(), &["pull", &name])).ok();
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry_serve/keys").join(name)
}

/// What is between the lines of a PEM file.
fn pem(name: &str) -> String {
    let text = std::fs::read_to_string(file(name)).expect("file");
    text.lines().filter(|line| !line.starts_with("-----")).collect()
}

fn key(name: &str) -> Vec<u8> {
    STANDARD.decode(pem(name)).expect("base64")
}

fn ec(name: &str) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &key(name), &random).expect("key")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("time").as_secs()
}

fn claims(actions: &[&str]) -> Value {
    json!({"iss": "issuer", "sub": "anna", "aud": "registry.example", "exp": now() + 300, "nbf": now() - 10, "iat": now(),
        "jti": "1", "access": [{"type": "repository", "name": "a", "actions": actions}]})
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", encode(header), encode(claims));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(sign(text.as_bytes())))
}

fn with_ec(name: &str, header: &Value, claims: &Value) -> String {
    signed(header, claims, |text| ec(name).sign(&SystemRandom::new(), text).expect("signed").as_ref().to_vec())
}

/// The name that Docker's registry has for the key of a certificate of these tests: its digest in base 32.
const ROOT_KEY: &str = "R3B7:AMWN:QRAX:YIDN:VSL7:5MR4:GMCB:56GA:CC6J:BFUI:ZSWE:UEOJ";

fn ec_jwk(name: &str) -> Value {
    let pair = ec(name);
    let point = pair.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
}

fn rsa(header: &Value, claims: &Value) -> String {
    let pair = RsaKeyPair::from_pkcs8(&key("rsa.key")).expect("key");
    signed(header, claims, |text| {
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).expect("signed");
        signature
    })
}

/// What it is, and the token.
type Named = (&'static str, String);

/// Tokens that are good, and ones that are not, for a registry that trusts `root.pem`.
fn tokens() -> (Vec<Named>, Vec<Named>) {
    let good = claims(&["pull", "push"]);
    let by_name = json!({"typ": "JWT", "alg": "ES256", "kid": ROOT_KEY});
    let changed = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        with_ec("root.key", &by_name, &claims)
    };
    let chain = json!({"typ": "JWT", "alg": "ES256", "x5c": [pem("leaf.pem")]});
    let right = vec![
        ("by fingerprint", with_ec("root.key", &by_name, &good)),
        ("by a chain", with_ec("leaf.key", &chain, &good)),
        ("for several", changed("aud", json!(["other", "registry.example"]))),
    ];
    let swapped = {
        let (one, other) = (with_ec("root.key", &by_name, &good), with_ec("root.key", &by_name, &claims(&["*"])));
        let (mut one, other): (Vec<&str>, Vec<&str>) = (one.split('.').collect(), other.split('.').collect());
        one[1] = other[1];
        one.join(".")
    };
    let mut jwk = ec_jwk("leaf.key");
    jwk["kid"] = json!(ROOT_KEY);
    let none = signed(&json!({"typ": "JWT", "alg": "none", "kid": ROOT_KEY}), &good, |_| Vec::new());
    let secret = signed(&json!({"typ": "JWT", "alg": "HS256", "kid": ROOT_KEY}), &good, |text| {
        let certificate = std::fs::read(file("root.pem")).expect("file");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &certificate);
        ring::hmac::sign(&key, text).as_ref().to_vec()
    });
    let wrong = vec![
        ("another issuer", changed("iss", json!("evil"))),
        ("another service", changed("aud", json!("other"))),
        ("expired", changed("exp", json!(now() - 100))),
        ("not yet", changed("nbf", json!(now() + 1000))),
        ("other claims than signed", swapped),
        ("another key", with_ec("leaf.key", &by_name, &good)),
        ("an unknown name", with_ec("root.key", &json!({"typ": "JWT", "alg": "ES256", "kid": "x"}), &good)),
        ("its own key", with_ec("leaf.key", &json!({"typ": "JWT", "alg": "ES256", "jwk": jwk}), &good)),
        ("a stranger's certificate", rsa(&json!({"typ": "JWT", "alg": "RS256", "x5c": [pem("rsa.pem")]}), &good)),
        ("another's certificate", with_ec("root.key", &chain, &good)),
        ("no signature", none),
        ("a secret that is public", secret),
        ("nonsense", "a.b.c".to_owned()),
    ];
    (right, wrong)
}

#[test]
fn tokens_of_another_issuer_by_its_certificates() {
    let home = directory();
    let root = file("root.pem");
    let server = Server::directory(
        home.path(),
        &[
            "--token-realm",
            "https://auth.example/token",
            "--token-service",
            "registry.example",
            "--token-issuer",
            "issuer",
            "--token-certs",
            root.to_str().expect("path"),
        ],
    );
    let challenge = server.get("/v2/a/tags/list").fails(401, "UNAUTHORIZED");
    let expected =
        "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a:pull\"";
    assert_eq!(challenge.header("www-authenticate"), expected);
    server.get("/token").fails(401, "UNAUTHORIZED");
    let send = |token: &str, method: &str, target: &str| {
        server.send(method, target, &[("authorization", &format!("Bearer {token}"))], b"")
    };
    let (right, wrong) = tokens();
    for (what, token) in &right {
        assert_eq!(send(token, "POST", "/v2/a/blobs/uploads/").status, 202, "{what}");
        assert_eq!(send(token, "POST", "/v2/b/blobs/uploads/").status, 401, "{what}");
        assert_eq!(send(token, "GET", "/v2/").status, 200, "{what}");
    }
    for (what, token) in &wrong {
        let refused = send(token, "POST", "/v2/a/blobs/uploads/");
        assert_eq!(refused.status, 401, "{what}");
        assert!(refused.header("www-authenticate").contains("error=\"invalid_token\""), "{what}");
    }
}

/// What Docker's registry makes of the same tokens.
#[test]
fn docker_registry_takes_and_refuses_the_same_tokens() {
    let more = format!(
        "auth: {{token: {{realm: 'https://auth.example/token', service: registry.example, issuer: issuer, rootcertbundle: '{}'}}}}\n",
        file("root.pem").display()
    );
    let Some(peer) = Peer::start(&more) else { return };
    let status = |token: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", peer.port)).expect("connect");
        let head = format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
        stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("answer");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let (right, wrong) = tokens();
    // Version 2.8 knows one audience only.
    for (what, token) in right.iter().filter(|(what, _)| *what != "for several") {
        assert_eq!(status(token), "202", "{what}");
    }
    for (what, token) in &wrong {
        assert_eq!(status(token), "401", "{what}");
    }
}

#[test]
fn tokens_of_another_issuer_by_its_key_set() {
    let home = directory();
    let pair = RsaKeyPair::from_pkcs8(&key("rsa.key")).expect("key");
    // 256 bytes after the heads of the sequence and of the number, and a zero; the exponent is the usual one.
    let (n, e) = (pair.public().as_ref()[9..265].to_vec(), [1, 0, 1]);
    let mut one = ec_jwk("root.key");
    one["kid"] = json!("one");
    let two = json!({"kty": "RSA", "kid": "two", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)});
    std::fs::write(home.path().join("keys"), json!({"keys": [one, two]}).to_string()).expect("written");
    let words =
        ["--token-realm", "https://auth.example/token", "--token-service", "registry.example", "--token-keys", "keys"];
    let server = Server::directory(home.path(), &words);
    let claims = claims(&["pull", "push"]);
    let status = |token: String| {
        server.send("POST", "/v2/a/blobs/uploads/", &[("authorization", &format!("Bearer {token}"))], b"").status
    };
    assert_eq!(status(with_ec("root.key", &json!({"alg": "ES256", "kid": "one"}), &claims)), 202);
    assert_eq!(status(with_ec("root.key", &json!({"alg": "ES256"}), &claims)), 202);
    assert_eq!(status(rsa(&json!({"alg": "RS256", "kid": "two"}), &claims)), 202);
    assert_eq!(status(rsa(&json!({"alg": "RS256", "kid": "one"}), &claims)), 401);
    assert_eq!(status(rsa(&json!({"alg": "ES256", "kid": "two"}), &claims)), 401);
    assert_eq!(status(with_ec("leaf.key", &json!({"alg": "ES256"}), &claims)), 401);
    assert_eq!(status(with_ec("root.key", &json!({"alg": "ES256", "jwk": ec_jwk("root.key")}), &claims)), 202);
    // Keys that cannot be used are told at once.
    for (bad, why) in [("{}", "not RSA"), ("x", "not JSON"), ("{\"keys\":[]}", "no key")] {
        std::fs::write(home.path().join("keys"), bad).expect("written");
        let mut all = vec!["registry", "serve", "--storage", "other"];
        all.extend(words);
        finish(&mut hull(home.path(), &all)).fails(why);
    }
    let alone = ["registry", "serve", "--token-realm", "https://auth.example/"];
    finish(&mut hull(home.path(), &alone)).fails("--token-certs or --token-keys");
}
