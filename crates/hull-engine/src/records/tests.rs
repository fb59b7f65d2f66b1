use std::time::Duration;

use super::*;

fn engine() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::new(directory.path().join("root"), directory.path().join("state"));
    (directory, engine)
}

fn container(digit: char, name: &str) -> Container {
    Container {
        id: digit.to_string().repeat(64),
        name: name.to_owned(),
        created: 1,
        image_id: String::new(),
        args: vec!["x".into()],
        config: RunConfig::default(),
        stop_signal: 15,
    }
}

#[test]
fn containers_are_found_by_id_prefix_and_name() {
    let (_directory, engine) = engine();
    engine.register(&container('a', "one"), None).unwrap();
    let mut similar = container('a', "two");
    similar.id.replace_range(60.., "bbbb");
    engine.register(&similar, None).unwrap();
    assert_eq!(engine.find("one").unwrap().id, "a".repeat(64));
    assert_eq!(engine.find(&similar.id[..61]).unwrap().name, "two");
    assert!(matches!(engine.find("aa"), Err(Error::Ambiguous(_))));
    assert!(matches!(engine.find("../x"), Err(Error::NoContainer(_))));
    assert!(matches!(engine.register(&container('c', "one"), None), Err(Error::NameTaken { .. })));
    engine.erase(&"c".repeat(64), false).unwrap();
    engine.erase(&"a".repeat(64), false).unwrap();
    assert!(matches!(engine.find("one"), Err(Error::NoContainer(_))));
    assert_eq!(engine.list().unwrap().len(), 1);
}

#[test]
fn intents_are_parsed() {
    let id = "a".repeat(64);
    assert_eq!(parse_intent(&format!("{id}.run.12.34")), Some((id.as_str(), Work::Run, 12, 34)));
    for wrong in [format!("{id}.run.12"), format!("{id}.eat.1.2"), "x.run.1.2".to_owned(), format!("{id}.run.1.2.3")] {
        assert_eq!(parse_intent(&wrong), None, "{wrong}");
    }
}

#[test]
fn what_a_dead_owner_left_is_removed() {
    let (_directory, engine) = engine();
    let container = container('d', "gone");
    engine.register(&container, None).unwrap();
    let live = engine.live();
    create_private(&live).unwrap();
    // No process has started before the machine.
    fs::write(live.join(format!("{}.run.{}.0", container.id, own_pid())), "").unwrap();
    engine.repair().unwrap();
    assert!(engine.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(&live).unwrap().count(), 0);
    assert!(!engine.root.join("names/gone").is_symlink());
}

#[test]
fn a_living_owner_is_left_alone() {
    let (_directory, engine) = engine();
    let container = container('e', "here");
    let intent = engine.intend(&container.id, Work::Run).unwrap();
    engine.register(&container, None).unwrap();
    engine.repair().unwrap();
    assert_eq!(engine.list().unwrap().len(), 1);
    intent.clear().unwrap();
}

#[test]
fn one_that_has_died_is_found_among_many_that_live() {
    let (_directory, engine) = engine();
    create_private(&engine.live()).unwrap();
    let own = (own_pid(), process_start_time(own_pid()).unwrap());
    for number in 0..200 {
        let name = format!("{number:064}.run.{}.{}", own.0, own.1);
        fs::write(engine.live().join(name), "").unwrap();
    }
    let container = container('e', "gone");
    engine.register(&container, None).unwrap();
    let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit"]).spawn().unwrap();
    child.wait().unwrap();
    fs::write(engine.live().join(format!("{}.run.{}.7", container.id, child.id())), "").unwrap();
    engine.repair().unwrap();
    assert!(engine.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(engine.live()).unwrap().count(), 200);
}

#[test]
fn who_only_looks_does_not_wait_for_a_repair_that_hangs() {
    let (_directory, engine) = engine();
    let container = container('e', "stuck");
    engine.register(&container, None).unwrap();
    create_private(&engine.live()).unwrap();
    fs::write(engine.live().join(format!("{}.run.{}.0", container.id, own_pid())), "").unwrap();
    let held = Lock::exclusive(&engine.state.join("repair.lock")).unwrap();
    let error = engine.repair_apart(Duration::from_millis(100)).unwrap_err().to_string();
    assert!(error.contains("not undone yet"), "{error}");
    assert_eq!(engine.list().unwrap().len(), 1);
    drop(held);
    engine.repair().unwrap();
    engine.repair_apart(Duration::ZERO).unwrap();
    assert!(engine.list().unwrap().is_empty());
}

