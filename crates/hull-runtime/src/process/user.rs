//! Users and groups by name or number.
//!
//! A number is a number, whatever the container's `/etc/passwd` calls it. Names are looked up in the container's own
//! files, read with a bound and resolved inside its root, or streamed through a fixed buffer in the child.

use std::path::Path;

use hull_fs::Root;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use crate::error::Error;

/// `/etc/passwd` and `/etc/group` are read up to this size.
pub const MAX_FILE: usize = 1 << 20;
/// Longer lines are skipped by the child's streaming reader.
const MAX_LINE: usize = 4096;
/// At most this many supplementary groups are taken from `/etc/group` (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// An identity inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Groups that list the user in `/etc/group`; empty when a group was named explicitly.
    pub additional_gids: Vec<u32>,
    /// Home directory of `/etc/passwd`.
    pub home: Option<String>,
}

/// Parses a user or group ID: decimal digits only, at most 4294967294 (the highest value means "unchanged").
#[must_use]
pub fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

/// Parses `UID[:GID]`, numbers only, as `exec -u` takes it.
///
/// # Errors
/// [`Error::Config`] for anything else: names, signs, empty parts, trailing characters, overflow.
pub fn parse_ids(text: &str) -> Result<(u32, Option<u32>), Error> {
    let wrong = || Error::config("user", format!("expected UID[:GID] in decimal, found {text:?}"));
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let gid = gid.map(|gid| parse_id(gid).ok_or_else(wrong)).transpose()?;
    Ok((parse_id(uid).ok_or_else(wrong)?, gid))
}

/// Whether a text could be meant as a number: it must then be a valid one, and is never looked up as a name.
fn numeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+'))
}

/// Resolves `user[:group]`, each a name or a number, in the container's `/etc/passwd` and `/etc/group`.
///
/// An unknown number is taken as it is, with group 0 and no home. Without a group the user's own group and supplementary
/// groups are taken.
///
/// # Errors
/// [`Error::Config`] for an unknown name, an empty part or an invalid number; [`Error::Fs`] for files that cannot be read
/// or are longer than 1 MiB.
pub fn resolve(root: &Root, text: &str) -> Result<User, Error> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    resolve_in(&passwd, &group, text)
}

fn read(root: &Root, path: &str) -> Result<Vec<u8>, Error> {
    match root.read_bounded(Path::new(path), MAX_FILE) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        result => Ok(result?),
    }
}

/// The fields of one line, which are separated by colons.
fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.trim_ascii_end().split(|byte| *byte == b':').collect()
}

fn id_field(field: Option<&&[u8]>) -> Option<u32> {
    parse_id(std::str::from_utf8(field?).ok()?)
}

/// [`resolve`] with the content of the two files; what does not exist is empty.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(passwd: &[u8], group: &[u8], text: &str) -> Result<User, Error> {
    let wrong = |reason: String| Error::config("user", reason);
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    if user_text.is_empty() || group_text == Some("") {
        return Err(wrong(format!("expected user[:group], found {text:?}")));
    }
    let wanted_uid = if numeric(user_text) {
        Some(parse_id(user_text).ok_or_else(|| wrong(format!("{user_text:?} is not a user ID")))?)
    } else {
        None
    };
    let entry = passwd.split(|byte| *byte == b'\n').map(fields).find(|entry| {
        let uid = id_field(entry.get(2));
        match wanted_uid {
            Some(wanted) => uid == Some(wanted),
            None => uid.is_some() && entry[0] == user_text.as_bytes(),
        }
    });
    let mut user = User::default();
    let mut name = None;
    match (&entry, wanted_uid) {
        (Some(entry), _) => {
            user.uid = id_field(entry.get(2)).unwrap_or_default();
            user.gid = id_field(entry.get(3)).unwrap_or_default();
            user.home = entry
                .get(5)
                .filter(|home| home.starts_with(b"/"))
                .and_then(|home| String::from_utf8(home.to_vec()).ok());
            name = Some(entry[0]);
        }
        (None, Some(uid)) => user.uid = uid,
        (None, None) => {
            return Err(wrong(format!("unable to find user {user_text}: no matching entries in passwd file")));
        }
    }
    let groups = || group.split(|byte| *byte == b'\n').map(fields);
    if let Some(text) = group_text {
        user.gid = if numeric(text) {
            parse_id(text).ok_or_else(|| wrong(format!("{text:?} is not a group ID")))?
        } else {
            groups()
                .find(|entry| entry[0] == text.as_bytes())
                .and_then(|entry| id_field(entry.get(2)))
                .ok_or_else(|| wrong(format!("unable to find group {text}: no matching entries in group file")))?
        };
    } else if let Some(name) = name.filter(|name| !name.is_empty()) {
        for entry in groups() {
            let listed = entry.get(3).is_some_and(|list| list.split(|byte| *byte == b',').any(|member| member == name));
            if let Some(gid) = id_field(entry.get(2))
                && listed
                && !user.additional_gids.contains(&gid)
                && user.additional_gids.len() < MAX_GROUPS
            {
                user.additional_gids.push(gid);
            }
        }
    }
    Ok(user)
}

