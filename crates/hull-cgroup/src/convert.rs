//! Conversions from the v1 style values of the specification to those of v2, and the settings both compile to.

/// One value to write into one control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Controller that owns the file; empty for core files (`cgroup.max.depth`).
    pub(crate) controller: String,
    pub(crate) file: String,
    pub(crate) value: String,
    /// Below `linux.resources`.
    pub(crate) field: String,
    /// The value means what the kernel does anyway when the file is absent.
    pub(crate) optional: bool,
    /// File and value to use where the kernel does not have `file`.
    pub(crate) fallback: Option<(String, String)>,
}

impl Setting {
    pub(crate) fn new(controller: &str, file: impl Into<String>, value: impl ToString, field: &str) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.into(),
            value: value.to_string(),
            field: field.to_owned(),
            optional: false,
            fallback: None,
        }
    }

    pub(crate) fn optional_if(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    pub(crate) fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.fallback = Some((file.to_owned(), value.to_string()));
        self
    }
}

/// A v2 number where any negative one means no limit.
pub(crate) fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// `cpu.weight` (1 to 10000) from shares (2 to 262144): a curve through 2 → 1, 1024 → 100 and 262144 → 10000.
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The small term keeps rounding errors of `powf` from lifting an exact value to the next integer.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = (10_f64.powf(exponent) - 1e-9).ceil() as u64;
    weight.clamp(1, 10_000)
}

/// `io.weight` (1 to 10000) from a blkio weight (10 to 1000).
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.clamp(10, 1000) - 10) * 9999 / 990
}

/// `memory.swap.max`, which counts swap alone, from a limit on memory and swap together.
/// `Ok(None)` leaves the kernel's value.
pub(crate) fn swap_max(swap: Option<i64>, limit: Option<i64>) -> Result<Option<String>, String> {
    match (swap.unwrap_or(0), limit.unwrap_or(0)) {
        (0, -1) => Ok(Some("max".to_owned())),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some("max".to_owned())),
        (swap, _) if swap < -1 => Err(format!("{swap} is below -1")),
        (_, limit) if limit <= 0 => Err("a limit on memory and swap needs `memory.limit`".to_owned()),
        (swap, limit) if swap < limit => {
            Err(format!("{swap} is below `memory.limit` {limit}; it counts memory and swap"))
        }
        (swap, limit) => Ok(Some((swap - limit).to_string())),
    }
}

/// Whether a huge page size has the kernel's form: `2MB`, `1GB`, `64KB`.
pub(crate) fn is_page_size(size: &str) -> bool {
    let digits = size.trim_end_matches(|letter: char| letter.is_ascii_uppercase());
    matches!(&size[digits.len()..], "KB" | "MB" | "GB")
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text is a list such as `0-3,7`.
pub(crate) fn is_list(list: &str) -> bool {
    !list.is_empty()
        && list.trim().split(',').all(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.trim().parse::<u32>(), last.trim().parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (shares, weight) in
            [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (999_999, 10_000), (512, 59), (2048, 174)]
        {
            assert_eq!(cpu_weight(shares), weight, "shares {shares}");
        }
        assert!((3..262_144).map(cpu_weight).is_sorted());
        assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
    }

    #[test]
    fn swap() {
        let max = Some("max".to_owned());
        assert_eq!(swap_max(None, Some(100)), Ok(None));
        assert_eq!(swap_max(Some(0), Some(100)), Ok(None));
        assert_eq!(swap_max(None, Some(-1)), Ok(max.clone()));
        assert_eq!(swap_max(Some(-1), Some(100)), Ok(max));
        assert_eq!(swap_max(Some(300), Some(100)), Ok(Some("200".into())));
        assert_eq!(swap_max(Some(100), Some(100)), Ok(Some("0".into())));
        assert!(swap_max(Some(50), Some(100)).is_err());
        assert!(swap_max(Some(50), None).is_err());
        assert!(swap_max(Some(-2), Some(1)).is_err());
    }

    #[test]
    fn forms() {
        assert!(is_page_size("2MB") && is_page_size("64KB") && !is_page_size("../2MB") && !is_page_size("MB"));
        assert!(is_list("0-3,7") && is_list("0") && !is_list("") && !is_list("3-1") && !is_list("a") && !is_list("1,"));
    }
}
