//! Devices for real, in network namespaces of the test's own.
//!
//! Namespaces belong to threads, so each test works in a thread that leaves the machine's namespace first.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::clone::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Address, Error, Socket, loopback_up, move_device};

fn own_namespace() -> OwnedFd {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Runs the test in a thread with a new network namespace, which ends with it.
fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| {
        unshare(CloneFlags::NEWNET).unwrap();
        test();
    })
    .join()
    .unwrap();
}

fn enter(namespace: &OwnedFd) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

#[test]
fn root_loopback_comes_up() {
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        assert!(!socket.link("lo").unwrap().is_up());
        loopback_up().unwrap();
        let link = socket.link("lo").unwrap();
        assert!(link.is_up());
        assert_eq!((link.index, link.mtu), (1, 65536));
        let addresses = socket.addresses(1).unwrap();
        assert!(addresses.iter().any(|address| address.local == [127, 0, 0, 1]), "{addresses:?}");
    });
}

#[test]
fn root_missing_and_wrong_devices_are_told_apart() {
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        assert!(matches!(socket.link("none0"), Err(Error::NoLink(_))));
        assert!(matches!(socket.link("a/b"), Err(Error::InvalidName(_))));
        let refused = socket.set_up(99_999).unwrap_err();
        assert!(matches!(refused, Error::Refused { errno: rustix::io::Errno::NODEV, .. }), "{refused}");
        // The socket goes on after an error.
        assert!(socket.link("lo").is_ok());
    });
}

#[test]
fn root_a_device_moves_with_its_addresses() {
    in_new_namespace(|| {
        let outside = own_namespace();
        let mut socket = Socket::open().unwrap();
        if let Err(error) = socket.create_veth("hull0", "hull1") {
            println!("skipped: this kernel makes no veth pair: {error}");
            return;
        }
        let link = socket.link("hull0").unwrap();
        let address = |family, prefix, local: &[u8]| Address {
            family,
            prefix,
            scope: 0,
            flags: 0,
            local: local.to_vec(),
            peer: Vec::new(),
            broadcast: Vec::new(),
        };
        socket.add_address(link.index, &address(2, 24, &[192, 0, 2, 7])).unwrap();
        socket.add_address(link.index, &address(2, 32, &[198, 51, 100, 1])).unwrap();
        socket.set_up(link.index).unwrap();

        unshare(CloneFlags::NEWNET).unwrap();
        let inside = own_namespace();
        enter(&outside);
        assert!(matches!(move_device(inside.as_fd(), "none0", "eth0"), Err(Error::NoLink(_))));
        assert!(matches!(move_device(inside.as_fd(), "hull0", "a b"), Err(Error::InvalidName(_))));
        move_device(inside.as_fd(), "hull0", "eth0").unwrap();
        assert!(matches!(socket.link("hull0"), Err(Error::NoLink(_))));
        assert!(socket.link("hull1").is_ok());
        // Still outside: the thread has come back.
        assert!(Socket::open().unwrap().link("hull1").is_ok());

        enter(&inside);
        let mut socket = Socket::open().unwrap();
        let link = socket.link("eth0").unwrap();
        assert!(link.is_up());
        let mut found: Vec<(Vec<u8>, u8)> = socket
            .addresses(link.index)
            .unwrap()
            .into_iter()
            .filter(|address| address.family == 2)
            .map(|address| (address.local, address.prefix))
            .collect();
        found.sort();
        assert_eq!(found, [(vec![192, 0, 2, 7], 24), (vec![198, 51, 100, 1], 32)]);

        // A name that is taken inside is the kernel's EEXIST.
        enter(&outside);
        let taken = move_device(inside.as_fd(), "hull1", "eth0").unwrap_err();
        assert!(matches!(taken, Error::Refused { errno: rustix::io::Errno::EXIST, .. }), "{taken}");
    });
}
