//! Documents by the names that somebody gave, as every `inspect` prints them.

use serde_json::Value;

use super::{Done, Failure};
use crate::output::{self, format, print};

/// Prints the documents that are found; each missing one, and each that a template does not suit, is a line on standard
/// error, and makes the command fail.
pub(super) fn show(format: Option<&str>, names: &[String], look: impl Fn(&str) -> Result<Value, Failure>) -> Done {
    // Docker's code of usage errors of this command.
    let template = format::inspecting(format).map_err(|reason| Failure { code: 64, ..Failure::new(reason) })?;
    let (mut list, mut lines, mut failures) = (Vec::new(), String::new(), Vec::new());
    for name in names {
        let line = look(name).and_then(|document| match &template {
            Some(template) => format::line(template, &document).map(|line| lines.push_str(&line)).map_err(Failure::new),
            None => {
                list.push(document);
                Ok(())
            }
        });
        failures.extend(line.err());
    }
    match template {
        Some(_) if lines.is_empty() => print("\n"),
        Some(_) => print(lines),
        None => print(format::documents(format, &list).map_err(Failure::new)?),
    }
    failures.iter().for_each(|failure| output::error(&failure.message));
    Ok(u8::from(!failures.is_empty()))
}
