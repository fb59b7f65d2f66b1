//! Names that others know.

use std::collections::BTreeSet;

use super::*;
use crate::dns::forward::PATIENCE;

#[test]
fn root_the_machines_loopback_server_is_asked_from_the_machine() {
    lab(|lab| {
        let machine = server(53);
        let decoy = lab.container_server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let (mut ports, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for n in 0..20 {
            let id = send(&client, "example.com", RecordType::A);
            run(&mut resolver, lab.now);
            let asked = asked(&machine).expect("a query");
            assert_eq!(asked.message.queries, query("example.com.", RecordType::A).queries);
            assert!(asked.message.metadata.recursion_desired);
            ports.insert(asked.from.port());
            ids.insert(asked.message.metadata.id);
            reply(&machine, &asked, ResponseCode::NoError, Some(n));
            run(&mut resolver, lab.now);
            let answer = receive(&client);
            assert_eq!((answer.metadata.id, addresses(&answer)), (id, vec![format!("192.0.2.{n}")]));
        }
        assert!(super::asked(&decoy).is_none());
        // Who cannot see the queries cannot guess the next one.
        assert!(ports.len() > 15 && ids.len() > 15, "{} ports, {} identifiers", ports.len(), ids.len());
        assert_eq!(resolver.load(), (0, 0, 0));
    });
}

#[test]
fn root_named_servers_are_asked_from_the_container_in_turn() {
    lab(|mut lab| {
        lab.settings.servers = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).into();
        let decoy = server(2);
        let servers = [2, 3, 4].map(|last| lab.container_server(last));
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        send(&client, "example.com", RecordType::A);
        for (server, code) in
            servers.iter().zip([ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain])
        {
            run(&mut resolver, lab.now);
            assert_silent(&client);
            reply(server, &asked(server).expect("a query"), code, None);
        }
        run(&mut resolver, lab.now);
        assert_eq!(receive(&client).metadata.response_code, ResponseCode::NXDomain);
        assert!(asked(&decoy).is_none());
        // A name that does not exist is an answer: nobody else is asked.
        send(&client, "example.org", RecordType::A);
        run(&mut resolver, lab.now);
        reply(&servers[0], &asked(&servers[0]).unwrap(), ResponseCode::NXDomain, None);
        run(&mut resolver, lab.now);
        assert_eq!(receive(&client).metadata.response_code, ResponseCode::NXDomain);
        assert!(asked(&servers[1]).is_none());
    });
}

#[test]
fn root_dead_servers_cost_four_seconds_each_and_are_asked_last() {
    lab(|mut lab| {
        lab.settings.servers = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).into();
        let servers = [2, 3, 4].map(|last| lab.container_server(last));
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let id = send(&client, "example.com", RecordType::A);
        run(&mut resolver, lab.now);
        for (server, round) in servers.iter().zip(0..3) {
            assert!(asked(server).is_some());
            let deadline = resolver.deadline().unwrap();
            assert_eq!(deadline, lab.now + PATIENCE * (round + 1));
            run(&mut resolver, deadline - Duration::from_millis(1));
            assert_silent(&client);
            run(&mut resolver, deadline);
        }
        let answer = receive(&client);
        assert_eq!((answer.metadata.id, answer.metadata.response_code), (id, ResponseCode::ServFail));
        assert_eq!(answer.queries.len(), 1);
        assert_eq!((resolver.load(), resolver.deadline()), ((0, 0, 0), None));

        // The second one is back: found after a while, and asked first from then on.
        let now = lab.now + PATIENCE * 4;
        send(&client, "example.com", RecordType::A);
        run(&mut resolver, now);
        assert!(asked(&servers[0]).is_some());
        run(&mut resolver, now + PATIENCE);
        reply(&servers[1], &asked(&servers[1]).unwrap(), ResponseCode::NoError, Some(1));
        run(&mut resolver, now + PATIENCE);
        assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);
        send(&client, "example.com", RecordType::A);
        run(&mut resolver, now + PATIENCE);
        assert!(asked(&servers[0]).is_none());
        reply(&servers[1], &asked(&servers[1]).unwrap(), ResponseCode::NoError, Some(2));
        run(&mut resolver, now + PATIENCE);
        assert_eq!(addresses(&receive(&client)), ["192.0.2.2"]);
    });
}

