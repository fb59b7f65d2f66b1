//! `hull bootstrap`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hull_debian::lock::Lock;
use hull_debian::resolve::Variant;
use hull_engine::bootstrap::{Options, Progress};
use hull_engine::{Engine, Error};

use super::pace::{Amount, Teller};
use super::{Done, Failure};
use crate::output::print;

/// Bytes of a lock file.
const MAX_LOCK: u64 = 64 << 20;

/// How much of a distribution is installed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Size {
    /// Essential and required packages, and apt
    Minbase,
    /// Also the important and standard ones
    Standard,
}

/// Make an image of a distribution's signed packages
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Archives and keyrings are those of the machine's apt, unless given.\n\nExamples:\n  hull bootstrap debian:bookworm\n  hull bootstrap debian:bookworm --include ca-certificates,curl -t base --lock base.lock\n  hull bootstrap debian:bookworm -t base --locked base.lock\n  hull bootstrap ubuntu:noble --mirror http://archive.ubuntu.com/ubuntu --keyring ubuntu.gpg"
)]
pub(super) struct Args {
    /// Also install these packages
    #[arg(long, value_name = "PACKAGE,...", value_delimiter = ',')]
    include: Vec<String>,
    /// Never choose these packages
    #[arg(long, value_name = "PACKAGE,...", value_delimiter = ',')]
    exclude: Vec<String>,
    /// How much is installed beside
    #[arg(long, value_enum, default_value = "minbase")]
    variant: Size,
    /// Archive to use instead of the configured ones: http, https or file
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Keyring to use instead of the configured ones
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Components of the archive
    #[arg(long, value_name = "COMPONENT,...", value_delimiter = ',')]
    components: Vec<String>,
    /// Architecture, in the distribution's words
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// Accept lists whose validity has expired
    #[arg(long)]
    ignore_valid_until: bool,
    /// Name of the image instead of the distribution's
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// Write down all packages, so that the image can be made again
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Make exactly the image that a lock file describes
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["include", "exclude", "variant", "components", "arch", "keyring", "ignore_valid_until"]
    )]
    locked: Option<PathBuf>,
    /// Print nothing but the image's ID
    #[arg(short, long)]
    quiet: bool,
    /// Such as debian:bookworm or ubuntu:noble
    #[arg(value_name = "DISTRIBUTION:SUITE")]
    target: String,
}

pub(super) fn main(engine: &Engine, args: Args) -> Done {
    let locked = args.locked.as_deref().map(read_lock).transpose()?;
    if let Some(lock) = &locked {
        let asked = hull_debian::choose::Target::parse(&args.target).map_err(|error| fail(error.to_string()))?;
        let asked = format!("{}:{}", asked.family, asked.suite);
        if lock.distribution != asked {
            return Err(fail(format!("--locked: the file is of {:?}, not {asked:?}", lock.distribution)));
        }
    }
    let options = Options {
        target: args.target,
        name: args.tag,
        variant: match args.variant {
            Size::Minbase => Variant::Minbase,
            Size::Standard => Variant::Standard,
        },
        include: words(args.include),
        exclude: words(args.exclude),
        mirror: args.mirror,
        keyring: args.keyring,
        components: words(args.components),
        architecture: args.arch,
        ignore_valid_until: args.ignore_valid_until,
        locked,
    };
    let mut teller = Teller::new(args.quiet);
    let result = engine.bootstrap(&options, &mut |progress| match progress {
        Progress::Lists => teller.say("reading lists of packages", Amount::Unknown),
        Progress::Download(done, total) => teller.say("downloading packages", Amount::Bytes(done, Some(total))),
        Progress::Extract => teller.say("extracting the base system", Amount::Unknown),
        Progress::Configure(count) => teller.say(&format!("configuring {count} packages"), Amount::Unknown),
        Progress::Layer => teller.say("writing the layer", Amount::Unknown),
    });
    drop(teller);
    let outcome = result?;
    if let Some(path) = &args.lock {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        hull_fs::atomic::write_path(&path, outcome.lock.to_text().as_bytes(), 0o644).map_err(Error::from)?;
    }
    print(format_args!("{}\n", outcome.id));
    Ok(0)
}

fn fail(message: String) -> Failure {
    Failure::new(message)
}

fn words(list: Vec<String>) -> Vec<String> {
    list.into_iter().map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn read_lock(path: &Path) -> Result<Lock, Failure> {
    let object = path.display().to_string();
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_LOCK + 1).read_to_string(&mut text));
    read.map_err(|error| fail(format!("--locked: read {object}: {error}")))?;
    Lock::parse(&text, &object).map_err(|error| fail(error.to_string()))
}
