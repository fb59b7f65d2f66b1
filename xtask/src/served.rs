//! An engine that is served, with one image: what clients are run against.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::http::Client;

/// A root file system with busybox, as an archive.
pub(crate) fn rootfs(base: &Path) -> Result<Vec<u8>> {
    let root = base.join("rootfs");
    for name in ["bin", "etc", "root", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let busybox = path.split(':').map(|place| Path::new(place).join("busybox")).find(|path| path.exists());
    std::fs::copy(busybox.ok_or("no busybox")?, root.join("bin/busybox"))?;
    let list = Command::new(root.join("bin/busybox")).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let archive = base.join("rootfs.tar");
    crate::check(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg("."))?;
    Ok(std::fs::read(archive)?)
}

/// Gives an engine its only image.
pub(crate) fn import(address: &str, archive: &[u8]) -> Result<()> {
    let mut client = Client::new(Path::new(address.trim_start_matches("unix://")), Duration::from_secs(60))?;
    let path = "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D";
    client.send("POST", path, "application/x-tar", archive)?;
    let answer = client.answer("POST")?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let is_made = answer.status == 200 && !text.contains("\"error\"");
    if is_made { Ok(()) } else { Err(format!("{address}: the image cannot be made: {text}").into()) }
}

/// Hull's server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    hull: PathBuf,
    base: PathBuf,
}

impl Server {
    /// Starts one with data and state below a directory, and waits until it can be reached.
    pub(crate) fn start(hull: &Path, base: &Path) -> Result<Self> {
        let address = format!("unix://{}", base.join("hull.sock").display());
        let mut command = Command::new(hull);
        command.arg("--root").arg(base.join("data")).arg("--state").arg(base.join("state"));
        command
            .env_remove("HULL_DEFAULT_NETWORK")
            .args(["serve", "-H", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        // It says so when it can be reached.
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { child, address, hull: hull.to_owned(), base: base.to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.hull);
        command.arg("--root").arg(self.base.join("data")).arg("--state").arg(self.base.join("state"));
        command
    }

    /// Ends the server, and what clients left. The records must not go before what they tell of: nobody would know then
    /// what is to be removed.
    pub(crate) fn clean(self) -> Result<()> {
        let (hull, base) = (self.command(), self.base.clone());
        drop(self);
        clean(hull, &base)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Removes every container, and fails if a control group of one is left.
fn clean(hull: Command, base: &Path) -> Result<()> {
    let again = || {
        let mut command = Command::new(hull.get_program());
        command.args(hull.get_args());
        command
    };
    let output = again().args(["ps", "--all", "--quiet", "--no-trunc"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let containers: Vec<&str> = said.lines().collect();
    for some in containers.chunks(100) {
        crate::check(again().args(["rm", "--force", "--volumes"]).args(some).stdout(Stdio::null()))?;
    }
    // Asks for repair once more: what others left behind themselves meanwhile.
    crate::check(again().args(["ps"]).stdout(Stdio::null()))?;
    let runtime = base.join("state/oci");
    let left: Vec<_> = std::fs::read_dir(&runtime).into_iter().flatten().flatten().map(|one| one.file_name()).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{} is left: {left:?}", runtime.display()).into()) }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
