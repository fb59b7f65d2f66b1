//! What a file is, by its path.

use super::Reason;

/// Directories of caches and of what nobody reads in a container.
const CACHES: &[&str] = &[
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/apk",
    "var/cache/dnf",
    "var/cache/yum",
    "var/cache/libdnf5",
    "var/cache/zypp",
    "var/cache/pacman",
    "var/cache/man",
    "var/cache/ldconfig",
    "var/lib/dnf/history",
    "var/log",
    "var/tmp",
    "tmp",
    "root/.cache",
    "root/.npm",
    "root/.yarn",
    "root/.gradle/caches",
    "root/.m2/repository",
    "root/.cargo/registry",
    "root/.cargo/git",
    "usr/local/cargo/registry",
    "usr/local/cargo/git",
    "root/go/pkg/mod/cache",
    "go/pkg/mod/cache",
    "root/.composer/cache",
    "usr/local/share/.cache",
    "root/.nuget/packages",
];
/// Directories of this name are caches wherever they are.
const CACHE_NAMES: &[&str] = &[".cache", "_cacache", ".git", ".hg", ".svn", ".pytest_cache", ".mypy_cache"];
const DOCUMENTS: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/gtk-doc",
    "usr/share/help",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/local/share/doc",
    "usr/local/share/man",
    "usr/local/man",
    "usr/share/doc-base",
];
const TOOLS: &[&str] = &[
    "usr/include",
    "usr/local/include",
    "usr/lib/gcc",
    "usr/libexec/gcc",
    "usr/lib/llvm",
    "usr/share/aclocal",
    "usr/share/autoconf",
    "usr/share/automake",
    "usr/share/cmake",
    "usr/lib/pkgconfig",
    "usr/share/pkgconfig",
    "usr/local/go/pkg",
    "usr/lib/go",
    "usr/local/rustup",
    "root/.rustup",
    "usr/src",
];
/// Programs that only make other programs; a version or a target's name may follow or precede.
const PROGRAMS: &[&str] = &[
    "gcc", "g++", "cc", "c++", "cpp", "cc1", "cc1plus", "ld", "ld.bfd", "ld.gold", "as", "ar", "ranlib", "make",
    "cmake", "ninja", "autoconf", "automake", "m4", "clang", "clang++", "rustc", "cargo", "gfortran", "javac", "gdb",
];

fn inside<'a>(path: &'a [u8], directories: &[&str]) -> Option<&'a [u8]> {
    directories.iter().find_map(|directory| {
        let rest = path.strip_prefix(directory.as_bytes())?;
        (rest.first() == Some(&b'/')).then(|| &path[..directory.len()])
    })
}

/// `/path` up to the end of a component that is one of these.
fn component<'a>(path: &'a [u8], names: &[&str]) -> Option<&'a [u8]> {
    let mut start = 0;
    for part in path.split(|byte| *byte == b'/') {
        let end = start + part.len();
        if end < path.len() && names.iter().any(|name| name.as_bytes() == part) {
            return Some(&path[..end]);
        }
        start = end + 1;
    }
    None
}

/// `x86_64-linux-gnu-gcc-12` is `gcc`.
fn is_program(name: &str) -> bool {
    PROGRAMS.iter().any(|program| {
        let plain = name.trim_end_matches(|one: char| one.is_ascii_digit() || one == '.');
        let plain = plain.strip_suffix('-').unwrap_or(plain);
        plain == *program || name == *program || plain.strip_suffix(program).is_some_and(|rest| rest.ends_with("-gnu-"))
    })
}

/// Why a file that can be seen may be for nothing, and the directory that it is counted under.
pub(super) fn file(path: &[u8]) -> Option<(Reason, &[u8])> {
    if let Some(group) = inside(path, CACHES).or_else(|| component(path, CACHE_NAMES)) {
        return Some((Reason::Cache, group));
    }
    if let Some(group) = component(path, &["__pycache__"]) {
        // By the package, not by each of its directories.
        let parts: Vec<&[u8]> = group.split(|byte| *byte == b'/').collect();
        let length = parts.iter().take(5.min(parts.len() - 1)).map(|part| part.len() + 1).sum::<usize>();
        return Some((Reason::Bytecode, &path[..length.saturating_sub(1)]));
    }
    if let Some(group) = inside(path, DOCUMENTS) {
        return Some((Reason::Documentation, group));
    }
    if let Some(group) = inside(path, TOOLS) {
        return Some((Reason::BuildTools, group));
    }
    let name = path.rsplit(|byte| *byte == b'/').next().and_then(|name| std::str::from_utf8(name).ok())?;
    let library = path.starts_with(b"usr/") || path.starts_with(b"lib/");
    let built = library && (name.ends_with(".a") || name.ends_with(".la") || name.ends_with(".o"));
    let binary =
        inside(path, &["usr/bin", "usr/local/bin", "bin", "usr/local/cargo/bin"]).is_some() && is_program(name);
    (built || binary).then_some((Reason::BuildTools, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_paths() {
        let of = |path: &'static str| {
            file(path.as_bytes()).map(|(reason, group)| (reason, std::str::from_utf8(group).unwrap()))
        };
        assert_eq!(of("var/lib/apt/lists/deb_main_Packages"), Some((Reason::Cache, "var/lib/apt/lists")));
        assert_eq!(of("var/lib/apt/lists"), None);
        assert_eq!(of("var/lib/aptitude"), None);
        assert_eq!(of("srv/app/.git/objects/aa/bb"), Some((Reason::Cache, "srv/app/.git")));
        assert_eq!(of("home/x/.cache/pip/y"), Some((Reason::Cache, "home/x/.cache")));
        assert_eq!(of("srv/.gitignore"), None);
        assert_eq!(of("usr/lib/python3/dist-packages/a/b/__pycache__/c.pyc").map(|one| one.0), Some(Reason::Bytecode));
        assert_eq!(of("__pycache__/c.pyc").map(|one| one.0), Some(Reason::Bytecode));
        assert_eq!(of("usr/share/man/man1/ls.1.gz"), Some((Reason::Documentation, "usr/share/man")));
        assert_eq!(of("usr/lib/x86_64-linux-gnu/libc.a").map(|one| one.0), Some(Reason::BuildTools));
        for program in ["usr/bin/gcc-12", "usr/bin/x86_64-linux-gnu-gcc-12", "usr/bin/make", "usr/bin/g++"] {
            assert_eq!(of(program).map(|one| one.0), Some(Reason::BuildTools), "{program}");
        }
        for other in ["usr/bin/makeinfo", "usr/bin/less", "usr/bin/bc", "srv/data.a", "etc/passwd"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
