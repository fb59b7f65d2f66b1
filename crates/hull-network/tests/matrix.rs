//! Who reaches whom, in network namespaces of the test's own: every allowed way is open and every other one closed, alone,
//! beside a firewall that drops what it does not know, with bridged packets filtered and not, and after the firewall was
//! emptied.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod lab;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use hull_netlink::{Address, Socket};
use hull_network::Publish;
use lab::{
    Container, Lab, MACHINE, MACHINE6, REMOTE, REMOTE6, ask, ask_name, ask_udp, in_lab, ip, nft, serve, set_switch, tcp,
};

/// What is in front of an attempt.
struct Case<'a> {
    what: &'static str,
    from: BorrowedFd<'a>,
    to: (IpAddr, u16),
    /// Who answers; nobody where it is forbidden.
    answer: Option<&'static str>,
}

/// The networks and containers of the matrix.
struct World {
    web: Container,
    sibling: Container,
    stranger: Container,
    shut_in: Container,
    shut_in_sibling: Container,
    mute: Container,
    mute_sibling: Container,
}

fn world(lab: &Lab) -> World {
    let create = |name: &str, change: &dyn Fn(&mut hull_network::Create)| {
        lab.create(name, |wish| {
            wish.ipv6 = Some(true);
            change(wish);
        })
    };
    create("a", &|_| ());
    create("b", &|_| ());
    create("inner", &|wish| wish.internal = true);
    create("mute", &|wish| {
        wish.options.insert("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
    });
    let both = |port| Publish { host: None, ..tcp(None, port, 80) };
    let local = |host, port| tcp(Some(host), port, 80);
    let mut of_web = vec![both(8080), local("127.0.0.1", 8081), local(MACHINE, 8082), local(MACHINE6, 8083)];
    of_web.extend((9000..=9019).map(|port| Publish { host: None, ..tcp(None, port, port) }));
    let web = lab.start("web", &["a"], &of_web);
    let world = World {
        web,
        sibling: lab.start("sibling", &["a"], &[]),
        stranger: lab.start("stranger", &["b"], &[]),
        shut_in: lab.start("shutin", &["inner"], &[]),
        shut_in_sibling: lab.start("shutin2", &["inner"], &[]),
        mute: lab.start("mute", &["mute"], &[both(8090)]),
        mute_sibling: lab.start("mute2", &["mute"], &[]),
    };
    for container in [
        &world.web,
        &world.sibling,
        &world.stranger,
        &world.shut_in,
        &world.shut_in_sibling,
        &world.mute,
        &world.mute_sibling,
    ] {
        container.serve(80);
        container.serve(81);
        container.serve(9007);
        for address in &container.plan.endpoints[0].addresses {
            let subnet = hull_network::Subnet::new(address.0, address.1).unwrap();
            lab.attack_route(subnet.address(), subnet.prefix());
        }
    }
    // What the attacker needs to send packets to 127.0.0.1 out, and the worst that a machine may be set to.
    hull_netlink::in_namespace(lab.remote.as_fd(), || {
        set_switch("ipv4/conf/all/route_localnet", "1");
        let mut socket = hull_netlink::Socket::open().unwrap();
        let lo = socket.link("lo").unwrap();
        socket.remove_address(lo.index, ip("127.0.0.1"), 8).unwrap();
    })
    .unwrap();
    lab.attack_route(ip("127.0.0.1"), 32);
    set_switch("ipv4/conf/up0/route_localnet", "1");
    serve(lab.remote.as_fd(), 7777, "remote");
    world
}

fn cases<'a>(lab: &'a Lab, world: &'a World) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    let machine = lab.machine.as_fd();
    let remote = lab.remote.as_fd();
    let World { web, sibling, stranger, shut_in, shut_in_sibling, mute, mute_sibling } = world;
    let mut case = |what, from, to, answer| cases.push(Case { what, from, to, answer });
    for (host, outside, of) in [
        (ip(MACHINE), ip(REMOTE), &(|one: &Container| one.ipv4(0)) as &dyn Fn(&Container) -> IpAddr),
        (ip(MACHINE6), ip(REMOTE6), &|one: &Container| one.ipv6(0)),
    ] {
        case("link to published port", remote, (host, 8080), Some("web"));
        case("link to port of a published range", remote, (host, 9007), Some("web"));
        case("sibling to port of a published range", sibling.as_fd(), (host, 9007), Some("web"));
        case("link to container, port of a range", remote, (of(web), 9007), None);
        case("other network to container, port of a range", stranger.as_fd(), (of(web), 9007), None);
        case("link to port behind a range", remote, (host, 9020), None);
        case("machine to published port", machine, (host, 8080), Some("web"));
        case("sibling to published port", sibling.as_fd(), (host, 8080), Some("web"));
        case("own published port", web.as_fd(), (host, 8080), Some("web"));
        case("other network to published port", stranger.as_fd(), (host, 8080), Some("web"));
        case("machine to container", machine, (of(web), 80), Some("web"));
        case("sibling to container", sibling.as_fd(), (of(web), 80), Some("web"));
        case("sibling to unpublished port", sibling.as_fd(), (of(web), 81), Some("web"));
        case("container to the outside", web.as_fd(), (outside, 7777), Some("remote"));
        case("link to container, published port", remote, (of(web), 80), None);
        case("link to container, unpublished port", remote, (of(web), 81), None);
        case("other network to container, published port", stranger.as_fd(), (of(web), 80), None);
        case("other network to container, unpublished port", stranger.as_fd(), (of(web), 81), None);
        case("container to other network", web.as_fd(), (of(stranger), 80), None);
        case("internal, sibling", shut_in.as_fd(), (of(shut_in_sibling), 80), Some("shutin2"));
        case("internal, to the outside", shut_in.as_fd(), (outside, 7777), None);
        case("internal, to other network", shut_in.as_fd(), (of(web), 80), None);
        case("other network to internal", stranger.as_fd(), (of(shut_in), 80), None);
        case("link to internal", remote, (of(shut_in), 80), None);
        case("no inter-container: sibling", mute_sibling.as_fd(), (of(mute), 81), None);
        case("no inter-container: to the outside", mute.as_fd(), (outside, 7777), Some("remote"));
        case("no inter-container: link to published port", remote, (host, 8090), Some("mute"));
    }
    case("machine to loopback port", machine, (ip("127.0.0.1"), 8081), Some("web"));
    case("machine at loopback to every-address port", machine, (ip("127.0.0.1"), 8080), Some("web"));
    case("link to loopback port", remote, (ip("127.0.0.1"), 8081), None);
    case("container to loopback port at the machine's address", sibling.as_fd(), (ip(MACHINE), 8081), None);
    case("link to port at one address", remote, (ip(MACHINE), 8082), Some("web"));
    case("machine at loopback to port at another address", machine, (ip("127.0.0.1"), 8082), None);
    case("link to IPv6 port at one address", remote, (ip(MACHINE6), 8083), Some("web"));
    case("link to IPv4 of IPv6 port", remote, (ip(MACHINE), 8083), None);
    cases
}

