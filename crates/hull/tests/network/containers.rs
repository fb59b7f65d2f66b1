//! Containers on networks, by `hull`'s commands, in a machine of their own: a throw-away network namespace.

use std::process::{Child, Command, Stdio};

use hull_testkit::{Finished, Home, finish, home, tier};

/// A home whose commands run in a network namespace of their own.
struct Lab {
    home: Home,
    /// Keeps the namespace.
    keeper: Child,
}

impl Lab {
    fn new() -> Option<Self> {
        let home = home!()?;
        let keeper = Command::new("unshare")
            .args(["-n", "sleep", "600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("a network namespace");
        let lab = Self { home, keeper };
        let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
        let theirs = format!("/proc/{}/ns/net", lab.keeper.id());
        lab.home.until("the namespace is new", || std::fs::read_link(&theirs).is_ok_and(|link| link != own));
        finish(&mut lab.inside(&["ip", "link", "set", "lo", "up"])).ok();
        Some(lab)
    }

    /// A command in the lab's network namespace.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.keeper.id())).args(words).stdin(Stdio::null());
        command
    }

    fn hull(&self, words: &[&str]) -> Command {
        let plain = self.home.hull(words);
        let mut command = self.inside(&[]);
        command.arg(plain.get_program()).args(plain.get_args()).current_dir("/");
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Finished {
        finish(&mut self.hull(words))
    }

    /// `hull run FLAGS` of a busybox shell line.
    #[track_caller]
    fn shell(&self, flags: &[&str], line: &str) -> Finished {
        let mut words = vec!["run", "--cgroup-parent", self.home.name()];
        words.extend(flags);
        let rootfs = self.home.path().join("rootfs");
        let rootfs = rootfs.to_str().expect("UTF-8").to_owned();
        words.extend(["--rootfs", &rootfs, "/bin/busybox", "sh", "-c", line]);
        self.run(&words)
    }

    /// Programs for containers, and the files that name resolution needs.
    fn equip(&self) {
        let busybox = tier::tool("busybox").expect("busybox-static is installed for these tests");
        let rootfs = self.home.path().join("rootfs");
        std::fs::create_dir(rootfs.join("bin")).expect("bin");
        std::fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
        for name in ["hosts", "hostname", "resolv.conf"] {
            std::fs::write(rootfs.join("etc").join(name), "").expect("write");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// Answers whoever asks on port 7.
const SERVE: &str = "while true; do echo answer | /bin/busybox nc -l -p 7; done";

/// A shell line that succeeds when `SERVE` answers at a name or an address.
fn ask(host: &str) -> String {
    // Twice: the server is between two connections for a moment.
    let once = format!("/bin/busybox nc -w 2 {host} 7 | /bin/busybox grep answer");
    format!("{once} || {{ /bin/busybox sleep 0.2; {once}; }}")
}

fn lab() -> Option<Lab> {
    if tier::tool("busybox").is_none() {
        tier::skip("busybox", "no static busybox is installed");
        return None;
    }
    let lab = Lab::new()?;
    lab.equip();
    Some(lab)
}

#[test]
fn root_names_resolve_on_networks_of_one_s_own() {
    let Some(lab) = lab() else { return };
    lab.run(&["network", "create", "backend"]).ok();
    lab.shell(&["-d", "--name", "db", "--network", "name=backend,alias=store"], SERVE).ok();
    for name in ["db", "store", "db.backend"] {
        let line = format!("/bin/busybox nslookup {name} && {}", ask(name));
        let out = lab.shell(&["--rm", "--network", "backend"], &line);
        assert_eq!(out.code, 0, "{name}: {} {}", out.stdout, out.stderr);
    }
    // Another network neither knows the name nor reaches the address.
    lab.run(&["network", "create", "other"]).ok();
    let template = "{{range .Containers}}{{.IPv4Address}}{{end}}";
    let inspected = lab.run(&["network", "inspect", "--format", template, "backend"]).ok();
    let address = inspected.text().split('/').next().unwrap_or_default().to_owned();
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "{address:?}");
    let out = lab.shell(&["--rm", "--network", "other"], "/bin/busybox nslookup db");
    assert_ne!(out.code, 0, "{}", out.stdout);
    let out = lab.shell(&["--rm", "--network", "other"], &ask(&address));
    assert_ne!(out.code, 0, "{}", out.stdout);
    lab.run(&["network", "rm", "backend"]).fails("backend");
    lab.run(&["rm", "-f", "db"]).ok();
    lab.run(&["network", "rm", "backend", "other"]).ok();
    lab.home.assert_clean();
}

#[test]
fn root_who_shares_a_network_knows_its_names() {
    let Some(lab) = lab() else { return };
    lab.run(&["network", "create", "backend"]).ok();
    lab.shell(&["-d", "--name", "db", "-h", "store", "--network", "backend"], SERVE).ok();
    lab.shell(
        &["-d", "--name", "app", "--network", "backend", "--add-host", "far:192.0.2.1"],
        "exec /bin/busybox sleep 600",
    )
    .ok();
    let line =
        format!("/bin/busybox cat /etc/hosts /etc/hostname; /bin/busybox hostname; echo $HOSTNAME; {}", ask("db"));
    let out = lab.shell(&["--rm", "--network", "container:app"], &line).ok();
    let name = lab.run(&["inspect", "-f", "{{.Config.Hostname}}", "app"]).ok().text().to_owned();
    let hosts = lab.run(&["exec", "app", "/bin/busybox", "cat", "/etc/hosts"]).ok().stdout;
    assert_eq!(out.stdout, format!("{hosts}{name}\n{name}\n{name}\nanswer\n"));
    assert!(hosts.contains("far"), "{hosts}");
    let out = lab.shell(&["--rm", "--network", "container:db"], "/bin/busybox hostname").ok();
    assert_eq!(out.text(), "store");
    // It may be made before whose network it will share runs, as Compose does.
    let rootfs = lab.home.text("rootfs");
    let words = [
        "create",
        "--cgroup-parent",
        lab.home.name(),
        "--name",
        "late",
        "--network",
        "container:db",
        "--rootfs",
        &rootfs,
        "/bin/busybox",
        "hostname",
    ];
    lab.run(&["stop", "-t", "0", "db"]).ok();
    lab.run(&words).ok();
    lab.run(&["start", "-a", "late"]).fails("cannot join a namespace of");
    lab.run(&["start", "db"]).ok();
    assert_eq!(lab.run(&["start", "-a", "late"]).ok().text(), "store");
    lab.run(&["rm", "-f", "db", "app", "late"]).ok();
    lab.run(&["network", "rm", "backend"]).ok();
    lab.home.assert_clean();
}

#[test]
fn root_published_ports_are_reached_before_and_after_the_monitor_is_idle() {
    let Some(lab) = lab() else { return };
    let serve = "while true; do echo answer | /bin/busybox nc -l -p 80; done";
    let id = lab.shell(&["-d", "--network", "bridge", "-p", "127.0.0.1:8081:80"], serve).ok().text().to_owned();
    let ask = || finish(&mut lab.inside(&["busybox", "nc", "-w", "2", "127.0.0.1", "8081"])).stdout.contains("answer");
    lab.home.until("the port answers", ask);
    lab.home.until("its monitor has shed its memory", || {
        hull_testkit::leak::processes(lab.home.name()).iter().any(|(_, command)| command.starts_with("hull-monitor"))
    });
    lab.home.until("the port answers still", ask);
    // Taken is taken, and said by whom.
    let taken = lab.shell(&["--rm", "--network", "bridge", "-p", "127.0.0.1:8081:80"], "true");
    assert_eq!(taken.code, 125, "{}", taken.stderr);
    taken.fails("8081");
    lab.run(&["rm", "-f", &id]).ok();
    lab.shell(&["--rm", "--network", "bridge", "-p", "127.0.0.1:8081:80"], "true").ok();
    lab.home.assert_clean();
}

#[test]
fn root_networks_come_and_go_while_a_container_runs() {
    let Some(lab) = lab() else { return };
    lab.run(&["network", "create", "late"]).ok();
    lab.shell(&["-d", "--name", "peer", "--network", "late"], SERVE).ok();
    lab.shell(&["-d", "--name", "mover", "--network", "bridge"], "/bin/busybox sleep 60").ok();
    let sees = || lab.run(&["exec", "mover", "/bin/busybox", "nslookup", "peer"]).code == 0;
    assert!(!sees());
    lab.run(&["network", "connect", "late", "mover"]).ok();
    lab.home.until("the name is known", sees);
    lab.run(&["exec", "mover", "/bin/busybox", "sh", "-c", &ask("peer")]).ok();
    lab.run(&["network", "connect", "late", "mover"]).fails("late");
    lab.run(&["network", "disconnect", "late", "mover"]).ok();
    lab.home.until("the name is forgotten", || !sees());
    lab.run(&["rm", "-f", "mover", "peer"]).ok();
    lab.run(&["network", "rm", "late"]).ok();
    lab.home.assert_clean();
}

#[test]
fn root_a_killed_monitor_leaves_ports_and_isolation_and_the_next_command_brings_names_back() {
    let Some(lab) = lab() else { return };
    lab.run(&["network", "create", "backend"]).ok();
    lab.run(&["network", "create", "other"]).ok();
    let published = ["-d", "--name", "db", "--network", "backend", "-p", "127.0.0.1:8082:7", "--restart", "always"];
    lab.shell(&published, SERVE).ok();
    lab.shell(&["-d", "--name", "peer", "--network", "backend"], "/bin/busybox sleep 300").ok();
    lab.shell(&["-d", "--name", "stranger", "--network", "other"], "/bin/busybox sleep 300").ok();
    let pid = |name: &str| lab.run(&["inspect", "--format", "{{.State.Pid}}", name]).ok().text().to_owned();
    let template = "{{.NetworkSettings.Networks.backend.IPAddress}}";
    let address = lab.run(&["inspect", "--format", template, "db"]).ok().text().to_owned();
    let (db, peer, stranger) = (pid("db"), pid("peer"), pid("stranger"));
    let port = || finish(&mut lab.inside(&["busybox", "nc", "-w", "2", "127.0.0.1", "8082"])).stdout.contains("answer");
    // By no command of Hull's, which would repair.
    let reaches = |from: &str| {
        let net = format!("--net=/proc/{from}/ns/net");
        let out = finish(Command::new("nsenter").args([&net, "busybox", "nc", "-w", "2", &address, "7"]));
        out.stdout.contains("answer")
    };
    lab.home.until("the port answers", port);
    let stat = std::fs::read_to_string(format!("/proc/{db}/stat")).expect("stat");
    let monitor = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).expect("parent").to_owned();
    finish(Command::new("kill").args(["-9", &monitor])).ok();
    let gone = || !std::path::Path::new(&format!("/proc/{monitor}/cmdline")).exists();
    lab.home.until("the monitor is gone", || gone() || is_zombie(&monitor));
    lab.home.until("the port answers still", port);
    lab.home.until("its network reaches it", || reaches(&peer));
    assert!(!reaches(&stranger));
    // The next command finds the monitor gone: the container is started again, with its port and its names.
    lab.run(&["ps"]).ok();
    lab.home.until("its name is known again", || {
        lab.run(&["exec", "peer", "/bin/busybox", "sh", "-c", &ask("db")]).code == 0
    });
    lab.home.until("the port answers again", port);
    assert_ne!(pid("db"), db);
    lab.run(&["rm", "-f", "db", "peer", "stranger"]).ok();
    assert!(!port());
    lab.run(&["network", "rm", "backend", "other"]).ok();
    lab.home.assert_clean();
}

fn is_zombie(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// The engine's records lie on a small disk, which a container on a bridge fills.
const FULL: &str = r#"set -eu
cd "$PLACE"
mkdir -p disk run
mount -t tmpfs -o size=24m tmpfs disk
hull() { "$HULL" --root "$PLACE/disk" --state "$PLACE/run" "$@"; }
say() { what=$1; shift; code=0; out=$("$@" 2>&1) || code=$?; echo "$what: $code $(echo $out)"; }
hull import rootfs.tar probe >/dev/null
trap 'hull rm -f disk late >/dev/null 2>&1 || true; hull network prune -f >/dev/null 2>&1' EXIT
hull run -d --network bridge --cgroup-parent "$NAME" --name disk -p 8083:7 probe /probe fill /big 4096 >/dev/null
say ended hull wait disk
say again hull start disk
say gone hull rm -f disk
say late hull run --rm --name late --network bridge -p 8083:7 --cgroup-parent "$NAME" probe /probe echo late
say left hull network inspect bridge --format '{{len .Containers}}'
# The kernel takes them away when the namespace is gone, a while after the command.
pairs() { for _ in $(seq 200); do left=$(ip -o link show type veth | wc -l); [ "$left" = 0 ] && break; sleep 0.05; done; echo "$left"; }
say pairs pairs
"#;

#[test]
fn root_a_full_disk_keeps_no_address_and_no_port() {
    let Some(lab) = lab() else { return };
    if tier::tool("unshare").is_none() {
        return;
    }
    let _ = lab.home.pack();
    let mut command = lab.inside(&["unshare", "--mount", "--propagation", "private", "sh", "-c", FULL]);
    command.env("HULL", env!("CARGO_BIN_EXE_hull")).env("PLACE", lab.home.path()).env("NAME", lab.home.name());
    let out = finish(&mut command).ok();
    let line = |what: &str| {
        let found = out.stdout.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("no {what}: {}{}", out.stdout, out.stderr))
    };
    // What could not be given back may be told of as well.
    assert!(line("ended").starts_with("0 ") && line("ended").ends_with('0'), "{}", line("ended"));
    assert!(line("gone").starts_with("0 ") && line("gone").ends_with("disk"), "{}", line("gone"));
    let refused = line("again");
    let why = ["No space left", "disk is full", "no room left"];
    assert!(refused == "0 disk" || why.iter().any(|words| refused.contains(words)), "{refused}");
    assert_eq!((line("late"), line("left"), line("pairs")), ("0 late", "0 0", "0 0"));
    lab.home.assert_clean();
}
