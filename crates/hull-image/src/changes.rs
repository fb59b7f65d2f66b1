//! `--change`: single instructions of a Dockerfile that set an image's defaults.

use hull_oci::image::{ContainerConfig, Healthcheck};

use crate::Error;

/// Applies instructions such as `CMD ["sh"]`, `ENV A=b`, `USER 1000`, in order.
///
/// # Errors
/// [`Error::Change`] naming the instruction.
pub fn apply(config: &mut ContainerConfig, instructions: &[String]) -> Result<(), Error> {
    for instruction in instructions {
        one(config, instruction).map_err(|reason| Error::Change { instruction: instruction.clone(), reason })?;
    }
    Ok(())
}

fn one(config: &mut ContainerConfig, instruction: &str) -> Result<(), String> {
    let (name, value) = instruction.trim().split_once(char::is_whitespace).ok_or("expected INSTRUCTION VALUE")?;
    let value = value.trim();
    match name.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(value)?,
        "ENTRYPOINT" => {
            config.entrypoint = command(value)?;
            config.cmd.clear();
        }
        "ENV" => {
            for (key, value) in pairs(value)? {
                let variable = format!("{key}={value}");
                let prefix = format!("{key}=");
                match config.env.iter_mut().find(|one| one.starts_with(&prefix)) {
                    Some(present) => *present = variable,
                    None => config.env.push(variable),
                }
            }
        }
        "WORKDIR" if value.starts_with('/') => value.clone_into(&mut config.working_dir),
        "WORKDIR" => return Err("expected an absolute path".to_owned()),
        "USER" => value.clone_into(&mut config.user),
        "LABEL" => config.labels.extend(pairs(value)?),
        "STOPSIGNAL" => value.clone_into(&mut config.stop_signal),
        "EXPOSE" => {
            for port in value.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                if number.parse::<u16>().is_err() || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err("expected PORT[/tcp|/udp|/sctp]".to_owned());
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), empty());
            }
        }
        "VOLUME" => {
            let list = if value.starts_with('[') {
                strings(value)?
            } else {
                value.split_whitespace().map(str::to_owned).collect()
            };
            if list.iter().any(String::is_empty) {
                return Err("expected a path".to_owned());
            }
            config.volumes.extend(list.into_iter().map(|path| (path, empty())));
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(value)?),
        "ONBUILD" => config.on_build.push(value.to_owned()),
        other => {
            let known = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR";
            return Err(format!("{other} is not a valid change command; use one of {known}"));
        }
    }
    Ok(())
}

/// `NONE`, or `[--interval=30s ...] CMD ...`.
fn healthcheck(value: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = value;
    while rest.starts_with("--") {
        let (option, after) = rest.split_once(char::is_whitespace).ok_or("expected CMD or NONE")?;
        let (name, text) = option.split_once('=').ok_or_else(|| format!("{option} has no value"))?;
        let duration = || duration(text).ok_or_else(|| format!("{option}: expected a duration such as 1m30s"));
        match name {
            "--interval" => check.interval = duration()?,
            "--timeout" => check.timeout = duration()?,
            "--start-period" => check.start_period = duration()?,
            "--start-interval" => check.start_interval = duration()?,
            "--retries" => {
                let number = text.parse::<u32>().map_err(|_| format!("{option}: expected a number"))?;
                check.retries = i64::from(number);
            }
            _ => return Err(format!("unknown option {name}")),
        }
        rest = after.trim_start();
    }
    let (form, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    check.test = match form.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => vec!["NONE".to_owned()],
        "CMD" if command.starts_with('[') => {
            let mut test = vec!["CMD".to_owned()];
            test.extend(strings(command)?);
            test
        }
        "CMD" if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        _ => return Err("expected NONE or CMD and a command".to_owned()),
    };
    Ok(check)
}

/// `1m30s`, `500ms`, in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (mut rest, mut total) = (text, 0_i64);
    while !rest.is_empty() {
        let end = rest.find(|one: char| !one.is_ascii_digit())?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|one: char| one.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i64 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// What Go writes for a member of a set.
fn empty() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// The JSON form is taken as it is, anything else is a line for the shell.
fn command(value: &str) -> Result<Vec<String>, String> {
    if value.starts_with('[') {
        return strings(value);
    }
    Ok(["/bin/sh", "-c", value].map(String::from).to_vec())
}

fn strings(value: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(value).map_err(|error| format!("is not a JSON list of strings: {error}"))
}

/// `NAME=value NAME="a value"`, or the old form `NAME the rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    let is_key = |key: &str| !key.is_empty() && !key.contains(char::is_whitespace);
    match words.first() {
        Some(first) if !first.contains('=') => {
            let (key, value) = text.split_once(char::is_whitespace).ok_or("expected NAME=VALUE")?;
            Ok(vec![(key.to_owned(), value.trim().to_owned())])
        }
        _ => words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some((key, value)) if is_key(key) => Ok((key.to_owned(), value.to_owned())),
                _ => Err("expected NAME=VALUE".to_owned()),
            })
            .collect(),
    }
}

/// Splits at spaces outside of quotes; a backslash takes what follows it as it is, except within single quotes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (character, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(characters.next().ok_or("ends in a backslash")?);
            }
            (character, None) if character.is_whitespace() => words.extend(word.take()),
            (character, _) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("has a quote without an end".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_set_defaults() {
        let mut config = ContainerConfig::default();
        let list = [
            "ENTRYPOINT [\"/a\",\"b c\"]",
            "CMD echo hi",
            "ENV A=1",
            "ENV A=\"2 3\" B='x y' C=\\$d",
            "ENV OLD form with spaces",
            "user me",
            "WORKDIR /w",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "LABEL a.b=c d=\"e f\"",
            "ONBUILD RUN x",
        ];
        apply(&mut config, &list.map(String::from)).unwrap();
        assert_eq!(config.entrypoint, ["/a", "b c"]);
        assert_eq!(config.cmd, ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.env, ["A=2 3", "B=x y", "C=$d", "OLD=form with spaces"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("me", "/w"));
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data"]);
        assert_eq!((config.labels["a.b"].as_str(), config.labels["d"].as_str()), ("c", "e f"));
        assert_eq!(config.on_build, ["RUN x"]);
    }

    #[test]
    fn wrong_instructions_are_named() {
        for wrong in
            ["CMD", "RUN x", "CMD [1]", "WORKDIR w", "ENV =1", "ENV A", "ENV A=\"1", "EXPOSE x", "VOLUME [\"\"]"]
        {
            assert!(apply(&mut ContainerConfig::default(), &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn health_checks_are_docker_s() {
        let check = healthcheck("--interval=1m30s --retries=2 CMD [\"/a\", \"b\"]").unwrap();
        assert_eq!((check.interval, check.retries, check.test.len()), (90_000_000_000, 2, 3));
        assert_eq!(healthcheck("CMD curl -f x").unwrap().test, ["CMD-SHELL", "curl -f x"]);
        assert_eq!(healthcheck("NONE").unwrap().test, ["NONE"]);
        for bad in ["", "CMD", "--interval=1 CMD x", "--nope=1s CMD x", "NONE x", "--retries=-1 CMD x", "RUN x"] {
            assert!(healthcheck(bad).is_err(), "{bad}");
        }
    }
}
