//! `--change`: single instructions of a Dockerfile that set an image's defaults.

use crate::{Config, Error};

/// Applies instructions such as `CMD ["sh"]`, `ENV A=b`, `USER 1000`, in order.
///
/// # Errors
/// [`Error::Change`] naming the instruction.
pub fn apply(config: &mut Config, instructions: &[String]) -> Result<(), Error> {
    for instruction in instructions {
        one(config, instruction).map_err(|reason| Error::Change { instruction: instruction.clone(), reason })?;
    }
    Ok(())
}

fn one(config: &mut Config, instruction: &str) -> Result<(), String> {
    let (name, value) = instruction.trim().split_once(char::is_whitespace).ok_or("expected INSTRUCTION VALUE")?;
    let value = value.trim();
    match name.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(value)?,
        "ENTRYPOINT" => {
            config.entrypoint = command(value)?;
            config.cmd.clear();
        }
        "ENV" => {
            let (key, value) = value.split_once('=').or_else(|| value.split_once(' ')).ok_or("expected NAME=VALUE")?;
            if key.is_empty() || key.contains(char::is_whitespace) {
                return Err("expected NAME=VALUE".to_owned());
            }
            let variable = format!("{key}={}", unquote(value.trim()));
            let prefix = format!("{key}=");
            match config.env.iter_mut().find(|one| one.starts_with(&prefix)) {
                Some(present) => *present = variable,
                None => config.env.push(variable),
            }
        }
        "WORKDIR" if value.starts_with('/') => config.working_dir = Some(value.to_owned()),
        "WORKDIR" => return Err("expected an absolute path".to_owned()),
        "USER" => config.user = Some(value.to_owned()),
        "LABEL" => {
            let (key, value) = value.split_once('=').ok_or("expected KEY=VALUE")?;
            config.labels.insert(key.to_owned(), unquote(value).to_owned());
        }
        "STOPSIGNAL" => config.stop_signal = Some(value.to_owned()),
        other => return Err(format!("{other} is not one of CMD, ENTRYPOINT, ENV, LABEL, STOPSIGNAL, USER, WORKDIR")),
    }
    Ok(())
}

/// The JSON form is taken as it is, anything else is a line for the shell.
fn command(value: &str) -> Result<Vec<String>, String> {
    if value.starts_with('[') {
        return serde_json::from_str(value).map_err(|error| format!("is not a JSON list of strings: {error}"));
    }
    Ok(["/bin/sh", "-c", value].map(String::from).to_vec())
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_set_defaults() {
        let mut config = Config::default();
        let list = ["ENTRYPOINT [\"/a\",\"b c\"]", "CMD echo hi", "ENV A=1", "ENV A=\"2 3\"", "user me", "WORKDIR /w"];
        apply(&mut config, &list.map(String::from)).unwrap();
        assert_eq!(config.entrypoint, ["/a", "b c"]);
        assert_eq!(config.cmd, ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.env, ["A=2 3"]);
        assert_eq!((config.user.as_deref(), config.working_dir.as_deref()), (Some("me"), Some("/w")));
    }

    #[test]
    fn wrong_instructions_are_named() {
        for wrong in ["CMD", "RUN x", "CMD [1]", "WORKDIR w", "ENV =1", "ENV A"] {
            assert!(apply(&mut Config::default(), &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
