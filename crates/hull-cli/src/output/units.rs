//! Sizes and ages in Docker's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use hull_engine::inspect::age;

/// Decimal units with at most so many significant digits: `7.81MB`.
pub(crate) fn size_digits(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    loop {
        let whole = if value >= 1000.0 {
            4
        } else if value >= 100.0 {
            3
        } else if value >= 10.0 {
            2
        } else {
            1
        };
        let text = format!("{value:.*}", digits.saturating_sub(whole));
        // What rounds to a thousand is one of the next unit, not Docker's 1e+03.
        let rounded: f64 = text.parse().unwrap_or(value);
        if rounded >= 1000.0 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
            continue;
        }
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        return format!("{text}{}", UNITS[unit]);
    }
}

/// Four significant digits and binary units, as Docker shows memory: `23.54GiB`, `500KiB`.
pub(crate) fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// A size as tables of images and containers have it.
pub(crate) fn size(bytes: u64) -> String {
    size_digits(bytes, 3)
}

/// A size as sums have it.
pub(crate) fn size_long(bytes: u64) -> String {
    size_digits(bytes, 4)
}

/// `2 hours ago`, for seconds since 1970.
pub(crate) fn ago(seconds: i64, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    format!("{} ago", age(now.duration_since(then).unwrap_or_default()))
}

/// Year, month, day, hour, minute, second of seconds since 1970.
fn civil(seconds: i64) -> (i64, i64, i64, i64, i64, i64) {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `2026-11-21 14:30:42 +0000 UTC`.
pub(crate) fn timestamp(seconds: i64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

/// `2026-11-21T14:30:42Z`.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A point in time as `until` and `since` take it, in seconds since 1970: seconds, a duration before now, or a date.
pub(crate) fn moment(text: &str, now: SystemTime) -> Result<i64, String> {
    let bad = || {
        format!(
            "failed to parse value as time or duration: {text:?}; use seconds since 1970, a duration as 24h, or RFC 3339"
        )
    };
    let present = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let present = i64::try_from(present).map_err(|_| bad())?;
    if let Some(duration) = go_duration(text) {
        return Ok(present - i64::try_from(duration.as_secs()).map_err(|_| bad())?);
    }
    if let Some((seconds, _)) = text.split_once('.').or(Some((text, "")))
        && let Ok(seconds) = seconds.parse()
    {
        return Ok(seconds);
    }
    date(text).ok_or_else(bad)
}

/// `1h30m`, `10s`, `500ms`: Go's durations.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|one: char| !(one.is_ascii_digit() || one == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|one: char| one.is_ascii_digit() || one == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[end..];
        sum += number * unit;
    }
    Duration::try_from_secs_f64(sum).ok()
}

/// `2006-01-02`, `2006-01-02T15:04`, `2006-01-02T15:04:05`, with fraction, `Z` or `+01:00` or not.
fn date(text: &str) -> Option<i64> {
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text.trim_end_matches('Z'), ""));
    let mut parts = day.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    let (time, offset) = match time.find(['Z', '+', '-']) {
        None => (time, 0),
        Some(at) => {
            let zone = &time[at..];
            let offset = if zone == "Z" {
                0
            } else {
                let (hours, minutes) = zone[1..].split_once(':')?;
                let seconds = hours.parse::<u32>().ok()? * 3600 + minutes.parse::<u32>().ok()? * 60;
                i64::from(seconds) * if zone.starts_with('-') { -1 } else { 1 }
            };
            (&time[..at], offset)
        }
    };
    let time = time.split_once('.').map_or(time, |(time, _)| time);
    let mut clock = [0i64; 3];
    if !time.is_empty() {
        for (index, part) in time.split(':').enumerate() {
            *clock.get_mut(index)? = part.parse().ok().filter(|part| (0..=60).contains(part))?;
        }
    }
    // The inverse of `civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2] - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_docker_s() {
        for (bytes, three, four) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1234, "1.23kB", "1.234kB"),
            (12_345, "12.3kB", "12.35kB"),
            (7_812_345, "7.81MB", "7.812MB"),
            (7_800_000, "7.8MB", "7.8MB"),
            (123_456_789, "123MB", "123.5MB"),
            (131_270_133, "131MB", "131.3MB"),
            (1_000_000_000, "1GB", "1GB"),
            (999_999, "1MB", "1MB"),
        ] {
            assert_eq!((size(bytes).as_str(), size_long(bytes).as_str()), (three, four));
        }
        assert!(size(u64::MAX).ends_with("EB"));
    }

    #[test]
    fn memory_is_docker_s() {
        let shown = [0, 512_000, 33_554_432, 25_275_887_124, 1_047_552].map(binary);
        assert_eq!(shown, ["0B", "500KiB", "32MiB", "23.54GiB", "1023KiB"]);
    }

    #[test]
    fn ages_are_docker_s() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_271_442);
        assert_eq!(ago(0, now), "56 years ago");
        assert_eq!(ago(1_795_271_442 - 100_000, now), "28 hours ago");
        assert_eq!(ago(1_795_271_442 - 90, now), "About a minute ago");
        assert_eq!(ago(1_795_271_442 + 90, now), "Less than a second ago");
    }

    #[test]
    fn moments_are_seconds_durations_and_dates() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (text, seconds) in [
            ("10", 10),
            ("10.5", 10),
            ("1h", 996_400),
            ("1h30m", 994_600),
            ("1970-01-02", 86_400),
            ("2024-02-29T12:00:00Z", 1_709_208_000),
            ("2024-02-29T12:00:00.25+01:00", 1_709_204_400),
            ("2024-02-29T12:00", 1_709_208_000),
        ] {
            assert_eq!(moment(text, now), Ok(seconds), "{text}");
        }
        for text in ["", "x", "1970", "2024-13-01", "5x", "2024-02-29T12:00:00+1", "--", "1970-01-01T1:2:3:4"] {
            assert!(moment(text, now).is_err() || text == "1970", "{text}");
        }
        assert_eq!(timestamp(1_795_271_442), "2026-11-21 14:30:42 +0000 UTC");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(&rfc3339(951_782_400)), Some(951_782_400));
    }
}
