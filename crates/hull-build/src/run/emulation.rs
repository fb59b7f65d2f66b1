//! Steps for other processors: whether the kernel has been told of a program that runs theirs (binfmt_misc).

use std::path::Path;

use hull_oci::image::Platform;

/// Where the kernel lists what it was told.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// A longer entry is none.
const MAX_ENTRY: u64 = 16 << 10;

/// Class, byte order and machine of programs, as their ELF headers have them.
fn machine(platform: &Platform) -> Option<(u8, u8, u16)> {
    Some(match platform.architecture.as_str() {
        "amd64" => (2, 1, 62),
        "386" => (1, 1, 3),
        "arm64" => (2, 1, 183),
        "arm" => (1, 1, 40),
        "riscv64" => (2, 1, 243),
        "ppc64le" => (2, 1, 21),
        "ppc64" => (2, 2, 21),
        "s390x" => (2, 2, 22),
        "loong64" => (2, 1, 258),
        "mips64le" => (2, 1, 8),
        "mips64" => (2, 2, 8),
        "mipsle" => (1, 1, 8),
        "mips" => (1, 2, 8),
        _ => return None,
    })
}

/// The first bytes of such a program.
fn header(platform: &Platform) -> Option<[u8; 20]> {
    let (class, order, machine) = machine(platform)?;
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(b"\x7fELF");
    (bytes[4], bytes[5], bytes[6]) = (class, order, 1);
    let pair = |number: u16| if order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
    bytes[16..18].copy_from_slice(&pair(2));
    bytes[18..20].copy_from_slice(&pair(machine));
    Some(bytes)
}

/// Why programs of a platform cannot be run here, if they cannot.
pub(crate) fn missing(platform: &Platform) -> Option<String> {
    missing_in(platform, &Platform::native(), Path::new(REGISTERED))
}

fn missing_in(platform: &Platform, native: &Platform, registered: &Path) -> Option<String> {
    let own = |architecture: &str| platform.architecture == architecture;
    // A processor runs what its elder siblings did.
    let sibling = own(&native.architecture)
        || native.architecture == "amd64" && own("386")
        || native.architecture == "arm64" && own("arm");
    if sibling && platform.os == native.os {
        return None;
    }
    if platform.os != native.os {
        return Some(format!("programs for {platform} do not run on {}", native.os));
    }
    let told = format!(
        "programs for {platform} do not run here: register an emulator with binfmt_misc (on Debian: apt-get install \
         qemu-user-static binfmt-support)"
    );
    let Some(header) = header(platform) else { return Some(told) };
    let entries = std::fs::read_dir(registered).into_iter().flatten().flatten();
    for entry in entries {
        let small = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_ENTRY);
        let Some(text) = small.then(|| std::fs::read_to_string(entry.path()).ok()).flatten() else { continue };
        match takes(&text, &header) {
            Some(true) => return None,
            Some(false) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                return Some(format!(
                    "programs for {platform} do not run in containers: the emulator {} is registered without the \
                     flag F, so that it would have to be in the image",
                    hull_oci::spec::one_line(&name)
                ));
            }
            None => {}
        }
    }
    Some(told)
}

/// Whether an entry is for programs that begin so, and if so whether its interpreter is open already (flag `F`).
fn takes(entry: &str, header: &[u8]) -> Option<bool> {
    let mut lines = entry.lines();
    if lines.next() != Some("enabled") {
        return None;
    }
    let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bytes = |text: &str| -> Option<Vec<u8>> {
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        (0..text.len()).step_by(2).map(pair).collect()
    };
    let offset: usize = field("offset ")?.parse().ok()?;
    let magic = bytes(field("magic ")?)?;
    let mask = field("mask ").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let found = header.get(offset..offset.checked_add(magic.len())?)?;
    let same = found.iter().zip(&magic).zip(&mask).all(|((found, magic), mask)| found & mask == magic & mask);
    same.then(|| field("flags: ").is_some_and(|flags| flags.contains('F')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel shows of Debian's qemu-user-static.
    const ARM64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn emulators_are_known_by_what_they_take() {
        let directory = tempfile::tempdir().unwrap();
        let native = Platform::parse("linux/amd64").unwrap();
        let missing = |text: &str| missing_in(&Platform::parse(text).unwrap(), &native, directory.path());
        assert_eq!(missing("linux/amd64"), None);
        assert_eq!(missing("linux/386"), None);
        assert!(missing("linux/arm64").unwrap().contains("register an emulator with binfmt_misc"));
        assert!(missing("windows/amd64").unwrap().contains("do not run on linux"));
        std::fs::write(directory.path().join("status"), "enabled\n").unwrap();
        std::fs::write(directory.path().join("qemu-aarch64"), ARM64).unwrap();
        assert_eq!(missing("linux/arm64"), None);
        assert!(missing("linux/arm/v7").is_some() && missing("linux/s390x").is_some());
        std::fs::write(directory.path().join("qemu-aarch64"), ARM64.replace("OCF", "OC")).unwrap();
        assert!(missing("linux/arm64").unwrap().contains("without the flag F"));
        std::fs::write(directory.path().join("qemu-aarch64"), ARM64.replace("enabled", "disabled")).unwrap();
        assert!(missing("linux/arm64").unwrap().contains("register"));
    }
}
