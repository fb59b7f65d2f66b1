//! `bootstrap`: an image from a distribution's signed packages.
//!
//! ```text
//! apt's configuration, flags ─┐
//! Release, indexes (signed)  ─┴─> packages to install ──> lock file ──> files by digest (cache/debian)
//!                                 or `--locked FILE`  ──────┘                │
//!      work directory: rootfs/ <── files of the base packages <──────────────┤
//!                      debs/   <── links, named by number <──────────────────┘
//!      a container on rootfs/, without network: dpkg unpacks and configures everything
//!      rootfs/ ──> a normalised walk ──> layer.tar ──> the store
//! ```
//!
//! The same packages give the same layer, whenever and wherever they are put together: [`normal`] says what is left out,
//! and no file is newer than the newest package. That time, not the Release file's, is the image's own: a Release file
//! changes daily though no package does. The image holds its lock file at [`LOCK_PATH`]; a label has its digest.
//!
//! All that is written before the image is complete lies in one work directory of the store, which is locked while this
//! process lives and removed by the next command after its death. Only whole, verified files get into the cache.

mod configure;
mod extract;
mod layer;
mod normal;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hull_debian::deb::Deb;
use hull_debian::fetch::{Cache, Client, Proxies, Wanted};
use hull_debian::lock::{Lock, LockedImage};
use hull_debian::resolve::Variant;
use hull_image::LayerSource;
use hull_oci::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};
use hull_oci::{Digest, Reference};

use crate::Engine;
use crate::error::Error;

/// Where the image has its lock file.
pub const LOCK_PATH: &str = "usr/share/hull/bootstrap.lock";

/// The label with the digest of that file.
pub const LOCK_LABEL: &str = "hull.bootstrap.lock";

/// Downloads at a time.
const DOWNLOADS: usize = 4;

/// Cached files that no bootstrap used for so long are removed.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// What to put together.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `family:suite`, such as `debian:bookworm`.
    pub target: String,
    /// Name of the image; absent means the target.
    pub name: Option<String>,
    /// How much is installed beside what is named.
    pub variant: Variant,
    /// Further packages.
    pub include: Vec<String>,
    /// Packages that must not be chosen.
    pub exclude: Vec<String>,
    /// Archive instead of apt's.
    pub mirror: Option<String>,
    /// Keyring instead of apt's.
    pub keyring: Option<PathBuf>,
    /// Components instead of apt's.
    pub components: Vec<String>,
    /// Architecture in Debian's words; absent means this machine's.
    pub architecture: Option<String>,
    /// Take Release files that say that they have expired.
    pub ignore_valid_until: bool,
    /// Put together exactly what a lock file says.
    pub locked: Option<Lock>,
}

/// An image that was put together.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The image's ID.
    pub id: String,
    /// What it was made of.
    pub lock: Lock,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Lists of packages are read.
    Lists,
    /// Packages are downloaded: bytes so far, of how many.
    Download(u64, u64),
    /// The base system's files are extracted.
    Extract,
    /// The packages are configured in a container.
    Configure(usize),
    /// The layer is written.
    Layer,
}

/// A package that is there: verified, and opened for what it says itself.
struct Ready {
    deb: Deb,
    path: PathBuf,
}

