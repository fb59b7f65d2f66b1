//! `hull load`, `hull save`, `hull import` and `hull squash`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hull_engine::{Engine, events};
use hull_image::Error;
use hull_image::archive::{self, Format, ImportOptions, Layers, LoadOptions, Loaded, SaveOptions};
use hull_oci::image::Platform;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::names::name;
use super::pace::{self, Amount};
use super::{Done, Failure};
use crate::output::print;

/// Load images from an archive: of Docker or OCI, compressed or not, or an OCI layout directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hull load -i app.tar.gz\n  docker save app | hull load")]
pub(super) struct Load {
    /// Archive or directory, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Only these platforms [default: all of what has a name]
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]],...", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// Do not say how far it is
    #[arg(short, long)]
    quiet: bool,
}

/// Save images to an archive
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull save -o app.tar app:v1 app:v2\n  hull save app | docker load\n  hull save --format oci -o layout/ app"
)]
pub(super) struct Save {
    /// Write to this file instead of standard output; a name that ends with '/' is an OCI layout directory
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only these platforms [default: all that are here]
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]],...", value_delimiter = ',', value_parser = Platform::parse)]
    platform: Vec<Platform>,
    /// docker: both Docker's and OCI's format; oci: only OCI's
    #[arg(long, value_name = "FORMAT", default_value = "docker", value_parser = ["docker", "oci"], hide_possible_values = true)]
    format: String,
    /// Layers as they came if they are still kept (original), plain, gzip or zstd
    #[arg(long, value_name = "COMPRESSION", default_value = "original", value_parser = ["original", "plain", "gzip", "zstd"], hide_possible_values = true)]
    layers: String,
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Make an image of a tar archive of a root file system
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull import rootfs.tar.gz mine\n  tar -c -C rootfs . | hull import - mine:v1 -c 'CMD [\"sh\"]' -c 'USER 1000'"
)]
pub(super) struct Import {
    /// Set a default: CMD, ENTRYPOINT, ENV, LABEL, STOPSIGNAL, USER, WORKDIR, ..., as in a Dockerfile
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Comment of the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the files are for [default: this machine]
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]", value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Archive, compressed or not; '-' is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// Merge adjacent layers of an image into one; containers see the same files
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hull squash app app:small\n  hull squash --layers 3-7 app app:small\n  hull history app      shows the layers; 1 is the last of them"
)]
pub(super) struct Squash {
    /// Which layers, counted from 1 at the lowest [default: all]
    #[arg(long, value_name = "FROM-TO", value_parser = range)]
    layers: Option<RangeInclusive<usize>>,
    /// Image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Name of the new image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

fn range(text: &str) -> Result<RangeInclusive<usize>, String> {
    let parsed = text.split_once('-').and_then(|(from, to)| Some(from.parse().ok()?..=to.parse().ok()?));
    parsed.ok_or_else(|| "expected FROM-TO, such as 2-5".to_owned())
}

pub(super) fn load(engine: &Engine, args: Load) -> Done {
    let read = Arc::new(AtomicU64::new(0));
    let options = LoadOptions { platforms: args.platform, read: Some(Arc::clone(&read)) };
    let watched = |file: Option<&std::fs::Metadata>, work: &mut dyn FnMut() -> Result<Vec<Loaded>, Error>| {
        let all = file.filter(|file| file.is_file()).map(std::fs::Metadata::len);
        pace::watched(args.quiet, "loading", || Amount::Bytes(read.load(Ordering::Relaxed), all), work)
    };
    let loaded = match &args.input {
        Some(path) if path.as_os_str() != "-" => {
            let metadata = std::fs::metadata(path).map_err(|error| Failure::new(super::opening(path, &error)))?;
            watched(Some(&metadata), &mut || archive::load_path(&engine.images, path, &options))?
        }
        _ => {
            if std::io::stdin().is_terminal() {
                return Err(Failure::new("requested load from stdin, but stdin is empty"));
            }
            let input = std::io::stdin().lock();
            let file = rustix::io::fcntl_dupfd_cloexec(&input, 3).map_err(Error::io("open", "standard input"))?;
            let mut file = Some(File::from(file));
            let metadata = file.as_ref().and_then(|file| file.metadata().ok());
            watched(metadata.as_ref(), &mut || match file.take() {
                Some(file) => archive::load(&engine.images, file, &options),
                None => Ok(Vec::new()),
            })?
        }
    };
    for image in loaded.iter().filter(|image| !image.names.is_empty() || image.variant_of.is_empty()) {
        image.lines().iter().for_each(|line| print(format_args!("{line}\n")));
        let id = image.image.id.to_string();
        let name = image.names.first().map_or_else(|| id.clone(), |name| name.familiar());
        events::emit_image(engine, "load", &id, &name);
    }
    Ok(0)
}

pub(super) fn save(engine: &Engine, args: &Save) -> Done {
    let options = SaveOptions {
        format: if args.format == "oci" { Format::Oci } else { Format::Docker },
        layers: match args.layers.as_str() {
            "plain" => Layers::Plain,
            "gzip" => Layers::Gzip,
            "zstd" => Layers::Zstd,
            _ => Layers::Original,
        },
        together: false,
        ..SaveOptions::default()
    };
    let mut images = archive::select(&engine.images, &args.images).map_err(|error| match error {
        // As Docker: the name as it was given.
        Error::NoImage(name) => {
            let given = args.images.iter().find(|given| name.strip_suffix(":latest") == Some(given.as_str()));
            Error::NoImage(given.cloned().unwrap_or(name))
        }
        other => other,
    })?;
    archive::retain_platforms(&mut images, &args.platform)?;
    if let Some(path) = &args.output {
        check_output(path).map_err(|reason| Failure::new(format!("failed to save image: {reason}")))?;
    }
    // Said before: what follows may take long and goes where it likes.
    for (image, _) in &images {
        let id = image.id.to_string();
        let name = image.names.first().map_or_else(|| id.clone(), |name| name.familiar());
        events::emit_image(engine, "save", &id, &name);
    }
    let Some(path) = &args.output else {
        to_stdout("the -o flag", |output| Ok(archive::save(&engine.images, &images, options, output)?))?;
        return Ok(0);
    };
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir() {
        archive::save_directory(&engine.images, &images, options, path)?;
        return Ok(0);
    }
    write_file(path, |file| Ok(archive::save(&engine.images, &images, options, file)?))?;
    Ok(0)
}

/// Whether there is a directory for a file that is to be written.
pub(super) fn check_output(path: &Path) -> Result<(), String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = std::fs::metadata(directory).map(drop);
    found.map_err(|error| {
        format!("invalid output path: {}", super::opening(directory, &error).replacen("open", "stat", 1))
    })
}

