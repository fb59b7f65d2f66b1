//! What every command prints the same way: errors, tables, `--format`, sizes and ages.

pub(crate) mod format;
mod tabs;
pub(crate) mod units;

use std::fmt::Display;
use std::io::Write as _;

/// Writes one line to standard error.
pub(crate) fn error(message: impl Display) {
    // Only whoever closed standard error could be told.
    let text = hull_oci::spec::one_line(&message.to_string().trim_end().replace('\n', " "));
    let _ = writeln!(std::io::stderr(), "hull: {text}");
}

/// Writes one line to standard error, as it is: Docker's warnings have no prefix.
pub(crate) fn warning(message: impl Display) {
    // Only whoever closed standard error could be told.
    let _ = writeln!(std::io::stderr(), "{}", hull_oci::spec::one_line(&message.to_string()));
}

/// Writes text of several lines to standard error.
pub(crate) fn diagnostic(text: impl Display) {
    // Only whoever closed standard error could be told.
    let _ = write!(std::io::stderr(), "{text}");
}

/// Writes to standard output; a reader that has gone away has seen enough.
pub(crate) fn print(text: impl Display) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// The same at once, for what goes on: returns whether somebody reads.
pub(crate) fn try_print(text: &str) -> bool {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// The first twelve digits of an ID.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// At most so many characters, the last one telling that there were more.
pub(crate) fn ellipsis(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Clap's message without its usage block: the error, the arguments it lists, the tip.
pub(crate) fn of_clap(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        // This tip is about escaping a value and only confuses.
        if !line.contains("as a value, use '--") {
            parts.push(line);
        }
    }
    let joined = parts.join(" ");
    joined.strip_prefix("error: ").unwrap_or(&joined).replace(" tip:", "; tip:")
}
