//! `criu swrk`: one request over a `SOCK_SEQPACKET` pair, with notifications in between.
//!
//! Descriptors named in a request are numbers of this process, which the worker inherits. The field numbers are those of
//! CRIU's `rpc.proto`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};

use super::protobuf::{self, Value, Writer};
use crate::error::Error;

/// Kinds of request and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// Answers are a few hundred bytes.
const MAX_ANSWER: usize = 64 << 10;

/// What CRIU asks its caller to do while it works.
#[derive(Debug)]
pub(super) struct Notification {
    pub(super) script: String,
    pub(super) pid: i32,
    /// Such as the master side of a terminal.
    pub(super) file: Option<OwnedFd>,
}

/// The final answer to a request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    success: bool,
    errno: i32,
    message: String,
    pub(super) restored_pid: i32,
    /// Major, minor and sublevel.
    pub(super) version: (i32, i32, i32),
    pub(super) lazy_pages: bool,
    pub(super) memory_tracking: bool,
}

/// A worker that takes one request.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    socket: OwnedFd,
}

/// Finds the program in `PATH`.
pub(super) fn find() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("criu"))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
        .ok_or_else(|| {
            Error::Checkpoint(String::from("criu: executable file not found in $PATH; install CRIU 4.1 or later"))
        })
}

fn failed(what: &str, errno: Errno) -> Error {
    Error::Checkpoint(format!("criu: {what}: {errno}"))
}

/// Lets a descriptor be inherited for the time of one spawn.
struct Inherited<'a>(&'a OwnedFd);

impl<'a> Inherited<'a> {
    fn new(file: &'a OwnedFd) -> Result<Self, Error> {
        rustix::io::fcntl_setfd(file, FdFlags::empty()).map_err(|errno| failed("pass descriptor", errno))?;
        Ok(Self(file))
    }
}

impl Drop for Inherited<'_> {
    fn drop(&mut self) {
        let _ = rustix::io::fcntl_setfd(self.0, FdFlags::CLOEXEC);
    }
}

impl Worker {
    /// Starts a worker that inherits these descriptors. This process must have one thread, or another one could start a
    /// program that inherits them too.
    pub(super) fn start(program: &Path, files: &[&OwnedFd]) -> Result<Self, Error> {
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed("create socket", errno))?;
        let mut inherited = vec![Inherited::new(&theirs)?];
        for file in files {
            inherited.push(Inherited::new(file)?);
        }
        let child = Command::new(program)
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error::Checkpoint(format!("run {}: {error}", program.display())))?;
        drop(inherited);
        Ok(Self { child, socket })
    }

    /// Process ID of the worker.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a request and answers notifications until the final answer.
    pub(super) fn request(
        mut self,
        kind: Kind,
        options: Option<&Writer>,
        mut notified: impl FnMut(Notification) -> Result<(), Error>,
    ) -> Result<Answer, Error> {
        let mut request = Writer::default();
        request.number(1, kind as i64);
        if let Some(options) = options {
            request.message(2, options);
        }
        if kind == Kind::FeatureCheck {
            let mut features = Writer::default();
            features.flag(1, true);
            features.flag(2, true);
            request.message(5, &features);
        }
        self.send(&request)?;
        let mut refused = None;
        let answer = loop {
            let (answered, answer, notification) = self.receive()?;
            if answered != Kind::Notify as i32 {
                break answer;
            }
            let result = notified(notification);
            let mut reply = Writer::default();
            reply.number(1, Kind::Notify as i64);
            reply.number(3, i64::from(result.is_ok()));
            self.send(&reply)?;
            if let Err(error) = result {
                refused.get_or_insert(error);
            }
        };
        drop(self.socket);
        let _ = self.child.wait();
        if let Some(error) = refused {
            return Err(error);
        }
        if answer.success {
            return Ok(answer);
        }
        let errno =
            if answer.errno == 0 { String::new() } else { format!(": {}", Errno::from_raw_os_error(answer.errno)) };
        let message = if answer.message.is_empty() { String::new() } else { format!(": {}", answer.message.trim()) };
        Err(Error::Checkpoint(format!("criu failed{errno}{message}")))
    }

    fn send(&self, message: &Writer) -> Result<(), Error> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL))
            .map(drop)
            .map_err(|errno| failed("send request", errno))
    }

    fn receive(&self) -> Result<(i32, Answer, Notification), Error> {
        let mut buffer = vec![0; MAX_ANSWER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)
        })
        .map_err(|errno| failed("receive answer", errno))?;
        if received.bytes == 0 {
            return Err(Error::Checkpoint(String::from("criu ended without an answer")));
        }
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let malformed = || Error::Checkpoint(String::from("criu: malformed answer"));
        let (kind, answer, mut notification) = parse(&buffer[..received.bytes]).ok_or_else(malformed)?;
        notification.file = file;
        Ok((kind, answer, notification))
    }
}