/// Writes an archive to standard output, unless a person reads it; `instead` is what they can use.
pub(super) fn to_stdout<T>(
    instead: &str,
    write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let output = std::io::stdout();
    if output.is_terminal() {
        return Err(Failure::new(format!("cowardly refusing to save to a terminal. Use {instead} or redirect")));
    }
    let mut output = BufWriter::with_capacity(1 << 20, output.lock());
    let written = write(&mut output)?;
    output.flush().map_err(Error::io("write", "standard output"))?;
    Ok(written)
}

/// Writes a file that appears complete or not at all; what is no plain file is written directly. The file gets its name
/// when it is complete, so that a killed command leaves nothing.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let create = |path: &Path| -> Result<File, Failure> { Ok(File::create(path).map_err(Error::io("create", path))?) };
    let fill = |file: File| -> Result<File, Failure> {
        let mut output = BufWriter::with_capacity(1 << 20, file);
        write(&mut output)?;
        Ok(output.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?)
    };
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return fill(create(path)?).map(drop);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let result = match rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)) {
        Ok(unnamed) => fill(unnamed.into()).and_then(|file| {
            let itself = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
            let link = |to: &Path| rustix::fs::linkat(CWD, itself.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW);
            match link(path) {
                Err(Errno::EXIST) => Ok(link(&part)
                    .and_then(|()| rustix::fs::rename(&part, path))
                    .map_err(Error::io("replace", path))?),
                other => Ok(other.map_err(Error::io("create", path))?),
            }
        }),
        // The file system has no unnamed files.
        Err(_) => create(&part)
            .and_then(fill)
            .and_then(|_| Ok(rustix::fs::rename(&part, path).map_err(Error::io("rename", &part))?)),
    };
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

pub(super) fn import(engine: &Engine, args: Import) -> Done {
    let names = args.name.as_deref().map(name).transpose()?.into_iter().collect();
    let options = ImportOptions { names, changes: args.changes, message: args.message, platform: args.platform };
    let image = if args.file.as_os_str() == "-" {
        archive::import(&engine.images, std::io::stdin(), &options)?
    } else {
        let file = File::open(&args.file).map_err(|error| Failure::new(super::opening(&args.file, &error)))?;
        archive::import(&engine.images, file, &options)?
    };
    let id = image.id.to_string();
    events::emit_image(engine, "import", &id, &image.names.first().map_or_else(|| id.clone(), |name| name.familiar()));
    print(format_args!("{id}\n"));
    Ok(0)
}

pub(super) fn squash(engine: &Engine, args: &Squash) -> Done {
    let image = engine.images.find(&args.image)?;
    let names: Vec<_> = args.name.as_deref().map(name).transpose()?.into_iter().collect();
    let layers = args.layers.clone().unwrap_or(1..=image.layers.len());
    let squashed = hull_image::squash::squash(&engine.images, &image, layers, &names)?;
    print(format_args!("{}\n", squashed.id));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_two_ends() {
        assert_eq!(range("2-5"), Ok(2..=5));
        for text in ["", "2", "-", "a-b", "2-", "-5"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
