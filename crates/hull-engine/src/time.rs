//! Moments and durations as Docker's commands spell them. Moments are nanoseconds since 1970, in UTC.

use std::time::{Duration, UNIX_EPOCH};

use hull_oci::time::{day as day_of, rfc3339_nanos, rfc3339_short};

/// Nanoseconds of a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// `2026-11-21T19:05:00.000000001Z`, always with nine digits.
#[must_use]
pub fn fixed(moment: u64) -> String {
    rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(moment))
}

/// The same without the zeros at the end of the fraction, as Go prints times.
#[must_use]
pub fn short(moment: u64) -> String {
    rfc3339_short(UNIX_EPOCH + Duration::from_nanos(moment))
}

/// Digits of a text, `count` of them, and what follows.
fn digits(text: &str, count: usize) -> Option<(u64, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?.map(|number| (number, rest))
}

/// A fraction of a second after its point.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    if number.is_empty() || number.len() > 9 {
        return None;
    }
    format!("{number:0<9}").parse().ok().map(|number| (number, rest))
}

/// A date, or a date and a time as exact as anybody likes, with or without a zone.
#[must_use]
pub fn date(text: &str) -> Option<u64> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, mut rest) = digits(rest.strip_prefix('-')?, 2)?;
    let mut seconds = day_of(year, month, day)?;
    let mut nanoseconds = 0;
    if let Some(time) = rest.strip_prefix('T') {
        let (hour, mut after) = digits(time, 2)?;
        let (mut minute, mut second) = (0, 0);
        if let Some(next) = after.strip_prefix(':') {
            (minute, after) = digits(next, 2)?;
            if let Some(next) = after.strip_prefix(':') {
                (second, after) = digits(next, 2)?;
                if let Some(next) = after.strip_prefix('.') {
                    (nanoseconds, after) = fraction(next)?;
                }
            }
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        seconds += i64::try_from(hour * 3600 + minute * 60 + second).ok()?;
        rest = after;
    }
    if let Some((sign, zone)) = rest.split_at_checked(1).filter(|(sign, _)| *sign == "+" || *sign == "-") {
        let (hours, after) = digits(zone, 2)?;
        let (minutes, after) = digits(after.strip_prefix(':')?, 2)?;
        let offset = i64::try_from(hours * 3600 + minutes * 60).ok()?;
        seconds += if sign == "+" { -offset } else { offset };
        rest = after;
    } else if let Some(after) = rest.strip_prefix('Z') {
        rest = after;
    }
    if !rest.is_empty() {
        return None;
    }
    u64::try_from(seconds).ok()?.checked_mul(SECOND)?.checked_add(nanoseconds)
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `300ms`, `0`. In nanoseconds.
#[must_use]
pub fn duration(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|one: char| !one.is_ascii_digit() && one != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|one: char| one.is_ascii_digit() || one == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.len() > 9 || part.contains('.') {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part = if part.is_empty() { 0 } else { fraction(part)?.0 };
        let part = u128::from(part) * u128::from(unit) / u128::from(SECOND);
        let sum = whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)?;
        total = total.checked_add(sum)?;
        rest = after;
    }
    Some(total)
}

/// What `--since` and `--until` take: a duration before `now` (after it with a minus), a date, or seconds since 1970
/// with or without a fraction.
///
/// # Errors
/// What was expected.
pub fn moment(text: &str, now: u64) -> Result<u64, String> {
    if let Some(ago) = duration(text) {
        return Ok(now.saturating_sub(ago));
    }
    if let Some(ahead) = text.strip_prefix('-').and_then(duration) {
        return Ok(now.saturating_add(ahead));
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = whole.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(SECOND));
        let moment = seconds.zip(fraction(part)).filter(|(_, (_, rest))| rest.is_empty());
        if let Some((seconds, (nanoseconds, _))) = moment {
            return Ok(seconds.saturating_add(nanoseconds));
        }
    }
    date(text).ok_or_else(|| {
        format!(
            "failed to parse value as time or duration: {text:?}; use one such as 2026-11-21T19:05:00Z, 1774119900, or 10m"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_moments() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2024-02-29", 1_709_164_800),
            ("2024-02-29T12:34", 1_709_210_040),
            ("2024-02-29T12:34:56", 1_709_210_096),
            ("2024-02-29T12:34:56Z", 1_709_210_096),
            ("2024-02-29T13:34:56+01:00", 1_709_210_096),
            ("2024-02-29Z", 1_709_164_800),
            ("2024-02-29T12Z", 1_709_208_000),
        ] {
            assert_eq!(date(text), Some(seconds * SECOND), "{text}");
        }
        assert_eq!(date("2024-02-29T12:34:56.5Z"), Some(1_709_210_096_500_000_000));
        for bad in ["", "2024", "2023-02-29", "2024-13-01", "2024-01-01T25:00", "2024-01-01X", "2024-01-01T1:2"] {
            assert_eq!(date(bad), None, "{bad}");
        }
        assert_eq!(short(1_709_210_096_500_000_000), "2024-02-29T12:34:56.5Z");
        assert_eq!(short(1_709_210_100 * SECOND), "2024-02-29T12:35:00Z");
        assert_eq!(date(&fixed(1_709_210_096_000_000_007)), Some(1_709_210_096_000_000_007));
    }

    #[test]
    fn moments_are_durations_seconds_or_dates() {
        let now = 1_000_000 * SECOND;
        assert_eq!(moment("10m", now), Ok(now - 600 * SECOND));
        assert_eq!(moment("1h30m1.5s", now), Ok(now - 5_401_500_000_000));
        assert_eq!(moment("0", now), Ok(now));
        assert_eq!(moment("-1s", now), Ok(now + SECOND));
        assert_eq!(moment("1136073600.000000001", now), Ok(1_136_073_600_000_000_001));
        assert_eq!(moment("1136073600", now), Ok(1_136_073_600 * SECOND));
        for bad in ["", "yesterday", "10", "1.2.3", "99999999999999999999", "h", "1d"] {
            let found = moment(bad, now);
            assert!(found.is_err() || bad == "10", "{bad}: {found:?}");
        }
    }
}
