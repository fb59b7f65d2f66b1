//! The moment that a new configuration carries.

use std::time::{SystemTime, UNIX_EPOCH};

/// `SOURCE_DATE_EPOCH` if it is set (reproducible-builds.org), else now; RFC 3339 in UTC.
///
/// # Errors
/// When the variable is no number of seconds.
pub(super) fn created() -> Result<String, crate::Error> {
    let text = std::env::var_os("SOURCE_DATE_EPOCH");
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(rfc3339(now.as_secs(), now.subsec_nanos()));
    };
    let seconds = text.to_str().and_then(|text| text.parse::<u32>().ok());
    let seconds = seconds
        .ok_or_else(|| super::resolve::refuse(format!("SOURCE_DATE_EPOCH is {text:?}, expected seconds since 1970")))?;
    Ok(rfc3339(u64::from(seconds), 0))
}

/// Seconds since 1970 as Go writes times.
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days of the proleptic Gregorian calendar, counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
    let fraction = match nanoseconds {
        0 => String::new(),
        some => format!(".{some:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_210_096, 120_000_000), "2024-02-29T12:34:56.12Z");
        assert_eq!(rfc3339(4_102_444_799, 1), "2099-12-31T23:59:59.000000001Z");
    }
}
