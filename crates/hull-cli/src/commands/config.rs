//! `hull config`: the settings, their values, and where each came from.

use hull_config::{Origin, SETTINGS, Setting};
use hull_engine::Engine;
use serde_json::{Value, json};

use super::{Done, Failure};
use crate::output::{self, format, print};

/// Commands on settings.
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  hull config show\n  hull config show log-driver\n  hull config example > ~/.config/hull/config.toml"
)]
pub(super) enum Config {
    /// Show all settings, their values, and where each came from
    Show(Show),
    /// Print a file of settings with their meaning, all of them commented out
    Example(Example),
}

/// Show all settings, their values, and where each came from
///
/// A flag of a command counts first, then a variable of the environment, ~/.config/hull/config.toml,
/// /etc/hull/config.toml, and what applies of /etc/docker/daemon.json and ~/.docker/config.json.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull config show\n  hull config show root log-driver\n  hull config show --format json"
)]
pub(super) struct Show {
    /// Print by a template for each setting, or 'json' for a list
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names of settings; none is all
    #[arg(value_name = "SETTING")]
    keys: Vec<String>,
}

/// Print a file of settings with their meaning, all of them commented out
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hull config example > /etc/hull/config.toml")]
pub(super) struct Example {}

/// Which of the settings a flag of this command says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    pub(super) root: bool,
    pub(super) state: bool,
}

/// The format of a listing: the flag's, or a setting's.
pub(super) fn format(flag: &str, key: &str) -> String {
    if flag.is_empty() { hull_config::text(key).unwrap_or_default() } else { flag.to_owned() }
}

/// As people write it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// A proxy's password is nobody's business.
fn discreet(key: &str, value: Value) -> Value {
    match value {
        Value::String(text) if key.contains("prox") && text.contains('@') => {
            let (scheme, rest) = text.split_once("://").map_or(("", text.as_str()), |(scheme, rest)| (scheme, rest));
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let separator = if scheme.is_empty() { "" } else { "://" };
            Value::from(format!("{scheme}{separator}***@{host}"))
        }
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, discreet(key, value))).collect(),
        other => other,
    }
}

/// A setting's value as it holds for this command.
fn current(engine: &Engine, flags: Flags, setting: &Setting) -> Result<(Value, Origin), Failure> {
    let found = hull_config::get(setting.key).map_err(|error| Failure::new(error.to_string()))?;
    let flag = |given: bool, name: &str, path: &std::path::Path, found: Option<(Value, Origin)>| {
        let origin = if given { Origin::Flag(name.to_owned()) } else { found.map_or(Origin::Default, |(_, one)| one) };
        (Value::from(path.to_string_lossy()), origin)
    };
    Ok(match setting.key {
        "root" => flag(flags.root, "--root", engine.root(), found),
        "state" => flag(flags.state, "--state", engine.state_root(), found),
        _ => {
            let (value, origin) = found.unwrap_or_else(|| (Value::from(setting.default), Origin::Default));
            (discreet(setting.key, value), origin)
        }
    })
}

impl Config {
    pub(super) fn main(self, engine: &Engine, flags: Flags) -> Done {
        match self {
            Self::Show(args) => show(engine, flags, &args),
            Self::Example(_) => example(),
        }
    }
}

