//! Uploads: begun, continued in pieces, ended by a digest; they outlive the server.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_oci::Digest;
use hull_oci::digest::{Algorithm, Hasher};
use hyper::StatusCode;

use super::{Storage, link, make_directories, remove_durable, sync_directory};
use crate::refusal::Refusal;

/// So many uploads may be open.
const MOST_OPEN: usize = if cfg!(test) { 20 } else { 20_000 };

/// An upload as it is shared: one request at a time works on it, and none when it has ended.
pub(crate) type Shared = Arc<tokio::sync::Mutex<Option<Upload>>>;

/// The uploads that this process has seen.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<HashMap<String, Shared>>);

impl Open {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that has not ended.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    name: String,
    path: PathBuf,
    /// Bytes that are there.
    pub(crate) length: u64,
    /// Of these bytes; absent when a former process took some of them.
    hasher: Option<Hasher>,
}

impl Upload {
    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = file.write_all_at(bytes, self.length) {
            // What is beyond the length must not be taken for content after a restart.
            let _ = file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// The file to add to.
    pub(crate) fn open(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("data"))
    }

    /// Forgets the bytes after the first `length`.
    pub(crate) fn truncate(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)?;
        self.length = length;
        self.hasher = None;
        Ok(())
    }

    /// Puts on disk what was added, and the upload's name.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()?;
        sync_directory(&self.path)?;
        sync_directory(self.path.parent().unwrap_or(&self.path))
    }

    /// The digest of all bytes by the algorithm that is asked for; reads them again where they were not hashed so.
    fn digest(&self, wanted: &Digest) -> io::Result<Digest> {
        if let Some(hasher) = &self.hasher {
            let found = hasher.clone().finish();
            if found.algorithm() == wanted.algorithm() {
                return Ok(found);
            }
        }
        let mut hasher = wanted.hasher();
        let mut file = File::open(self.path.join("data"))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}

fn unknown() -> Refusal {
    Refusal::missing("BLOB_UPLOAD_UNKNOWN", "no such upload: begin again")
}

/// Moves a file to where the same content may have come meanwhile. That stays then: others are making links to it.
fn place(data: &Path, pool: &Path, length: u64) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, data, CWD, pool, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) if fs::metadata(pool)?.len() == length => Ok(()),
        // Damage, or a file system that has no such flag.
        Err(_) => fs::rename(data, pool),
        Ok(()) => Ok(()),
    }
}

impl Storage {
    fn upload_path(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    /// Begins an upload.
    pub(crate) fn begin(&self, name: &str, algorithm: Algorithm) -> Result<(String, Shared), Refusal> {
        let failed = |error: io::Error| Refusal::io("begin upload", &error);
        if self.uploads.all().len() >= MOST_OPEN {
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are open");
            return Err(refusal.with("retry-after", "60"));
        }
        let mut random = [0_u8; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed(error.into()))?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.upload_path(&id);
        fs::create_dir(&path).map_err(failed)?;
        fs::write(path.join("repository"), name).map_err(failed)?;
        File::create_new(path.join("data")).map_err(failed)?;
        let hasher = Some(Hasher::new(algorithm));
        let upload = Upload { id: id.clone(), name: name.to_owned(), path, length: 0, hasher };
        let shared = Arc::new(tokio::sync::Mutex::new(Some(upload)));
        self.uploads.all().insert(id.clone(), Arc::clone(&shared));
        Ok((id, shared))
    }

    /// An open upload of a repository; one that a former process began has as many bytes as reached the disk.
    pub(crate) fn upload(&self, name: &str, id: &str) -> Result<Shared, Refusal> {
        let path = self.upload_path(id);
        let repository = fs::read_to_string(path.join("repository")).map_err(|_| unknown())?;
        if repository != name {
            return Err(unknown());
        }
        let mut all = self.uploads.all();
        if let Some(shared) = all.get(id) {
            return Ok(Arc::clone(shared));
        }
        let length = fs::metadata(path.join("data")).map_err(|_| unknown())?.len();
        let upload = Upload { id: id.to_owned(), name: repository, path, length, hasher: None };
        let shared = Arc::new(tokio::sync::Mutex::new(Some(upload)));
        all.insert(id.to_owned(), Arc::clone(&shared));
        Ok(shared)
    }

    /// Forgets an upload and its bytes.
    pub(crate) fn cancel(&self, upload: &Upload) {
        self.uploads.all().remove(&upload.id);
        // Should this fail, the collection of garbage tries again.
        let _ = fs::remove_dir_all(&upload.path);
    }

    /// Forgets an upload that no client knows of.
    pub(crate) fn abandon(&self, name: &str, id: &str) {
        if let Ok(shared) = self.upload(name, id)
            && let Ok(mut held) = shared.try_lock()
            && let Some(upload) = held.take()
        {
            self.cancel(&upload);
        }
    }

    /// Ends an upload: its bytes are the blob of this digest, or nothing.
    pub(crate) fn finish(&self, held: &mut Option<Upload>, wanted: &Digest) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal::io("store blob", &error);
        let upload = held.as_ref().ok_or_else(unknown)?;
        let found = upload.digest(wanted).map_err(failed)?;
        if found != *wanted {
            self.cancel(upload);
            *held = None;
            return Err(Refusal::bad("DIGEST_INVALID", format!("the blob's digest is {found}, not {wanted}")));
        }
        let data = upload.path.join("data");
        let pool = self.pool(wanted);
        if !pool.exists() {
            File::open(&data).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        {
            let _adding = self.adding().map_err(failed)?;
            let target = self.blob_link(&upload.name, wanted);
            let shared = match fs::metadata(&pool) {
                // Bytes that are there already are not written a second time.
                Ok(metadata) if metadata.len() == upload.length => link(&pool, &target),
                _ => Err(io::ErrorKind::NotFound.into()),
            };
            match shared {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = pool.parent().unwrap_or(&pool);
                    // It may have gone since it was looked for.
                    File::open(&data).and_then(|file| file.sync_all()).map_err(failed)?;
                    make_directories(parent).map_err(failed)?;
                    place(&data, &pool, upload.length).map_err(failed)?;
                    sync_directory(parent).map_err(failed)?;
                    link(&pool, &target).map_err(failed)?;
                }
                shared => shared.map_err(failed)?,
            }
            self.touch(&upload.name, wanted);
        }
        self.cancel(upload);
        *held = None;
        Ok(())
    }