fn check(lab: &Lab, world: &World, when: &str) {
    let mut wrong = String::new();
    let cases = cases(lab, world);
    // Refusals are silent: they are waited for together.
    let answers: Vec<Option<String>> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            cases.iter().map(|case| scope.spawn(move || ask_name(case.from, case.to.0, case.to.1))).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (case, answer) in cases.iter().zip(answers) {
        if answer.as_deref() != case.answer {
            let _ = writeln!(wrong, "{}, {}:{}: {answer:?}, not {:?}", case.what, case.to.0, case.to.1, case.answer);
        }
    }
    assert!(wrong.is_empty(), "{when}:\n{wrong}\n{}", nft(&["list", "ruleset"], ""));
}

/// Whether the kernel can send bridged packets through the firewall (`br_netfilter`).
fn can_filter_bridged() -> bool {
    let can = std::path::Path::new("/proc/sys/net/bridge").exists();
    if !can {
        hull_testkit::tier::skip("br_netfilter", "the kernel does not filter bridged packets");
    }
    can
}

/// Has it do so: `1`, or `0`.
fn filter_bridged(value: &str) {
    for family in ["iptables", "ip6tables"] {
        set_switch(&format!("bridge/bridge-nf-call-{family}"), value);
    }
}

fn needs_nft() -> bool {
    hull_testkit::tier::tool("nft").is_some()
}

#[test]
fn root_alone() {
    if needs_nft() {
        in_lab(|lab| check(lab, &world(lab), "alone"));
    }
}

