//! What procfs says of this process, in one reading instead of a hundred questions.

use rustix::fs::{CWD, Mode, OFlags};

/// From `/proc/self/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// Capabilities that it has.
    pub(super) permitted: u64,
    /// Capabilities that programs may get.
    pub(super) bounding: u64,
    /// Signals that it ignores: the lowest bit is signal 1.
    pub(super) ignored: u64,
}

impl Own {
    /// `None` without procfs, or when it does not say everything.
    pub(super) fn read() -> Option<Self> {
        let file =
            rustix::fs::openat(CWD, "/proc/self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut bytes = [0_u8; 4096];
        let length = rustix::io::read(&file, &mut bytes).ok()?;
        Self::parse(&bytes[..length])
    }

    fn parse(status: &[u8]) -> Option<Self> {
        // Only the name may be other than ASCII.
        let mask = |key: &str| {
            let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()))?;
            u64::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 16).ok()
        };
        Some(Self { permitted: mask("CapPrm:")?, bounding: mask("CapBnd:")?, ignored: mask("SigIgn:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_and_an_incomplete_document_is_not() {
        let status = b"Name:\t\xff\nSigIgn:\t0000000000001000\nCapPrm:\t00000000000000ff\nCapBnd:\t000001ffffffffff\n";
        let own = Own::parse(status).unwrap();
        assert_eq!(own, Own { permitted: 0xff, bounding: 0x1ff_ffff_ffff, ignored: 1 << 12 });
        assert_eq!(Own::parse(&status[..status.len() - 20]), None);
        assert_eq!(Own::parse(b""), None);
    }
}
