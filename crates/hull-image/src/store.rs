//! The store on disk; its layout is drawn in the crate's documentation.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hull_fs::lock::Lock;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::{Config, Error, hello, unpack};

const MAX_RECORD_BYTES: u64 = 8 << 20;

/// The record of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    /// Seconds since 1970.
    created: u64,
    /// Bytes of all files.
    size: u64,
    config: Config,
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Names with tags; none when the name went to another image.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Defaults for containers.
    pub config: Config,
    /// Directory of the files.
    pub rootfs: PathBuf,
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

/// `name` as `name:latest`; a name with a tag stays.
///
/// # Errors
/// [`Error::Name`].
pub fn normalize(name: &str) -> Result<String, Error> {
    let bad = || Error::Name(name.to_owned());
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let part = |part: &str| {
        let edge =
            |character: Option<char>| character.is_some_and(|one| one.is_ascii_lowercase() || one.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || "._-:".contains(one))
    };
    let tag_ok = !tag.is_empty()
        && tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one));
    if repository.len() > 200 || !tag_ok || !repository.split('/').all(part) {
        return Err(bad());
    }
    Ok(format!("{repository}:{tag}"))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

fn file_name(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace(':', "%3A")
}

fn name_of(file: &str) -> String {
    file.replace("%3A", ":").replace("%2F", "/").replace("%25", "%")
}

fn random_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("read", "random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn create_private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create directory", path))
}

