//! Names of platforms, `os/arch/variant`, as far as the language itself judges them.

use crate::error::quote;

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 31] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "x86_64",
    "x86-64",
    "aarch64",
    "armhf",
    "armel",
    "i386",
    "i686",
];

/// Operating system and architecture of a specifier; a part that is not written is empty.
pub(crate) fn parse(text: &str) -> Result<(String, String), String> {
    let parts: Vec<&str> = text.split('/').collect();
    const COMPONENT: &str = "^[A-Za-z0-9_.-]+$";
    let fits = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    if text.contains('*') {
        return Err(format!("{}: wildcards not yet supported: invalid argument", quote(text)));
    }
    for (index, part) in parts.iter().enumerate() {
        // An operating system may have its version in parentheses.
        let part = if index == 0 { part.split('(').next().unwrap_or(part) } else { part };
        if !fits(part) {
            let (part, text) = (quote(part), quote(text));
            let rule = format!("platform specifier component must match {}", quote(COMPONENT));
            return Err(format!("{part} is an invalid component of {text}: {rule}: invalid argument"));
        }
    }
    let lower: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
    match lower.as_slice() {
        [one] if SYSTEMS.contains(&one.as_str()) || one == "macos" => Ok((one.clone(), String::new())),
        [one] if ARCHITECTURES.contains(&one.as_str()) => Ok((String::new(), architecture(one))),
        [_] => Err(format!("{}: unknown operating system or architecture: invalid argument", quote(text))),
        [os, arch] | [os, arch, _] => Ok((os.split('(').next().unwrap_or(os).to_owned(), architecture(arch))),
        _ => Err(format!("{}: cannot parse platform specifier: invalid argument", quote(text))),
    }
}

/// An architecture by its usual name.
fn architecture(name: &str) -> String {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "i386" | "i686" => "386",
        name => name,
    }
    .to_owned()
}
