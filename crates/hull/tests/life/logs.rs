//! Logs and events, as a user looks at them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::{UnixDatagram, UnixListener};

use crate::home::{home, run, spawn, touch};

#[test]
fn root_logs_show_what_is_asked_for() {
    let Some(h) = home() else { return };
    let flags = ["--name", "web", "--label", "tier=front", "--log-opt", "labels=tier", "--log-opt", "tag={{.Name}}!"];
    // In the foreground too.
    let _ = run(
        &h,
        &flags,
        &["echo", "one", "+", "sleep", "0.05", "+", "err", "two", "+", "sleep", "0.05", "+", "lines", "3"],
    )
    .ok();
    let all = h.run(&["logs", "web"]).ok();
    assert_eq!((all.stdout.as_str(), all.stderr.as_str()), ("one\nline 0\nline 1\nline 2\n", "two\n"));
    assert_eq!(h.run(&["logs", "-n", "2", "web"]).ok().text(), "line 1\nline 2");
    assert_eq!(h.run(&["logs", "--tail", "0", "web"]).ok().stdout, "");
    let line = h.run(&["logs", "--tail=1", "-t", "--details", "web"]).ok();
    let (time, rest) = line.text().split_once(' ').expect("time");
    assert_eq!((time.len(), rest), (30, "tag=web%21,tier=front line 2"), "{time}");
    // From the time of a line on, and up to it.
    let since = h.run(&["logs", "--since", time, "web"]).ok();
    assert_eq!((since.text(), since.stderr.as_str()), ("line 2", ""));
    let first = h.run(&["logs", "-t", "web"]).ok();
    let first = first.lines()[0].split(' ').next().expect("time").to_owned();
    assert_eq!(h.run(&["logs", "--until", &first, "web"]).ok().text(), "one");
    assert_eq!(h.run(&["logs", "--since", "-1h", "web"]).ok().stdout, "");
    h.run(&["logs", "--since", "yesterday", "web"]).fails("yesterday");
    // Docker's format to the byte.
    let path = h.field("web", "{{.LogPath}}");
    let text = std::fs::read_to_string(path).expect("log");
    let first = text.lines().next().expect("line");
    let expected = r#"{"log":"one\n","stream":"stdout","attrs":{"tag":"web!","tier":"front"},"time":"20"#;
    assert!(first.starts_with(expected) && first.ends_with("Z\"}"), "{first}");
}

#[test]
fn root_logs_followed_through_rotation_lose_nothing() {
    let Some(h) = home() else { return };
    let flags = ["-d", "--name", "flood", "--log-opt", "max-size=10k", "--log-opt", "max-file=500"];
    let _ = run(&h, &flags, &["wait-file", "/go", "+", "lines", "5000", "+", "wait-file", "/end"]).ok();
    let mut follower = spawn(&h, &["logs", "-f", "flood"]);
    touch(&h, "go");
    let lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    let mut next = 0;
    for line in lines {
        assert_eq!(line.expect("line"), format!("line {next}"));
        next += 1;
        if next == 5000 {
            touch(&h, "end");
        }
    }
    assert_eq!(next, 5000);
    assert!(follower.wait().expect("wait").success());
    let again = h.run(&["logs", "flood"]).ok();
    assert_eq!(again.lines().len(), 5000);
    assert_eq!(h.run(&["logs", "--tail", "3000", "flood"]).ok().lines()[0], "line 2000");
}

#[test]
fn root_logs_followed_through_restarts() {
    let Some(h) = home() else { return };
    let _ = run(&h, &["-d", "--name", "again", "--stop-timeout", "0"], &["echo", "begun", "+", "sleep", "60"]).ok();
    let mut follower = spawn(&h, &["logs", "-f", "again"]);
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    assert_eq!(lines.next().expect("line").expect("line"), "begun");
    for _ in 0..3 {
        let _ = h.run(&["restart", "again"]).ok();
        assert_eq!(lines.next().expect("line").expect("line"), "begun");
    }
    let _ = h.run(&["stop", "again"]).ok();
    assert!(lines.next().is_none());
    assert!(follower.wait().expect("wait").success());
}

#[test]
fn root_logs_are_bounded_and_compressed() {
    let Some(h) = home() else { return };
    let _ = run(
        &h,
        &["-d", "--name", "flood", "--log-opt", "max-size=20k"],
        &["lines", "20000", "+", "sleep", "0.3", "+", "lines", "1000"],
    )
    .ok();
    assert_eq!(h.run(&["wait", "flood"]).ok().text(), "0");
    let path = h.field("flood", "{{.LogPath}}");
    let directory = std::path::Path::new(&path).parent().expect("directory");
    let files = || -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(directory).expect("directory").flatten();
        let logs = entries
            .map(|entry| (entry.file_name().into_string().expect("UTF-8"), entry.metadata().expect("file").len()));
        logs.filter(|(name, _)| name.starts_with("container.log")).collect()
    };
    h.until("compressing", || files().iter().any(|(name, _)| name.ends_with(".1.gz")) && files().len() <= 3);
    let total: u64 = files().iter().map(|(_, size)| size).sum();
    assert!(total < 3 * 60_000, "{:?}", files());
    let shown = h.run(&["logs", "flood"]).ok();
    assert_eq!(shown.lines().last(), Some(&"line 999"));
}

#[test]
fn root_logs_keep_bytes_or_say_so() {
    let Some(h) = home() else { return };
    let _ = run(&h, &["--name", "text"], &["binary"]).ok();
    let shown = h.run(&["logs", "text"]).ok();
    assert!(shown.stdout.contains('\u{fffd}') && shown.stdout.contains("ABC"), "{:?}", shown.stdout);
    let _ = run(&h, &["--name", "bytes", "--log-driver", "local"], &["binary"]).ok();
    let output = h.hull(&["logs", "bytes"]).output().expect("run");
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>());
    let _ = run(&h, &["--name", "silent", "--log-driver", "none"], &["echo", "x"]).ok();
    h.run(&["logs", "silent"]).fails("configured logging driver does not support reading");
}