#[test]
fn a_list_does_not_believe_what_was_seen_long_ago() {
    let (_directory, engine) = engine();
    let container = container('f', "ran");
    engine.register(&container, None).unwrap();
    let own = (own_pid(), process_start_time(own_pid()).unwrap());
    let state = State { phase: Phase::Running, monitor: own.0, monitor_start: own.1, ..State::default() };
    engine.save(&container.id, &state).unwrap();
    engine.repair().unwrap();
    // Its monitor is another process now, which was not seen.
    engine.save(&container.id, &State { monitor_start: 0, ..state.clone() }).unwrap();
    assert_eq!(engine.list().unwrap()[0].1.phase, Phase::Exited);
    engine.save(&container.id, &state).unwrap();
    assert_eq!(engine.list().unwrap()[0].1.phase, Phase::Running);
}

#[test]
fn a_container_is_gone_before_its_files_are() {
    let (_directory, engine) = engine();
    let one = container('a', "one");
    engine.register(&one, None).unwrap();
    fs::write(engine.directory(&one.id).join("upper/big"), "much").unwrap();
    let files = engine.unlist(&one.id, Some(&one), true).unwrap();
    assert!(engine.list().unwrap().is_empty());
    assert!(!engine.root.join("names/one").is_symlink());
    // The next one of that name does not wait for the files.
    engine.register(&container('b', "one"), None).unwrap();
    let hidden = engine.containers().join(format!(".removing-{}", one.id));
    assert!(hidden.join("upper/big").exists());
    files.finish().unwrap();
    assert!(!hidden.exists());
    assert_eq!(engine.find("one").unwrap().id, "b".repeat(64));
}

#[test]
fn files_that_a_killed_removal_left_are_found_by_its_intent() {
    let (_directory, engine) = engine();
    let one = container('a', "one");
    engine.register(&one, None).unwrap();
    create_private(&engine.live()).unwrap();
    fs::write(engine.live().join(format!("{}.run.{}.0", one.id, own_pid())), "").unwrap();
    let _ = engine.unlist(&one.id, Some(&one), true).unwrap();
    engine.repair().unwrap();
    assert_eq!(fs::read_dir(engine.containers()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(engine.live()).unwrap().count(), 0);
}

#[test]
fn what_was_never_started_has_no_state_of_its_own() {
    let (_directory, engine) = engine();
    let mut one = container('a', "one");
    one.config.remove = true;
    assert!(matches!(engine.saved_state(&one.id), Err(Error::NoContainer(_))));
    engine.register(&one, None).unwrap();
    assert_eq!(engine.saved_state(&one.id).unwrap(), State::default());
    assert_eq!(engine.list().unwrap()[0].1.phase, Phase::Created);
}

#[test]
fn an_end_that_is_written_while_its_monitor_is_looked_for_is_the_end() {
    let (_directory, engine) = engine();
    let container = container('e', "short");
    engine.register(&container, None).unwrap();
    let running = State { phase: Phase::Running, pid: 11, monitor: 12, ..State::default() };
    engine.save(&container.id, &running).unwrap();
    // Its monitor writes the end before it ends itself.
    let ended = State { phase: Phase::Exited, exit_code: 3, pid: 0, monitor: 0, ..State::default() };
    let gone = |_, _| {
        engine.save(&container.id, &ended).unwrap();
        false
    };
    let state = engine.state_by(&container.id, gone).unwrap();
    assert_eq!((state.phase, state.exit_code), (Phase::Exited, 3));
    // One that was killed has written nothing.
    engine.save(&container.id, &running).unwrap();
    let state = engine.state_by(&container.id, |_, _| false).unwrap();
    assert_eq!((state.phase, state.exit_code), (Phase::Exited, 137));
}