/// Writes the home directory of `uid` in the caller's `/etc/passwd` into `home` and returns its length, without
/// allocating. Run by the child inside the container's root; anything unusual means no home.
pub(super) fn home_of(uid: u32, home: &mut [u8; MAX_LINE]) -> Option<usize> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat2(CWD, c"/etc/passwd", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    if kind != FileType::RegularFile {
        return None;
    }
    let mut lines = Lines { buffer: [0; MAX_LINE], filled: 0, total: 0, skipping: false };
    lines.search(|buffer| rustix::io::read(&file, buffer).ok(), uid, home)
}

/// A streaming reader of lines.
struct Lines {
    buffer: [u8; MAX_LINE],
    filled: usize,
    total: usize,
    /// Inside a line that is too long.
    skipping: bool,
}

impl Lines {
    fn search(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> Option<usize>,
        uid: u32,
        home: &mut [u8; MAX_LINE],
    ) -> Option<usize> {
        loop {
            let count = read(&mut self.buffer[self.filled..])?;
            self.total += count;
            if count == 0 || self.total > MAX_FILE {
                return if self.skipping { None } else { home_in_line(&self.buffer[..self.filled], uid, home) };
            }
            self.filled += count;
            let mut start = 0;
            while let Some(length) = self.buffer[start..self.filled].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[start..start + length];
                if !std::mem::take(&mut self.skipping)
                    && let Some(found) = home_in_line(line, uid, home)
                {
                    return Some(found);
                }
                start += length + 1;
            }
            self.buffer.copy_within(start..self.filled, 0);
            self.filled -= start;
            if self.filled == MAX_LINE {
                (self.skipping, self.filled) = (true, 0);
            }
        }
    }
}

fn home_in_line(line: &[u8], uid: u32, home: &mut [u8; MAX_LINE]) -> Option<usize> {
    let mut parts = line.trim_ascii_end().split(|byte| *byte == b':');
    let found = parts.nth(2).and_then(|field| std::str::from_utf8(field).ok()).and_then(parse_id)?;
    let directory = parts.nth(2).filter(|directory| directory.starts_with(b"/"))?;
    if found != uid {
        return None;
    }
    home[..directory.len()].copy_from_slice(directory);
    Some(directory.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n1000:x:0:0:trap:/root:/bin/sh\napp:x:7:8:App:/srv/app:/bin/sh\nbad:x:no:8::/:\nshort\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:app,root\nvideo:x:44:other,app\nvideo2:x:44:app\nbad:x:-1:app\n";

    #[test]
    fn users_are_resolved() {
        for (text, uid, gid, additional, home) in [
            ("app", 7, 8, vec![10, 44], Some("/srv/app")),
            ("7", 7, 8, vec![10, 44], Some("/srv/app")),
            ("app:wheel", 7, 10, vec![], Some("/srv/app")),
            ("app:5", 7, 5, vec![], Some("/srv/app")),
            // A name made of digits never stands for a number's user.
            ("1000", 1000, 0, vec![], None),
            ("1000:1000", 1000, 1000, vec![], None),
            ("4294967294", 4_294_967_294, 0, vec![], None),
        ] {
            let user = resolve_in(PASSWD, GROUP, text).unwrap();
            assert_eq!(user, User { uid, gid, additional_gids: additional, home: home.map(str::to_owned) }, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "-1",
            "+1",
            "1:-1",
            "4294967295",
            "4294967296",
            "nobody",
            "app:none",
            "1x",
            "bad",
            "1:2:3",
        ] {
            assert!(resolve_in(PASSWD, GROUP, text).is_err(), "{text:?}");
        }
        for text in ["", "1:", ":1", "1x", "-1", "+1", "4294967296", "4294967295", " 1", "1 ", "root", "1:2:3", "0x1"] {
            assert!(parse_ids(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_ids("1000").unwrap(), (1000, None));
        assert_eq!(parse_ids("1000:0").unwrap(), (1000, Some(0)));
    }

    fn stream(bytes: &[u8], chunk: usize, uid: u32) -> Option<String> {
        let mut rest = bytes;
        let mut home = [0; MAX_LINE];
        let mut lines = Lines { buffer: [0; MAX_LINE], filled: 0, total: 0, skipping: false };
        let length = lines.search(
            |buffer| {
                let count = rest.len().min(chunk).min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Some(count)
            },
            uid,
            &mut home,
        )?;
        Some(String::from_utf8(home[..length].to_vec()).unwrap())
    }

    #[test]
    fn homes_are_streamed_in_any_chunks() {
        let mut long = b"long:x:5:5:".to_vec();
        long.resize(3 * MAX_LINE, b'a');
        long.extend_from_slice(b":/evil:\nend:x:9:9::/end:/bin/sh");
        for chunk in [1, 7, 4096] {
            assert_eq!(stream(PASSWD, chunk, 7).as_deref(), Some("/srv/app"));
            assert_eq!(stream(PASSWD, chunk, 0).as_deref(), Some("/root"));
            assert_eq!(stream(PASSWD, chunk, 1000), None);
            assert_eq!(stream(&long, chunk, 9).as_deref(), Some("/end"));
            assert_eq!(stream(&long, chunk, 5), None);
            assert_eq!(stream(b"", chunk, 5), None);
        }
    }
}
