//! One container's view of names: the tables of its networks, in order, and its own links.

use super::answer::{Lookup, Record};
use super::settings::Settings;
use super::table::Table;

/// The names that a container knows.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Lower-case network names with their tables.
    networks: Vec<(String, Table)>,
    links: Vec<(String, String)>,
}

impl Names {
    /// Takes over new settings; tables that stay are kept open.
    pub(super) fn apply(&mut self, settings: &Settings) {
        let mut old = std::mem::take(&mut self.networks);
        for (name, path) in &settings.networks {
            let kept = old.iter().position(|(_, table)| table.path() == path).map(|index| old.swap_remove(index).1);
            self.networks.push((name.to_ascii_lowercase(), kept.unwrap_or_else(|| Table::new(path.clone()))));
        }
        let lower = |text: &String| text.to_ascii_lowercase();
        self.links = settings.links.iter().map(|(alias, name)| (lower(alias), lower(name))).collect();
    }
}

impl Lookup for Names {
    /// The first network that knows the name answers; a name may end in its network's.
    fn find(&mut self, name: &str, visit: &mut dyn FnMut(Record<'_>)) -> bool {
        let target = self.links.iter().find(|(alias, _)| alias == name).map_or(name, |(_, target)| target.as_str());
        if self.networks.iter_mut().any(|(_, table)| table.find(target, visit)) {
            return true;
        }
        self.networks.iter_mut().any(|(network, table)| {
            let stem = name.strip_suffix(network.as_str()).and_then(|stem| stem.strip_suffix('.'));
            stem.is_some_and(|stem| table.find(stem, visit))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::dns::members::{Member, TABLE, join};

    #[test]
    fn networks_are_asked_in_order_by_short_and_full_names_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Settings { links: vec![("Mydb".into(), "DB".into())], ..Settings::default() };
        for (index, network) in ["Front", "back.end"].into_iter().enumerate() {
            let path = directory.path().join(network);
            std::fs::create_dir(&path).unwrap();
            let last = u8::try_from(index).unwrap();
            for (name, third) in [("web", 1), ("db", 2)] {
                if (network, name) == ("Front", "db") {
                    continue;
                }
                let member = Member {
                    container: name.into(),
                    network: network.into(),
                    names: vec![name.into()],
                    addresses: vec![Ipv4Addr::new(10, 0, third, last).into()],
                    services: Vec::new(),
                };
                join(&path, &member).unwrap();
            }
            settings.networks.push((network.into(), path.join(TABLE)));
        }
        let mut names = Names::default();
        names.apply(&settings);
        let mut found = |name: &str| {
            let mut text = String::new();
            let known = names.find(name, &mut |record| text += &format!("{record:?}"));
            known.then_some(text)
        };
        assert_eq!(found("web").as_deref(), Some("A(10.0.1.0)"));
        assert_eq!(found("web.front").as_deref(), Some("A(10.0.1.0)"));
        assert_eq!(found("web.back.end").as_deref(), Some("A(10.0.1.1)"));
        assert_eq!(found("db").as_deref(), Some("A(10.0.2.1)"));
        assert_eq!(found("mydb").as_deref(), Some("A(10.0.2.1)"));
        assert_eq!(found("0.1.0.10.in-addr.arpa").as_deref(), Some("Ptr(\"web.Front\")"));
        for name in ["front", ".front", "webfront", "db.front", "web.end", "nothing"] {
            assert_eq!(found(name), None, "{name}");
        }
        settings.networks.remove(0);
        names.apply(&settings);
        let mut known = |name: &str| names.find(name, &mut |_| {});
        assert!(known("web") && !known("web.front"));
    }
}
