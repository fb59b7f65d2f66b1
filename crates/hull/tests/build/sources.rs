//! Where the files of a build come from: other stages, downloads, repositories. Nothing of them leads out of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hull_testkit::{Finished, Home, finish, home};

use super::machine::alone;

/// A home with a context.
struct Build(Home);

impl Build {
    fn new() -> Option<Self> {
        let build = Self(home!()?);
        std::fs::create_dir_all(build.path("")).expect("create directory");
        Some(build)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("context").join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.0.hull(&["build"]);
        alone(&mut command).args(words).current_dir(self.path("")).env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    #[track_caller]
    fn build(&self, dockerfile: &str, words: &[&str]) -> Finished {
        std::fs::write(self.path("Dockerfile"), dockerfile).expect("write");
        finish(self.command(words).arg("."))
    }

    /// What is in the result, as `tar` shows it: mode, owner, name and target.
    #[track_caller]
    fn listed(&self, dockerfile: &str) -> Vec<String> {
        let tar = self.0.path().join("out.tar");
        self.build(dockerfile, &[&format!("--output=type=tar,dest={}", tar.display())]).ok();
        let output = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&tar).output().expect("tar");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[1], words[5..].join(" "))
        };
        text.lines().map(line).collect()
    }
}

/// A server of some files; every answer has the validator that its content is. Returns its address and what was asked.
fn server(files: Vec<(&'static str, &'static str)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match files.iter().find(|(name, _)| *name == path) {
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
                Some((_, content)) if head.contains(&format!("\"{content}\"")) => {
                    "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".to_owned()
                }
                Some((_, content)) => format!(
                    "HTTP/1.1 200 OK\r\netag: \"{content}\"\r\nlast-modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{content}",
                    content.len()
                ),
            };
            kept.lock().expect("lock").push(path);
            // Whoever hung up wants no answer.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn root_build_downloads() {
    let Some(build) = Build::new() else { return };
    let (address, asked) = server(vec![("/d/tool", "content")]);
    let text =
        format!("FROM scratch\nADD {address}/d/tool {address}/d/tool?x /bin/\nADD --chmod=755 {address}/d/tool /t\n");
    // The second address does not exist.
    let failed = build.build(&text, &[]);
    assert!(failed.stderr.contains("invalid response status 404"), "{}", failed.stderr);
    let text = format!("FROM scratch\nADD {address}/d/tool /bin/\nADD --chmod=755 --chown=3:4 {address}/d/tool /t\n");
    assert_eq!(build.listed(&text), ["drwxr-xr-x 0/0 bin/", "-rw------- 0/0 bin/tool", "-rwxr-xr-x 3/4 t"]);
    let before = asked.lock().expect("lock").len();
    let again = build.build(&text, &["--progress=plain"]).ok();
    assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{}", again.stderr);
    assert!(asked.lock().expect("lock").len() > before, "what is there may have changed: it is asked for");
    // With its checksum nobody is asked, and another one is refused.
    let good = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    let before = asked.lock().expect("lock").len();
    build.build(&format!("FROM scratch\nADD --checksum={good} {address}/d/tool /y\n"), &[]).ok();
    assert_eq!(asked.lock().expect("lock").len(), before);
    let bad = good.replace("ed70", "0000");
    let failed = build.build(&format!("FROM scratch\nADD --checksum={bad} {address}/d/tool /y\n"), &[]);
    assert!(failed.stderr.contains("digest mismatch"), "{}", failed.stderr);
    build.0.assert_clean();
}