impl Store {
    /// The store below Hull's data directory. Nothing is read or made.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join("images") }
    }

    /// Finds an image by name, ID or unique ID prefix of at least four digits. The built-in image is made at its first
    /// use.
    ///
    /// # Errors
    /// [`Error::NoImage`].
    pub fn find(&self, text: &str) -> Result<Image, Error> {
        if let Some(id) = normalize(text).ok().and_then(|name| self.named(&name)) {
            return self.load(&id);
        }
        if text.len() >= 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let mut found = self.ids()?.into_iter().filter(|id| id.starts_with(text));
            if let (Some(id), None) = (found.next(), found.next()) {
                return self.load(&id);
            }
        }
        if normalize(text).is_ok_and(|name| name == hello::NAME) {
            return self.make_hello();
        }
        Err(Error::NoImage(text.to_owned()))
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        for id in self.ids()? {
            // One that is being removed right now is not listed.
            match self.load(&id) {
                Ok(image) => images.push(image),
                Err(Error::NoImage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let names = self.directory.join("names");
        if let Ok(entries) = fs::read_dir(&names) {
            for entry in entries.flatten() {
                let Ok(file) = entry.file_name().into_string() else { continue };
                let Some(id) = self.named(&name_of(&file)) else { continue };
                if let Some(image) = images.iter_mut().find(|image| image.id == id) {
                    image.names.push(name_of(&file));
                }
            }
        }
        for image in &mut images {
            image.names.sort();
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// Makes an image of a tar archive, plain or compressed by gzip, and gives it a name.
    ///
    /// # Errors
    /// As [`unpack::unpack`]; the store is unchanged then.
    pub fn import(&self, archive: impl Read, name: &str, config: Config) -> Result<Image, Error> {
        let name = normalize(name)?;
        let mut reader = BufReader::with_capacity(256 << 10, archive);
        let start = reader.fill_buf().map_err(Error::io("read", "archive"))?;
        let magic: Vec<u8> = start.iter().take(6).copied().collect();
        let limits = unpack::Limits::default();
        self.add(&name, config, |rootfs| match magic.as_slice() {
            [] => Err(Error::Archive("the input is empty".to_owned())),
            [0x1f, 0x8b, ..] => unpack::unpack(
                BufReader::with_capacity(256 << 10, flate2::bufread::MultiGzDecoder::new(reader)),
                rootfs,
                limits,
            ),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                Err(Error::Archive("zstd compression is not supported: pass it through zstd -d".into()))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                Err(Error::Archive("xz compression is not supported: pass it through xz -d".into()))
            }
            [b'B', b'Z', b'h', ..] => {
                Err(Error::Archive("bzip2 compression is not supported: pass it through bzip2 -d".into()))
            }
            _ => unpack::unpack(reader, rootfs, limits),
        })
    }

    fn make_hello(&self) -> Result<Image, Error> {
        let program = hello::program()?;
        self.add(hello::NAME, hello::config(), |rootfs| {
            let name = hello::PROGRAM.trim_start_matches('/');
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(rootfs, name, flags, Mode::from_raw_mode(0o755))
                .map_err(Error::io("create", hello::PROGRAM))?;
            std::io::Write::write_all(&mut File::from(file), &program).map_err(Error::io("write", hello::PROGRAM))?;
            Ok(program.len() as u64)
        })
    }

    /// Fills a new directory, makes it durable, and gives it its ID and name.
    fn add(
        &self,
        name: &str,
        config: Config,
        fill: impl FnOnce(&OwnedFd) -> Result<u64, Error>,
    ) -> Result<Image, Error> {
        let id = random_id()?;
        create_private(&self.directory.join("names"))?;
        let new = self.directory.join(format!(".new-{id}"));
        create_private(&new)?;
        let _lock = Lock::exclusive(&new.join("lock"))?;
        let result = (|| {
            let rootfs = new.join("rootfs");
            fs::create_dir(&rootfs).map_err(Error::io("create directory", &rootfs))?;
            rustix::fs::chmod(&rootfs, Mode::from_raw_mode(0o755)).map_err(Error::io("change mode of", &rootfs))?;
            let opened = OwnedFd::from(File::open(&rootfs).map_err(Error::io("open", &rootfs))?);
            let size = fill(&opened)?;
            let record = Record { created: now(), size, config };
            let path = new.join("image.json");
            let json = serde_json::to_vec(&record)
                .map_err(|source| Error::Record { path: path.display().to_string(), source })?;
            fs::write(&path, json).map_err(Error::io("write", &path))?;
            // One sync of the file system instead of one per file: what has a name after a power loss is whole.
            rustix::fs::syncfs(&opened).map_err(Error::io("sync", &rootfs))?;
            fs::remove_file(new.join("lock")).map_err(Error::io("remove", new.join("lock")))?;
            let to = self.directory.join(&id);
            fs::rename(&new, &to).map_err(Error::io("rename", &new))?;
            hull_fs::atomic::write_path(&self.directory.join("names").join(file_name(name)), id.as_bytes(), 0o600)?;
            Ok(())
        })();
        if let Err(error) = result {
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        self.load(&id)
    }

    /// Takes a name away, and with its last name (or when given by ID) the image itself. Returns what was done, as
    /// `Untagged: NAME` and `Deleted: ID` lines.
    ///
    /// # Errors
    /// [`Error::NoImage`].
    pub fn remove(&self, text: &str) -> Result<Vec<String>, Error> {
        let images = self.list()?;
        let name = normalize(text).ok();
        let by_name = images.iter().find(|image| name.as_ref().is_some_and(|name| image.names.contains(name)));
        let image = match by_name {
            Some(image) => image,
            None => {
                let mut found = images.iter().filter(|image| text.len() >= 4 && image.id.starts_with(text));
                match (found.next(), found.next()) {
                    (Some(image), None) => image,
                    _ => return Err(Error::NoImage(text.to_owned())),
                }
            }
        };
        let gone: Vec<&String> = match (by_name, &name) {
            (Some(_), Some(name)) => vec![name],
            _ => image.names.iter().collect(),
        };
        let mut done = Vec::new();
        for name in &gone {
            let path = self.directory.join("names").join(file_name(name));
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            done.push(format!("Untagged: {name}"));
        }
        if gone.len() == image.names.len() {
            let from = self.directory.join(&image.id);
            // Renamed first: a reader sees the whole image or none, and a killed removal is finished by `repair`.
            let trash = self.directory.join(format!(".new-{}", image.id));
            fs::rename(&from, &trash).map_err(Error::io("rename", &from))?;
            fs::remove_dir_all(&trash).map_err(Error::io("remove", &trash))?;
            done.push(format!("Deleted: {}", image.id));
        }
        Ok(done)
    }

    /// Removes what killed imports and removals left. Returns how many there were.
    ///
    /// # Errors
    /// When a directory cannot be removed.
    pub fn repair(&self) -> Result<usize, Error> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Ok(0) };
        let mut count = 0;
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(".new-") {
                continue;
            }
            let path = entry.path();
            let lock = path.join("lock");
            // Without a lock file it is a removal, or an import that was killed at its very start; one that has just
            // made its directory is younger than this.
            let held = if lock.exists() { Lock::try_exclusive(&lock)?.is_none() } else { young(&path) };
            if !held {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn named(&self, name: &str) -> Option<String> {
        let id = fs::read_to_string(self.directory.join("names").join(file_name(name))).ok()?;
        is_id(&id).then_some(id)
    }

    fn ids(&self) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &self.directory)(error)),
        };
        Ok(entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_id(name))
            .collect())
    }

    fn load(&self, id: &str) -> Result<Image, Error> {
        let directory = self.directory.join(id);
        let path = directory.join("image.json");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NoImage(id.to_owned())),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Record { path: path.display().to_string(), source })?;
        Ok(Image {
            id: id.to_owned(),
            names: Vec::new(),
            created: record.created,
            size: record.size,
            config: record.config,
            rootfs: directory.join("rootfs"),
        })
    }
}

