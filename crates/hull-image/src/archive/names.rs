//! Names within an archive, resolved within the archive only.
//!
//! What `manifest.json` and links say are names of members of the same archive. They never become paths of the machine:
//! a member is found in a table, and in a directory by `openat2(RESOLVE_BENEATH)`.

/// A name as members are known by: no leading `./`, no empty component; `None` when it is absolute, leads upwards or is
/// no name.
pub(super) fn clean(name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Where a symbolic link at `at` leads; `None` when that is outside the archive.
pub(super) fn follow(at: &str, target: &str) -> Option<String> {
    if target.starts_with('/') || target.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = at.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(clean("./a//b/./c").as_deref(), Some("a/b/c"));
        for bad in ["", ".", "/", "/etc/passwd", "..", "a/../b", "../../x", "a\0b"] {
            assert_eq!(clean(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(follow("b/layer.tar", "../a/layer.tar").as_deref(), Some("a/layer.tar"));
        assert_eq!(follow("blobs/sha256/x", "../../config.json").as_deref(), Some("config.json"));
        for bad in ["/a", "../../a", "../..", "..", "./../", "../a/../../b"] {
            assert_eq!(follow("b/layer.tar", bad), None, "{bad:?}");
        }
    }
}
