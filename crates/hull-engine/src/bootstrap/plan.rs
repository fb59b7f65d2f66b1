//! From flags and apt's configuration to a lock file: archives, their signed lists, the choice of packages.

use std::time::{SystemTime, UNIX_EPOCH};

use hull_debian::apt::Machine;
use hull_debian::archive::{self, Access, Archive};
use hull_debian::choose::{Given, Target, choose};
use hull_debian::fetch::{Cache, Client};
use hull_debian::index;
use hull_debian::lock::{Lock, LockedPackage, LockedRelease, LockedSource, VERSION};
use hull_debian::release::DateChecks;
use hull_debian::resolve::{Request, Universe};
use hull_debian::time;

use super::{Options, native};
use crate::error::Error;

/// Chooses packages; downloads and verifies the lists for that.
pub(super) fn plan(
    options: &Options,
    target: &Target,
    machine: &Machine,
    client: &Client,
    cache: &Cache,
) -> Result<Lock, Error> {
    let architecture = options.architecture.as_deref().unwrap_or(native());
    if !index::is_name(architecture) {
        return Err(Error::flag("--arch", format!("{architecture:?} is no architecture: expected one such as amd64")));
    }
    let given = Given {
        mirror: options.mirror.clone(),
        keyring: options.keyring.clone(),
        components: options.components.clone(),
    };
    let choice = choose(target, machine, &given, architecture)?;
    // The machine's exceptions are for the machine's archives.
    let allowed = |option| !choice.configured || machine.conf.is(option, true);
    let checks = DateChecks {
        valid_until: !options.ignore_valid_until && allowed("Acquire::Check-Valid-Until"),
        date: allowed("Acquire::Check-Date"),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let access = Access { client, cache, now, checks };
    let mut archives: Vec<Archive> = Vec::new();
    for source in choice.sources {
        let archive = archive::load(&access, source, architecture)?;
        // Others name their suites after the distribution's, but are not it.
        if !choice.configured || archive.release.origin.eq_ignore_ascii_case(&target.family) {
            archives.push(archive);
        }
    }
    let mut packages = Vec::new();
    for (number, archive) in archives.iter().enumerate() {
        for text in &archive.indexes {
            let object = format!("packages of {} {}", archive.source.uri, archive.source.suite);
            packages.extend(index::parse(text, architecture, number, &object)?);
        }
    }
    let request =
        Request { variant: options.variant, include: options.include.clone(), exclude: options.exclude.clone() };
    let solution = Universe::new(&packages).solve(&request)?;
    let locked = solution.packages.values().map(|one| LockedPackage {
        name: one.name.to_owned(),
        version: one.version.to_owned(),
        architecture: one.architecture.to_owned(),
        sha256: one.sha256.to_owned(),
        size: one.size,
        source: one.source,
        path: one.path.to_owned(),
        base: solution.base.contains(one.name),
    });
    Ok(Lock {
        version: VERSION,
        distribution: format!("{}:{}", target.family, target.suite),
        architecture: architecture.to_owned(),
        epoch: 0,
        packages: locked.collect(),
        sources: archives
            .iter()
            .map(|one| LockedSource {
                uri: one.source.uri.clone(),
                suite: one.source.suite.clone(),
                components: one.source.components.clone(),
            })
            .collect(),
        releases: archives
            .iter()
            .map(|one| LockedRelease {
                suite: one.source.suite.clone(),
                date: time::format(one.release.date),
                sha256: one.sha256.clone(),
            })
            .collect(),
        image: None,
    })
}