/// `git daemon`, which ends with this.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// A repository behind a server; returns its address.
fn repository(root: &Path) -> (Daemon, String) {
    use std::os::unix::process::CommandExt as _;
    let script = "set -e; export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
                  GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; git init -q -b main repo; cd repo; mkdir -p sub; \
                  printf 'FROM scratch\\nCOPY f out /x/\\n' >sub/Dockerfile; echo one >sub/f; ln -s /etc/passwd sub/out; \
                  ln -s ../../../../etc sub/up; chmod 755 sub/f; git add .; git commit -qm one; git tag v1; \
                  echo two >sub/f; git commit -qam two";
    let output = Command::new("sh").args(["-c", script]).current_dir(root).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let child = Command::new("git")
        .args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr"])
        .args([format!("--port={port}"), format!("--base-path={}", root.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("git daemon");
    let daemon = Daemon(child);
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "git daemon does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (daemon, format!("git://127.0.0.1:{port}/repo"))
}

#[test]
fn root_build_repositories() {
    let Some(build) = Build::new() else { return };
    let (daemon, address) = repository(build.0.path());
    let text = format!("FROM scratch\nADD {address}#v1:sub /src\n");
    assert_eq!(
        build.listed(&text),
        [
            "drwxr-xr-x 0/0 src/",
            "-rw-r--r-- 0/0 src/Dockerfile",
            "-rwxr-xr-x 0/0 src/f",
            "lrwxrwxrwx 0/0 src/out -> /etc/passwd",
            "lrwxrwxrwx 0/0 src/up -> ../../../../etc",
        ]
    );
    let failed = build.build(&format!("FROM scratch\nADD {address}#v1:sub/up /src\n"), &[]);
    assert!(failed.stderr.contains("it has no directory"), "{}", failed.stderr);
    let failed = build.build(&format!("FROM scratch\nADD {address}#v9 /src\n"), &[]);
    assert!(failed.stderr.contains("repository does not contain ref v9"), "{}", failed.stderr);
    // A context: its links do not lead to files of this machine.
    let failed = finish(build.command(&[]).arg(format!("{address}#main:sub")));
    assert!(failed.stderr.contains("\"/out\": not found"), "{}", failed.stderr);
    drop(daemon);
    build.0.assert_clean();
}

#[test]
fn root_build_copies_between_stages() {
    let Some(build) = Build::new() else { return };
    std::fs::write(build.path("f"), "f").expect("write");
    std::fs::create_dir(build.path("t")).expect("create directory");
    std::os::unix::fs::symlink("/etc/passwd", build.path("t/link")).expect("link");
    let text = "FROM scratch AS a\nCOPY --chown=5:6 --chmod=640 f /d/f\nCOPY t /d/\nFROM scratch\n\
                COPY --from=a /d /all\nCOPY --from=a --chown=7 /d/f /one\nCOPY --from=a d/* /wild/\nWORKDIR /all/w\n\
                COPY f .\n";
    let failed = build.build(text, &[]);
    assert!(failed.stderr.contains("\"/d/link\": not found"), "{}", failed.stderr);
    let text = text.replace("d/* /wild/", "d/f* /wild/");
    assert_eq!(
        build.listed(&text),
        [
            "drwxr-xr-x 0/0 all/",
            "-rw-r----- 5/6 all/f",
            "lrwxrwxrwx 0/0 all/link -> /etc/passwd",
            "drwxr-xr-x 0/0 all/w/",
            "-rw-r--r-- 0/0 all/w/f",
            "-rw-r----- 7/7 one",
            "drwxr-xr-x 0/0 wild/",
            "-rw-r----- 5/6 wild/f",
        ]
    );
    build.0.assert_clean();
}

#[test]
fn root_build_links() {
    let Some(build) = Build::new() else { return };
    std::fs::write(build.path("f"), "f").expect("write");
    std::fs::write(build.path("passwd"), "bob:x:1000:1001::/:/bin/sh\n").expect("write");
    let text = "FROM scratch\nCOPY passwd /etc/\nCOPY --link f /l/f\nCOPY --link --chown=bob f /n\n\
                COPY --link --chown=3:4 f /m\n";
    assert_eq!(
        build.listed(text),
        [
            "drwxr-xr-x 0/0 etc/",
            "-rw-r--r-- 0/0 etc/passwd",
            "drwxr-xr-x 0/0 l/",
            "-rw-r--r-- 0/0 l/f",
            "-rw-r--r-- 3/4 m",
            "-rw-r--r-- 1000/1001 n",
        ]
    );
    build.0.assert_clean();
}
