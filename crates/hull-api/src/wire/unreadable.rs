//! Why a document cannot be read, in the words of Go's JSON: clients and their tests look for them.
//!
//! `json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64`: what stood there, the name of
//! the Go type of the whole, the way to the field, and the Go type of the field.

use hull_oci::spec::one_line;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// Go's types of fields that are more than what JSON has.
const TYPES: [(&str, &str); 37] = [
    ("CapAdd", "string"),
    ("CapDrop", "string"),
    ("CgroupnsMode", "container.CgroupnsMode"),
    ("Config", "[]network.IPAMConfig"),
    ("ConsoleSize", "[2]uint"),
    ("DeviceRequests", "[]container.DeviceRequest"),
    ("Devices", "[]container.DeviceMapping"),
    ("EndpointConfig", "network.EndpointSettings"),
    ("EndpointsConfig", "map[string]*network.EndpointSettings"),
    ("ExposedPorts", "nat.PortSet"),
    ("Healthcheck", "v1.HealthcheckConfig"),
    ("HostConfig", "container.HostConfig"),
    ("IPAM", "network.IPAM"),
    ("IPAMConfig", "network.EndpointIPAMConfig"),
    ("Interval", "time.Duration"),
    ("IpcMode", "container.IpcMode"),
    ("Isolation", "container.Isolation"),
    ("LogConfig", "container.LogConfig"),
    ("MaximumRetryCount", "int"),
    ("Mounts", "[]mount.Mount"),
    ("NetworkMode", "container.NetworkMode"),
    ("NetworkingConfig", "network.NetworkingConfig"),
    ("PidMode", "container.PidMode"),
    ("PortBindings", "nat.PortMap"),
    ("Propagation", "mount.Propagation"),
    ("RestartPolicy", "container.RestartPolicy"),
    ("Retries", "int"),
    ("StartInterval", "time.Duration"),
    ("StartPeriod", "time.Duration"),
    ("StopTimeout", "int"),
    ("Sysctls", "map[string]string"),
    ("Timeout", "time.Duration"),
    ("Tmpfs", "map[string]string"),
    ("UTSMode", "container.UTSMode"),
    ("Ulimits", "[]*units.Ulimit"),
    ("UsernsMode", "container.UsernsMode"),
    ("Volumes", "map[string]struct {}"),
];

/// The Go type of a whole document, such as `network.CreateRequest`, as fields of it are named.
fn holder(whole: &str) -> &str {
    match whole {
        // Made of others, and named after none.
        "container.CreateRequest" | "registry.AuthConfig" => "",
        whole => whole.rsplit('.').next().unwrap_or(whole),
    }
}

/// What stood there, as JSON calls it.
fn found(unexpected: &str, expected: &str) -> String {
    let literal = || unexpected.split('`').nth(1).unwrap_or_default();
    let is_number = unexpected.starts_with("integer") || unexpected.starts_with("floating point");
    match unexpected.split([' ', ',']).next().unwrap_or_default() {
        // One that does not fit is shown.
        _ if is_number && expected.starts_with(['i', 'u', 'f']) => format!("number {}", literal()),
        _ if is_number => "number".to_owned(),
        "boolean" => "bool".to_owned(),
        "sequence" => "array".to_owned(),
        "map" => "object".to_owned(),
        "unit" | "null" => "null".to_owned(),
        _ => "string".to_owned(),
    }
}

/// A Go type for what is expected of a value of no special type.
fn plain(expected: &str) -> &str {
    match expected {
        "a boolean" => "bool",
        "a string" | "a borrowed string" => "string",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        "i64" => "int64",
        "u64" => "uint64",
        "i32" => "int",
        "u32" => "uint32",
        "u16" => "uint16",
        "f64" => "float64",
        other => other.strip_prefix("struct ").unwrap_or(other),
    }
}