#[test]
fn root_with_bridged_packets_filtered() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        if !can_filter_bridged() {
            return;
        }
        filter_bridged("1");
        check(lab, &world(lab), "with br_netfilter");
        assert!(lab.networks.doctor().unwrap().is_empty());
    });
}

#[test]
fn root_bridged_packets_come_to_be_filtered_while_containers_run() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        if !can_filter_bridged() {
            return;
        }
        let world = world(lab);
        check(lab, &world, "before");
        for times in ["first", "second"] {
            filter_bridged("1");
            let found = lab.networks.doctor().unwrap();
            if times == "first" {
                // Of those that publish ports, and no others.
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].what.contains("since web, mute started"), "{found:?}");
                // As `hull network doctor --fix`.
                lab.networks.mend(&mut Vec::new()).unwrap();
            }
            assert!(lab.networks.doctor().unwrap().is_empty(), "{times}");
            check(lab, &world, &format!("filtered for the {times} time"));
            filter_bridged("0");
            check(lab, &world, &format!("after the {times} time"));
        }
    });
}

#[test]
fn root_a_monitor_that_mends_leads_packets_back() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        if !can_filter_bridged() {
            return;
        }
        let world = world(lab);
        let mut watch = hull_network::Watch::open(&lab.networks).unwrap();
        filter_bridged("1");
        // As dockerd does, which loads the module.
        nft(&["add", "table", "ip", "somebody"], "");
        nft(&["flush", "ruleset"], "");
        watch.on_ready(std::time::Instant::now()).unwrap();
        assert!(watch.deadline().is_some());
        watch.on_deadline().unwrap();
        assert!(lab.networks.doctor().unwrap().is_empty());
        check(lab, &world, "mended by a monitor");
    });
}

/// Another engine that starts after Hull has switched forwarding on for its own containers: its published ports are reached,
/// and once it has made the machine a router, nothing is refused.
#[test]
fn root_others_publish_ports_after_us() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        set_switch("ipv4/ip_forward", "0");
        lab.create("a", |_| ());
        let first = lab.start("first", &["a"], &[]);
        assert!(nft(&["list", "set", "inet", "hull", "uplinks4"], "").contains("up0"));
        let (server, mut route) = (lab::new_namespace(), Socket::open().unwrap());
        route.create_veth("theirs0", "theirs1").unwrap();
        let (ours, theirs) = (route.link("theirs0").unwrap().index, route.link("theirs1").unwrap().index);
        route.add_address(ours, &Address::global(ip("10.77.0.1"), 24)).unwrap();
        route.set_up(ours).unwrap();
        set_switch("ipv4/conf/theirs0/forwarding", "1");
        route.move_to(theirs, server.as_fd(), "eth0").unwrap();
        let mut inside = Socket::open_in(server.as_fd()).unwrap();
        let index = inside.link("eth0").unwrap().index;
        inside.add_address(index, &Address::global(ip("10.77.0.2"), 24)).unwrap();
        inside.set_up(index).unwrap();
        inside.add_route(index, ip("0.0.0.0"), 0, Some(ip("10.77.0.1"))).unwrap();
        lab::serve(server.as_fd(), 80, "theirs");
        let ask = |port| ask_name(lab.remote.as_fd(), ip(MACHINE), port);
        assert_eq!(ask(7070), None);
        nft(
            &["-f", "-"],
            "table ip their-nat {
  chain pre {
    type nat hook prerouting priority -100;
    tcp dport 7070 dnat to 10.77.0.2:80
  }
}
",
        );
        assert_eq!(ask(7070).as_deref(), Some("theirs"));
        // The next container finds the machine a router.
        set_switch("ipv4/ip_forward", "1");
        let second = lab.start("second", &["a"], &[]);
        assert!(!nft(&["list", "set", "inet", "hull", "uplinks4"], "").contains("up0"));
        assert_eq!(ask(7070).as_deref(), Some("theirs"));
        drop((first, second));
    });
}

/// What ufw and dockerd leave behind.
const DROPPING: &str = "table ip filter {
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
  }
}
";
const OTHERS: &str = "table ip6 filter {
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
  }
}
table inet other {
  chain forward {
    type filter hook forward priority 10; policy accept;
    ct state established accept
    reject
  }
}
";

