//! `--chown`: users and groups by the base's own files.

use super::cursor::Cursor;
use super::error::Error;
use super::tree::FileTree;

/// The longest `/etc/passwd` or `/etc/group`.
const MAX_FILE: u64 = 4 << 20;

/// User and group of new files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Reads `USER[:GROUP]`. Names are looked up in the base's `/etc/passwd` and `/etc/group`; as with BuildKit, an
    /// unknown one means root, and an unknown group the user's. A number without group is both.
    ///
    /// # Errors
    /// When there is a name and no base to look it up in.
    pub(super) fn new(text: &str, base: Option<&dyn FileTree>) -> Result<Self, Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let mut owner = Self::default();
        if let Some(number) = number(user) {
            owner = Self { uid: number, gid: number };
        } else if !user.is_empty() {
            let found = find(base, "etc/passwd", user, text)?;
            let parsed = found.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
            if let Some((uid, gid)) = parsed {
                owner = Self { uid, gid };
            }
        }
        if let Some(group) = group {
            if let Some(number) = number(group) {
                owner.gid = number;
            } else if !group.is_empty() {
                let found = find(base, "etc/group", group, text)?;
                if let Some(gid) = found.and_then(|fields| fields.get(2)?.parse().ok()) {
                    owner.gid = gid;
                }
            }
        }
        Ok(owner)
    }
}

/// A number as BuildKit takes it; negative ones are root's.
fn number(text: &str) -> Option<u32> {
    if text == "root" {
        return Some(0);
    }
    text.parse::<i32>().ok().map(|number| u32::try_from(number).unwrap_or(0))
}

/// The fields of a name's line.
fn find(base: Option<&dyn FileTree>, path: &str, name: &str, all: &str) -> Result<Option<Vec<String>>, Error> {
    let Some(base) = base else {
        let text = format!("--chown={all}: {name:?} cannot be looked up where nothing is below; use numbers");
        return Err(Error::Refused(text));
    };
    let Some(bytes) = Cursor::new(base)?.read(path.as_bytes(), MAX_FILE)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(|line| line.trim().split(':').map(str::to_owned).collect::<Vec<_>>());
    Ok(lines.find(|fields| fields.first().is_some_and(|first| first == name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_without_a_base() {
        let owner = |text| Owner::new(text, None).map(|owner| (owner.uid, owner.gid)).ok();
        assert_eq!(owner("3"), Some((3, 3)));
        assert_eq!(owner("3:4"), Some((3, 4)));
        assert_eq!(owner(":4"), Some((0, 4)));
        assert_eq!(owner("root:root"), Some((0, 0)));
        assert_eq!(owner("-1"), Some((0, 0)));
        assert_eq!(owner("bob"), None);
        assert_eq!(owner("3:staff"), None);
    }
}