/// The names on the way, as Go joins them.
fn names(path: &Path) -> Vec<(String, bool)> {
    let name = |segment: &Segment| match segment {
        Segment::Seq { index } => Some((index.to_string(), true)),
        Segment::Map { key } => Some((one_line(key).replace('~', "~0").replace('/', "~1"), false)),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(name).collect()
}

fn mismatch(text: &str, path: &Path, whole: &str) -> Option<String> {
    let (unexpected, expected) =
        text.strip_prefix("invalid type: ").or(text.strip_prefix("invalid value: "))?.rsplit_once(", expected ")?;
    let found = found(unexpected, expected);
    let names = names(path);
    let Some(((last, is_element), above)) = names.split_last() else {
        return Some(format!("json: cannot unmarshal {found} into Go value of type {whole}"));
    };
    let parent = above.last().map_or("", |(name, _)| name.as_str());
    let special = TYPES.iter().find(|(field, _)| field == last).map(|(_, kind)| *kind);
    let kind = match (parent, special) {
        ("PortBindings", _) => "[]nat.PortBinding",
        ("EndpointsConfig", _) => "network.EndpointSettings",
        ("LogConfig", Some(_)) => "map[string]string",
        ("Devices", _) if *is_element => "container.DeviceMapping",
        ("Mounts", _) if *is_element => "mount.Mount",
        (_, Some("string")) => return Some(format!("json: cannot unmarshal {found} into Go value of type string")),
        (_, Some(special)) => special,
        _ => plain(expected),
    };
    let holder = holder(whole);
    let way = names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".");
    let place = if *is_element { "" } else { "Go struct field " };
    Some(format!("json: cannot unmarshal {found} into {place}{holder}.{way} of type {kind}"))
}

/// What Go says of a text that is no JSON.
fn syntax(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let at = error.column().saturating_sub(1);
    let shown = match line.get(at) {
        None => return "unexpected EOF".to_owned(),
        Some(b'"') => "'\"'".to_owned(),
        Some(b'\'') => "'\\''".to_owned(),
        Some(byte) if byte.is_ascii_graphic() || *byte == b' ' => format!("'{}'", char::from(*byte)),
        Some(byte) => format!("'\\x{byte:02x}'"),
    };
    let text = error.to_string();
    let text = text.split(" at line").next().unwrap_or_default();
    let before = line[..at].iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |place| place + 1);
    let literal = [&b"null"[..], b"true", b"false"].into_iter().find(|word| Some(&word[0]) == line.get(before));
    let place = match (text, literal) {
        ("expected ident", Some(word)) if at > before && at - before < word.len() => {
            let (name, next) = (String::from_utf8_lossy(word), char::from(word[at - before]));
            format!("in literal {name} (expecting '{next}')")
        }
        ("key must be a string", _) => "looking for beginning of object key string".to_owned(),
        ("trailing comma", _) if line.get(at) == Some(&b'}') => "looking for beginning of object key string".to_owned(),
        ("expected `:`", _) => "after object key".to_owned(),
        ("expected `,` or `}`", _) => "after object key:value pair".to_owned(),
        ("expected `,` or `]`", _) => "after array element".to_owned(),
        (text, _) if text.starts_with("control character") => "in string".to_owned(),
        ("invalid escape", _) => "in string escape code".to_owned(),
        ("invalid number", _) => "in numeric literal".to_owned(),
        _ => "looking for beginning of value".to_owned(),
    };
    format!("invalid character {shown} {place}")
}

fn wrong(bytes: &[u8], error: &serde_json::Error, path: &Path, whole: &str) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match mismatch(text, path, whole) {
        Some(said) => said,
        None if text.starts_with("json: ") => text.to_owned(),
        None if error.is_data() => one_line(text),
        None => syntax(bytes, error),
    }
}

