//! Settings as users meet them: files of Hull's and Docker's, variables, flags, and where each value came from.

use std::process::{Command, Stdio};

use hull_testkit::{Finished, Value, finish, home};
use tempfile::TempDir;

/// An `/etc` and a home directory of its own.
struct Places(TempDir);

impl Places {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("create directory");
            std::fs::write(path, text).expect("write");
        }
        Self(directory)
    }

    fn dress<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let at = |name: &str| self.0.path().join(name);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("HULL_") || name.starts_with("DOCKER_")) {
                command.env_remove(&name);
            }
        }
        command.env("HULL_ETC", at("etc")).env("HOME", at("home")).env_remove("XDG_CONFIG_HOME").stdin(Stdio::null())
    }

    fn hull(&self, words: &[&str], variables: &[(&str, &str)]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull"));
        self.dress(&mut command).args(words).envs(variables.iter().copied());
        finish(&mut command)
    }

    /// Value and place of a setting.
    fn setting(&self, key: &str, variables: &[(&str, &str)]) -> (Value, String) {
        let text = self.hull(&["config", "show", key, "--format", "json"], variables).ok().stdout;
        let list: Value = serde_json::from_str(&text).expect("JSON");
        let one = &list[0];
        (one["Value"].clone(), one["From"].as_str().unwrap_or_default().to_owned())
    }
}

#[test]
fn the_nearer_place_counts_and_is_named() {
    let places = Places::new(&[
        ("etc/docker/daemon.json", r#"{"log-driver": "journald", "mtu": 1400, "storage-driver": "overlay2"}"#),
        ("etc/hull/config.toml", "log-driver = 'syslog'\nbip = '10.9.0.1/24'\n"),
        ("home/.config/hull/config.toml", "log-driver = 'local'\n"),
        ("home/.docker/config.json", r#"{"psFormat": "{{.Names}}", "auths": {"x": {"auth": "c2VjcmV0"}}}"#),
    ]);
    assert_eq!(places.setting("log-driver", &[("HULL_LOG_DRIVER", "none")]), ("none".into(), "variable".into()));
    assert_eq!(places.setting("log-driver", &[]), ("local".into(), "user".into()));
    assert_eq!(places.setting("bip", &[]), ("10.9.0.1/24".into(), "system".into()));
    assert_eq!(places.setting("mtu", &[]), (1400.into(), "docker".into()));
    assert_eq!(places.setting("ps-format", &[]).1, "docker");
    assert_eq!(places.setting("init", &[]).1, "default");
    let all = places.hull(&["--root", "/x/y", "config", "show"], &[]).ok();
    assert!(all.stdout.contains("/x/y") && all.stdout.contains("--root"), "{}", all.stdout);
    assert!(all.stderr.contains("not used by Hull: storage-driver"), "{}", all.stderr);
    assert!(!all.stdout.contains("c2VjcmV0") && !all.stderr.contains("auths"));
}

#[test]
fn a_wrong_file_stops_what_would_follow_it() {
    let places = Places::new(&[("etc/hull/config.toml", "log-drivr = 'local'\n")]);
    let said = places.hull(&["ps"], &[]);
    assert_eq!(said.code, 125);
    assert!(said.stderr.contains("etc/hull/config.toml: there is no setting \"log-drivr\""), "{}", said.stderr);
    assert_eq!(places.hull(&["--version"], &[]).code, 0);
    let places = Places::new(&[]);
    let said = places.hull(&["config", "show", "init"], &[("HULL_INIT", "perhaps")]);
    assert!(said.code != 0 && said.stderr.contains("$HULL_INIT: init:"), "{}", said.stderr);
}

#[test]
fn the_example_is_valid_with_and_without_its_comments() {
    let places = Places::new(&[]);
    let text = places.hull(&["config", "example"], &[]).ok().stdout;
    let on: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    for text in [text, on] {
        let places = Places::new(&[("etc/hull/config.toml", &text)]);
        places.hull(&["config", "show"], &[]).ok();
    }
}

#[test]
fn root_new_containers_get_what_the_settings_say() {
    let Some(home) = home!() else { return };
    let places = Places::new(&[
        (
            "etc/docker/daemon.json",
            r#"{"log-driver": "local", "log-opts": {"max-size": "1m"}, "default-shm-size": "8m",
                "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 64, "Hard": 128}}, "dns-search": ["inner"]}"#,
        ),
        (
            "home/.docker/config.json",
            r#"{"psFormat": "{{.Names}} here", "proxies": {"default": {"httpProxy": "http://proxy"}}}"#,
        ),
    ]);
    let run = |command: &mut Command| finish(places.dress(command));
    run(&mut home.container("create", &["--name", "one"], &["true"])).ok();
    run(&mut home.container("create", &["--name", "two", "--log-driver=json-file", "--ulimit", "nofile=7"], &["true"]))
        .ok();
    let field = |name: &str, template: &str| home.field(name, template);
    assert_eq!(
        field("one", "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}"),
        "local {\"max-size\":\"1m\"}"
    );
    assert_eq!(field("two", "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}"), "json-file {}");
    assert_eq!(field("one", "{{range .HostConfig.Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}}{{end}}"), "nofile=64:128");
    assert_eq!(field("two", "{{range .HostConfig.Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}}{{end}}"), "nofile=7:7");
    assert_eq!(field("one", "{{.HostConfig.ShmSize}}"), (8 << 20).to_string());
    assert_eq!(field("one", "{{join .HostConfig.DnsSearch \",\"}}"), "inner");
    assert!(field("one", "{{json .Config.Env}}").contains("http_proxy=http://proxy"));
    let info = run(&mut home.hull(&["info", "--format", "{{.LoggingDriver}}"])).ok().stdout;
    assert_eq!(info.trim(), "local");
    assert_eq!(run(&mut home.hull(&["ps", "-a", "-f", "name=one"])).ok().stdout, "one here\n");
    assert!(run(&mut home.hull(&["ps", "-aq"])).ok().stdout.lines().all(|line| line.len() == 12));
    home.run(&["rm", "one", "two"]).ok();
    home.assert_clean();
}
