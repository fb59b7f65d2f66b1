//! Which proxy a request goes through: apt's options first, then the usual environment variables.

use crate::apt::Conf;

/// Proxies by scheme and host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    conf: Conf,
    environment: hull_http::proxy::Proxies,
}

impl Proxies {
    /// apt's options, and a way to read environment variables.
    #[must_use]
    pub fn new(conf: &Conf, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        Self { conf: conf.clone(), environment: hull_http::proxy::Proxies::from_variables(variable) }
    }

    /// The proxy for a host, as `http://[user:password@]host:port`.
    #[must_use]
    pub fn of(&self, scheme: &str, host: &str) -> Option<String> {
        let named = |scheme: &str| {
            let own = self.conf.get(&format!("Acquire::{scheme}::Proxy::{host}"));
            own.or_else(|| self.conf.get(&format!("Acquire::{scheme}::Proxy"))).filter(|value| !value.is_empty())
        };
        let of_apt = if scheme == "https" { named("https").or_else(|| named("http")) } else { named(scheme) };
        match of_apt {
            Some(value) if value.eq_ignore_ascii_case("direct") || value.eq_ignore_ascii_case("false") => None,
            Some(value) => {
                let value = value.trim_end_matches('/');
                Some(if value.contains("://") { value.to_owned() } else { format!("http://{value}") })
            }
            None => self.environment.of(scheme, host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(conf: &str, variables: &'static [(&str, &str)]) -> Proxies {
        let mut options = Conf::default();
        options.add(conf);
        Proxies::new(&options, &|name| {
            variables.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment() {
        let all = proxies(
            "",
            &[("http_proxy", "p:3128"), ("HTTPS_PROXY", "http://q:1/"), ("no_proxy", "a.example, .b.example")],
        );
        assert_eq!(all.of("http", "x").as_deref(), Some("http://p:3128"));
        assert_eq!(all.of("https", "x").as_deref(), Some("http://q:1"));
        assert_eq!(all.of("http", "a.example"), None);
        assert_eq!(all.of("http", "m.b.example"), None);
        assert!(all.of("http", "nota.example").is_some());
        assert_eq!(proxies("", &[("HTTP_PROXY", "p:1")]).of("http", "x"), None);
        assert_eq!(proxies("", &[("http_proxy", "p:1"), ("no_proxy", "*")]).of("http", "x"), None);
    }

    #[test]
    fn apt_comes_first() {
        let all = proxies(
            "Acquire::http::Proxy \"http://cache:3142\"; Acquire::http::Proxy::near.example \"DIRECT\";",
            &[("http_proxy", "p:3128"), ("no_proxy", "x")],
        );
        assert_eq!(all.of("http", "x").as_deref(), Some("http://cache:3142"));
        assert_eq!(all.of("https", "x").as_deref(), Some("http://cache:3142"));
        assert_eq!(all.of("http", "near.example"), None);
    }
}
