//! Sizes as Docker writes them.

/// So many significant digits, and what they count; zeros behind the point go.
fn scaled(mut value: f64, step: f64, units: &[&str], significant: usize) -> String {
    let mut unit = 0;
    loop {
        if value >= step && unit + 1 < units.len() {
            value /= step;
            unit += 1;
            continue;
        }
        let whole = match value {
            1000.0.. => 4,
            100.0.. => 3,
            10.0.. => 2,
            _ => 1,
        };
        let digits = significant.saturating_sub(whole);
        let text = format!("{value:.digits$}");
        // What rounds to a thousand is one of the next unit, not Docker's 1e+03.
        if step <= 1000.0 && text.parse().is_ok_and(|rounded: f64| rounded >= step) && unit + 1 < units.len() {
            value /= step;
            unit += 1;
            continue;
        }
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        return format!("{text}{}", units[unit]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn decimal(bytes: u64, significant: usize) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], significant)
}

/// A size as tables of images and containers have it: three digits, decimal.
#[must_use]
pub fn size(bytes: u64) -> String {
    decimal(bytes, 3)
}

/// A size as sums and progress have it: four digits, decimal.
#[must_use]
pub fn size_long(bytes: u64) -> String {
    decimal(bytes, 4)
}

/// Memory: four digits and binary units, `23.54GiB`, `500KiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn binary(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_significant() {
        assert_eq!((size(7_823_456).as_str(), size_long(7_823_456).as_str()), ("7.82MB", "7.823MB"));
        assert_eq!((size(0).as_str(), size(999).as_str(), size(1000).as_str()), ("0B", "999B", "1kB"));
        assert_eq!((size(999_999).as_str(), size_long(999_999).as_str()), ("1MB", "1MB"));
        assert_eq!((size(12_345_678).as_str(), size_long(123_456_789).as_str()), ("12.3MB", "123.5MB"));
        assert_eq!((binary(512 << 20).as_str(), binary(500 << 10).as_str()), ("512MiB", "500KiB"));
        assert_eq!(binary(25_275_000_000).as_str(), "23.54GiB");
    }
}
