//! `--squash`: what a build has added becomes one layer. The build itself makes an image without a name, whose steps stay
//! in the cache; the names are the squashed image's.

use hull_build::Built;
use hull_build::request::{BuildRequest, OutputKind};
use hull_engine::Engine;
use hull_oci::Reference;

use super::Failure;

/// The names that wait for the squashed image.
#[derive(Debug)]
pub(super) struct Squash(Vec<Reference>);

impl Squash {
    /// Takes the names out of a request.
    pub(super) fn of(request: &mut BuildRequest) -> Result<Self, Failure> {
        let mut names = std::mem::take(&mut request.tags);
        for output in &mut request.outputs {
            let kept = matches!(output.kind, OutputKind::Image | OutputKind::Docker) && output.destination.is_none();
            if !kept || output.attributes.get("push").is_some_and(|push| push != "false") {
                let hint = "build it with --squash, then use 'hull push', 'hull save' or 'hull export'";
                return Err(Failure::new(format!("--squash makes an image of the store only: {hint}")));
            }
            for name in output.attributes.remove("name").unwrap_or_default().split(',').filter(|name| !name.is_empty())
            {
                let parsed = name.trim().parse::<Reference>();
                names.push(parsed.map_err(|error| Failure::new(format!("name {name:?} of an output: {error}")))?);
            }
        }
        Ok(Self(names.into_iter().map(Reference::or_latest).collect()))
    }

    /// Squashes what was built, and gives it the names.
    pub(super) fn apply(self, engine: &Engine, request: &mut BuildRequest, built: &mut Built) -> Result<(), Failure> {
        for one in &mut built.images {
            let image = engine.images.find(&one.id.to_string())?;
            let added = one.base_layers + 1..=image.layers.len();
            if added.clone().count() > 1 {
                let squashed = hull_image::squash::squash(&engine.images, &image, added, &self.0)?;
                one.id = squashed.id;
                one.manifest = None;
            } else {
                for name in &self.0 {
                    engine.images.tag(&image.id, name)?;
                }
            }
        }
        request.tags = self.0;
        Ok(())
    }
}