#[test]
fn root_beside_a_firewall_that_drops() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        nft(&["-f", "-"], DROPPING);
        nft(&["-f", "-"], OTHERS);
        filter_bridged("1");
        let world = world(lab);
        check(lab, &world, "beside policy drop");
        // One pair of rules in each, and none when the last network is gone.
        let listing = nft(&["list", "table", "ip", "filter"], "");
        assert_eq!(listing.matches("hull: containers").count(), 2, "{listing}");
        // The other one is set up while containers run.
        nft(&["delete", "table", "ip", "filter"], "");
        nft(&["-f", "-"], DROPPING);
        assert!(!lab.networks.doctor().unwrap().is_empty());
        let mut said = Vec::new();
        lab.networks.mend(&mut said).unwrap();
        assert!(said.iter().any(|line| line.contains("ip filter FORWARD")), "{said:?}");
        check(lab, &world, "beside policy drop that came later");
        for container in [
            &world.web,
            &world.sibling,
            &world.stranger,
            &world.shut_in,
            &world.shut_in_sibling,
            &world.mute,
            &world.mute_sibling,
        ] {
            lab.networks.detach(&container.id).unwrap();
        }
        for name in ["a", "b", "inner", "mute"] {
            lab.networks.remove(name, &mut Vec::new()).unwrap();
        }
        let listing = nft(&["list", "ruleset"], "");
        assert!(!listing.contains("hull: containers"), "{listing}");
    });
}

/// Other programs' rules, as they were recorded.
const DOCKERD: &str = include_str!("lab/dockerd.nft");
const FIREWALLD: &str = include_str!("lab/firewalld.nft");

/// The matrix beside another program, before and after it has made its rules anew, with bridged packets filtered too.
fn beside(rules: &'static str, tables: &'static [&'static str], who: &'static str) {
    if !needs_nft() {
        return;
    }
    in_lab(move |lab| {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            set_switch(switch, "1");
        }
        filter_bridged("1");
        nft(&["-f", "-"], rules);
        let world = world(lab);
        check(lab, &world, &format!("beside {who}, with br_netfilter"));
        filter_bridged("0");
        check(lab, &world, &format!("beside {who}"));
        filter_bridged("1");
        for table in tables {
            let mut words = vec!["delete", "table"];
            words.extend(table.split(' '));
            nft(&words, "");
        }
        nft(&["-f", "-"], rules);
        lab.networks.mend(&mut Vec::new()).unwrap();
        check(lab, &world, &format!("after {who} has made its rules anew"));
        nft(&["flush", "ruleset"], "");
        nft(&["-f", "-"], rules);
        lab.networks.mend(&mut Vec::new()).unwrap();
        check(lab, &world, &format!("beside {who}, after everything was flushed"));
    });
}

#[test]
fn root_beside_dockerd() {
    beside(DOCKERD, &["ip nat", "ip filter", "ip6 nat", "ip6 filter"], "dockerd");
}

/// A daemon that runs, with a container of its own, which must notice as little of Hull as Hull of it.
#[test]
fn root_beside_a_running_dockerd() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        let Some(mut docker) = lab::docker::Docker::start() else { return };
        std::fs::copy(hull_testkit::probe(), docker.stage().join("probe")).unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.arg("-C").arg(docker.stage()).arg("-cf").arg(docker.stage().join("image.tar")).arg("probe");
        assert!(tar.status().unwrap().success());
        docker.run(&["import", "/run/stage/image.tar", "app:1"]);
        filter_bridged("1");
        let world = world(lab);
        let all = |docker: &lab::docker::Docker, when: &str| {
            docker.run(&[
                "run",
                "--detach",
                "--name",
                "there",
                "--publish",
                "8600:80",
                "app:1",
                "/probe",
                "sleep",
                "600",
            ]);
            let there = docker.namespace("there");
            serve(there.as_fd(), 80, "docker");
            let address = docker.run(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", "there"]);
            for filtered in ["1", "0"] {
                filter_bridged(filtered);
                let when = format!("{when}, br_netfilter {filtered}");
                check(lab, &world, &when);
                let asked = |from: BorrowedFd<'_>, to: &str, port| ask_name(from, ip(to), port);
                assert_eq!(asked(lab.remote.as_fd(), MACHINE, 8600).as_deref(), Some("docker"), "{when}");
                assert_eq!(asked(there.as_fd(), REMOTE, 7777).as_deref(), Some("remote"), "{when}");
                assert_eq!(asked(there.as_fd(), MACHINE, 8080).as_deref(), Some("web"), "{when}: to Hull's port");
                assert_eq!(
                    asked(world.web.as_fd(), MACHINE, 8600).as_deref(),
                    Some("docker"),
                    "{when}: to docker's port"
                );
                assert_eq!(asked(there.as_fd(), &world.web.ipv4(0).to_string(), 81), None, "{when}: across");
                assert_eq!(asked(world.web.as_fd(), &address, 80), None, "{when}: across, to docker's");
            }
            docker.run(&["rm", "--force", "there"]);
        };
        lab.networks.mend(&mut Vec::new()).unwrap();
        all(&docker, "beside a daemon that runs");
        docker.run(&["network", "create", "another"]);
        docker.restart();
        lab.networks.mend(&mut Vec::new()).unwrap();
        all(&docker, "after the daemon was started again");
        nft(&["flush", "ruleset"], "");
        docker.restart();
        lab.networks.mend(&mut Vec::new()).unwrap();
        all(&docker, "after everything was flushed and the daemon started again");
    });
}

