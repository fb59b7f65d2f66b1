//! The moment that a new configuration carries.

use std::time::SystemTime;

use hull_oci::time::{rfc3339, rfc3339_short};

/// `SOURCE_DATE_EPOCH` if it is set (reproducible-builds.org), else now; RFC 3339 in UTC.
///
/// # Errors
/// When the variable is no number of seconds.
pub(super) fn created() -> Result<String, crate::Error> {
    let text = std::env::var_os("SOURCE_DATE_EPOCH");
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(rfc3339_short(SystemTime::now()));
    };
    let seconds = text.to_str().and_then(|text| text.parse::<u32>().ok());
    let seconds = seconds
        .ok_or_else(|| super::resolve::refuse(format!("SOURCE_DATE_EPOCH is {text:?}, expected seconds since 1970")))?;
    Ok(rfc3339(i64::from(seconds)))
}
