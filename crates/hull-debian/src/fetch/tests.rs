use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use hull_oci::Digest;

use super::*;
use crate::apt::Conf;

type Log = Arc<Mutex<Vec<String>>>;

/// A server on the loopback device. Each answer is made from the request's first line and range.
fn server(answer: impl Fn(&str, Option<u64>) -> Vec<u8> + Send + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let log = Log::default();
    let seen = Arc::clone(&log);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let (mut first, mut range, mut line) = (String::new(), None, String::new());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                let text = line.trim().to_ascii_lowercase();
                if first.is_empty() {
                    first = line.trim().to_owned();
                } else if let Some(start) = text.strip_prefix("range: bytes=") {
                    range = start.trim_end_matches('-').parse().ok();
                }
                seen.lock().expect("log").push(line.trim().to_owned());
                line.clear();
            }
            let _ = stream.write_all(&answer(&first, range));
        }
    });
    (format!("http://{address}"), log)
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn client() -> Client {
    Client::new(Proxies::new(&Conf::default(), &|_| None))
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { size: bytes.len() as u64, sha256: Digest::of(bytes).hex().to_owned() }
}

struct Place {
    dir: tempfile::TempDir,
    cache: Cache,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("work")).expect("create directory");
    let cache = Cache::new(&dir.path().join("cache"), &dir.path().join("work")).expect("cache");
    Place { dir, cache }
}

impl Place {
    fn get(&self, url: &str, wanted: &Wanted) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut file = self.cache.get(&client(), &[url.to_owned()], wanted, &AtomicU64::new(0))?;
        file.read_to_end(&mut bytes).expect("read");
        Ok(bytes)
    }

    fn left(&self) -> usize {
        fs::read_dir(self.dir.path().join("work")).expect("read").count()
    }
}

#[test]
fn redirections_and_statuses() {
    let (base, _) = server(|first, _| match first.split(' ').nth(1) {
        Some("/a/one") => reply("302 Found", "Location: two\r\n", b""),
        Some("/a/two") => reply("301 Moved", "Location: /b\r\n", b""),
        Some("/b") => reply("200 OK", "", b"content"),
        Some("/loop") => reply("302 Found", "Location: /loop\r\n", b""),
        Some("/file") => reply("302 Found", "Location: file:///etc/passwd\r\n", b""),
        _ => reply("404 Not Found", "", b"no"),
    });
    assert_eq!(client().read(&format!("{base}/a/one"), 100).expect("followed"), b"content");
    assert!(client().read(&format!("{base}/b"), 3).expect_err("long").to_string().contains("longer than 3"));
    for (path, said) in [("/loop", "too many"), ("/file", "file:///etc/passwd"), ("/x", "404")] {
        let error = client().read(&format!("{base}{path}"), 100).expect_err(path).to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{error}");
    }
    let missing = client().read(&format!("{base}/x"), 100);
    assert!(matches!(missing, Err(Error::Download { missing: true, .. })));
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let body: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    let sent = body.clone();
    let (base, log) = server(move |_, range| {
        let start = usize::try_from(range.unwrap_or(0)).expect("small");
        let left = &sent[start..];
        let status = if start == 0 {
            "HTTP/1.1 200 OK".to_owned()
        } else {
            format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}", sent.len() - 1, sent.len())
        };
        // Only some of what is announced.
        let head = format!("{status}\r\nContent-Length: {}\r\n\r\n", left.len());
        [head.as_bytes(), &left[..left.len().min(90_000)]].concat()
    });
    let place = place();
    assert_eq!(place.get(&format!("{base}/f"), &wanted(&body)).expect("whole"), body);
    let asked: Vec<String> = log
        .lock()
        .expect("log")
        .iter()
        .filter(|line| line.to_ascii_lowercase().starts_with("range"))
        .cloned()
        .collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(place.left(), 0);
    // From now on it needs no server.
    assert_eq!(place.get("http://127.0.0.1:1/f", &wanted(&body)).expect("cached"), body);
    // Unless it was changed on disk.
    fs::write(place.cache.path(&wanted(&body)), vec![0; body.len()]).expect("write");
    assert!(place.get("http://127.0.0.1:1/f", &wanted(&body)).is_err());
    assert_eq!(place.get(&format!("{base}/f"), &wanted(&body)).expect("again"), body);
}

#[test]
fn wrong_bytes_are_not_kept() {
    let (base, _) = server(|first, _| match first.split(' ').nth(1) {
        Some("/other") => reply("200 OK", "", b"CONTENT"),
        Some("/long") => reply("200 OK", "", b"content and more"),
        _ => reply("200 OK", "", b"con"),
    });
    let place = place();
    for path in ["other", "long", "short"] {
        let error = place.get(&format!("{base}/{path}"), &wanted(b"content")).expect_err(path).to_string();
        assert!(error.contains("does not match: expected 7 bytes with sha256"), "{error}");
        assert_eq!(place.left(), 0, "{path}");
        assert_eq!(fs::read_dir(place.dir.path().join("cache")).expect("read").count(), 0, "{path}");
    }
}

#[test]
fn files_and_what_is_none() {
    let place = place();
    let path = place.dir.path().join("f");
    fs::write(&path, "content").expect("write");
    for url in [format!("file://{}", path.display()), format!("file:{}", path.display())] {
        assert_eq!(client().read(&url, 100).expect("read"), b"content");
    }
    let url = format!("file://{}", path.display());
    assert_eq!(place.get(&url, &wanted(b"content")).expect("saved"), b"content");
    assert!(place.get(&url, &wanted(b"longer content")).is_err());
    assert!(matches!(client().read("file:///no/such/file", 1), Err(Error::Download { missing: true, .. })));
    assert!(client().read("file:///dev/zero", 1).is_err());
    for url in ["ftp://x/y", "http://", "no address", "http://127.0.0.1:1/x"] {
        assert!(client().read(url, 1).is_err(), "{url}");
    }
}

#[test]
fn a_proxy_gets_the_whole_address_and_its_credentials() {
    let (base, log) = server(|_, _| reply("200 OK", "", b"by proxy"));
    let proxy = base.replace("http://", "http://user:secret@");
    let client = Client::new(Proxies::new(&Conf::default(), &|name| (name == "http_proxy").then(|| proxy.clone())));
    assert_eq!(client.read("http://mirror.example/debian/x", 100).expect("proxied"), b"by proxy");
    let log = log.lock().expect("log").clone();
    assert_eq!(log[0], "GET http://mirror.example/debian/x HTTP/1.1");
    let authorization = log.iter().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization"));
    assert!(authorization.is_some_and(|line| line.ends_with("Basic dXNlcjpzZWNyZXQ=")), "{log:?}");
}

#[test]
fn base64_as_rfc_4648_has_it() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}