#[test]
fn root_beside_firewalld() {
    beside(FIREWALLD, &["inet firewalld"], "firewalld");
}

#[test]
fn root_after_the_monitors_were_killed() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        let mut world = world(lab);
        // What dies with a monitor: the sockets that keep its ports. Nobody here has a proxy or a watch.
        for container in [&mut world.web, &mut world.mute] {
            assert!(!container.plan.reservations.is_empty());
            container.plan.reservations.clear();
        }
        check(lab, &world, "after kill -9 of the monitors");
    });
}

#[test]
fn root_a_megabyte_passes_a_link_of_1400_bytes() {
    in_lab(|lab| {
        let network = lab.create("n", |wish| wish.ipv6 = Some(true));
        let both = Publish { host: None, ..tcp(None, 8080, 80) };
        let container = lab.start("c", &["n"], &[both]);
        let bridge = hull_netlink::Socket::open().unwrap().link(&network.device).unwrap();
        assert_eq!(bridge.mtu, 1400);
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|number| u8::try_from(number % 251).unwrap()).collect();
        lab::serve_bytes(container.as_fd(), 80, bytes.clone());
        lab::serve_bytes(lab.remote.as_fd(), 7777, bytes.clone());
        for (from, host, port) in [
            (lab.remote.as_fd(), MACHINE, 8080),
            (lab.remote.as_fd(), MACHINE6, 8080),
            (container.as_fd(), REMOTE, 7777),
            (container.as_fd(), REMOTE6, 7777),
        ] {
            assert!(lab::fetch(from, ip(host), port) == bytes, "{host} {port}");
        }
    });
}

#[test]
fn root_after_the_firewall_was_emptied() {
    if !needs_nft() {
        return;
    }
    in_lab(|lab| {
        let world = world(lab);
        let before = nft(&["list", "table", "inet", "hull"], "");
        let mut watch = hull_network::Watch::open(&lab.networks).unwrap();
        for words in ["flush ruleset", "flush chain inet hull raw", "delete rule inet hull forward handle"] {
            if words.ends_with("handle") {
                let listing = nft(&["-a", "list", "chain", "inet", "hull", "forward"], "");
                let rule = listing.lines().find(|line| line.contains("@to")).unwrap();
                let handle = rule.rsplit_once("# handle ").unwrap().1;
                nft(&["delete", "rule", "inet", "hull", "forward", "handle", handle], "");
            } else {
                nft(&words.split(' ').collect::<Vec<_>>(), "");
            }
            let now = std::time::Instant::now();
            watch.on_ready(now).unwrap();
            let due = watch.deadline().expect("the change is noticed");
            assert!(due - now < std::time::Duration::from_secs(1));
            watch.on_deadline().unwrap();
            let zero = |text: &str| {
                let mut lines: Vec<String> = text
                    .lines()
                    .map(|line| line.split("counter").next().unwrap_or_default().trim().to_owned())
                    .collect();
                lines.sort();
                lines
            };
            assert_eq!(zero(&nft(&["list", "table", "inet", "hull"], "")), zero(&before), "{words}");
            check(lab, &world, words);
        }
        assert_eq!(lab.networks.doctor().unwrap().iter().filter(|finding| finding.broken).count(), 0);
        // The user's chain is the user's.
        nft(&["add", "rule", "inet", "hull", "hull-user", "counter", "comment", "mine"], "");
        nft(&["flush", "chain", "inet", "hull", "raw"], "");
        assert!(lab.networks.mend(&mut Vec::new()).unwrap());
        assert!(nft(&["list", "chain", "inet", "hull", "hull-user"], "").contains("mine"));
    });
}

