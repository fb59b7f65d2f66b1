//! `GET /containers/ID/logs`.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Arc;

use hull_engine::logs::{self, Entry, Options, Take};
use hull_engine::monitor::protocol;

use super::relay::frame;
use crate::api::Api;
use crate::http::{Reply, Request};
use crate::refusal::Refusal;

/// Entries of a log as they are shown, given to a function with whether they are error output.
pub(super) struct Written<'f> {
    pub(super) options: Options,
    pub(super) each: &'f mut dyn FnMut(bool, &[u8]) -> bool,
    pub(super) idle: &'f mut dyn FnMut() -> bool,
}

impl Take for Written<'_> {
    fn entry(&mut self, entry: &Entry) -> bool {
        let mut text = Vec::with_capacity(entry.text.len() + 32);
        logs::put(&mut text, entry, self.options);
        (self.each)(entry.stream == protocol::STDERR, &text)
    }

    fn idle(&mut self) -> bool {
        (self.idle)()
    }
}

/// `SECONDS[.NANOSECONDS]` since 1970, or any other form of a moment; nothing and zero are none.
pub(crate) fn moment(text: &str) -> Result<Option<u64>, Refusal> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !seconds.is_empty() && digits(seconds) && digits(rest) && rest.len() <= 9 {
        let nanoseconds: u64 = format!("{rest:0<9}").parse().unwrap_or(0);
        let seconds: u64 = seconds.parse().unwrap_or(u64::MAX);
        return Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)));
    }
    let wrong = |_| Refusal::failed(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    crate::images::moment(text).map(Some).map_err(wrong)
}

pub(super) fn logs(api: &Arc<Api>, request: &mut Request) -> Result<Reply, Refusal> {
    let query = &request.query;
    let (stdout, stderr) = (query.truth("stdout"), query.truth("stderr"));
    if !stdout && !stderr {
        return Err(Refusal::bad("Bad parameters: you must choose at least one stream"));
    }
    let container = api.container(request.param("id"))?;
    let options = Options {
        follow: query.truth("follow"),
        tail: query.text("tail").parse::<i64>().ok().and_then(|number| usize::try_from(number).ok()),
        timestamps: query.truth("timestamps"),
        details: query.truth("details"),
        since: moment(query.text("since"))?,
        until: moment(query.text("until"))?,
        stdout,
        stderr,
    };
    if !matches!(logs::driver(&container), "json-file" | "local") {
        return Err(hull_engine::Error::Unreadable.into());
    }
    let tty = container.config.tty;
    let kind = request.stream_kind(tty);
    let api = Arc::clone(api);
    Ok(Reply::stream(kind, move |stream| {
        let stream = RefCell::new(stream);
        let mut each = |error: bool, bytes: &[u8]| {
            let mut out = Vec::new();
            if tty {
                out.extend_from_slice(bytes);
            } else {
                frame(&mut out, error, bytes);
            }
            stream.borrow_mut().write_all(&out).is_ok()
        };
        let mut idle = || {
            let mut stream = stream.borrow_mut();
            stream.flush().is_ok() && !stream.is_gone()
        };
        let mut taker = Written { options, each: &mut each, idle: &mut idle };
        logs::read(&api.engine, &container, options, &mut taker).map_err(std::io::Error::other)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_docker_s() {
        assert_eq!(moment(""), Ok(None));
        assert_eq!(moment("0"), Ok(None));
        assert_eq!(moment("12.5"), Ok(Some(12_500_000_000)));
        assert_eq!(moment("12.000000005"), Ok(Some(12_000_000_005)));
        assert!(moment("yesterday").is_err());
    }
}
