//! `hull network` as a user types it, in a network namespace of the test's own.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use hull_sys::clone::{CloneFlags, unshare};
use hull_testkit::{Finished, Home, Value, finish, home, tier};

/// A home with no network but loopback.
fn home() -> Option<Home> {
    let home = home!()?;
    unshare(CloneFlags::NEWNET).expect("unshare");
    hull_netlink::loopback_up().expect("loopback");
    Some(home)
}

/// `hull WORDS`, which are split at spaces.
fn words(h: &Home, words: &str) -> Finished {
    h.run(&words.split(' ').collect::<Vec<_>>())
}

#[track_caller]
fn ok(h: &Home, line: &str) -> String {
    let out = words(h, line);
    assert_eq!(out.code, 0, "{line}: {}", out.stderr);
    out.stdout
}

#[track_caller]
fn refused(h: &Home, line: &str) -> String {
    let out = words(h, line);
    assert_eq!(out.code, 1, "{line}: {}{}", out.stdout, out.stderr);
    assert_eq!(out.stderr.lines().count(), 1, "{line}: {}", out.stderr);
    out.stderr
}

/// `hull run -d FLAGS --rootfs DIR /probe sleep 60`.
fn start(h: &Home, flags: &str) -> Finished {
    let rootfs = h.text("rootfs");
    let mut words = vec!["run", "-d", "--cgroup-parent", h.name()];
    words.extend(flags.split(' '));
    words.extend(["--rootfs", &rootfs, "/probe", "sleep", "60"]);
    h.run(&words)
}

fn document(h: &Home, name: &str) -> Value {
    first(&ok(h, &format!("network inspect {name}")))
}

fn first(text: &str) -> Value {
    let list: Value = text.parse().expect("JSON");
    list[0].clone()
}

#[test]
fn root_networks_are_listed_and_shown_as_docker_does() {
    let Some(h) = home() else { return };
    let listing = ok(&h, "network ls");
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    assert_eq!(lines[1][1..], ["bridge", "bridge", "local"]);
    assert_eq!(lines[2][1..], ["host", "host", "local"]);
    assert_eq!(lines[3][1..], ["none", "null", "local"]);
    assert_eq!(lines[1][0].len(), 12);
    let id = ok(
        &h,
        "network create --label team=a --subnet 10.5.0.0/24 --ip-range 10.5.0.128/25 --aux-address router=10.5.0.7 web",
    );
    let id = id.trim();
    assert_eq!(id.len(), 64);
    assert_eq!(ok(&h, "network ls -q --no-trunc --filter name=web").trim(), id);
    assert_eq!(
        ok(&h, "network ls --filter type=custom --format {{.Name}}:{{.Driver}}:{{.Internal}}:{{.IPv4}}").trim(),
        "web:bridge:false:true"
    );
    assert_eq!(ok(&h, "network ls --filter label=team=b"), ok(&h, "network ls --filter driver=none"));
    let shown = document(&h, "web");
    assert_eq!(shown["Id"], id);
    assert_eq!(
        shown["IPAM"]["Config"][0],
        hull_testkit::json!({
            "Subnet": "10.5.0.0/24", "IPRange": "10.5.0.128/25", "Gateway": "10.5.0.129",
            "AuxiliaryAddresses": { "router": "10.5.0.7" },
        })
    );
    assert_eq!(shown["Labels"]["team"], "a");
    assert_eq!((&shown["Containers"], &shown["Scope"]), (&hull_testkit::json!({}), &"local".into()));
    let missing = words(&h, "network inspect nowhere");
    assert_eq!((missing.code, missing.stdout.trim()), (1, "[]"));
    assert!(missing.stderr.contains("network nowhere not found"), "{}", missing.stderr);
    assert_eq!(ok(&h, "network rm web"), "web\n");
    assert!(refused(&h, "network rm web").contains("network web not found"));
    assert_eq!(ok(&h, "network rm -f web"), "");
    ok(&h, "network create one");
    ok(&h, "network create --label keep two");
    assert_eq!(ok(&h, "network prune -f --filter label!=keep"), "Deleted Networks:\none\n\n");
    assert_eq!(ok(&h, "network prune -f"), "Deleted Networks:\ntwo\n\n");
    assert_eq!(ok(&h, "network prune -f"), "");
}