#[test]
fn root_logs_refuse_what_they_do_not_know() {
    let Some(h) = home() else { return };
    for (flags, text) in [
        (&["--log-driver", "splunky"][..], "plugin \"splunky\" not found"),
        (&["--log-opt", "max-syze=1m"], "unknown log opt 'max-syze' for json-file log driver"),
        (&["--log-opt", "max-size=big"], "max-size"),
        (&["--log-opt", "max-file=0"], "max-file cannot be less than 1"),
        (&["--log-driver", "syslog", "--log-opt", "syslog-address=tcp//x"], "proto://address"),
    ] {
        let out = run(&h, flags, &["echo", "x"]);
        assert_eq!(out.fails(text).code, 125);
    }
    assert_eq!(h.run(&["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn root_logs_to_syslog_never_hold_a_program_up() {
    let Some(h) = home() else { return };
    let path = h.path().join("log");
    let socket = UnixDatagram::bind(&path).expect("bind");
    let address = format!("syslog-address=unixgram://{}", path.display());
    let flags = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag=probe",
        "--log-opt",
        "syslog-facility=local3",
    ];
    let _ = run(&h, &flags, &["echo", "hello"]).ok();
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("receive");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(text.starts_with("<158>") && text.contains(" probe[") && text.ends_with("]: hello\n"), "{text}");
    // Nobody accepts, nobody reads: megabytes go by.
    let path = h.path().join("dead");
    let _listener = UnixListener::bind(&path).expect("bind");
    let address = format!("syslog-address=unix://{}", path.display());
    let out = run(&h, &["--log-driver", "syslog", "--log-opt", &address], &["lines", "200000"]).ok();
    assert_eq!(out.lines().len(), 200_000);
}

#[test]
fn root_a_reader_that_stops_holds_no_program_up() {
    let Some(h) = home() else { return };
    let _ = run(&h, &["-d", "--name", "talk"], &["wait-file", "/go", "+", "lines", "100000"]).ok();
    let mut reader = spawn(&h, &["logs", "-f", "talk"]);
    touch(&h, "go");
    assert_eq!(h.run(&["wait", "talk"]).ok().text(), "0");
    reader.kill().expect("kill");
    reader.wait().expect("wait");
}

#[test]
fn root_events_tell_a_container_s_life() {
    let Some(h) = home() else { return };
    let mut follower = spawn(&h, &["events", "--filter", "container=web", "--format", "{{.Action}}"]);
    let begun = h.path().join("data/events");
    h.until("watching", || begun.exists());
    // It watches once it has opened what there is: the first event that it shows is awaited, not assumed.
    let _ = run(&h, &["-d", "--name", "web", "--label", "tier=front"], &["wait-file", "/end"]).ok();
    let _ = h.run(&["exec", "web", "/probe", "echo", "x"]).ok();
    let _ = h.run(&["pause", "web"]).ok();
    let _ = h.run(&["unpause", "web"]).ok();
    let _ = h.run(&["rename", "web", "web2"]).ok();
    touch(&h, "end");
    assert_eq!(h.run(&["wait", "web2"]).ok().text(), "0");
    let _ = h.run(&["rm", "web2"]).ok();
    let expected = [
        "create",
        "start",
        "exec_create: /probe echo x",
        "exec_start: /probe echo x",
        "exec_die",
        "pause",
        "unpause",
        "rename",
        "die",
        "destroy",
    ];
    let history = h.run(&["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"]).ok();
    assert_eq!(history.lines(), expected);
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout")).lines();
    let followed: Vec<String> = (0..expected.len()).map(|_| lines.next().expect("line").expect("line")).collect();
    assert_eq!(followed, expected);
    follower.kill().expect("kill");
    follower.wait().expect("wait");

    let one = |filters: &[&str], format: &str| {
        let mut words = vec!["system", "events", "--since", "1h", "--until", "0s", "--format", format];
        filters.iter().for_each(|filter| words.extend(["--filter", *filter]));
        h.run(&words).ok().text().to_owned()
    };
    assert_eq!(one(&["event=die"], "{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.tier}}"), "0 front");
    assert_eq!(one(&["event=exec_create", "label=tier=front"], "{{.Type}}"), "container");
    assert_eq!(one(&["type=image"], "json"), "");
    let json: serde_json::Value = serde_json::from_str(&one(&["event=start"], "json")).expect("JSON");
    assert_eq!((json["status"].as_str(), json["scope"].as_str()), (Some("start"), Some("local")));
    // What one reader saw last is where the next begins: nothing is missed, and nothing comes twice.
    let last = json["timeNano"].as_u64().expect("time") + 1;
    let last = format!("{}.{:09}", last / 1_000_000_000, last % 1_000_000_000);
    let rest = h.run(&["events", "--since", &last, "--until", "0s", "--format", "{{.Action}}"]).ok();
    assert_eq!(rest.lines(), expected[2..]);
    h.run(&["events", "--filter", "colour=red"]).fails("invalid filter 'colour'");
    let line = h.run(&["events", "--since", "1h", "--until", "0s", "--filter", "event=die"]).ok();
    assert!(line.text().contains("Z container die ") && line.text().contains("exitCode=0, "), "{}", line.stdout);
    let mut rest = String::new();
    let _ = follower.stderr.take().map(|mut stderr| stderr.read_to_string(&mut rest));
}