#[test]
fn root_containers_are_hidden_behind_the_machine_unless_routed() {
    in_lab(|lab| {
        let option = |key: &str| format!("com.docker.network.bridge.{key}");
        lab.create("nat", |wish| wish.ipv6 = Some(true));
        lab.create("open", |wish| {
            wish.ipv6 = Some(true);
            wish.options.insert(option("gateway_mode_ipv4"), "routed".to_owned());
            wish.options.insert(option("gateway_mode_ipv6"), "nat-unprotected".to_owned());
        });
        serve(lab.remote.as_fd(), 7777, "remote");
        let hidden = lab.start("hidden", &["nat"], &[]);
        let routed = lab.start("routed", &["open"], &[tcp(None, 8080, 80)]);
        for (address, prefix) in &routed.plan.endpoints[0].addresses {
            let subnet = hull_network::Subnet::new(*address, *prefix).unwrap();
            lab.attack_route(subnet.address(), subnet.prefix());
        }
        routed.serve(80);
        routed.serve(81);
        let outside = |container: &Container, to: &str| ask(container.as_fd(), ip(to), 7777);
        assert_eq!(outside(&hidden, REMOTE), Some(format!("remote {MACHINE}")));
        assert_eq!(outside(&hidden, REMOTE6), Some(format!("remote {MACHINE6}")));
        assert_eq!(outside(&routed, REMOTE), Some(format!("remote {}", routed.ipv4(0))));
        let remote = lab.remote.as_fd();
        // Routed: published ports at the container's own address, and nowhere else.
        assert_eq!(ask_name(remote, routed.ipv4(0), 80).as_deref(), Some("routed"));
        assert_eq!(ask_name(remote, routed.ipv4(0), 81), None);
        assert_eq!(ask_name(remote, ip(MACHINE), 8080), None);
        // Unprotected: everything, for who has a route.
        let answer = ask_name(remote, routed.ipv6(0), 81);
        assert_eq!(answer.as_deref(), Some("routed"), "{}", nft(&["list", "ruleset"], ""));
        assert_eq!(ask_name(remote, ip(MACHINE6), 8080).as_deref(), Some("routed"));
    });
}

#[test]
fn root_a_udp_peer_that_keeps_sending_reaches_the_container_of_now() {
    in_lab(|lab| {
        lab.create("n", |wish| wish.ipv6 = Some(true));
        let udp = Publish { protocol: hull_network::Protocol::Udp, ..tcp(None, 5300, 53) };
        let sockets: Vec<_> = [(MACHINE, REMOTE), (MACHINE6, REMOTE6)]
            .into_iter()
            .map(|(host, own)| {
                let bind = || std::net::UdpSocket::bind((ip(own), 0)).unwrap();
                let socket = hull_netlink::in_namespace(lab.remote.as_fd(), bind).unwrap();
                socket.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
                socket.connect((ip(host), 5300)).unwrap();
                socket
            })
            .collect();
        // The same address and port of the peer each time: one flow, as connection tracking sees it.
        let ask = |socket: &std::net::UdpSocket| {
            let mut buffer = [0; 64];
            // What came back for an earlier question, such as that nobody listens, is not the answer.
            (0..3).find_map(|_| {
                socket.send(b"?").ok()?;
                let filled = socket.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(&buffer[..filled]).into_owned())
            })
        };
        let first = lab.start("first", &["n"], std::slice::from_ref(&udp));
        first.serve(53);
        for socket in &sockets {
            assert_eq!(ask(socket).as_deref(), Some("first"));
        }
        lab.networks.detach("first").unwrap();
        let before = first.ipv4(0);
        // Its monitor is gone, and with it the sockets; its namespace, and so its address, is still there.
        let Container { namespace: _held, plan, .. } = first;
        drop(plan);
        let second = lab.start("second", &["n"], &[udp]);
        assert_ne!(before, second.ipv4(0));
        second.serve(53);
        for socket in &sockets {
            assert_eq!(ask(socket).as_deref(), Some("second"));
        }
    });
}