impl Engine {
    /// Puts an image together and names it.
    ///
    /// Nobody else may have started threads in this process: a container is cloned from it.
    ///
    /// # Errors
    /// Any [`Error`]; the store is unchanged then but for the cache.
    pub fn bootstrap(&self, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, Error> {
        let target = hull_debian::choose::Target::parse(&options.target)?;
        let name = options.name.as_deref().unwrap_or(&options.target);
        let reference = name.parse::<Reference>().map_err(|error| Error::flag("--tag", error.to_string()))?.or_latest();
        let transfer = self.images.begin()?;
        let work = transfer.directory()?;
        let machine = hull_debian::apt::Machine::read(Path::new("/"));
        let client = Client::new(Proxies::new(&machine.conf, &hull_config::proxy));
        let cache = Cache::new(&self.root().join("cache/debian"), &work)?;
        let mut lock = if let Some(lock) = &options.locked {
            lock.clone()
        } else {
            progress(Progress::Lists);
            plan::plan(options, &target, &machine, &client, &cache)?
        };
        let packages = download(&lock, options.mirror.as_deref(), &client, &cache, progress)?;
        drop(client);
        let epoch = packages.iter().map(|one| one.deb.time).max().unwrap_or(0);
        if options.locked.is_none() {
            lock.epoch = epoch;
        } else if lock.epoch != epoch {
            let reason = format!("the lock file says {}, its newest package is of {epoch}", lock.epoch);
            return Err(Error::Bootstrap(format!("time of the image: {reason}")));
        }
        let rootfs = work.join("rootfs");
        progress(Progress::Extract);
        extract::base(&rootfs, &lock, &packages)?;
        progress(Progress::Configure(packages.len()));
        // The container is cloned from this process, and must not share its database.
        self.images.close();
        configure::run(self, &work, &rootfs, &lock, &packages)?;
        progress(Progress::Layer);
        let path = work.join("layer.tar");
        let layer = layer::write(&rootfs, &path, lock.epoch, lock.embedded().as_bytes())?;
        if let Some(expected) = options.locked.as_ref().and_then(|lock| lock.image.as_ref())
            && expected.layer != layer.to_string()
        {
            let expected = hull_oci::spec::one_line(&expected.layer);
            let reason = format!("the lock file says layer {expected}, the packages gave {layer}");
            return Err(Error::Bootstrap(format!("the image is another one: {reason}")));
        }
        lock.image = Some(LockedImage { layer: layer.to_string() });
        let config = config(&lock, &layer, &rootfs);
        let file = std::fs::File::open(&path).map_err(Error::io("open", &path))?;
        transfer.layer(file, LayerSource { diff_id: Some(layer), ..LayerSource::default() })?;
        let json = serde_json::to_vec(&config).map_err(|error| Error::Bootstrap(format!("configuration: {error}")))?;
        let image = transfer.image(&json, None, &[reference])?;
        cache.expire(KEEP);
        Ok(Outcome { id: image.id.to_string(), lock })
    }
}

/// Gets all packages of a lock file, several at a time, and links them below the work directory.
fn download(
    lock: &Lock,
    mirror: Option<&str>,
    client: &Client,
    cache: &Cache,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Ready>, Error> {
    let total = lock.packages.iter().map(|one| one.size).sum();
    let (done, next, failed) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<(usize, Result<Ready, Error>)>> = Mutex::new(Vec::new());
    let one = |index: usize| -> Result<Ready, Error> {
        let package = &lock.packages[index];
        let uri = mirror.unwrap_or(&lock.sources[package.source].uri).trim_end_matches('/');
        let url = format!("{uri}/{}", package.path.trim_start_matches("./"));
        let wanted = Wanted { size: package.size, sha256: package.sha256.clone() };
        let file = cache.get(client, &[url], &wanted, &done)?;
        let name = package.path.rsplit('/').next().unwrap_or(&package.path);
        let deb = Deb::open(file, name)?;
        deb.check(&package.name, &package.version, &package.architecture)?;
        Ok(Ready { deb, path: cache.path(&wanted) })
    };
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= lock.packages.len() {
                break;
            }
            let result = one(index);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..DOWNLOADS).map(|_| scope.spawn(worker)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            progress(Progress::Download(done.load(Ordering::Relaxed), total));
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    progress(Progress::Download(done.load(Ordering::Relaxed), total));
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The image's configuration: made of the lock file alone, so that it is the same again.
fn config(lock: &Lock, layer: &Digest, rootfs: &Path) -> ImageConfig {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let created = hull_oci::time::rfc3339(i64::try_from(lock.epoch).unwrap_or(i64::MAX));
    let shell = if std::fs::symlink_metadata(rootfs.join("usr/bin/bash")).is_ok() { "bash" } else { "sh" };
    let digest = Digest::of(lock.embedded().as_bytes()).to_string();
    ImageConfig {
        created: Some(created.clone()),
        platform: platform(&lock.architecture),
        config: ContainerConfig {
            env: vec![PATH.to_owned()],
            cmd: vec![shell.to_owned()],
            labels: [(LOCK_LABEL.to_owned(), digest)].into(),
            ..ContainerConfig::default()
        },
        rootfs: RootFs { diff_ids: vec![layer.clone()], ..RootFs::default() },
        history: vec![History {
            created: Some(created),
            created_by: Some(format!("hull bootstrap {}", lock.distribution)),
            ..History::default()
        }],
        ..ImageConfig::default()
    }
}

/// Go's words for Debian's architectures.
fn platform(architecture: &str) -> Platform {
    let (architecture, variant) = match architecture {
        "i386" => ("386", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v5")),
        "arm64" => ("arm64", Some("v8")),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        other => (other, None),
    };
    Platform {
        architecture: architecture.to_owned(),
        os: "linux".to_owned(),
        variant: variant.map(str::to_owned),
        ..Platform::default()
    }
}

/// Debian's word for this machine's architecture.
fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        "arm" => "armhf",
        "powerpc64" => "ppc64el",
        other => other,
    }
}
