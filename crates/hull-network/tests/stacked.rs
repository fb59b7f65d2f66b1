//! Networks on top of a device of the machine.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod lab;

use std::net::IpAddr;
use std::os::fd::AsFd;

use hull_network::{Attachment, Driver, Error, Who};
use lab::{Lab, ask_name, in_lab, ip, pool};

fn attachment(network: &str) -> Attachment {
    Attachment { network: network.to_owned(), ..Attachment::default() }
}

#[test]
fn root_devices_on_a_device_of_the_machine() {
    in_lab(|lab| {
        lab.create("lan", |wish| {
            wish.driver = Driver::Macvlan;
            wish.ipv6 = Some(false);
            wish.pools = vec![pool("192.0.2.0/24")];
            wish.pools[0].gateway = Some(ip(lab::REMOTE));
            wish.pools[0].range = Some("192.0.2.128/25".parse().unwrap());
            wish.options.insert("parent".to_owned(), "up0".to_owned());
        });
        let first = match lab.try_start("first", &["lan"], &[]) {
            Ok(container) => container,
            Err(Error::Unsupported(why)) => {
                hull_testkit::tier::skip("macvlan", &why);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let second = lab.start("second", &["lan"], &[]);
        first.serve(80);
        assert_eq!(first.ipv4(0), ip("192.0.2.128"));
        assert_eq!(ask_name(lab.remote.as_fd(), first.ipv4(0), 80).as_deref(), Some("first"));
        assert_eq!(ask_name(second.as_fd(), first.ipv4(0), 80).as_deref(), Some("first"));
        lab::serve(lab.remote.as_fd(), 7777, "remote");
        assert_eq!(ask_name(second.as_fd(), ip(lab::REMOTE), 7777).as_deref(), Some("remote"));
        come_and_go(lab, &|address| {
            assert_eq!(ask_name(lab.remote.as_fd(), address, 80).as_deref(), Some("first"));
            assert_eq!(ask_name(second.as_fd(), address, 80).as_deref(), Some("first"));
        });
    });
}

/// Many containers come to the network `lan` and go, each of which reaches the one that serves there, while `meanwhile` is
/// asked about it: nobody gets another's address, and nothing is left.
fn come_and_go(lab: &Lab, meanwhile: &dyn Fn(IpAddr)) {
    const THREADS: usize = 4;
    let each = hull_testkit::loops(10);
    let address = ip("192.0.2.128");
    let (data, network) = (lab.data.path(), lab.networks.find("lan").unwrap());
    let before = lab.networks.endpoints(&network).unwrap().len();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let database = hull_db::Database::new(&data.join("data"));
                    let networks = hull_network::Networks::new(database, &data.join("state"));
                    for number in 0..each {
                        let id = format!("{thread}y{number:09}");
                        let who = Who { id: &id, name: &id };
                        let plan = networks.plan(who, &[attachment("lan")], &[]).unwrap();
                        let namespace = lab::new_namespace();
                        networks.attach(&plan, namespace.as_fd(), &mut Vec::new()).unwrap();
                        assert_ne!(plan.endpoints[0].ipv4().map(IpAddr::from), Some(address));
                        assert_eq!(ask_name(namespace.as_fd(), address, 80).as_deref(), Some("first"), "{id}");
                        networks.detach(&id).unwrap();
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            meanwhile(address);
        }
    });
    lab.networks.repair(&|id| ["first", "second"].contains(&id), &mut Vec::new()).unwrap();
    assert_eq!(lab.networks.endpoints(&network).unwrap().len(), before);
}
