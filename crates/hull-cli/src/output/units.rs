//! Sizes and ages in Docker's words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use hull_engine::inspect::age;
pub(crate) use hull_engine::units::{binary, size, size_long};
pub(crate) use hull_oci::time::rfc3339;

/// `2 hours ago`, for seconds since 1970.
pub(crate) fn ago(seconds: i64, now: SystemTime) -> String {
    let then = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    format!("{} ago", age(now.duration_since(then).unwrap_or_default()))
}

/// `2026-11-21 14:30:42 +0000 UTC`.
pub(crate) fn timestamp(seconds: i64) -> String {
    rfc3339(seconds).replace('T', " ").replace('Z', " +0000 UTC")
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
