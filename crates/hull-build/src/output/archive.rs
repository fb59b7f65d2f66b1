//! Archives of images, and of files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use hull_image::archive::{Format, Layers, SaveOptions, save, save_directory};
use hull_image::provenance;
use hull_oci::Digest;
use hull_oci::image::media_type;

use super::{Exporter, Ready};
use crate::Error;
use crate::files::export::{ExportOptions, to_directory, to_tar};
use crate::files::tree::FileTree;
use crate::observer::{Event, Warning};
use crate::request::{Attest, Output, OutputKind};

impl Exporter<'_> {
    /// An archive as `docker save` writes it, or an OCI layout.
    pub(super) fn archive(&self, output: &Output, ready: &[Ready<'_>]) -> Result<(), Error> {
        let names = self.names(output)?;
        let (format, words, default) = match output.kind {
            OutputKind::Oci => (Format::Oci, "oci", Layers::Gzip),
            _ => (Format::Docker, "docker", Layers::Plain),
        };
        if format == Format::Docker && ready.len() > 1 {
            return Err(Error::Request(
                "docker exporter does not currently support exporting manifest lists: use --output type=oci".to_owned(),
            ));
        }
        let layers = match output.attributes.get("compression").map(String::as_str) {
            None | Some("") => default,
            Some("uncompressed") => Layers::Plain,
            Some("gzip") => Layers::Gzip,
            Some("zstd") => Layers::Zstd,
            Some(other) => return Err(Error::Request(format!("unsupported layer compression type: {other}"))),
        };
        let as_tar = !output.attributes.get("tar").is_some_and(|value| matches!(value.as_str(), "false" | "0"));
        // Annotations are in a manifest of uncompressed layers.
        let layers = if self.request.annotations.is_empty() { layers } else { Layers::Original };
        let predicates = ready.iter().map(|one| (self.predicates)(one)).collect::<Result<Vec<_>, _>>()?;
        if format == Format::Docker && predicates.iter().any(|one| !one.is_empty()) {
            return Err(Error::Request(
                "attestations are in an index, which Docker's archives do not have: use --output type=oci".to_owned(),
            ));
        }
        let options = SaveOptions { format, layers, together: true, predicates: &predicates };
        self.sources.step(&format!("exporting to {words} image format"), |step| {
            let store = &self.engine.images;
            let mut images = Vec::with_capacity(ready.len());
            let mut own = Vec::new();
            for one in ready {
                let known = store.has(&Digest::of(&one.config))?;
                let manifest = self.manifest(one)?;
                let annotated = manifest.as_deref().map(|bytes| (bytes, media_type::MANIFEST));
                let image = self.transfer.image(&one.config, annotated, &[])?;
                own.extend((!known).then(|| image.id.clone()));
                images.push((image, names.clone()));
            }
            let written = match &output.destination {
                Some(path) if !as_tar => save_directory(store, &images, options, path).map_err(Error::from),
                Some(path) => into_file(path, |file| save(store, &images, options, file).map_err(Error::from)),
                None => save(store, &images, options, std::io::stdout().lock()).map_err(Error::from),
            };
            for id in own {
                // It was wanted as an archive. If somebody else has taken it meanwhile, it stays.
                let _ = store.remove(&id.to_string(), false, &|_| true);
            }
            written?;
            for (image, _) in &images {
                self.told(step, &format!("exporting config {}", image.id));
            }
            Ok(())
        })
    }

    /// The files themselves: a directory or a tar. Several platforms are directories below it.
    pub(super) fn files(&self, output: &Output, ready: &[Ready<'_>]) -> Result<(), Error> {
        let epoch = self.request.source_date_epoch;
        let mirror = output.attributes.get("mode").is_some_and(|mode| mode == "delete");
        // Scripts may ask for directories with one platform too, or for none with several.
        let split = match output.attributes.get("platform-split").map(String::as_str) {
            Some("true" | "1") => true,
            Some("false" | "0") => false,
            _ => ready.len() > 1,
        };
        let below = |one: &Ready<'_>| one.planned.platform.to_string().replace('/', "_");
        let words = if output.kind == OutputKind::Tar {
            "exporting to client tarball"
        } else {
            "exporting to client directory"
        };
        self.sources.step(words, |step| {
            let trees: Vec<_> = ready.iter().map(|one| self.files.layers(&one.layers)).collect::<Result<_, _>>()?;
            let mut bytes = 0;
            if let (OutputKind::Local, Some(path)) = (output.kind, &output.destination) {
                for (one, tree) in ready.iter().zip(&trees) {
                    let path = if split { path.join(below(one)) } else { path.clone() };
                    let written = to_directory(tree, &path, ExportOptions { epoch, mirror })?;
                    if !written.skipped.is_empty() {
                        let names = written.skipped.join(", ");
                        let message = format!("not written, because that is not permitted: {names}");
                        self.observer.warning(&Warning { message, detail: None, url: None, lines: None });
                    }
                    bytes += written.bytes;
                    for said in (self.predicates)(one)? {
                        let name =
                            if said.kind == provenance::PREDICATE { "provenance.json" } else { "sbom.spdx.json" };
                        let id = Digest::of(&one.config);
                        let text = provenance::statement_of(&["_".to_owned()], &id, &said.kind, &said.value);
                        let text = serde_json::to_string_pretty(&text).unwrap_or_default();
                        // What the image has in that place is replaced, and never followed.
                        hull_fs::atomic::write_path(&path.join(name), text.as_bytes(), 0o644)?;
                    }
                }
            } else {
                let names: Vec<String> =
                    ready.iter().map(|one| if split { format!("/{}/", below(one)) } else { "/".to_owned() }).collect();
                let all: Vec<(&str, &dyn FileTree)> =
                    names.iter().zip(&trees).map(|(name, tree)| (name.as_str(), tree as &dyn FileTree)).collect();
                if self.request.attest != Attest::default() {
                    let message = "attestations are not written into a tar of files".to_owned();
                    self.observer.warning(&Warning { message, detail: None, url: None, lines: None });
                }
                match &output.destination {
                    Some(path) => into_file(path, |file| Ok(to_tar(&all, BufWriter::new(file), epoch)?))?,
                    None => to_tar(&all, BufWriter::new(std::io::stdout().lock()), epoch)?,
                }
            }
            self.observer.step(step, Event::Status { id: "copying files", current: bytes, total: 0, done: true });
            Ok(())
        })
    }
}

/// Writes a file beside its place, and renames it.
pub(super) fn into_file(path: &Path, write: impl FnOnce(&mut File) -> Result<(), Error>) -> Result<(), Error> {
    let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        // A device or a pipe is written as it is.
        let mut file = File::options().write(true).open(path).map_err(Error::io("open", path))?;
        return write(&mut file);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(name);
    let mut file = File::create(&beside).map_err(Error::io("create", &beside))?;
    let done = write(&mut file).and_then(|()| file.flush().map_err(Error::io("write", &beside)));
    let done = done.and_then(|()| std::fs::rename(&beside, path).map_err(Error::io("rename", &beside)));
    if done.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    done
}
