//! Port 53, which is the container's own.

use std::process::{Command, Stdio};

use hull_netlink::nft::{Base, Batch, ChainKind, Expression, Family, Field, Hook, Place, Socket, Verdict};

use super::*;
use crate::dns::redirect;

/// `NF_CT_STATE_INVALID_BIT`.
const INVALID: u32 = 1;
/// `IP_CT_NEW`.
const NEW: u32 = 8;

#[test]
fn root_queries_to_port_53_arrive_and_the_container_may_use_it_itself() {
    lab(|lab| {
        lab.connect("web", 2);
        // One that died is followed by another, on another port.
        let dead = lab.resolver();
        redirect(lab.container.as_fd(), dead.port()).unwrap();
        let mut resolver = lab.resolver();
        redirect(lab.container.as_fd(), resolver.port()).unwrap();
        drop(dead);
        // The container's own server, on all addresses, of both protocols.
        let own = lab.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
        let own_stream = lab.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
        let client = lab.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Connected and not: the answer comes from where the query went.
        let message = query("web", RecordType::A).to_vec().unwrap();
        client.send_to(&message, (ADDRESS, 53)).unwrap();
        run(&mut resolver, lab.now);
        let mut bytes = [0; 512];
        let (length, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!(from, SocketAddr::from((ADDRESS, 53)));
        assert_eq!(addresses(&Message::from_vec(&bytes[..length]).unwrap()), ["10.9.0.2"]);
        client.connect((ADDRESS, 53)).unwrap();
        assert_eq!(addresses(&ask(&mut resolver, &client, lab.now, "web", RecordType::A)), ["10.9.0.2"]);
        let mut stream = lab.inside(|| TcpStream::connect((ADDRESS, 53)).unwrap());
        send_framed(&mut stream, &message);
        run(&mut resolver, lab.now);
        assert!(receive_framed(&mut stream).is_some());
        // The container's own server is where it was.
        let client = lab.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        client.send_to(b"own", (Ipv4Addr::LOCALHOST, 53)).unwrap();
        own.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(own.recv(&mut bytes).unwrap(), 3);
        let _stream = lab.inside(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 53)).unwrap());
        own_stream.accept().unwrap();
    });
}

#[test]
fn root_a_container_that_tracks_connections_sees_one_conversation() {
    lab(|lab| {
        lab.connect("web", 2);
        let mut resolver = lab.resolver();
        redirect(lab.container.as_fd(), resolver.port()).unwrap();
        // Its own firewall: nothing invalid, and from 127.0.0.11 nothing that was not asked for.
        let mut batch = Batch::new(Family::Inet, "own");
        batch.add_table();
        let dropped = || Expression::Verdict(Verdict::Drop);
        let state = |mask| Expression::AnyBit { field: Field::CtState, mask };
        let from = Expression::Compare { field: Field::SourceV4, not: false, value: ADDRESS.octets().to_vec() };
        for (chain, hook) in [("in", Hook::Input), ("out", Hook::Output)] {
            batch.add_chain(chain, Some(Base { kind: ChainKind::Filter, hook, priority: 0, drop: false }));
            batch.add_rule(chain, Place::Last, "", &[state(INVALID), dropped()]);
            let unasked = [Expression::family(Family::Ip), from.clone(), state(NEW), dropped()];
            batch.add_rule(chain, Place::Last, "", &unasked);
        }
        lab.inside(|| Socket::open().unwrap().commit(batch).unwrap());
        let client = lab.inside(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.connect((ADDRESS, 53)).unwrap();
        assert_eq!(addresses(&ask(&mut resolver, &client, lab.now, "web", RecordType::A)), ["10.9.0.2"]);
        let mut stream = lab.inside(|| TcpStream::connect((ADDRESS, 53)).unwrap());
        send_framed(&mut stream, &query("web", RecordType::A).to_vec().unwrap());
        run(&mut resolver, lab.now);
        assert!(receive_framed(&mut stream).is_some());
    });
}

/// A program of the container, while the resolver works.
fn output(lab: &Lab, resolver: &mut Resolver, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = lab.inside(|| command.spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() && Instant::now() < end {
        if ready(resolver, Duration::from_millis(20)) {
            resolver.on_ready(Instant::now());
        }
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn root_nslookup_understands_us() {
    lab(|lab| {
        if hull_testkit::tier::tool("busybox").is_none() {
            return;
        }
        lab.connect("web", 2);
        let mut resolver = lab.resolver();
        redirect(lab.container.as_fd(), resolver.port()).unwrap();
        let text = output(&lab, &mut resolver, &["busybox", "nslookup", "web", "127.0.0.11"]);
        assert!(text.contains("10.9.0.2") && text.contains("fd00:9::2"), "{text}");
        let text = output(&lab, &mut resolver, &["busybox", "nslookup", "10.9.0.2", "127.0.0.11"]);
        assert!(text.contains("web.backend"), "{text}");
    });
}

#[test]
fn root_dig_understands_us() {
    lab(|lab| {
        if hull_testkit::tier::tool("dig").is_none() {
            return;
        }
        lab.connect("web", 2);
        let mut resolver = lab.resolver();
        redirect(lab.container.as_fd(), resolver.port()).unwrap();
        // With EDNS and a cookie; dig warns of everything that it finds strange.
        let text = output(&lab, &mut resolver, &["dig", "@127.0.0.11", "web", "+cookie"]);
        assert!(text.contains("10.9.0.2") && text.contains("status: NOERROR") && text.contains("EDNS"), "{text}");
        assert!(!text.contains("WARNING") && !text.contains("malformed"), "{text}");
        for words in [&["web", "AAAA", "+tcp", "+short"][..], &["web.backend", "AAAA", "+noedns", "+short"]] {
            let text = output(&lab, &mut resolver, &[&["dig", "@127.0.0.11"], words].concat());
            assert_eq!(text.trim(), "fd00:9::2", "{words:?}");
        }
        let text = output(&lab, &mut resolver, &["dig", "@127.0.0.11", "-x", "fd00:9::2", "+short"]);
        assert_eq!(text.trim(), "web.backend.");
    });
}
