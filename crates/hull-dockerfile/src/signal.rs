//! Signals of `STOPSIGNAL`: a number, or a name with or without `SIG`.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` is a signal.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let invalid = || format!("invalid signal: {text}");
    if let Ok(number) = text.parse::<i64>() {
        return if number == 0 { Err(invalid()) } else { Ok(()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = NAMES.contains(&name)
        || name.strip_prefix("RTMIN+").and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=15).contains(&n))
        || name.strip_prefix("RTMAX-").and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=14).contains(&n));
    if known { Ok(()) } else { Err(invalid()) }
}
