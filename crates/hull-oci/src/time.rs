//! Moments and the calendar in UTC (RFC 3339), as images, records and Docker's commands write them.
//!
//! Years are those from 0 to 9999, which RFC 3339 can write; a moment outside becomes the nearest that is inside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime};

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// The date and time of day of seconds since 1970.
#[must_use]
pub fn civil(seconds: i64) -> OffsetDateTime {
    let seconds = seconds.clamp(*YEARS.start(), *YEARS.end());
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Seconds from 1970 to the beginning of a day; `None` if there is no such day.
#[must_use]
pub fn day(year: u64, month: u64, day: u64) -> Option<i64> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    Some(date.midnight().assume_utc().unix_timestamp())
}

/// `2026-11-21T14:30:42Z`, of seconds since 1970.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let at = civil(seconds);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

/// The same without the fraction of its second. What is before 1970 becomes 1970.
#[must_use]
pub fn rfc3339_whole(time: SystemTime) -> String {
    rfc3339(i64::try_from(since_1970(time).as_secs()).unwrap_or(i64::MAX))
}

/// The same with nine digits of fraction, zeros too. What is before 1970 becomes 1970.
#[must_use]
pub fn rfc3339_nanos(time: SystemTime) -> String {
    format!("{}.{:09}Z", rfc3339_whole(time).trim_end_matches('Z'), since_1970(time).subsec_nanos())
}

/// That without the zeros at the end of the fraction, as Go prints times.
#[must_use]
pub fn rfc3339_short(time: SystemTime) -> String {
    let text = rfc3339_nanos(time);
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// Seconds since 1970 of a text such as `2024-05-01T12:34:56.789Z` or one with an offset; fractions are dropped.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !text.is_ascii() || separators.iter().any(|(at, separator)| bytes.get(*at) != Some(separator)) {
        return None;
    }
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let midnight = day(number(0..4)?, number(5..7)?, number(8..10)?)?;
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // A leap second is the sixtieth.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|character: char| character.is_ascii_digit());
    }
    let offset = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let two = |tens: &u8, ones: &u8| -> Option<i64> {
                (tens.is_ascii_digit() && ones.is_ascii_digit())
                    .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
            };
            let minutes = two(h1, h2)? * 60 + two(m1, m2)?;
            if *sign == b'+' { minutes * 60 } else { -minutes * 60 }
        }
        _ => return None,
    };
    Some(midnight + i64::try_from(hour * 3600 + minute * 60 + second).ok()? - offset)
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_civil_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }

    #[test]
    fn fractions_are_whole_or_as_go_prints_them() {
        let at = |nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds);
        assert_eq!(rfc3339_nanos(at(1_709_210_096_120_000_000)), "2024-02-29T12:34:56.120000000Z");
        assert_eq!(rfc3339_short(at(1_709_210_096_120_000_000)), "2024-02-29T12:34:56.12Z");
        assert_eq!(rfc3339_short(at(1_000_000_000)), "1970-01-01T00:00:01Z");
        assert_eq!(rfc3339_short(UNIX_EPOCH + Duration::new(4_102_444_799, 1)), "2099-12-31T23:59:59.000000001Z");
        assert_eq!(rfc3339_nanos(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000000000Z");
        assert!(rfc3339_nanos(UNIX_EPOCH + Duration::from_secs(i64::MAX as u64)).starts_with("9999-12-31T23:59:59."));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(1970, 1, 1), Some(0));
        assert_eq!(day(2024, 2, 29), Some(1_709_164_800));
        assert_eq!(day(1, 1, 1), Some(-62_135_596_800));
        for (year, month, of_month) in [(2023, 2, 29), (2024, 13, 1), (2024, 0, 1), (2024, 4, 31), (10_000, 1, 1)] {
            assert_eq!(day(year, month, of_month), None, "{year}-{month}-{of_month}");
        }
        assert_eq!(day(u64::MAX, 1, 1), None);
    }

    #[test]
    fn texts_of_images_are_moments() {
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_rfc3339("2024-02-29T12:34:56.789012345Z"), Some(1_709_210_096));
        assert_eq!(parse_rfc3339("2024-02-29T14:34:56+02:00"), Some(1_709_210_096));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        assert_eq!(parse_rfc3339("2000-03-01t00:00:00-00:30"), Some(951_870_600));
        for wrong in [
            "",
            "yesterday",
            "2024-13-01T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01",
            "2024-01-01T00:00:0€Z",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_moment_or_none(text in "\\PC{0,40}") {
            let _ = parse_rfc3339(&text);
        }

        #[test]
        fn what_is_written_is_read(seconds in YEARS) {
            proptest::prop_assert_eq!(parse_rfc3339(&rfc3339(seconds)), Some(seconds));
        }
    }
}