fn young(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age.as_secs() < 10)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_mode(0o644);
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        builder.append_data(&mut header, "file", b"hi".as_slice()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn import_find_remove() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert!(matches!(store.find("mine"), Err(Error::NoImage(_))));
        let config = Config { cmd: vec!["x".into()], ..Config::default() };
        let image = store.import(archive().as_slice(), "mine", config.clone()).unwrap();
        assert_eq!(store.find("mine:latest").unwrap().config, config);
        assert_eq!(store.find(&image.id[..12]).unwrap().id, image.id);
        assert_eq!(fs::read(image.rootfs.join("file")).unwrap(), b"hi");
        assert_eq!(store.list().unwrap()[0].names, ["mine:latest"]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive()).unwrap();
        let second = store.import(gzip.finish().unwrap().as_slice(), "mine", Config::default()).unwrap();
        assert_ne!(second.id, image.id);
        assert_eq!(store.list().unwrap().len(), 2);
        assert_eq!(store.remove("mine").unwrap().len(), 2);
        assert_eq!(store.remove(&image.id).unwrap(), [format!("Deleted: {}", image.id)]);
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn a_failed_or_killed_import_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        assert!(store.import(b"not an archive".as_slice(), "a", Config::default()).is_err());
        assert!(store.import(b"".as_slice(), "a", Config::default()).is_err());
        let left = directory.path().join("images/.new-killed");
        fs::create_dir_all(left.join("rootfs")).unwrap();
        fs::write(left.join("lock"), "").unwrap();
        assert_eq!(store.repair().unwrap(), 1);
        let names: Vec<_> =
            fs::read_dir(directory.path().join("images")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["names"]);
    }

    #[test]
    fn hello_is_made_at_first_use() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let image = store.find("hello").unwrap();
        assert!(image.rootfs.join("hello").exists());
        assert_eq!(store.find("hello").unwrap().id, image.id);
    }

    #[test]
    fn names() {
        assert_eq!(normalize("a").unwrap(), "a:latest");
        assert_eq!(normalize("host:5000/a/b:v1").unwrap(), "host:5000/a/b:v1");
        assert_eq!(normalize("host:5000/a").unwrap(), "host:5000/a:latest");
        for wrong in ["", "A", "a:", "a//b", "/a", "a/", "../a", "a:.x", "a b", "a/../b"] {
            assert!(normalize(wrong).is_err(), "{wrong}");
        }
        let name = "host:5000/a%b:v";
        assert_eq!(name_of(&file_name(name)), name);
    }
}