fn show(engine: &Engine, flags: Flags, args: &Show) -> Done {
    if let Some(wrong) = args.keys.iter().find(|key| SETTINGS.iter().all(|setting| setting.key != key.as_str())) {
        return Err(Failure::new(format!("there is no setting {wrong:?}: 'hull config show' lists all")));
    }
    let wanted = |setting: &&Setting| args.keys.is_empty() || args.keys.iter().any(|key| key == setting.key);
    let mut documents = Vec::new();
    for setting in SETTINGS.iter().filter(wanted) {
        let (value, origin) = current(engine, flags, setting)?;
        documents.push(json!({
            "Name": setting.key, "Value": value, "From": origin.word(), "Place": origin.to_string(),
            "Variable": setting.variable(), "About": setting.about,
        }));
    }
    let settings = hull_config::init().map_err(|error| Failure::new(error.to_string()))?;
    match args.format.as_deref().filter(|text| !text.is_empty()) {
        Some("json") => print(format_args!("{}\n", Value::Array(documents))),
        Some(template) => {
            for document in &documents {
                print(format::document(template, document).map_err(Failure::new)?);
            }
        }
        None => table(&documents),
    }
    settings.warnings.iter().for_each(output::error);
    if args.format.is_none() && args.keys.is_empty() && !settings.unused.is_empty() {
        let mut places: Vec<&std::path::Path> = settings.unused.iter().map(|(path, _)| path.as_path()).collect();
        places.dedup();
        for place in places {
            let keys = settings.unused.iter().filter(|(path, _)| path == place).map(|(_, key)| key.as_str());
            let keys = keys.collect::<Vec<_>>().join(", ");
            output::error(format!("{}: not used by Hull: {keys}", place.display()));
        }
    }
    Ok(0)
}

fn table(documents: &[Value]) {
    let cell = |document: &Value, key: &str| hull_oci::spec::one_line(&shown(&document[key]));
    let rows: Vec<[String; 3]> =
        documents.iter().map(|one| [cell(one, "Name"), cell(one, "Value"), cell(one, "Place")]).collect();
    let titles = ["SETTING".to_owned(), "VALUE".to_owned(), "FROM".to_owned()];
    let width = |column: usize| {
        rows.iter().chain([&titles]).map(|row| row[column].chars().count()).max().unwrap_or_default() + 3
    };
    let (first, second) = (width(0), width(1));
    for row in std::iter::once(&titles).chain(&rows) {
        print(format_args!("{:<first$}{:<second$}{}\n", row[0], row[1], row[2]));
    }
}

fn example() -> Done {
    let mut text = "# Settings of Hull, each commented out: 'hull config show' says which hold, and from where.\n\
                    # As /etc/hull/config.toml for all users, as ~/.config/hull/config.toml for one; a variable counts before both.\n"
        .to_owned();
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        text.push_str(&format!("\n# {} (default: {default}; {})\n", setting.about, setting.variable()));
        text.push_str(&format!("#{} = {}\n", setting.key, sample(setting.key, setting.kind)));
    }
    print(text);
    Ok(0)
}

/// A value that would be valid.
fn sample(key: &str, kind: hull_config::Kind) -> &'static str {
    use hull_config::Kind;
    match (key, kind) {
        ("log-opts", _) => "{ max-size = \"10m\", max-file = \"3\" }",
        ("container-proxies", _) => "{ httpProxy = \"http://proxy.example:3128\" }",
        ("dns", _) => "[\"192.0.2.53\"]",
        ("registry-mirrors", _) => "[\"https://mirror.example\"]",
        ("mtu", _) => "1400",
        (_, Kind::Bool) => "true",
        (_, Kind::Number) => "1",
        (_, Kind::List) => "[]",
        (_, Kind::Map) => "{}",
        (_, Kind::Ulimits) => "{ nofile = \"1024:4096\" }",
        (_, Kind::Pools) => "[{ base = \"10.200.0.0/16\", size = 24 }]",
        (_, Kind::Text | Kind::Path) => "\"\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_proxies_stay_hidden() {
        let hidden = discreet("http-proxy", Value::from("http://user:secret@proxy:3128"));
        assert_eq!(hidden, Value::from("http://***@proxy:3128"));
        let hidden = discreet("container-proxies", json!({"httpProxy": "http://u:s@p", "noProxy": "a@b"}));
        assert!(!hidden.to_string().contains("u:s"), "{hidden}");
        assert_eq!(discreet("ps-format", Value::from("a@b")), Value::from("a@b"));
    }

    #[test]
    fn values_read_as_people_write_them() {
        assert_eq!(shown(&json!(["a", "b"])), "a, b");
        assert_eq!(shown(&json!({"max-size": "1m"})), "max-size=1m");
        assert_eq!(shown(&json!(1400)), "1400");
    }
}
