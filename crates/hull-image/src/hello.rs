//! The built-in image `hello`: one static program that prints a message and exits with 0.
//!
//! The program is an ELF executable of a few hundred bytes, made here: file header, one loadable segment that maps the
//! whole file, the instructions, the text. It needs no loader, no library and no file of the machine.

use hull_oci::Reference;
use hull_oci::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};

use crate::transfer::LayerSource;
use crate::{Error, Image, Store};

/// Name of the image.
pub const NAME: &str = "hello:latest";

/// Path of the program inside the image.
pub const PROGRAM: &str = "/hello";

const MESSAGE: &str = "\
Hello from Hull!

This message comes from a program that runs as process 1 of its own container:
own process IDs, mounts, network, host name and limits, started by one process
and without a daemon.

Next: import a root file system and look around in it.
  hull import rootfs.tar.gz mine
  hull run -it --rm mine sh
";

const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADER_BYTES: u64 = 64;
const SEGMENT_BYTES: u64 = 56;

/// The image's configuration.
#[must_use]
pub fn config() -> ContainerConfig {
    ContainerConfig { cmd: vec![PROGRAM.to_owned()], ..ContainerConfig::default() }
}

/// The name as the store keeps it.
pub(crate) fn full_name() -> &'static str {
    "docker.io/library/hello:latest"
}

/// Makes the image. It is the same on every machine of an architecture.
pub(crate) fn make(store: &Store) -> Result<Image, Error> {
    const WHEN: &str = "1970-01-01T00:00:00Z";
    let name: Reference = NAME.parse()?;
    let archive = archive(&program()?);
    let transfer = store.begin()?;
    let layer = transfer.layer(archive.as_slice(), LayerSource::default())?;
    let config = ImageConfig {
        created: Some(WHEN.to_owned()),
        platform: Platform::native(),
        config: config(),
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        history: vec![History {
            created: Some(WHEN.to_owned()),
            created_by: Some("hull".into()),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    let bytes = serde_json::to_vec(&config).map_err(|error| Error::image(NAME, error.to_string()))?;
    transfer.image(&bytes, None, &[name])
}

/// A ustar archive of the one file.
fn archive(program: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let name = PROGRAM.trim_start_matches('/');
    let fields: [(usize, String); 9] = [
        (0, name.to_owned()),
        (100, "0000755\0".to_owned()),
        (108, "0000000\0".to_owned()),
        (116, "0000000\0".to_owned()),
        (124, format!("{:011o}\0", program.len())),
        (136, "00000000000\0".to_owned()),
        (148, " ".repeat(8)),
        (156, "0".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ];
    for (at, text) in fields {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend(program);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// The program for the architecture that Hull runs on.
///
/// # Errors
/// When there is no program for this architecture.
pub fn program() -> Result<Vec<u8>, Error> {
    program_for(std::env::consts::ARCH)
        .ok_or_else(|| Error::NoImage(format!("{NAME} (there is none for {})", std::env::consts::ARCH)))
}

fn program_for(arch: &str) -> Option<Vec<u8>> {
    let (machine, code) = match arch {
        "x86_64" => (62, x86_64()),
        "aarch64" => (183, aarch64()),
        _ => return None,
    };
    Some(elf(machine, &code))
}

fn length() -> u32 {
    // The message is a constant far below 64 KiB, which is what the aarch64 instruction can hold.
    u32::try_from(MESSAGE.len()).unwrap_or(0)
}

/// `write(1, message, length); exit_group(0)`; the message follows the code.
fn x86_64() -> Vec<u8> {
    let mut code = Vec::with_capacity(33);
    code.extend([0xb8, 1, 0, 0, 0]); // mov eax, 1 (write)
    code.extend([0xbf, 1, 0, 0, 0]); // mov edi, 1
    code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip + 16]: the end of the code
    code.push(0xba); // mov edx, length
    code.extend(length().to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x31, 0xff]); // xor edi, edi
    code.extend([0xb8, 231, 0, 0, 0]); // mov eax, 231 (exit_group)
    code.extend([0x0f, 0x05]); // syscall
    code
}

/// As [`x86_64`], in eight instructions.
fn aarch64() -> Vec<u8> {
    let instructions: [u32; 8] = [
        0xd280_0020,                   // mov x0, #1
        0x1000_00e1,                   // adr x1, #28: the end of the code
        0xd280_0002 | (length() << 5), // mov x2, #length
        0xd280_0808,                   // mov x8, #64 (write)
        0xd400_0001,                   // svc #0
        0xd280_0000,                   // mov x0, #0
        0xd280_0bc8,                   // mov x8, #94 (exit_group)
        0xd400_0001,                   // svc #0
    ];
    instructions.iter().flat_map(|instruction| instruction.to_le_bytes()).collect()
}

/// A little-endian 64-bit executable (`elf(5)`).
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let code_offset = HEADER_BYTES + SEGMENT_BYTES;
    let size = code_offset + code.len() as u64 + MESSAGE.len() as u64;
    let mut file = Vec::new();
    // Identification: 64 bit, little endian, version 1, System V.
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    file.extend([0; 8]);
    file.extend(2_u16.to_le_bytes()); // executable
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend((LOAD_ADDRESS + code_offset).to_le_bytes()); // entry
    file.extend(HEADER_BYTES.to_le_bytes()); // segments follow the header
    file.extend(0_u64.to_le_bytes()); // no sections
    file.extend(0_u32.to_le_bytes()); // flags
    for half in [HEADER_BYTES, SEGMENT_BYTES, 1, 0, 0, 0] {
        file.extend([half.to_le_bytes()[0], 0]); // sizes and counts of the tables
    }
    file.extend(1_u32.to_le_bytes()); // loadable
    file.extend(5_u32.to_le_bytes()); // read, execute
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file.extend(MESSAGE.as_bytes());
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn code_ends_where_the_message_starts() {
        assert_eq!(x86_64().len(), 33);
        assert_eq!(aarch64().len(), 32);
        assert!(length() > 0 && length() < 1 << 16);
    }

    #[test]
    fn headers_have_their_sizes() {
        let file = elf(62, &[]);
        assert_eq!(file.len() as u64, HEADER_BYTES + SEGMENT_BYTES + MESSAGE.len() as u64);
    }

    #[test]
    fn program_prints_and_succeeds() {
        let Ok(bytes) = program() else {
            println!("skipped: no program for this architecture");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hello");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = std::process::Command::new(&path).output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, MESSAGE.as_bytes());
    }
}
