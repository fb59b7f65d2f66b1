//! The dates of Release files (RFC 2822, in UTC).

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970 of a date such as `Sat, 14 Jun 2025 09:15:31 UTC`.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, clock, zone] = words[..] else { return None };
    if !matches!(zone, "UTC" | "GMT" | "Z" | "+0000" | "-0000") {
        return None;
    }
    let number = |text: &str| (text.len() <= 4).then(|| text.parse::<u64>().ok()).flatten();
    let month = 1 + MONTHS.iter().position(|one| month.eq_ignore_ascii_case(one))? as u64;
    let (day, year) = (number(day)?, number(year)?);
    let mut clock = clock.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    u64::try_from(hull_oci::time::day(year, month, day)?).ok().map(|day| day + hour * 3600 + minute * 60 + second)
}

/// A date as Release files have it.
#[must_use]
pub fn format(seconds: u64) -> String {
    let at = hull_oci::time::civil(i64::try_from(seconds).unwrap_or(i64::MAX));
    let (hour, minute, second) = at.to_hms();
    let name = MONTHS[usize::from(u8::from(at.month())) - 1];
    let week = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][usize::from(at.weekday().number_days_from_sunday())];
    format!("{week}, {:02} {name} {} {hour:02}:{minute:02}:{second:02} UTC", at.day(), at.year())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_release_files() {
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse("Sat, 14 Jun 2025 09:15:31 UTC"), Some(1_749_892_531));
        assert_eq!(parse("Thu, 29 Feb 2024 23:59:59 +0000"), Some(1_709_251_199));
        for bad in [
            "",
            "Sat, 14 Jun 2025",
            "Sat, 14 Jun 2025 09:15:31 CET",
            "1 Foo 2025 00:00:00 UTC",
            "99 Jan 2025 0:0:0 UTC",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn there_and_back() {
        for seconds in (0..4_102_444_800).step_by(86_400 * 17 + 12_345) {
            assert_eq!(parse(&format(seconds)), Some(seconds));
        }
    }
}
