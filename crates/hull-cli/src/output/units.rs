//! Sizes and ages in Docker's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use hull_engine::inspect::age;
pub(crate) use hull_engine::units::{binary, size, size_long};

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
    fn points_in_time_are_docker_s() {
        assert_eq!(timestamp(1_795_271_442), "2026-11-21 14:30:42 +0000 UTC");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
