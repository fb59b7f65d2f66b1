//! Arguments: what a Dockerfile's variables are before its first stage.

use hull_dockerfile::ast::{Dockerfile, Kind};
use hull_dockerfile::expand::Expander;
use hull_oci::image::Platform;

use crate::Error;
use crate::request::BuildRequest;

/// Variables that name proxies: they may be used without `ARG` and do not count for the cache.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Whether an argument names a proxy.
pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Platforms, and the `ARG`s before the first `FROM`.
pub(super) fn globals(
    file: &Dockerfile,
    request: &BuildRequest,
    target: &Platform,
    expander: &Expander,
) -> Result<Vec<(String, String)>, Error> {
    let mut globals = platforms(target, request.target.as_deref());
    for variable in &mut globals {
        if let Some(given) = request.build_args.get(&variable.0) {
            variable.1.clone_from(given);
        }
    }
    let mut bytes = 0_usize;
    for instruction in &file.args {
        let Kind::Arg(arguments) = &instruction.kind else { continue };
        for argument in arguments {
            let value = match request.build_args.get(&argument.key) {
                Some(given) => Some(given.clone()),
                None => {
                    let expand = |text: &String| expander.expand(text, &globals).map(|expanded| expanded.text);
                    let expanded = argument.value.as_ref().map(expand).transpose();
                    expanded.map_err(|error| Error::instruction(instruction.lines, error.to_string()))?
                }
            };
            if let Some(value) = value {
                bytes = bytes.saturating_add(value.len());
                if bytes > super::MAX_WORDS {
                    let reason = format!("the file's variables expand to more than {} bytes", super::MAX_WORDS);
                    return Err(Error::instruction(instruction.lines, reason));
                }
                set(&mut globals, &argument.key, value);
            }
        }
    }
    Ok(globals)
}

/// Gives a variable a value, in its place if it has one already.
pub(super) fn set(variables: &mut Vec<(String, String)>, name: &str, value: String) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => variables.push((name.to_owned(), value)),
    }
}

fn platforms(target: &Platform, stage: Option<&str>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (prefix, platform) in [("BUILD", &Platform::native()), ("TARGET", target)] {
        let variant = platform.variant.clone().unwrap_or_default();
        let version = platform.os_version.clone().unwrap_or_default();
        // An ARM of the usual variant is written without it.
        let usual = platform.architecture == "arm64" && variant == "v8";
        let shown = if usual { Platform { variant: None, ..platform.clone() } } else { platform.clone() };
        for (suffix, value) in [
            ("PLATFORM", shown.to_string()),
            ("OS", platform.os.clone()),
            ("OSVERSION", version),
            ("ARCH", platform.architecture.clone()),
            ("VARIANT", if usual { String::new() } else { variant }),
        ] {
            variables.push((format!("{prefix}{suffix}"), value));
        }
    }
    let stage = stage.filter(|stage| !stage.is_empty()).unwrap_or("default");
    variables.push(("TARGETSTAGE".to_owned(), stage.to_owned()));
    variables
}

/// Proxies as programs look for them, in both spellings: those of the build, or else those of whoever builds.
pub(super) fn proxies(request: &BuildRequest) -> Vec<String> {
    let mut variables = Vec::new();
    for name in PROXIES {
        let small = name.to_ascii_lowercase();
        let find = |from: &std::collections::BTreeMap<String, String>| {
            from.get(name).or_else(|| from.get(&small)).filter(|value| !value.is_empty()).cloned()
        };
        if let Some(value) = find(&request.build_args).or_else(|| find(&request.proxies)) {
            variables.push(format!("{name}={value}"));
            variables.push(format!("{small}={value}"));
        }
    }
    variables
}
