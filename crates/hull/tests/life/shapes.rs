//! `inspect` beside Docker's: the same keys with the same types.

use std::collections::BTreeSet;
use std::process::Command;

use hull_testkit::{finish, home, tier};
use serde_json::Value;

/// What Docker 28.5 shows of a container that runs with [`FLAGS`]: `KEY.KEY:TYPE`, objects in lists as `KEY.[]KEY`.
const DOCKER: &str = include_str!("docker-28.5.txt");

const FLAGS: [&str; 14] = [
    "-m",
    "64m",
    "--cpus",
    "0.5",
    "-e",
    "A=b",
    "-l",
    "x=y",
    "-v",
    "/tmp:/mnt:ro",
    "--tmpfs",
    "/scratch:size=1m",
    "--restart",
    "on-failure:3",
];

/// Where ours differ, and why.
const DIFFERENT: [&str; 6] = [
    // Every container has a limit of tasks.
    "HostConfig.PidsLimit:null",
    "HostConfig.PidsLimit:number",
    // Docker shows it only if the flag was given, as a value.
    "HostConfig.Init:bool",
    // Always known.
    "Config.StopSignal:string",
    // A directory of the user's as the root has no image.
    "Rootfs:string",
    // A directory of the user's has one directory and no layers.
    "GraphDriver.Data.",
];

fn keys(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "bool",
                    Value::Number(_) => "number",
                    Value::String(_) => "string",
                    Value::Array(_) => "list",
                    Value::Object(_) => "object",
                };
                all.insert(format!("{path}{key}:{kind}"));
                keys(value, &format!("{path}{key}."), all);
            }
        }
        Value::Array(list) => {
            if let Some(first) = list.first().filter(|first| first.is_object()) {
                keys(first, &format!("{path}[]"), all);
            }
        }
        _ => {}
    }
}

fn shape(text: &str) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(text).expect("JSON");
    let mut all = BTreeSet::new();
    keys(&document[0], "", &mut all);
    all.retain(|key| !key.starts_with("Config.Labels.") && !DIFFERENT.iter().any(|known| key.starts_with(known)));
    all
}

fn differences(ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> Vec<String> {
    let missing = theirs.difference(ours).map(|key| format!("missing {key}"));
    missing.chain(ours.difference(theirs).map(|key| format!("beyond {key}"))).collect()
}

#[test]
fn root_inspect_has_every_key_of_docker_s() {
    let Some(h) = home!() else { return };
    let mut flags = vec!["--name", "web"];
    flags.extend(FLAGS);
    let _ = h.detached(&flags, &["sleep", "60"]);
    let ours = shape(&h.run(&["inspect", "--size", "web"]).ok().stdout);
    let known = |key: &&str| !DIFFERENT.iter().any(|known| key.starts_with(known));
    let theirs: BTreeSet<String> = DOCKER.lines().filter(known).map(str::to_owned).collect();
    assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
    // The type of a key does not change when it ends.
    h.run(&["stop", "-t", "0", "web"]).ok();
    let ended = shape(&h.run(&["inspect", "--size", "web"]).ok().stdout);
    assert_eq!(differences(&ended, &ours), Vec::<String>::new());
    h.run(&["inspect", "--type", "image", "web"]).fails("web");
    h.run(&["inspect", "--type", "bogus", "web"]).fails("unknown type");
    for template in [
        "{{.NetworkSettings.IPAddress}}{{.NetworkSettings.Ports}}",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.LogConfig.Type}} {{json .HostConfig.Binds}}",
        "{{.GraphDriver.Data.MergedDir}} {{.State.Pid}} {{.RestartCount}} {{.Driver}} {{.Platform}}",
    ] {
        h.run(&["inspect", "--format", template, "web"]).ok();
    }
    h.run(&["rm", "web"]).ok();
    h.assert_clean();
}

/// The recorded keys are what the real one shows.
#[test]
fn root_inspect_is_beside_a_running_docker() {
    let Ok(daemon) = std::env::var("HULL_PEERS_DOCKER") else {
        return tier::skip("a docker daemon", "HULL_PEERS_DOCKER is not set");
    };
    let root = std::env::var("HULL_PEERS_ROOT").unwrap_or_else(|_| "/".to_owned());
    if !tier::root() {
        return;
    }
    let script = r#"
        set -e
        mount --bind "$1" "$1" && cd "$1"
        mount -t proc proc proc && mount --rbind /sys sys && mount --rbind /dev dev && mount -t tmpfs tmpfs run
        exec chroot . sh -c "$2""#;
    let name = format!("hull-look-{}", std::process::id());
    let docker = format!("docker -H {daemon}");
    let line = format!(
        "tar -c --files-from /dev/null | {docker} import - {name} >&2; {docker} create --name {name} --network none {} {name} x >&2; \
         {docker} inspect --size {name}; {docker} rm {name} >&2; {docker} rmi {name} >&2",
        FLAGS.join(" ")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", &root, &line]);
    let theirs = shape(&finish(&mut command).ok().stdout);
    let known = |key: &&str| !DIFFERENT.iter().any(|known| key.starts_with(known));
    let recorded: BTreeSet<String> = DOCKER.lines().filter(known).map(str::to_owned).collect();
    assert_eq!(differences(&recorded, &theirs), Vec::<String>::new());
}
