use std::path::Path;

use serde_json::json;

use super::*;
use crate::read::files;

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.path().join(name), text).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        let at = |name: &str| self.0.path().join(name);
        Sources {
            user: Some(at("user.toml")),
            system: at("system.toml"),
            daemon: vec![at("daemon.json")],
            docker: Some(at("config.json")),
            root: true,
        }
    }

    fn read(&self) -> Result<Settings, Error> {
        files(&self.sources())
    }

    fn said(&self) -> String {
        self.read().expect_err("an error").to_string()
    }
}

fn origin(settings: &Settings, key: &str) -> &'static str {
    settings.value(key).map_or("", |(_, origin)| origin.word())
}

#[test]
fn the_nearer_place_counts() {
    let machine = Machine::new()
        .file("daemon.json", r#"{"log-driver": "journald", "mtu": 1400, "dns": ["192.0.2.1"]}"#)
        .file("system.toml", "log-driver = 'syslog'\ndns = ['192.0.2.2']\n")
        .file("user.toml", "log-driver = 'local'\n");
    let settings = machine.read().unwrap();
    assert_eq!(settings.value("log-driver").unwrap().0, json!("local"));
    assert_eq!(origin(&settings, "log-driver"), "user");
    assert_eq!((origin(&settings, "dns"), origin(&settings, "mtu")), ("system", "docker"));
    assert_eq!(origin(&settings, "bip"), "");
}

#[test]
fn docker_s_files_are_read_as_they_are() {
    let machine = Machine::new()
        .file(
            "daemon.json",
            r#"{"data-root": "/data/docker", "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64, "Soft": 32}},
                "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}], "default-shm-size": 1048576,
                "proxies": {"http-proxy": "http://proxy:3128"}, "live-restore": true, "log-opts": {"max-file": 3}}"#,
        )
        .file(
            "config.json",
            r#"{"auths": {"x": {"auth": "c2VjcmV0"}}, "psFormat": "{{.ID}}", "detachKeys": "ctrl-x",
                "proxies": {"default": {"httpProxy": "http://p"}}}"#,
        );
    let settings = machine.read().unwrap();
    let value = |key: &str| settings.value(key).unwrap().0.clone();
    assert_eq!(value("root"), json!("/data/docker/hull"));
    assert_eq!(value("default-ulimits"), json!({"nofile": "32:64"}));
    assert_eq!(value("default-address-pools"), json!(["base=10.9.0.0/16,size=24"]));
    assert_eq!(value("default-shm-size"), json!("1048576"));
    assert_eq!(value("http-proxy"), json!("http://proxy:3128"));
    assert_eq!(value("log-opts"), json!({"max-file": "3"}));
    assert_eq!((value("ps-format"), value("detach-keys")), (json!("{{.ID}}"), json!("ctrl-x")));
    assert_eq!(value("container-proxies"), json!({"httpProxy": "http://p"}));
    assert_eq!(settings.unused.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["live-restore"]);
    assert!(!format!("{settings:?}").contains("c2VjcmV0"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let said = Machine::new().file("system.toml", "\nlog-driver = \n").said();
    assert!(said.contains("system.toml: line 2"), "{said}");
    let said = Machine::new().file("user.toml", "log_driver = 'x'").said();
    assert!(said.contains("\"log_driver\", log-driver is meant"), "{said}");
    let said = Machine::new().file("user.toml", "mtu = 'x'").said();
    assert!(said.contains("mtu: expected a number, found a text"), "{said}");
    assert!(Machine::new().file("daemon.json", "{").said().contains("daemon.json: not JSON"));
    assert!(Machine::new().file("daemon.json", r#"{"dns": "x"}"#).said().contains("dns: expected a list"));
    let looks = Machine::new().file("config.json", "{").read().unwrap();
    assert!(looks.warnings[0].contains("config.json"), "{:?}", looks.warnings);
    assert!(Machine::new().file("daemon.json", "").read().is_ok());
    let directory = Machine::new();
    std::fs::create_dir(directory.0.path().join("user.toml")).unwrap();
    assert!(directory.said().contains("not a regular file"));
}

#[test]
fn the_machine_s_directories_are_root_s() {
    let machine = Machine::new()
        .file("daemon.json", r#"{"data-root": "/data", "mtu": 1300}"#)
        .file("system.toml", "state = '/x'\nmtu = 1400");
    let settings = files(&Sources { root: false, ..machine.sources() }).unwrap();
    assert_eq!((origin(&settings, "root"), origin(&settings, "state"), origin(&settings, "mtu")), ("", "", "system"));
}

#[test]
fn variables_are_of_their_kinds() {
    let parse = |kind: Kind, text: &str| kind.of_text(text);
    assert_eq!(parse(Kind::List, "a, b,"), Ok(json!(["a", "b"])));
    assert_eq!(parse(Kind::Map, "max-size=1m,tag=x=y"), Ok(json!({"max-size": "1m", "tag": "x=y"})));
    assert_eq!(parse(Kind::Bool, "Yes"), Ok(json!(true)));
    assert!(parse(Kind::Bool, "maybe").is_err() && parse(Kind::Number, "-1").is_err());
    assert_eq!(parse(Kind::Pools, "base=10.0.0.0/8,size=24;x"), Ok(json!(["base=10.0.0.0/8,size=24", "x"])));
}

#[test]
fn settings_are_listed_once_and_variables_follow_from_their_names() {
    let mut keys: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    assert_eq!(SETTINGS[0].variable(), "HULL_ROOT");
    assert!(Path::new("/").is_absolute() && get("no such setting").unwrap().is_none());
}

#[test]
fn every_setting_is_documented() {
    let text = include_str!("../../../docs/configuration.md");
    for setting in SETTINGS {
        let row = format!("| `{}` | {} | ", setting.key, setting.default);
        let row = text.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("docs/configuration.md: no row for {}", setting.key));
        assert!(row.contains(setting.about) && row.contains(setting.daemon) && row.contains(setting.docker), "{row}");
    }
}
