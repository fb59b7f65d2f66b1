//! The image of `run` and `create`, when this machine does not have it.
//!
//! It is pulled by another process of Hull: this one must stay without threads, because it is going to clone.

use std::process::{Command, Stdio};

use clap::ValueEnum;
use hull_engine::{Engine, Error};
use hull_oci::image::Platform;

use crate::commands::Failure;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::commands) enum Policy {
    /// Each time.
    Always,
    /// When this machine does not have it.
    Missing,
    /// Not at all.
    Never,
}

/// What is to be pulled, and when.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Fetch {
    pub(super) image: Option<String>,
    pub(super) policy: Policy,
    pub(super) platform: Option<Platform>,
    pub(super) quiet: bool,
}

impl Fetch {
    /// Does something that needs the image; pulls it where the policy says so.
    pub(in crate::commands) fn around<T>(
        &self,
        engine: &Engine,
        mut action: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Failure> {
        if self.policy == Policy::Always
            && let Some(image) = &self.image
        {
            self.pull(engine, image)?;
        }
        if self.policy == Policy::Missing
            && let (Some(image), Some(platform)) = (&self.image, &self.platform)
            && let Err(hull_image::Error::Platform { .. }) = engine.images.find_on(image, Some(platform))
        {
            // The image that is here is for another platform.
            if !self.quiet {
                crate::output::warning(format!("Unable to find image '{}' locally", familiar(image)));
            }
            self.pull(engine, image)?;
        }
        match (action(), &self.image) {
            (Err(error), Some(image)) if self.policy == Policy::Missing && error.is_no_image() => {
                let parsed: Result<hull_oci::Reference, _> = image.parse();
                parsed.map_err(|error| Failure::usage(error.to_string()))?;
                if !self.quiet {
                    crate::output::warning(format!("Unable to find image '{}' locally", familiar(image)));
                }
                self.pull(engine, image)?;
                action()
            }
            (result, _) => result,
        }
        .map_err(|error| Failure::start(&error))
    }

    fn pull(&self, engine: &Engine, image: &str) -> Result<(), Failure> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state_root()).args(["pull", "--for-run"]);
        if let Some(platform) = &self.platform {
            command.args(["--platform", &platform.to_string()]);
        }
        let failed = |reason: String| Failure::usage(format!("pull {image}: {reason}"));
        let output = if self.quiet {
            command.arg("--quiet");
            Stdio::null()
        } else {
            let copy = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3);
            copy.map_err(|error| failure(&error)).map(Stdio::from).map_err(failed)?
        };
        let status = command.arg("--").arg(image).stdin(Stdio::null()).stdout(output).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            // It has said why.
            Ok(_) => Err(Failure::usage("")),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// The name with the tag that it means.
fn familiar(image: &str) -> String {
    let tagged = image.parse().map(hull_oci::Reference::or_latest);
    tagged.map_or_else(|_| image.to_owned(), |name| name.familiar())
}

fn failure(error: &rustix::io::Errno) -> String {
    format!("duplicate standard error: {error}")
}
