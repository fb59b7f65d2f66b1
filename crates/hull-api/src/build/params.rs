//! The parameters of `POST /build` as words of `hull build`.

use std::collections::BTreeMap;

use hull_oci::spec::one_line;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::process::Command;
use crate::images;
use crate::query::Query;
use crate::refusal::Refusal;

/// A parameter that is a document.
fn document<T: DeserializeOwned + Default>(query: &Query, name: &str, shown: &str) -> Result<T, Refusal> {
    let text = query.text(name);
    if text.is_empty() {
        return Ok(T::default());
    }
    let wrong =
        |error: serde_json::Error| Refusal::bad(format!("error reading {shown}: {}", one_line(&error.to_string())));
    serde_json::from_str::<Option<T>>(text).map(Option::unwrap_or_default).map_err(wrong)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// What a build is asked to do; `labels` are those of the socket.
pub(super) fn words(query: &Query, labels: &[(String, String)]) -> Result<Command, Refusal> {
    let mut command = Command::default();
    if query.truth("squash") {
        return Err(Refusal::bad("squash is only supported with experimental mode"));
    }
    if query.all("securityopt").any(|word| !matches!(word, "" | "null" | "[]")) {
        return Err(Refusal::bad("The daemon on this platform does not support setting security options on build"));
    }
    let dockerfile = query.text("dockerfile");
    if dockerfile == "-" {
        return Err(Refusal::bad("the Dockerfile must be in the context"));
    }
    command.flag("file", dockerfile);
    for tag in query.all("t").filter(|tag| !tag.is_empty()) {
        images::reference(tag).map_err(|refusal| Refusal::failed(refusal.message))?;
        command.flag("tag", tag);
    }
    for host in query.all("extrahosts").filter(|host| !host.is_empty()) {
        command.flag("add-host", host);
    }
    for (name, flag) in [("target", "target"), ("platform", "platform"), ("cgroupparent", "cgroup-parent")] {
        command.flag(flag, query.text(name));
    }
    images::platform(query.text("platform"))?;
    let build_args: BTreeMap<String, Option<String>> = document(query, "buildargs", "build args")?;
    for (name, value) in build_args {
        // Without a value it would be this process's own variable.
        if let Some(value) = value {
            command.flag("build-arg", format!("{name}={value}"));
        }
    }
    let wanted: BTreeMap<String, Option<String>> = document(query, "labels", "labels")?;
    for (name, value) in wanted {
        command.flag("label", format!("{name}={}", value.unwrap_or_default()));
    }
    for (name, value) in labels {
        command.flag("label", format!("{name}={value}"));
    }
    let cache_from: Vec<String> = document(query, "cachefrom", "cache-from")?;
    for from in cache_from {
        command.flag("cache-from", from);
    }
    let ulimits: Vec<Ulimit> = document(query, "ulimits", "ulimit settings")?;
    for Ulimit { name, soft, hard } in ulimits {
        command.flag("ulimit", format!("{name}={soft}:{hard}"));
    }
    for (name, flag) in [("nocache", "no-cache"), ("pull", "pull")] {
        if query.truth(name) {
            command.word(format!("--{flag}"));
        }
    }
    let limits = [
        ("memory", "memory"),
        ("memswap", "memory-swap"),
        ("cpushares", "cpu-shares"),
        ("cpuperiod", "cpu-period"),
        ("cpuquota", "cpu-quota"),
        ("shmsize", "shm-size"),
    ];
    for (name, flag) in limits {
        // What is no number is nothing, as Docker has it.
        if let Some(number) = query.text(name).parse::<i64>().ok().filter(|number| *number != 0) {
            command.flag(flag, number.to_string());
        }
    }
    for (name, flag) in [("cpusetcpus", "cpuset-cpus"), ("cpusetmems", "cpuset-mems")] {
        command.flag(flag, query.text(name));
    }
    match query.text("networkmode") {
        "" | "default" | "bridge" => {}
        mode => {
            if mode == "host" {
                command.flag("allow", "network.host");
            }
            command.flag("network", mode);
        }
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Vec<String>, Refusal> {
        let command = words(&Query::parse(query), &[("team".to_owned(), "x".to_owned())])?;
        Ok(command.words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn parameters_are_words() {
        let query = "buildargs=%7B%22a%22%3A%22-b%20c%22%2C%22d%22%3Anull%7D&t=x&t=y%3A1&nocache=1&memory=1048576&\
                     labels=%7B%22k%22%3A%22v%22%7D&cachefrom=%5B%22z%22%5D&networkmode=host&dockerfile=Dockerfile&\
                     ulimits=%5B%7B%22Name%22%3A%22nofile%22%2C%22Hard%22%3A2%2C%22Soft%22%3A1%7D%5D&rm=1&pull=0";
        let expected = [
            "--file=Dockerfile",
            "--tag=x",
            "--tag=y:1",
            "--build-arg=a=-b c",
            "--label=k=v",
            "--label=team=x",
            "--cache-from=z",
            "--ulimit=nofile=1:2",
            "--no-cache",
            "--memory=1048576",
            "--allow=network.host",
            "--network=host",
        ];
        assert_eq!(of(query), Ok(expected.map(str::to_owned).to_vec()));
        assert_eq!(of("buildargs=null&labels=&cachefrom=null"), Ok(vec!["--label=team=x".to_owned()]));
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for wrong in ["buildargs=x", "labels=%5B%5D", "squash=1", "platform=a%2Fb%2Fc%2Fd%2Fe", "dockerfile=-"] {
            assert_eq!(of(wrong).map_err(|refusal| refusal.status), Err(400), "{wrong}");
        }
    }
}
