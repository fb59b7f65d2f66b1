//! The cache service of GitHub Actions, version 2, and its storage, as far as clients use them.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

use crate::registry::{Seen, request};

/// A service that keeps what it is given; only requests with its token are answered.
#[derive(Debug)]
pub struct Actions {
    /// The port on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    token: String,
    entries: Vec<Entry>,
    /// Requests that contain this text are answered so, once each.
    faults: Vec<(String, u16)>,
    seen: Vec<String>,
}

#[derive(Debug, Default)]
struct Entry {
    key: String,
    version: String,
    blocks: Vec<(String, Vec<u8>)>,
    bytes: Vec<u8>,
    whole: bool,
}

impl Actions {
    /// Starts one.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let state = Arc::new(Mutex::new(State { token: token.to_owned(), ..State::default() }));
        let served = state.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let served = served.clone();
                thread::spawn(move || {
                    // The test sees what the client makes of a broken connection.
                    let _ = serve(stream, port, &served);
                });
            }
        });
        Self { port, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and contents of what is whole, in the order of their beginning.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let whole = |entry: &Entry| entry.whole.then(|| (entry.key.clone(), entry.bytes.clone()));
        self.state().entries.iter().filter_map(whole).collect()
    }

    /// Changes what entries hold whose names begin so.
    pub fn change(&self, beginning: &str, how: impl Fn(&mut Vec<u8>)) {
        self.state()
            .entries
            .iter_mut()
            .filter(|one| one.key.starts_with(beginning))
            .for_each(|one| how(&mut one.bytes));
    }

    /// The next request whose method and target contain this text is answered by a status alone.
    pub fn fail(&self, text: &str, status: u16) {
        self.state().faults.push((text.to_owned(), status));
    }

    /// Takes what has been asked so far: methods and targets.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state().seen)
    }
}

fn serve(stream: TcpStream, port: u16, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some((seen, length)) = request(&mut reader)? {
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let (status, headers, body) = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.seen.push(seen.line.clone());
            match state.faults.iter().position(|(text, _)| seen.line.contains(text.as_str())) {
                Some(at) => (state.faults.remove(at).1, String::new(), Vec::new()),
                None => answer(&mut state, &seen, &body, port),
            }
        };
        write!(writer, "HTTP/1.1 {status} Answer\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
        writer.write_all(&body)?;
    }
    Ok(())
}

fn answer(state: &mut State, seen: &Seen, body: &[u8], port: u16) -> (u16, String, Vec<u8>) {
    let nothing = |status: u16| (status, String::new(), Vec::new());
    let (method, target) = seen.line.split_once(' ').unwrap_or((&seen.line, ""));
    if let Some((_, call)) = target.split_once("/twirp/github.actions.results.api.v1.CacheService/") {
        if method != "POST" || seen.header("authorization") != Some(&format!("Bearer {}", state.token)) {
            return (401, String::new(), br#"{"code":"unauthenticated","msg":"who are you"}"#.to_vec());
        }
        let asked: Value = serde_json::from_slice(body).unwrap_or_default();
        let (status, answer) = called(state, call, &asked, port);
        return (status, "Content-Type: application/json\r\n".to_owned(), answer.to_string().into_bytes());
    }
    // Whoever has the address may: nobody sends the token here.
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let number = path.strip_prefix("/storage/").and_then(|number| number.parse::<usize>().ok());
    let signed = query.split('&').any(|pair| pair == "sig=secret");
    let Some(entry) = number.and_then(|number| state.entries.get_mut(number)) else { return nothing(404) };
    if !signed || seen.header("authorization").is_some() {
        return nothing(403);
    }
    let field = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    match (method, field("comp")) {
        ("PUT", None) if seen.header("x-ms-blob-type") == Some("BlockBlob") => {
            entry.bytes = body.to_vec();
            nothing(201)
        }
        ("PUT", Some("block")) => {
            let id = field("blockid").unwrap_or_default().replace("%3D", "=");
            entry.blocks.retain(|(known, _)| *known != id);
            entry.blocks.push((id, body.to_vec()));
            nothing(201)
        }
        ("PUT", Some("blocklist")) => {
            let text = String::from_utf8_lossy(body);
            let ids = text.split("<Latest>").skip(1).filter_map(|rest| rest.split("</Latest>").next());
            let block = |id: &str| entry.blocks.iter().find(|(known, _)| known == id).map(|(_, bytes)| bytes.clone());
            match ids.map(block).collect::<Option<Vec<_>>>() {
                Some(blocks) => {
                    entry.bytes = blocks.concat();
                    nothing(201)
                }
                None => nothing(400),
            }
        }
        ("GET", None) => {
            let first = seen.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            match first.and_then(|first| first.parse::<usize>().ok()) {
                Some(first) => (206, String::new(), entry.bytes.get(first..).unwrap_or_default().to_vec()),
                None => (200, String::new(), entry.bytes.clone()),
            }
        }
        _ => nothing(400),
    }
}

fn called(state: &mut State, call: &str, asked: &Value, port: u16) -> (u16, Value) {
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let (key, version) = (text("key"), text("version"));
    let address = |number: usize| format!("http://127.0.0.1:{port}/storage/{number}?sig=secret");
    match call {
        "CreateCacheEntry" => {
            if state.entries.iter().any(|one| one.key == key && one.version == version) {
                return (409, json!({"code": "already_exists", "msg": "cache entry already exists"}));
            }
            state.entries.push(Entry { key, version, ..Entry::default() });
            (200, json!({"ok": true, "signed_upload_url": address(state.entries.len() - 1)}))
        }
        "FinalizeCacheEntryUpload" => {
            let size = text("size_bytes").parse::<usize>().ok();
            let found = state.entries.iter_mut().enumerate().find(|(_, one)| one.key == key && one.version == version);
            match found {
                Some((number, entry)) if size == Some(entry.bytes.len()) => {
                    entry.whole = true;
                    (200, json!({"ok": true, "entry_id": number.to_string()}))
                }
                _ => (200, json!({"ok": false})),
            }
        }
        "GetCacheEntryDownloadURL" => {
            let prefixes: Vec<&str> =
                asked["restore_keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let whole = |(_, one): &(usize, &Entry)| one.whole && one.version == version;
            let exact = state.entries.iter().enumerate().filter(whole).find(|(_, one)| one.key == key);
            let newest = |prefix: &&str| {
                let mut fitting = state.entries.iter().enumerate().rev().filter(whole);
                fitting.find(|(_, one)| one.key.starts_with(*prefix))
            };
            match exact.or_else(|| prefixes.iter().find_map(newest)) {
                Some((number, entry)) => {
                    (200, json!({"ok": true, "signed_download_url": address(number), "matched_key": entry.key}))
                }
                None => (200, json!({"ok": false, "signed_download_url": "", "matched_key": ""})),
            }
        }
        _ => (404, json!({"code": "bad_route", "msg": "no such method"})),
    }
}
