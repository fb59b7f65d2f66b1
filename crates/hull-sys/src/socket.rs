//! `TIOCOUTQ`, also called `SIOCOUTQ`: what the other side of a socket has not taken yet.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::check;

/// Memory of what was sent over a Unix stream socket and not received by the other side, and of a TCP socket's bytes that
/// were not acknowledged (`unix(7)` and `tcp(7)`, Linux 2.4); 0 when everything was.
///
/// # Errors
/// `EINVAL` for a socket that listens, `ENOTTY` for what is no socket.
pub fn untaken(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut number: libc::c_int = 0;
    // SAFETY: the request writes one int, which lives until the call returns, and the descriptor is open as long as the
    // borrow.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut number) };
    check(returned.into())?;
    Ok(number.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_was_received_is_taken() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(untaken(one.as_fd()), Ok(0));
        one.write_all(b"hello").unwrap();
        assert!(untaken(one.as_fd()).unwrap() > 0);
        other.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(untaken(one.as_fd()), Ok(0));
    }
}
