//! Any text is a template, or is refused in one of Go's messages: no panic, no endless work, on any data.
//!
//! What follows the first NUL byte is the data, as JSON; without one it is a container as `inspect` shows it.
#![no_main]

use hull_template::{FunctionSet, MissingKey, Template, Value};
use libfuzzer_sys::fuzz_target;

const DATA: &str = r#"{"Id":"0a1b","Names":["web","db"],"State":{"Pid":42,"Running":true,"Health":null},
"Labels":{"team":"x","":"empty"},"Size":1.5e300,"Big":18446744073709551615,"Negative":-9223372036854775808,
"Mounts":[],"Nested":[[1,"two",null],{"three":[]}],"Text":"gr\u00fc\u00df \ud83d\ude00 %!d(MISSING) <b>&amp;\n"}"#;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let data = parts.next().unwrap_or(DATA.as_bytes());
    let Ok(data) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let Ok(value) = Value::of(&data) else { return };
    for missing in [MissingKey::NoValue, MissingKey::Error] {
        for functions in [FunctionSet::Values, FunctionSet::Headers] {
            drop(template.execute(&value, missing, functions));
        }
    }
});
