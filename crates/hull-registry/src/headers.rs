//! Headers of the distribution protocol: `Range`, `Content-Range`, `Link`, `Retry-After`. Pure, and read strictly: a
//! server's word about where bytes belong decides what is written.

use std::time::Duration;

/// The longest wait that a server is granted.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// `Content-Range: bytes FIRST-LAST/LENGTH` of an answer (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
    /// Length of the whole, unless the server does not know.
    pub length: Option<u64>,
}

impl ContentRange {
    /// Parses the header; `None` for what makes no sense.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (range, length) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let length = if length == "*" { None } else { Some(number(length)?) };
        (first <= last && length.is_none_or(|length| last < length)).then_some(Self { first, last, length })
    }
}

/// The range of an upload, which the distribution protocol writes without a unit: `0-1023`.
#[must_use]
pub fn upload_range(header: &str) -> Option<(u64, u64)> {
    let text = header.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No range, or one in a form that RFC 9110 lets a server ignore.
    All,
    /// Offsets of the first and the last byte, within the content.
    Part(u64, u64),
    /// Nothing of the content is in the range: 416.
    Unsatisfiable,
}

/// Reads `Range` of a request for content of this length (RFC 9110 section 14.2). Several ranges at once are ignored.
#[must_use]
pub fn wanted(header: Option<&str>, length: u64) -> Wanted {
    let Some(range) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Wanted::All };
    let Some((first, last)) = range.split_once('-') else { return Wanted::All };
    match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            None => Wanted::All,
            Some(suffix) if suffix == 0 || length == 0 => Wanted::Unsatisfiable,
            Some(suffix) => Wanted::Part(length.saturating_sub(suffix), length - 1),
        },
        (first, last) => {
            let (Some(first), Some(last)) =
                (number(first), if last.is_empty() { Some(u64::MAX) } else { number(last) })
            else {
                return Wanted::All;
            };
            if first > last {
                Wanted::All
            } else if first >= length {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(first, last.min(length - 1))
            }
        }
    }
}

/// The target of `Link: <...>; rel="next"` (RFC 8288).
#[must_use]
pub fn next_link(header: &str) -> Option<&str> {
    header.split(",<").find_map(|link| {
        let link = link.trim().trim_start_matches('<');
        let (target, parameters) = link.split_once('>')?;
        let next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim();
            let value = parameter.strip_prefix("rel=").or_else(|| parameter.strip_prefix("REL="));
            value.is_some_and(|value| value.trim_matches('"').split(' ').any(|word| word.eq_ignore_ascii_case("next")))
        });
        (next && !target.is_empty()).then_some(target)
    })
}

/// `Retry-After` in seconds; a date is answered by a short wait, as clocks differ. At most five minutes.
#[must_use]
pub fn retry_after(header: &str) -> Option<Duration> {
    let text = header.trim();
    if let Some(seconds) = number(text) {
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    text.ends_with("GMT").then_some(Duration::from_secs(5))
}

/// Digits only: no sign, no spaces, no overflow.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_of_answers() {
        let range = |text| ContentRange::parse(text).map(|range| (range.first, range.last, range.length));
        assert_eq!(range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes 9-5/10", "bytes 5-10/10", "bytes */10", "bytes -5-9/10", "bytes +5-9/10", "5-9/10"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_of_requests() {
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-"), 10), Wanted::Part(0, 9));
        assert_eq!(wanted(Some("bytes=3-4"), 10), Wanted::Part(3, 4));
        assert_eq!(wanted(Some("bytes=3-99"), 10), Wanted::Part(3, 9));
        assert_eq!(wanted(Some("bytes=-3"), 10), Wanted::Part(7, 9));
        assert_eq!(wanted(Some("bytes=10-"), 10), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=-0"), 10), Wanted::Unsatisfiable);
        assert_eq!(wanted(Some("bytes=0-1,3-4"), 10), Wanted::All);
        assert_eq!(wanted(Some("lines=0-1"), 10), Wanted::All);
    }

    #[test]
    fn ranges_of_uploads() {
        assert_eq!(upload_range("0-1023"), Some((0, 1023)));
        assert_eq!(upload_range("bytes=0-1023"), Some((0, 1023)));
        assert_eq!(upload_range("5-4"), None);
    }

    #[test]
    fn the_next_page() {
        assert_eq!(next_link(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#), Some("/v2/a/tags/list?n=2&last=b"));
        assert_eq!(next_link(r#"<x>; rel="prev",<y>; rel=next"#), Some("y"));
        assert_eq!(next_link(r#"<x>; rel="prev""#), None);
        assert_eq!(next_link("nonsense"), None);
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("99999999999"), Some(MAX_WAIT));
        assert_eq!(retry_after("-1"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_part_lies_within_the_content(header in "bytes=[0-9]{0,20}-[0-9]{0,20}", length in 0_u64..1000) {
            if let Wanted::Part(first, last) = wanted(Some(&header), length) {
                prop_assert!(first <= last && last < length);
            }
        }

        #[test]
        fn nothing_panics(header in ".{0,60}") {
            let _ = (ContentRange::parse(&header), upload_range(&header), next_link(&header), retry_after(&header));
        }
    }
}