#[test]
fn root_servers_that_nobody_runs_are_passed_over_at_once() {
    lab(|lab| {
        // Nobody listens; no route; the last one answers.
        std::fs::write(&lab.host_file, "nameserver 127.0.0.9\nnameserver 192.0.2.1\nnameserver 127.0.0.53\n").unwrap();
        let machine = server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        send(&client, "example.com", RecordType::A);
        run(&mut resolver, lab.now);
        reply(&machine, &asked(&machine).unwrap(), ResponseCode::NoError, Some(7));
        run(&mut resolver, lab.now);
        assert_eq!(addresses(&receive(&client)), ["192.0.2.7"]);
        // The machine changes its servers.
        std::fs::write(&lab.host_file, "nameserver 127.0.0.9\n").unwrap();
        let refused = ask(&mut resolver, &client, lab.now, "example.com", RecordType::A);
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert!(asked(&machine).is_none());
    });
}

#[test]
fn root_internal_networks_leak_no_query() {
    lab(|mut lab| {
        lab.settings.forward = false;
        let machine = server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        lab.connect("web", 2);
        for name in ["example.com", "secret.attacker.example", "web.other", "1.0.0.10.in-addr.arpa"] {
            let answer = ask(&mut resolver, &client, lab.now, name, RecordType::A);
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        }
        let mut stream = lab.stream(&resolver);
        send_framed(&mut stream, &query("example.com", RecordType::TXT).to_vec().unwrap());
        run(&mut resolver, lab.now);
        let answer = Message::from_vec(&receive_framed(&mut stream).unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(asked(&machine).is_none());
        // Known names are never asked of others, whatever their type.
        Settings { forward: true, ..lab.settings.clone() }.write(&lab.settings_file).unwrap();
        for kind in [RecordType::HTTPS, RecordType::TXT, RecordType::ANY] {
            let answer = ask(&mut resolver, &client, lab.now, "web", kind);
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        }
        assert!(asked(&machine).is_none());
        // With ndots given, short names stay here too.
        Settings { single_labels: false, ..lab.settings.clone() }.write(&lab.settings_file).unwrap();
        let answer = ask(&mut resolver, &client, lab.now, "unknown", RecordType::A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    });
}

#[test]
fn root_forged_answers_change_nothing() {
    lab(|lab| {
        let machine = server(53);
        let other = server(54);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        send(&client, "example.com", RecordType::A);
        run(&mut resolver, lab.now);
        let asked = asked(&machine).unwrap();
        let good = answer_of(&asked.message, ResponseCode::NoError, Some(1)).to_vec().unwrap();
        // From elsewhere.
        other.send_to(&good, asked.from).unwrap();
        // Another identifier, another question, a query, too short, garbage.
        let mut wrong: Vec<Vec<u8>> = Vec::new();
        for (offset, bits) in [(0, 1), (1, 0x80), (13, 1), (good.len() - 20, 4), (2, 0x80)] {
            let mut bytes = good.clone();
            bytes[offset] ^= bits;
            if offset != good.len() - 20 {
                wrong.push(bytes);
            }
        }
        wrong.push(good[..11].to_vec());
        wrong.push(vec![0xff; 600]);
        let mut question = answer_of(&query("example.org", RecordType::A), ResponseCode::NoError, Some(66));
        question.metadata.id = asked.message.metadata.id;
        wrong.push(question.to_vec().unwrap());
        for bytes in wrong {
            machine.send_to(&bytes, asked.from).unwrap();
            run(&mut resolver, lab.now);
            assert_silent(&client);
        }
        machine.send_to(&good, asked.from).unwrap();
        run(&mut resolver, lab.now);
        assert_eq!(addresses(&receive(&client)), ["192.0.2.1"]);
        // What comes afterwards has no place to go.
        let _ = machine.send_to(&good, asked.from);
        run(&mut resolver, lab.now);
        assert_silent(&client);
    });
}

#[test]
fn root_long_answers_are_cut_for_who_cannot_take_them() {
    lab(|lab| {
        let machine = server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        for (edns, records, cut) in
            [(None, 20, false), (None, 60, true), (Some(1232), 60, false), (Some(4096), 300, true)]
        {
            let mut message = query("example.com", RecordType::A);
            if let Some(size) = edns {
                let mut edns = hickory_proto::op::Edns::new();
                edns.set_max_payload(size);
                message.set_edns(edns);
            }
            client.send(&message.to_vec().unwrap()).unwrap();
            run(&mut resolver, lab.now);
            let asked = asked(&machine).unwrap();
            assert_eq!(asked.message.edns.is_some(), edns.is_some());
            let mut answer = answer_of(&asked.message, ResponseCode::NoError, Some(0));
            for n in 1..records {
                let extra = answer_of(&asked.message, ResponseCode::NoError, Some(u8::try_from(n % 256).unwrap()));
                answer.add_answer(extra.answers[0].clone());
            }
            machine.send_to(&answer.to_vec().unwrap(), asked.from).unwrap();
            run(&mut resolver, lab.now);
            let got = receive(&client);
            assert_eq!(got.metadata.truncation, cut, "{records} records, {edns:?}");
            assert_eq!(got.answers.len(), if cut { 0 } else { records });
            assert_eq!(got.queries, message.queries);
        }
    });
}

#[test]
fn root_queries_over_tcp_are_forwarded_over_tcp() {
    lab(|mut lab| {
        lab.settings.servers = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last).into()).into();
        // The first one closes, the second one sends 60 KB in pieces.
        let listeners = [2, 3].map(|last| lab.inside(|| stream_server(last)));
        let mut resolver = lab.resolver();
        let mut stream = lab.stream(&resolver);
        let message = query("example.com", RecordType::TXT);
        send_framed(&mut stream, &message.to_vec().unwrap());
        run(&mut resolver, lab.now);
        let (mut first, _) = listeners[0].accept().unwrap();
        assert!(receive_framed(&mut first).is_some());
        drop(first);
        assert!(ready(&resolver, Duration::from_secs(20)));
        run(&mut resolver, lab.now);
        let (mut second, _) = listeners[1].accept().unwrap();
        let asked = Message::from_vec(&receive_framed(&mut second).unwrap()).unwrap();
        assert_eq!(asked.queries, message.queries);
        let mut answer = asked.into_response();
        for n in 0..230_u16 {
            let text = rdata::TXT::new(vec![format!("{n:0>250}")]);
            answer.add_answer(Record::from_rdata(message.queries[0].name().clone(), 1, RData::TXT(text)));
        }
        let bytes = answer.to_vec().unwrap();
        assert!(bytes.len() > 60_000);
        let framed = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
        for chunk in framed.chunks(9000) {
            second.write_all(chunk).unwrap();
            assert!(ready(&resolver, Duration::from_secs(20)));
            run(&mut resolver, lab.now);
        }
        let got = Message::from_vec(&receive_framed(&mut stream).unwrap()).unwrap();
        assert_eq!((got.metadata.id, got.answers.len()), (message.metadata.id, 230));
        assert_eq!(resolver.load(), (0, 0, 1));

        // A server that accepts and says nothing has 4 seconds, too; the first one is gone by now.
        drop(listeners);
        let listener = lab.inside(|| stream_server(2));
        send_framed(&mut stream, &message.to_vec().unwrap());
        run(&mut resolver, lab.now);
        let _silent = listener.accept().unwrap();
        run(&mut resolver, lab.now + PATIENCE);
        let got = Message::from_vec(&receive_framed(&mut stream).unwrap()).unwrap();
        assert_eq!(got.metadata.response_code, ResponseCode::ServFail);
    });
}