fn parse(bytes: &[u8]) -> Option<(i32, Answer, Notification)> {
    let mut kind = None;
    let mut answer = Answer::default();
    let mut notification = Notification { script: String::new(), pid: 0, file: None };
    let inner = |value: Value<'_>, wanted: u32| -> Option<i32> {
        let fields = protobuf::fields(value.as_bytes()?)?;
        Some(fields.iter().find(|(field, _)| *field == wanted).and_then(|(_, value)| value.as_i32()).unwrap_or(0))
    };
    for (field, value) in protobuf::fields(bytes)? {
        match field {
            1 => kind = value.as_i32(),
            2 => answer.success = value.as_i32()? != 0,
            4 => answer.restored_pid = inner(value, 1)?,
            5 => {
                for (field, value) in protobuf::fields(value.as_bytes()?)? {
                    match field {
                        1 => notification.script = value.as_text()?,
                        2 => notification.pid = value.as_i32()?,
                        _ => {}
                    }
                }
            }
            7 => answer.errno = value.as_i32()?,
            8 => {
                answer.memory_tracking = inner(value, 1)? != 0;
                answer.lazy_pages = inner(value, 2)? != 0;
            }
            9 => answer.message = value.as_text()?,
            10 => answer.version = (inner(value, 1)?, inner(value, 2)?, inner(value, 4)?),
            _ => {}
        }
    }
    Some((kind?, answer, notification))
}

/// Checks that this CRIU can work on this kernel.
pub(super) fn check_version(program: &Path) -> Result<(), Error> {
    let answer = Worker::start(program, &[])?.request(Kind::Version, None, |_| Ok(()))?;
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    too_old(answer.version, &release).map_or(Ok(()), |reason| Err(Error::Checkpoint(reason)))
}

fn too_old((major, minor, sublevel): (i32, i32, i32), release: &str) -> Option<String> {
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let kernel: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let needed = if kernel >= (6, 13) { (4, 1) } else { (3, 17) };
    (needed > (major, minor)).then(|| {
        format!(
            "criu {major}.{minor}.{sublevel} is too old for kernel {release}: {}.{} or later is needed",
            needed.0, needed.1
        )
    })
}

/// Asks for optional features.
pub(super) fn features(program: &Path) -> Result<Answer, Error> {
    Worker::start(program, &[])?.request(Kind::FeatureCheck, None, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_with_the_kernel() {
        for (version, release, old) in [
            ((4, 1, 0), "6.18.5", false),
            ((4, 2, 1), "6.13.0-rc1", false),
            ((3, 17, 1), "6.13.0", true),
            ((4, 0, 0), "6.18.5+deb", true),
            ((3, 17, 1), "6.1.0-13-amd64", false),
            ((3, 5, 0), "5.10.0", true),
            ((4, 0, 0), "7.0.1", true),
        ] {
            assert_eq!(too_old(version, release).is_some(), old, "{version:?} {release}");
        }
    }

    #[test]
    fn answers_are_parsed() {
        let mut notify = Writer::default();
        notify.bytes(1, b"post-restore");
        notify.number(2, 77);
        let mut message = Writer::default();
        message.number(1, 6);
        message.number(2, 1);
        message.message(5, &notify);
        let (kind, answer, notification) = parse(message.as_bytes()).unwrap();
        assert_eq!((kind, answer.success, notification.pid), (6, true, 77));
        assert_eq!(notification.script, "post-restore");
        for end in 1..message.as_bytes().len() {
            let _ = parse(&message.as_bytes()[..end]);
        }
        assert!(parse(&[0x2a, 9]).is_none());
    }
}
