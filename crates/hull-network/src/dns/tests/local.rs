//! Names of the container's own networks.

use super::*;
use crate::dns::leave;

#[test]
fn root_names_follow_who_is_connected() {
    lab(|lab| {
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let now = lab.now;
        // Neither the machine's server nor anyone else answers.
        let missing = ask(&mut resolver, &client, now, "web", RecordType::A);
        assert_eq!(missing.metadata.response_code, ResponseCode::ServFail);
        lab.connect("web", 2);
        for name in ["web", "WEB.", "web.backend", "Web.Backend.", "shared"] {
            let answer = ask(&mut resolver, &client, now, name, RecordType::A);
            assert_eq!(addresses(&answer), ["10.9.0.2"], "{name}");
            assert_eq!(addresses(&ask(&mut resolver, &client, now, name, RecordType::AAAA)), ["fd00:9::2"], "{name}");
        }
        lab.connect("db", 3);
        let both = ask(&mut resolver, &client, now, "shared", RecordType::A);
        assert_eq!(addresses(&both), ["10.9.0.2", "10.9.0.3"]);
        let name = "3.0.9.10.in-addr.arpa";
        let answer = ask(&mut resolver, &client, now, name, RecordType::PTR);
        assert_eq!(answer.answers[0].data.to_string(), "db.backend.");
        let name = crate::dns::reverse("fd00:9::3".parse().unwrap());
        let answer = ask(&mut resolver, &client, now, &name, RecordType::PTR);
        assert_eq!(answer.answers[0].data.to_string(), "db.backend.");
        let answer = ask(&mut resolver, &client, now, "_http._tcp.db", RecordType::SRV);
        assert_eq!(answer.answers[0].data.to_string(), "0 0 8080 db.");
        let answer = ask(&mut resolver, &client, now, "db", RecordType::MX);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
        leave(&lab.network, "id-web").unwrap();
        assert_eq!(addresses(&ask(&mut resolver, &client, now, "shared", RecordType::A)), ["10.9.0.3"]);
        let gone = ask(&mut resolver, &client, now, "web", RecordType::A);
        assert_eq!(gone.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(resolver.deadline(), None);
    });
}

#[test]
fn root_connecting_changes_what_a_running_container_sees() {
    lab(|lab| {
        lab.connect("web", 2);
        let outside = Settings { networks: Vec::new(), forward: false, ..Settings::default() };
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let mut code = |name: &str| ask(&mut resolver, &client, lab.now, name, RecordType::A).metadata.response_code;
        assert_eq!(code("web"), ResponseCode::NoError);
        outside.write(&lab.settings_file).unwrap();
        assert_eq!(code("web"), ResponseCode::ServFail);
        let linked = Settings { links: vec![("Front".into(), "web".into())], ..lab.settings.clone() };
        linked.write(&lab.settings_file).unwrap();
        assert_eq!(code("front"), ResponseCode::NoError);
    });
}

#[test]
fn root_queries_over_tcp_come_in_pieces_and_several_at_once() {
    lab(|lab| {
        lab.connect("web", 2);
        for n in 10..210 {
            let member = Member {
                container: format!("many{n}"),
                network: "backend".into(),
                names: vec!["many".into()],
                addresses: vec![Ipv4Addr::new(10, 9, 1, n).into()],
                services: Vec::new(),
            };
            join(&lab.network, &member).unwrap();
        }
        let mut resolver = lab.resolver();
        let now = lab.now;
        let client = lab.client(&resolver);
        let cut = ask(&mut resolver, &client, now, "many", RecordType::A);
        assert!(cut.metadata.truncation);
        let mut stream = lab.stream(&resolver);
        stream.set_nodelay(true).unwrap();
        let first = query("many", RecordType::A).to_vec().unwrap();
        let second = query("web", RecordType::AAAA).to_vec().unwrap();
        let mut bytes = Vec::new();
        for part in [&first, &second] {
            bytes.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(part);
        }
        for chunk in bytes.chunks(7) {
            stream.write_all(chunk).unwrap();
            run(&mut resolver, now);
        }
        let many = Message::from_vec(&receive_framed(&mut stream).unwrap()).unwrap();
        assert_eq!((many.answers.len(), many.metadata.truncation), (200, false));
        let web = Message::from_vec(&receive_framed(&mut stream).unwrap()).unwrap();
        assert_eq!(addresses(&web), ["fd00:9::2"]);
        drop(stream);
        run(&mut resolver, now);
        assert_eq!(resolver.load(), (0, 0, 0));
        assert_eq!(resolver.deadline(), None);
    });
}

#[test]
fn root_idle_connections_end_and_new_ones_find_room() {
    lab(|lab| {
        let mut resolver = lab.resolver();
        let start = lab.now;
        let mut first = lab.stream(&resolver);
        run(&mut resolver, start);
        assert_eq!(resolver.deadline(), Some(start + Duration::from_secs(10)));
        run(&mut resolver, start + Duration::from_secs(9));
        assert_eq!(resolver.load().2, 1);
        run(&mut resolver, start + Duration::from_secs(10));
        assert_eq!(resolver.load().2, 0);
        assert!(receive_framed(&mut first).is_none());
        let mut streams = Vec::new();
        for n in 0..40 {
            streams.push(lab.stream(&resolver));
            run(&mut resolver, start + Duration::from_secs(20) + Duration::from_millis(n));
        }
        assert_eq!(resolver.load().2, 32);
        // The latest are served; the oldest had to go.
        lab.connect("web", 2);
        send_framed(&mut streams[39], &query("web", RecordType::A).to_vec().unwrap());
        run(&mut resolver, start + Duration::from_secs(21));
        assert!(receive_framed(&mut streams[39]).is_some());
        assert!(receive_framed(&mut streams[0]).is_none());
    });
}