/// Reads a document whose whole has this Go type.
///
/// # Errors
/// Go's words.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], whole: &str) -> Result<T, String> {
    // A type would take a list as its fields in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(format!("invalid JSON: json: cannot unmarshal array into Go value of type {whole}"));
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    if error.to_string().contains("trailing characters") {
        return Err("unexpected content after JSON".to_owned());
    }
    // Only a document that is refused pays for the way to what is wrong.
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut deserializer);
    Err(format!(
        "invalid JSON: {}",
        match &tracked {
            Err(tracked) => wrong(bytes, tracked.inner(), tracked.path(), whole),
            Ok(_) => wrong(bytes, &error, &serde_path_to_error::Track::new().path(), whole),
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::create::Create;

    /// What dockerd 28.5 says.
    #[test]
    fn mistakes_are_told_in_go_s_words() {
        let none = "json: cannot unmarshal";
        for (body, said) in [
            (r#"{"Tty":"x"}"#, "string into Go struct field .Tty of type bool"),
            (r#"{"Image":5}"#, "number into Go struct field .Image of type string"),
            (r#"{"HostConfig":{"Memory":"x"}}"#, "string into Go struct field .HostConfig.Memory of type int64"),
            (r#"{"HostConfig":{"Memory":1.5}}"#, "number 1.5 into Go struct field .HostConfig.Memory of type int64"),
            (r#"{"HostConfig":{"NanoCpus":true}}"#, "bool into Go struct field .HostConfig.NanoCpus of type int64"),
            (r#"{"HostConfig":[]}"#, "array into Go struct field .HostConfig of type container.HostConfig"),
            (r#"{"Env":"x"}"#, "string into Go struct field .Env of type []string"),
            (r#"{"Env":[1]}"#, "number into .Env.0 of type string"),
            (r#"{"Env":{}}"#, "object into Go struct field .Env of type []string"),
            (r#"{"Labels":[]}"#, "array into Go struct field .Labels of type map[string]string"),
            (r#"{"Labels":{"a":1}}"#, "number into Go struct field .Labels.a of type string"),
            (r#"{"Cmd":5}"#, "number into Go value of type string"),
            (r#"{"Cmd":{}}"#, "object into Go value of type string"),
            (r#"{"Entrypoint":[5]}"#, "array into Go value of type string"),
            (r#"[]"#, "array into Go value of type container.CreateRequest"),
            (r#""x""#, "string into Go value of type container.CreateRequest"),
            (
                r#"{"HostConfig":{"PortBindings":{"80/tcp":"x"}}}"#,
                "string into Go struct field .HostConfig.PortBindings.80~1tcp of type []nat.PortBinding",
            ),
            (
                r#"{"HostConfig":{"RestartPolicy":"always"}}"#,
                "string into Go struct field .HostConfig.RestartPolicy of type container.RestartPolicy",
            ),
            (r#"{"HostConfig":{"Mounts":{}}}"#, "object into Go struct field .HostConfig.Mounts of type []mount.Mount"),
            (r#"{"StopTimeout":"x"}"#, "string into Go struct field .StopTimeout of type int"),
            (r#"{"ExposedPorts":[]}"#, "array into Go struct field .ExposedPorts of type nat.PortSet"),
            (r#"{"HostConfig":{"CapAdd":5}}"#, "number into Go value of type string"),
        ] {
            let refused = read::<Option<Create>>(body.as_bytes(), "container.CreateRequest").map(drop);
            assert_eq!(refused, Err(format!("invalid JSON: {none} {said}")), "{body}");
        }
        for (body, said) in [
            ("{", "unexpected EOF"),
            (r#"{"a":"x"#, "unexpected EOF"),
            (r#"{"a":}"#, "invalid character '}' looking for beginning of value"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a":[1,]}"#, "invalid character ']' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
        ] {
            let refused = read::<Option<Create>>(body.as_bytes(), "container.CreateRequest").map(drop);
            assert_eq!(refused, Err(format!("invalid JSON: {said}")), "{body}");
        }
        let network = read::<Create>(br#"{"Env":5}"#, "network.CreateRequest").map(drop);
        let said =
            "invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest.Env of type []string";
        assert_eq!(network, Err(said.to_owned()));
    }
}
