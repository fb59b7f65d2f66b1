//! Which proxy a request goes through: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`.

/// Proxies by scheme and host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exempt: Vec<String>,
}

impl Proxies {
    /// As the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    /// As these variables say.
    #[must_use]
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().filter_map(|name| variable(name)).find(|value| !value.is_empty());
        let list = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        Self {
            // The upper-case form is a request header's in web servers' environments, so it is not trusted.
            http: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            exempt: list.split(',').map(|one| one.trim().to_ascii_lowercase()).filter(|one| !one.is_empty()).collect(),
        }
    }

    /// The proxy for a host, as `http://[user:password@]host:port`. Loopback needs none.
    #[must_use]
    pub fn of(&self, scheme: &str, host: &str) -> Option<String> {
        if self.is_exempt(host) {
            return None;
        }
        let chosen = if scheme == "https" { self.https.as_deref() } else { self.http.as_deref() }?;
        let chosen = chosen.trim_end_matches('/');
        Some(if chosen.contains("://") { chosen.to_owned() } else { format!("http://{chosen}") })
    }

    fn is_exempt(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return true;
        }
        self.exempt.iter().any(|one| {
            let domain = one.trim_start_matches("*.").trim_start_matches('.');
            one == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &'static [(&str, &str)]) -> Proxies {
        let find = |name: &str| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        Proxies::from_variables(&find)
    }

    #[test]
    fn by_scheme_and_host() {
        let all =
            proxies(&[("http_proxy", "p:1"), ("HTTPS_PROXY", "http://q:2/"), ("no_proxy", "a.example, .b.example")]);
        assert_eq!(all.of("http", "x").as_deref(), Some("http://p:1"));
        assert_eq!(all.of("https", "x").as_deref(), Some("http://q:2"));
        for host in ["a.example", "m.a.example", "m.b.example", "localhost", "127.0.0.2", "[::1]"] {
            assert_eq!(all.of("http", host), None, "{host}");
        }
        assert!(all.of("http", "nota.example").is_some());
        assert_eq!(proxies(&[("HTTP_PROXY", "p:1")]).of("http", "x"), None);
        assert_eq!(proxies(&[("all_proxy", "p:1"), ("no_proxy", "*")]).of("https", "x"), None);
    }
}
