//! Moving a device into a container (`linux.netDevices`).

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Socket};

/// `RT_SCOPE_UNIVERSE`.
const SCOPE_GLOBAL: u8 = 0;
/// `IFA_F_PERMANENT`: not handed out for a time by a router or DHCP.
const PERMANENT: u32 = 0x80;

/// Checks a name by the kernel's rules (`dev_valid_name`).
///
/// # Errors
/// [`Error::InvalidName`].
pub fn valid_name(name: &str) -> Result<(), Error> {
    let bytes = name.as_bytes();
    let wrong = |byte: &u8| matches!(byte, 0 | b'/' | b':') || byte.is_ascii_whitespace() || *byte == 0x0b;
    if bytes.is_empty() || bytes.len() > 15 || matches!(name, "." | "..") || bytes.iter().any(wrong) {
        return Err(Error::InvalidName(name.to_owned()));
    }
    Ok(())
}

/// Moves the device `name` of the caller's network namespace into another one as `new_name`, gives it its global
/// permanent addresses again, and sets it up.
///
/// The calling thread enters the other namespace for the time of one `socket(2)`, so the process should be
/// single-threaded.
///
/// # Errors
/// [`Error::NoLink`], [`Error::InvalidName`], [`Error::Refused`], [`Error::Socket`].
pub fn move_device(namespace: BorrowedFd<'_>, name: &str, new_name: &str) -> Result<(), Error> {
    valid_name(new_name)?;
    let mut outside = Socket::open()?;
    let mut inside = Socket::open_in(namespace)?;
    let link = outside.link(name)?;
    let addresses = outside.addresses(link.index)?;
    outside.move_to(link.index, namespace, new_name)?;
    let link = inside.link(new_name)?;
    for address in addresses.iter().filter(|address| address.scope == SCOPE_GLOBAL && address.flags & PERMANENT != 0) {
        inside.add_address(link.index, address)?;
    }
    inside.set_up(link.index)
}

/// Calls `body` in another network namespace and comes back.
///
/// Namespaces belong to threads: a thread that `body` started would stay in the other one.
///
/// # Errors
/// [`Error::Socket`] when the namespace cannot be entered or left.
pub fn in_namespace<T>(namespace: BorrowedFd<'_>, body: impl FnOnce() -> T) -> Result<T, Error> {
    let failed = |operation| move |errno| Error::Socket { operation, errno };
    let own = rustix::fs::openat(CWD, c"/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open own network namespace"))?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(failed("enter network namespace"))?;
    let result = body();
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(failed("leave network namespace"))?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernels_rules() {
        for name in ["lo", "eth0", "a", "123456789012345", "eth0.5", "-x"] {
            assert!(valid_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "1234567890123456", "a/b", "a b", "a\tb", "eth0:1", "a\0"] {
            assert!(valid_name(name).is_err(), "{name}");
        }
    }
}
