use super::*;
use crate::config::{MountConfig, RunConfig};

fn container(config: RunConfig) -> Container {
    Container {
        id: "0".repeat(64),
        name: "web".to_owned(),
        created: 0,
        image_id: String::new(),
        args: vec!["sh".to_owned()],
        config,
        stop_signal: 15,
    }
}

fn places(container: &Container, state: &State, known: &Known) -> (Vec<Finding>, Answer) {
    let findings = judge::findings(container, state, known);
    let answer = judge::answer(container, state, &findings);
    (findings, answer)
}

#[test]
fn an_end_for_want_of_memory_is_the_control_group_s() {
    let state = State { phase: Phase::Exited, exit_code: 137, oom_killed: true, ..State::default() };
    let mut config = RunConfig::default();
    config.limits.memory = Some(64 << 20);
    let (_, answer) = places(&container(config), &state, &Known::default());
    assert_eq!(answer.place, Place::Cgroup);
    assert!(answer.text.contains("64 MiB"), "{}", answer.text);
}

#[test]
fn a_full_disk_and_a_missing_program_are_the_file_system_s() {
    let known = Known { full: vec![("/data".to_owned(), 0)], has_route: true, nameservers: 1, ..Known::default() };
    let state = State { phase: Phase::Running, ..State::default() };
    let (_, answer) = places(&container(RunConfig::default()), &state, &known);
    assert_eq!((answer.place, answer.text.as_str()), (Place::FileSystem, "/data is full: 0 B free"));
    let state = State { phase: Phase::Exited, exit_code: 127, ..State::default() };
    assert_eq!(places(&container(RunConfig::default()), &state, &Known::default()).1.place, Place::FileSystem);
}

#[test]
fn what_is_risky_is_named() {
    let mut config = RunConfig::default();
    config.security.privileged = true;
    config.env = vec!["DB_PASSWORD=hunter2".to_owned(), "PLAIN=1".to_owned()];
    let source = std::path::PathBuf::from("/var/run/docker.sock");
    config.mounts = vec![MountConfig::Bind { source, target: "/s".to_owned(), options: Vec::new(), create: true }];
    let (findings, _) = places(&container(config), &State::default(), &Known::default());
    let risks: Vec<&str> =
        findings.iter().filter(|one| one.severity == Severity::Risk).map(|one| one.text.as_str()).collect();
    for word in ["privileged", "docker.sock", "DB_PASSWORD"] {
        assert!(risks.iter().any(|text| text.contains(word)), "{word}: {risks:?}");
    }
    assert!(!risks.iter().any(|text| text.contains("hunter2")));
}

#[test]
fn sizes_are_exact_where_they_can_be() {
    assert_eq!([bytes(0), bytes(64 << 20), bytes(1536)], ["0 B", "64 MiB", "1.5 KiB"]);
}
