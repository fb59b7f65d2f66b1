//! Devices for real, in network namespaces of the test's own.
//!
//! Namespaces belong to threads, so each test works in a thread that leaves the machine's namespace first.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::clone::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Address, Bridge, BridgePort, Change, Error, IpvlanMode, MacvlanMode, Socket, Stacked, Veth, loopback_up,
    move_device,
};

fn own_namespace() -> OwnedFd {
    rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Runs the test in a thread with a new network namespace, which ends with it.
pub(crate) fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
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

#[test]
fn root_a_bridge_and_a_pair_across_namespaces() {
    in_new_namespace(|| {
        let outside = own_namespace();
        let mut socket = Socket::open().unwrap();
        let bridge = Bridge {
            name: "br0",
            address: [2, 0, 0, 0, 0, 1],
            mtu: 1400,
            alias: "made by a test",
            no_link_local: true,
        };
        socket.create_bridge(&bridge).unwrap();
        let taken = socket.create_bridge(&bridge).unwrap_err();
        assert!(matches!(taken, Error::Refused { errno: rustix::io::Errno::EXIST, .. }), "{taken}");
        let link = socket.link("br0").unwrap();
        assert!(link.is_up());
        assert_eq!((link.mtu, link.kind.as_str(), link.alias.as_str()), (1400, "bridge", "made by a test"));
        assert_eq!(link.address, [2, 0, 0, 0, 0, 1]);
        let gateway = "10.7.0.1".parse().unwrap();
        socket.add_address(link.index, &Address::global(gateway, 24)).unwrap();

        unshare(CloneFlags::NEWNET).unwrap();
        let inside = own_namespace();
        enter(&outside);
        let veth = Veth {
            name: "hv0",
            master: link.index,
            mtu: 1400,
            no_link_local: true,
            peer: "eth0",
            peer_address: [2, 0, 0, 0, 0, 2],
            namespace: inside.as_fd(),
        };
        socket.create_veth_across(&veth).unwrap();
        let port = socket.link("hv0").unwrap();
        assert!(port.is_up());
        assert_eq!(port.master, link.index);
        socket.change_bridge_port("hv0", BridgePort { hairpin: true, isolated: true }).unwrap();
        assert!(socket.change_bridge_port("br0", BridgePort::default()).is_err());

        let mut there = Socket::open_in(inside.as_fd()).unwrap();
        let eth0 = there.link("eth0").unwrap();
        assert!(!eth0.is_up());
        assert_eq!((eth0.mtu, eth0.address.as_slice()), (1400, &[2, 0, 0, 0, 0, 2][..]));
        there.change(eth0.index, Change { up: Some(true), no_link_local: true, ..Change::default() }).unwrap();
        there.add_address(eth0.index, &Address::global("10.7.0.2".parse().unwrap(), 24)).unwrap();
        let any = "0.0.0.0".parse().unwrap();
        there.add_route(eth0.index, any, 0, Some(gateway)).unwrap();
        let routes = there.routes().unwrap();
        let default = routes.iter().find(|route| route.prefix == 0 && route.kind == 1).unwrap();
        assert_eq!((default.gateway, default.link, default.table), (Some(gateway), eth0.index, 254));
        // No address that the kernel made up.
        let addresses = there.addresses(eth0.index).unwrap();
        assert_eq!(addresses.iter().map(Address::ip).collect::<Vec<_>>(), ["10.7.0.2".parse().ok()]);
        there.remove_route(eth0.index, any, 0, Some(gateway)).unwrap();
        there.remove_address(eth0.index, "10.7.0.2".parse().unwrap(), 24).unwrap();
        assert!(there.addresses(eth0.index).unwrap().is_empty());
        assert_eq!(socket.links().unwrap().iter().filter(|link| link.kind == "bridge").count(), 1);
    });
}

#[test]
fn root_devices_on_top_of_a_device() {
    in_new_namespace(|| {
        let mut socket = Socket::open().unwrap();
        socket.create_veth("low0", "low1").unwrap();
        let lower = socket.link("low0").unwrap();
        let address = [2, 0, 0, 0, 0, 9];
        for (name, stacked, kind) in [
            ("mac0", Stacked::Macvlan(MacvlanMode::Bridge, address), "macvlan"),
            ("low0.50", Stacked::Vlan(50), "vlan"),
            ("ip0", Stacked::Ipvlan(IpvlanMode::L2), "ipvlan"),
        ] {
            match socket.create_stacked(name, lower.index, stacked, 0, None) {
                Ok(()) => assert_eq!(socket.link(name).unwrap().kind, kind),
                // Not every kernel has every kind; ipvlan and macvlan exclude each other.
                Err(Error::Refused { errno, .. }) => {
                    use rustix::io::Errno;
                    assert!([Errno::OPNOTSUPP, Errno::BUSY].contains(&errno), "{name}: {errno}");
                    println!("{kind} refused: {errno}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
}
