//! What hostile or busy clients can cost.

use super::*;

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn root_queries_in_flight_are_bounded_and_all_end() {
    lab(|lab| {
        // It takes queries and answers none.
        let machine = server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        client.set_nonblocking(true).unwrap();
        let before = open_files();
        let (mut refused, mut sent) = (0, 0);
        for _ in 0..40 {
            for _ in 0..50 {
                send(&client, &format!("{}.example.com", "a".repeat(60)), RecordType::A);
                sent += 1;
            }
            run(&mut resolver, lab.now);
            while client.recv(&mut [0; 512]).is_ok() {
                refused += 1;
            }
            while asked(&machine).is_some() {}
        }
        let (flying, held, _) = resolver.load();
        assert_eq!(flying + refused, sent);
        assert!((256..=1024).contains(&flying), "{flying}");
        assert!(held <= 256 << 10, "{held}");
        assert!(open_files() <= before + flying);
        run(&mut resolver, lab.now + Duration::from_secs(4));
        while client.recv(&mut [0; 512]).is_ok() {
            refused += 1;
        }
        // The client's own queue of received answers is bounded too.
        assert!(refused > sent / 3, "{refused} of {sent}");
        assert_eq!((resolver.load(), resolver.deadline()), ((0, 0, 0), None));
        assert_eq!(open_files(), before);
    });
}

#[test]
fn root_queries_of_the_greatest_length_are_bounded_by_their_bytes() {
    lab(|lab| {
        let _machine = server(53);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let mut long = query("example.com", RecordType::A).to_vec().unwrap();
        // One unknown record behind the question.
        long[11] = 1;
        long.extend_from_slice(&[0, 0xff, 0xf0, 0, 1, 0, 0, 0, 0]);
        let rest = 1232 - long.len() - 2;
        long.extend_from_slice(&u16::try_from(rest).unwrap().to_be_bytes());
        long.resize(1232, 0);
        for _ in 0..400 {
            client.send(&long).unwrap();
            run(&mut resolver, lab.now);
        }
        let (flying, held, _) = resolver.load();
        assert!(flying > 150 && held <= 256 << 10, "{flying} {held}");
        // One byte more is malformed.
        let client = lab.client(&resolver);
        long.push(0);
        client.send(&long).unwrap();
        run(&mut resolver, lab.now);
        assert_eq!(receive(&client).metadata.response_code, ResponseCode::FormErr);
    });
}

#[test]
fn root_garbage_leaves_the_resolver_as_it_was() {
    lab(|lab| {
        lab.connect("web", 2);
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        // The first query opens the table.
        ask(&mut resolver, &client, lab.now, "web", RecordType::A);
        let before = open_files();
        let good = query("web", RecordType::A).to_vec().unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap()
        };
        for round in 0..3000 {
            let mut packet = good.clone();
            match round % 4 {
                0 => packet = (0..next() % 300).map(|_| u8::try_from(next() % 256).unwrap()).collect(),
                1 => packet.truncate(next() % good.len()),
                2 => packet.resize(next() % 9000, 0xc0),
                _ => {}
            }
            for _ in 0..next() % 4 {
                let length = packet.len();
                if length > 0 {
                    packet[next() % length] = u8::try_from(next() % 256).unwrap();
                }
            }
            let _ = client.send(&packet);
            if round % 50 == 0 {
                run(&mut resolver, lab.now);
                let mut stream = lab.stream(&resolver);
                let _ = stream.write_all(&packet);
                run(&mut resolver, lab.now);
            }
        }
        run(&mut resolver, lab.now + Duration::from_secs(5));
        run(&mut resolver, lab.now + Duration::from_secs(30));
        assert_eq!((resolver.load(), resolver.deadline()), ((0, 0, 0), None));
        assert_eq!(open_files(), before);
        let client = lab.client(&resolver);
        assert_eq!(addresses(&ask(&mut resolver, &client, lab.now, "web", RecordType::A)), ["10.9.0.2"]);
    });
}

#[test]
fn root_clients_that_do_not_read_or_flood_are_cut_off() {
    lab(|lab| {
        let mut resolver = lab.resolver();
        // Never a whole query, and one that is too long.
        let mut drip = lab.stream(&resolver);
        drip.write_all(&[0]).unwrap();
        let mut long = lab.stream(&resolver);
        long.write_all(&[0x10, 0x00, 1]).unwrap();
        run(&mut resolver, lab.now);
        assert_eq!(resolver.load().2, 1);
        assert!(receive_framed(&mut long).is_none());
        run(&mut resolver, lab.now + Duration::from_secs(9));
        drip.write_all(&[20]).unwrap();
        run(&mut resolver, lab.now + Duration::from_secs(10));
        assert_eq!(resolver.load().2, 0);
        // More unanswered queries than one connection may have.
        std::fs::write(&lab.host_file, "nameserver 127.0.0.53\n").unwrap();
        let _listener = stream_server(53);
        let mut flood = lab.stream(&resolver);
        for _ in 0..40 {
            send_framed(&mut flood, &query("example.com", RecordType::A).to_vec().unwrap());
        }
        run(&mut resolver, lab.now);
        assert_eq!(resolver.load().2, 0);
    });
}

#[test]
fn root_ten_thousand_queries_leave_nothing() {
    lab(|lab| {
        for n in 0..200 {
            lab.connect(&format!("c{n}"), n);
        }
        let mut resolver = lab.resolver();
        let client = lab.client(&resolver);
        let packets: Vec<Vec<u8>> =
            (0..200).map(|n| query(&format!("c{n}"), RecordType::A).to_vec().unwrap()).collect();
        ask(&mut resolver, &client, lab.now, "c0", RecordType::A);
        let before = (open_files(), threads());
        let mut bytes = [0; 512];
        let start = Instant::now();
        for _ in 0..50 {
            for batch in packets.chunks(20) {
                for packet in batch {
                    client.send(packet).unwrap();
                }
                run(&mut resolver, lab.now);
                for _ in batch {
                    let length = client.recv(&mut bytes).unwrap();
                    assert_eq!((bytes[3] & 15, bytes[7]), (0, 1), "{length}");
                }
            }
        }
        let rate = 10_000.0 / start.elapsed().as_secs_f64();
        println!("{rate:.0} queries a second, of a network with 200 containers");
        assert_eq!((open_files(), threads()), before);
        assert_eq!((resolver.load(), resolver.deadline()), ((0, 0, 0), None));
    });
}
