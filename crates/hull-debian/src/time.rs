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
    if clock.next().is_some() || !(1..=31).contains(&day) || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// A date as Release files have it.
#[must_use]
pub fn format(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let clock = seconds % 86_400;
    let name = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let week = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(seconds / 86_400 % 7).unwrap_or(0)];
    format!("{week}, {day:02} {name} {year} {:02}:{:02}:{:02} UTC", clock / 3600, clock / 60 % 60, clock % 60)
}

/// Days from 1970-01-01, by counting years from March (the leap day is then the last of its year).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap = year / 4 - year / 100 + year / 400;
    year * 365 + leap + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
#[must_use]
pub fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