#[test]
fn root_bad_networks_are_refused_in_one_line() {
    let Some(h) = home() else { return };
    ok(&h, "network create --subnet 10.5.0.0/24 web");
    for (words, says) in [
        ("network create web", "network with name web already exists"),
        ("network create --subnet 10.5.0.128/25 other", "Pool overlaps with other one on this address space"),
        ("network create --subnet 10.6.0.0 other", "10.6.0.0"),
        ("network create --subnet 10.6.0.0/33 other", "10.6.0.0/33"),
        ("network create --gateway 10.6.0.1 other", "every ip-range or gateway must have a corresponding subnet"),
        ("network create --subnet 10.6.0.0/24 --gateway 10.7.0.1 other", "no matching subnet for gateway 10.7.0.1"),
        ("network create --subnet 10.6.0.0/24 --ip-range 10.7.0.0/25 other", "no matching subnet for range 10.7.0.0"),
        ("network create -d overlay other", "overlay"),
        ("network create -d host other", "only one instance of \"host\" network is allowed"),
        ("network create -o com.docker.network.bridge.name=lo other", "lo exists"),
        ("network create -o com.docker.network.driver.mtu=1 other", "mtu=1"),
        ("network create -o publish_mode=some other", "publish_mode=some"),
        ("network create bridge", "predefined bridge network"),
        ("network rm bridge", "bridge is a pre-defined network and cannot be removed"),
        ("network connect web nobody", "nobody"),
        ("network disconnect web nobody", "nobody"),
    ] {
        let said = refused(&h, words);
        assert!(said.contains(says), "{words}: {said}");
    }
    assert_eq!(ok(&h, "network ls -q --filter type=custom").lines().count(), 1);
    assert_eq!(ok(&h, "network disconnect -f web nobody"), "");
}

/// Whether somebody refuses a connection: the address is there, and the port is closed.
fn is_refused(address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("address");
    let asked = TcpStream::connect_timeout(&address, Duration::from_secs(2));
    asked.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[test]
fn root_containers_are_on_their_networks() {
    let Some(h) = home() else { return };
    ok(&h, "network create --subnet 10.5.0.0/24 --ipv6=false web");
    ok(&h, "network create --subnet 10.6.0.0/24 --ipv6=false back");
    let begun = start(&h, "--name shop --network web --ip 10.5.0.9 -p 8080:80");
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    let id = begun.stdout.trim().to_owned();
    let containers = &document(&h, "web")["Containers"];
    assert_eq!(containers[&id]["Name"], "shop");
    assert_eq!(containers[&id]["IPv4Address"], "10.5.0.9/24");
    assert_eq!(containers[&id]["MacAddress"], "02:42:0a:05:00:09");
    assert!(is_refused("10.5.0.9:80") && is_refused("127.0.0.1:8080"));
    let used = refused(&h, "network rm web");
    assert!(used.contains("network web has active endpoints (name:\"shop\" id:\""), "{used}");
    // Whoever wants the same port or address is told who has it.
    let port = start(&h, "--name other --network web -p 8080:80");
    assert_eq!(port.code, 125);
    assert!(port.stderr.contains(":8080/tcp failed: port is already allocated by container shop"), "{}", port.stderr);
    let address = start(&h, "--name other --network web --ip 10.5.0.9");
    assert_eq!(address.code, 125);
    assert!(address.stderr.contains("Address already in use") && address.stderr.contains("shop"), "{}", address.stderr);
    assert_eq!(start(&h, "--name other --network nowhere").code, 125);
    assert_eq!(document(&h, "web")["Containers"].as_object().map(|all| all.len()), Some(1));

    ok(&h, "network connect --ip 10.6.0.5 --alias store back shop");
    assert!(is_refused("10.6.0.5:80"));
    assert_eq!(document(&h, "back")["Containers"][&id]["IPv4Address"], "10.6.0.5/24");
    assert!(refused(&h, "network connect back shop").contains("already exists in network back"));
    ok(&h, "network disconnect back shop");
    assert!(refused(&h, "network disconnect back shop").contains("is not connected to"));
    assert_eq!(ok(&h, "network prune -f"), "Deleted Networks:\nback\n\n");

    // Somebody empties the firewall: the container's monitor mends it.
    if tier::tool("nft").is_some() {
        let table = || {
            let out = finish(Command::new("nft").args(["list", "table", "inet", "hull"]));
            out.code == 0 && out.stdout.contains("tcp . 8080 : 10.5.0.9 . 80")
        };
        assert!(table());
        assert_eq!(finish(Command::new("nft").args(["flush", "ruleset"])).code, 0);
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !table() {
            assert!(std::time::Instant::now() < until, "nobody has mended the firewall");
            std::thread::sleep(Duration::from_millis(20));
        }
        let findings = words(&h, "network doctor").stdout;
        assert!(!findings.contains("problem:"), "{findings}");
    }
    assert_eq!(words(&h, "rm -f shop").code, 0);
    ok(&h, "network rm web");
    let links = hull_netlink::Socket::open().expect("netlink").links().expect("links");
    assert!(!links.iter().any(|link| link.kind == "bridge" && link.name != "hull0"), "{links:?}");
}
