//! Answers that are lines of JSON about something that takes its time: pulls, pushes, builds.
//!
//! The work runs on a thread of its own and says what it does through a queue. Nothing is answered before the first line:
//! what fails until then has a status of its own, and what fails later is the last line of an answer that began well.
//! The work goes on when its client has gone, unless it asks [`Lines::is_gone`], as pulls do.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{Reply, Stream};
use crate::refusal::Refusal;

/// Stack of a thread that works.
const STACK: usize = 1 << 20;

/// Where the lines go.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    sender: mpsc::Sender<Vec<u8>>,
    gone: Arc<AtomicBool>,
}

impl Lines {
    /// Says a document. Nobody may listen any more.
    pub(crate) fn say(&self, document: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(document) else { return };
        line.extend_from_slice(b"\r\n");
        if self.sender.send(line).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }

    /// `{"status": ...}`.
    pub(crate) fn status(&self, text: impl Into<String>) {
        self.say(&json!({ "status": text.into() }));
    }

    /// Whether the client has gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// The last line of something that failed.
pub(crate) fn failure(refusal: &Refusal) -> Value {
    let mut detail = json!({ "message": refusal.message });
    if let Some(code) = refusal.code.or((refusal.status == 401).then_some(401)) {
        detail["code"] = code.into();
    }
    json!({ "errorDetail": detail, "error": refusal.message })
}

/// Answers with what the work says.
///
/// # Errors
/// What the work returns before it has said anything.
pub(crate) fn reply(
    name: &str,
    work: impl FnOnce(&Lines) -> Result<(), Refusal> + Send + 'static,
) -> Result<Reply, Refusal> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    let gone = Arc::new(AtomicBool::new(false));
    let lines = Lines { sender, gone: Arc::clone(&gone) };
    let work = move || {
        let result = work(&lines);
        drop(lines);
        result
    };
    let failed = |error: std::io::Error| Refusal::failed(format!("start a thread: {error}"));
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map_err(failed)?;
    let end = move || thread.join().unwrap_or_else(|_| Err(Refusal::failed("internal error: the work broke off")));
    let Ok(first) = receiver.recv() else {
        return end().map(|()| Reply::bytes(200, "application/json", Vec::new()));
    };
    Ok(Reply::stream("application/json", move |stream| {
        let write = |stream: &mut Stream, line: &[u8]| {
            let written = stream.write_all(line).and_then(|()| stream.flush());
            if written.is_err() {
                gone.store(true, Ordering::Relaxed);
            }
            written
        };
        write(stream, &first)?;
        loop {
            match receiver.recv_timeout(std::time::Duration::from_millis(500)) {
                Ok(line) => write(stream, &line)?,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                // A client that goes while nothing is said is seen here.
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if stream.is_gone() {
                        gone.store(true, Ordering::Relaxed);
                        return Err(std::io::ErrorKind::BrokenPipe.into());
                    }
                }
            }
        }
        match end() {
            Ok(()) => Ok(()),
            Err(refusal) => stream.line(&failure(&refusal)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_before_the_first_line_has_a_status() {
        let refused = reply("test", |_| Err(Refusal::missing("no such thing"))).map(drop);
        assert_eq!(refused, Err(Refusal::missing("no such thing")));
        let answered = reply("test", |lines| {
            lines.status("begun");
            Err(Refusal::failed("later"))
        });
        assert!(answered.is_ok());
        assert_eq!(failure(&Refusal::failed("x"))["errorDetail"]["message"], "x");
    }
}