    /// Removes uploads that nobody continued for so long. Returns how many.
    pub(super) fn expire(&self, idle: Duration) -> io::Result<usize> {
        let mut removed = 0;
        for id in super::names(&self.root.join("uploads"))? {
            let path = self.upload_path(&id);
            let newest = ["data", "repository"]
                .iter()
                .filter_map(|name| fs::metadata(path.join(name)).ok())
                .filter_map(|metadata| metadata.modified().ok()?.elapsed().ok());
            let is_old = match newest.min() {
                Some(age) => age >= idle,
                // Neither file: what a killed process was removing, or is about to fill.
                None => fs::metadata(&path)
                    .and_then(|found| found.modified())
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= idle)),
            };
            if !is_old {
                continue;
            }
            let shared = self.uploads.all().get(&id).map(Arc::clone);
            match shared.as_ref().map(|shared| shared.try_lock()) {
                // Somebody is at it after all.
                Some(Err(_)) => continue,
                Some(Ok(mut upload)) => *upload = None,
                None => {}
            }
            self.uploads.all().remove(&id);
            let _ = remove_durable(&path.join("repository"));
            fs::remove_dir_all(&path)?;
            removed += 1;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_uploads_are_told_when_to_come_back() {
        let directory = tempfile::tempdir().expect("directory");
        let storage = Storage::open(directory.path()).expect("storage");
        let begin = || storage.begin("a", Algorithm::Sha256);
        let first = begin().expect("upload").0;
        for _ in 1..MOST_OPEN {
            begin().expect("upload");
        }
        let refusal = begin().expect_err("too many");
        assert_eq!((refusal.status, refusal.code), (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"));
        assert_eq!(refusal.headers, [("retry-after", "60".to_owned())]);
        storage.abandon("a", &first);
        begin().expect("there is room again");
    }

    #[test]
    fn the_same_blob_comes_to_one_repository_at_once() {
        let directory = tempfile::tempdir().expect("directory");
        let storage = Storage::open(directory.path()).expect("storage");
        for round in 0..30 {
            let content = format!("round {round}").repeat(1000).into_bytes();
            let digest = Digest::of(&content);
            let barrier = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let (_, shared) = storage.begin("a", Algorithm::Sha256).expect("upload");
                        let mut held = shared.blocking_lock();
                        let upload = held.as_mut().expect("open");
                        let file = upload.open().expect("file");
                        upload.append(&file, &content).expect("written");
                        barrier.wait();
                        storage.finish(&mut held, &digest).expect("finished");
                    });
                }
            });
            assert_eq!(fs::read(storage.pool(&digest)).expect("blob"), content);
            assert_eq!(fs::read(storage.blob_link("a", &digest)).expect("blob"), content);
        }
    }
}
