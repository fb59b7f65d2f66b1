//! To registries.

use hull_image::registry::{self, Predicate, PushOptions};
use hull_oci::Reference;
use hull_registry::Client;

use super::{Exported, Exporter, layers};
use crate::{BuiltImage, Error};

impl Exporter<'_> {
    /// Sends the images under all names, or by their digests alone; several platforms, and those of which something is
    /// said beside them, become one index.
    pub(super) fn push(
        &self,
        built: &mut [BuiltImage],
        said: &[Vec<Predicate>],
        (names, by_digest): (&[Reference], bool),
        exported: &mut Exported,
    ) -> Result<(), Error> {
        let client = Client::from_environment();
        let store = &self.engine.images;
        for name in names {
            self.sources.step(&format!("pushing {name}"), |step| {
                let progress = layers(self.observer, step, "pushing");
                let options = PushOptions { by_digest, ..PushOptions::default() };
                let images = built.iter().map(|one| store.get(&one.id)).collect::<Result<Vec<_>, _>>()?;
                let attested = said.iter().any(|one| !one.is_empty());
                let list = if attested {
                    let images: Vec<_> = images.into_iter().zip(said.iter().map(Vec::as_slice)).collect();
                    let place = (name, names);
                    Some(registry::push_attested(store, &client, &images, place, &options, &progress)?)
                } else if images.len() > 1 && !by_digest {
                    Some(registry::push_platforms(store, &client, &images, name, &options, &progress)?)
                } else {
                    for (image, built) in images.iter().zip(built.iter_mut()) {
                        let pushed = registry::push(store, &client, image, name, &options, &progress)?;
                        exported.pushed.push((name.clone(), pushed.digest.clone()));
                        built.manifest = Some(pushed.digest);
                    }
                    None
                };
                if let Some((all, list)) = list {
                    for (built, pushed) in built.iter_mut().zip(all) {
                        built.manifest = Some(pushed.digest);
                    }
                    self.told(step, &format!("pushing manifest list {}", list.digest));
                    exported.pushed.push((name.clone(), list.digest.clone()));
                    exported.index = Some(list.digest);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
