//! What of a configured system belongs into its image, and in which form: a pure function of path and content.
//!
//! Left out are traces of how it was made (logs, caches, locks, backups), what must differ between machines (identities,
//! keys, seeds) and what is mounted over anyway. Secrets that a package's script generates would be shared by everybody
//! who has the image: they are left out too, and the package's own tools make them when they are missing.

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It is taken as it is.
    Keep,
    /// It is left out, a directory with all that is in it.
    Skip,
    /// It is taken without its content.
    Empty,
    /// It is a password file whose dates are set back.
    Shadow,
}

/// What kind of file is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Directory,
    File,
    Other,
}

/// Directories that are kept without what is in them.
const EMPTY: [&str; 10] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/tmp",
    "var/cache/man",
    "var/cache/fontconfig",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
];

/// Files that are left out.
const FILES: [&str; 14] = [
    "etc/.pwd.lock",
    "etc/resolv.conf",
    "etc/hostname",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "usr/sbin/policy-rc.d",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/lib/systemd/catalog/database",
];

/// Decides about a path, given relative to the root.
pub(super) fn action(path: &[u8], kind: Type) -> Action {
    let Ok(path) = std::str::from_utf8(path) else { return Action::Keep };
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if EMPTY.contains(&directory) {
        // `run/lock` is a directory that packages rely on.
        return if kind == Type::Directory && path == "run/lock" { Action::Keep } else { Action::Skip };
    }
    if directory == "run/lock" || FILES.contains(&path) || (kind == Type::Directory && name == "__pycache__") {
        return Action::Skip;
    }
    if kind != Type::File {
        return Action::Keep;
    }
    let within = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
    let left_out = (within("var/log") && name.ends_with(".log"))
        || (directory == "var/log/apt")
        || (within("var/cache/apt") && (name.ends_with(".bin") || name.ends_with(".deb") || name == "lock"))
        || (directory == "var/cache/debconf" && name.ends_with("-old"))
        || (directory == "var/lib/dpkg" && name.ends_with("-old"))
        || (directory == "etc/ssh" && name.starts_with("ssh_host_") && name.contains("_key"))
        || (directory == "etc"
            && matches!(name, "passwd-" | "group-" | "gshadow-" | "shadow-" | "subuid-" | "subgid-"))
        || (within("usr/lib/python3") && name.ends_with(".pyc"));
    if left_out {
        return Action::Skip;
    }
    match path {
        "etc/machine-id" => Action::Empty,
        "etc/shadow" => Action::Shadow,
        _ if within("var/log") => Action::Empty,
        _ => Action::Keep,
    }
}

/// A password file with no change of a password after the day of `epoch`.
pub(super) fn shadow(content: &[u8], epoch: u64) -> Vec<u8> {
    let today = epoch / 86_400;
    let mut text = Vec::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let day = today.to_string();
        if let Some(field) = fields.get_mut(2)
            && std::str::from_utf8(field).ok().and_then(|text| text.parse::<u64>().ok()).is_some_and(|one| one > today)
        {
            *field = day.as_bytes();
        }
        text.extend(fields.join(&b':'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_and_the_rest_stays() {
        let file = |path: &str| action(path.as_bytes(), Type::File);
        for path in [
            "var/log/dpkg.log",
            "var/log/apt/term.log",
            "var/cache/apt/pkgcache.bin",
            "var/cache/ldconfig/aux-cache",
            "var/lib/apt/lists/x_InRelease",
            "var/lib/dpkg/status-old",
            "etc/shadow-",
            "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_rsa_key.pub",
            "usr/sbin/policy-rc.d",
            "run/hull-bootstrap",
            "tmp/x",
            "usr/lib/python3/dist-packages/x.pyc",
        ] {
            assert_eq!(file(path), Action::Skip, "{path}");
        }
        for path in [
            "etc/passwd",
            "var/lib/dpkg/status",
            "usr/share/doc/x/changes.log",
            "usr/bin/log",
            "etc/ssh/ssh_config",
            "var/lib/dpkg/info/libc6.list",
            "usr/lib/x.pyc",
            "tmp-x",
        ] {
            assert_eq!(file(path), Action::Keep, "{path}");
        }
        assert_eq!(file("etc/machine-id"), Action::Empty);
        assert_eq!(file("var/log/lastlog"), Action::Empty);
        assert_eq!(file("etc/shadow"), Action::Shadow);
        let directory = |path: &str| action(path.as_bytes(), Type::Directory);
        assert_eq!(directory("var/log"), Action::Keep);
        assert_eq!(directory("tmp"), Action::Keep);
        assert_eq!(directory("run/lock"), Action::Keep);
        assert_eq!(directory("run/hull-bootstrap"), Action::Skip);
        assert_eq!(directory("usr/lib/python3/dist-packages/__pycache__"), Action::Skip);
        assert_eq!(action(b"etc/\xff", Type::File), Action::Keep);
        assert_eq!(action(b"dev/null", Type::Other), Action::Skip);
    }

    #[test]
    fn passwords_change_no_later_than_the_image() {
        let epoch = 20_000 * 86_400 + 5;
        let text = b"root:*:20100:0:99999:7:::\nuser:!:19000:0:::::\nodd\nx:y\nlast:*::0";
        let expected = b"root:*:20000:0:99999:7:::\nuser:!:19000:0:::::\nodd\nx:y\nlast:*::0";
        assert_eq!(shadow(text, epoch), expected);
    }
}
