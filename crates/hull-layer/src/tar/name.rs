//! Names of an archive, made safe to store: never resolved, only split.

/// The longest path, as Linux takes it.
pub(super) const PATH_MAX: usize = 4096;
/// The longest component.
const NAME_MAX: usize = 255;

/// The components of a name joined by `/`, or what is wrong with it. The root (`.`, `/`) is empty.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, String> {
    if name.is_empty() {
        return Err("an entry has no name".to_owned());
    }
    if name.len() > PATH_MAX {
        return Err(format!("a name of {} bytes is longer than {PATH_MAX}", name.len()));
    }
    if name.contains(&0) {
        return Err(format!("the name `{}` contains a NUL byte", text(name)));
    }
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(format!("the name `{}` contains `..`", text(name))),
            _ if component.len() > NAME_MAX => {
                let length = component.len();
                return Err(format!("a name has a component of {length} bytes, longer than {NAME_MAX}"));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}

/// A symbolic link's text, which is kept as it is, or what is wrong with it.
pub(super) fn symlink(target: &[u8]) -> Result<(), String> {
    if target.is_empty() {
        return Err("a symbolic link points to nothing".to_owned());
    }
    if target.len() >= PATH_MAX {
        return Err(format!("the text of a symbolic link, {} bytes, is longer than {}", target.len(), PATH_MAX - 1));
    }
    if target.contains(&0) {
        return Err("the text of a symbolic link contains a NUL byte".to_owned());
    }
    Ok(())
}

/// A name for a message.
pub(crate) fn text(name: &[u8]) -> String {
    const SHOWN: usize = 200;
    let cut = &name[..name.len().min(SHOWN)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < name.len() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_slashes_and_dots_go() {
        for (name, path) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a//b/", b"a/b"),
            (b"/a/./b/.", b"a/b"),
            (b".", b""),
            (b"/", b""),
            (b"./", b""),
            (b"...", b"..."),
            (b"a\xffb", b"a\xffb"),
        ] {
            assert_eq!(clean(name).as_deref(), Ok(path), "{}", text(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in [&b""[..], b"..", b"a/../b", b"../a", b"/..", b"a\0b", &[b'x'; 256], &b"a/".repeat(2049)] {
            assert!(clean(name).is_err(), "{}", text(name));
        }
        assert!(clean(&[b'x'; 255]).is_ok());
        assert!(clean(&b"a/".repeat(2048)).is_ok());
    }
}
