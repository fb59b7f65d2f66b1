use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn with(json: &str) -> (tempfile::TempDir, Credentials) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("config.json");
    fs::write(&path, json).expect("write");
    (directory, Credentials::file(path))
}

fn password(username: &str, password: &str) -> Credential {
    Credential::Password { username: username.to_owned(), password: password.to_owned() }
}

#[test]
fn forms_of_entries() {
    let auth = STANDARD.encode("u:p:with:colons");
    let (_directory, credentials) = with(&format!(
        r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"quay.io":{{"username":"q","password":"s"}},
            "quay.io/org":{{"identitytoken":"org"}},"http://old.example/v1/":{{"registrytoken":"r"}}}}}}"#
    ));
    let find = |host, repository| credentials.find(host, repository).expect("readable");
    assert_eq!(find("docker.io", "library/debian"), Some(password("u", "p:with:colons")));
    assert_eq!(find("quay.io", "other/app"), Some(password("q", "s")));
    assert_eq!(find("quay.io", "org/app"), Some(Credential::Identity("org".to_owned())));
    assert_eq!(find("quay.io", "organisation/app"), Some(password("q", "s")));
    assert_eq!(find("old.example", "a"), Some(Credential::Bearer("r".to_owned())));
    assert_eq!(find("quay.io.evil.example", "org/app"), None);
}

#[test]
fn what_is_unknown_in_a_file_stays() {
    let (directory, credentials) = with(r#"{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"YTpi"}}}"#);
    let kept = credentials.store("b.example:5000", &password("u", "p")).expect("stored");
    let path = directory.path().join("config.json");
    assert_eq!(kept, Kept::File(path.clone()));
    assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
    assert_eq!(credentials.find("b.example:5000", "x").expect("readable"), Some(password("u", "p")));
    let document: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("valid");
    assert_eq!(document["HttpHeaders"]["X"], "y");
    assert!(credentials.erase("b.example:5000").expect("erased"));
    assert!(!credentials.erase("b.example:5000").expect("nothing left"));
    assert_eq!(credentials.find("a.example", "x").expect("readable"), Some(password("a", "b")));
}

#[test]
fn broken_files_are_named_without_their_secrets() {
    for json in [
        "{\"auths\": {\"a.example\": {\"auth\": \"c2VjcmV0\"}}",
        "[]",
        r#"{"auths":{"a.example":{"auth":"c2VjcmV0"}}}"#,
    ] {
        let (_directory, credentials) = with(json);
        let message = credentials.find("a.example", "x").expect_err("refused").to_string();
        assert!(
            message.contains("config.json") && !message.contains("secret") && !message.contains("c2Vj"),
            "{message}"
        );
    }
    assert!(!format!("{:?}", password("u", "hidden")).contains("hidden"));
}

#[test]
fn a_missing_file_knows_nobody() {
    let credentials = Credentials::file(PathBuf::from("/nonexistent/config.json"));
    assert_eq!(credentials.find("a.example", "x").expect("no error"), None);
}

#[test]
fn helpers_are_plain_words() {
    let (_directory, credentials) = with(r#"{"credsStore":"../../tmp/evil"}"#);
    let message = credentials.find("a.example", "x").expect_err("refused").to_string();
    assert!(message.contains("its name must be"), "{message}");
}

#[test]
fn files_in_their_order() {
    let variables = |name: &str| match name {
        "HOME" => Some(OsString::from("/home/u")),
        "XDG_RUNTIME_DIR" => Some(OsString::from("/run/user/7")),
        _ => None,
    };
    let credentials = Credentials::from_variables(&variables);
    let expected = ["/home/u/.docker/config.json", "/run/user/7/containers/auth.json"];
    assert_eq!(credentials.files, expected.map(PathBuf::from));
}

#[test]
fn a_given_credential_is_for_its_registry_alone() {
    let one = Credential::Password { username: "u".to_owned(), password: "p".to_owned() };
    let given = Credentials::given(vec![("r.example:5000".to_owned(), one.clone())]);
    assert_eq!(given.find("r.example:5000", "team/app").expect("no file"), Some(one));
    assert_eq!(given.find("docker.io", "library/debian").expect("no file"), None);
}