#[test]
fn root_udp_and_ranges_are_published() {
    in_lab(|lab| {
        lab.create("n", |wish| wish.ipv6 = Some(true));
        let udp = Publish { protocol: hull_network::Protocol::Udp, ..tcp(None, 5300, 53) };
        let any = Publish { host_ports: None, ..tcp(None, 1, 80) };
        let range = Publish { host_ports: Some(9000..=9001), ..tcp(None, 1, 80) };
        let first = lab.start("first", &["n"], &[udp, any, range.clone()]);
        let second = lab.start("second", &["n"], &[range]);
        for container in [&first, &second] {
            container.serve(53);
            container.serve(80);
        }
        let remote = lab.remote.as_fd();
        for host in [MACHINE, MACHINE6] {
            let answer = ask_udp(remote, ip(host), 5300);
            assert_eq!(answer.as_deref(), Some("first"), "{}", nft(&["list", "ruleset"], ""));
            assert_eq!(ask_name(remote, ip(host), 5300), None);
            let chosen = first.plan.published.iter().find(|one| one.port == 80).unwrap().host_port;
            assert_eq!(ask_name(remote, ip(host), chosen).as_deref(), Some("first"));
            assert_eq!(ask_name(remote, ip(host), 9000).as_deref(), Some("first"));
            assert_eq!(ask_name(remote, ip(host), 9001).as_deref(), Some("second"));
        }
        assert_eq!(ask_udp(lab.machine.as_fd(), ip("127.0.0.1"), 5300).as_deref(), Some("first"));
        // A third one finds none free, and is told who has them.
        let full = lab.try_start("third", &["n"], &[tcp(None, 9001, 80)]).map(|_| ()).unwrap_err().to_string();
        assert!(full.contains(":9001") && full.contains("port is already allocated by container second"), "{full}");
        assert!(lab.networks.endpoints_of("third").unwrap().is_empty());
        // The end of a container closes its ports.
        lab.networks.detach("first").unwrap();
        drop(first);
        assert_eq!(ask_name(remote, ip(MACHINE), 9000), None);
        lab.start("third", &["n"], &[tcp(None, 9000, 80)]);
    });
}

#[test]
fn root_forwarding_is_for_containers_only() {
    in_lab(|lab| {
        // A third one, on another link of the machine.
        let beyond = lab::new_namespace();
        let mut socket = hull_netlink::Socket::open().unwrap();
        socket.create_veth("far0", "far1").unwrap();
        let other = socket.link("far1").unwrap();
        socket.move_to(other.index, beyond.as_fd(), "eth0").unwrap();
        let mut there = hull_netlink::Socket::open_in(beyond.as_fd()).unwrap();
        for (socket, name, address) in [(&mut socket, "far0", "198.51.100.1"), (&mut there, "eth0", "198.51.100.2")] {
            let link = socket.link(name).unwrap();
            socket.set_up(link.index).unwrap();
            socket.add_address(link.index, &hull_netlink::Address::global(ip(address), 24)).unwrap();
        }
        let link = there.link("eth0").unwrap();
        there.add_route(link.index, ip("0.0.0.0"), 0, Some(ip("198.51.100.1"))).unwrap();
        serve(beyond.as_fd(), 80, "beyond");
        lab.attack_route(ip("198.51.100.0"), 24);
        lab.create("n", |_| ());
        let container = lab.start("c", &["n"], &[]);
        assert_eq!(ask_name(container.as_fd(), ip("198.51.100.2"), 80).as_deref(), Some("beyond"));
        assert_eq!(ask_name(lab.remote.as_fd(), ip("198.51.100.2"), 80), None);
        // Once somebody makes the machine a router, it is one.
        set_switch("ipv4/ip_forward", "1");
        lab.networks.mend(&mut Vec::new()).unwrap();
        assert_eq!(ask_name(lab.remote.as_fd(), ip("198.51.100.2"), 80).as_deref(), Some("beyond"));
    });
}
