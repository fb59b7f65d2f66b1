//! `--change`: single instructions of a Dockerfile that set an image's defaults.

use hull_oci::image::ContainerConfig;

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
        "ONBUILD" => config.on_build.push(value.to_owned()),
        other => {
            let known = "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR";
            return Err(format!("{other} is not one of {known}"));
        }
    }
    Ok(())
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
}
