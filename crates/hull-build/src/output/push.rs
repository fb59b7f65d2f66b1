//! To registries.

use hull_image::registry::{self, PushOptions};
use hull_oci::{Digest, Reference};
use hull_registry::Client;

use super::Exporter;
use crate::observer::{Event, Observer, StepId};
use crate::{BuiltImage, Error};

impl Exporter<'_> {
    /// Sends the images under all names, or by their digests alone; several platforms become one index, whose digest is
    /// given.
    pub(super) fn push(
        &self,
        built: &mut [BuiltImage],
        names: &[Reference],
        by_digest: bool,
    ) -> Result<Option<Digest>, Error> {
        let client = Client::from_environment();
        let store = &self.engine.images;
        let mut index = None;
        for name in names {
            self.sources.step(&format!("pushing {name}"), |step| {
                let progress = Pushing { observer: self.observer, step };
                let options = PushOptions { by_digest, ..PushOptions::default() };
                let images = built.iter().map(|one| store.get(&one.id)).collect::<Result<Vec<_>, _>>()?;
                if images.len() > 1 && !by_digest {
                    let (all, list) = registry::push_platforms(store, &client, &images, name, &options, &progress)?;
                    for (built, pushed) in built.iter_mut().zip(all) {
                        built.manifest = Some(pushed.digest);
                    }
                    self.told(step, &format!("pushing manifest list {}", list.digest));
                    index = Some(list.digest);
                    return Ok(());
                }
                for (image, built) in images.iter().zip(built.iter_mut()) {
                    let pushed = registry::push(store, &client, image, name, &options, &progress)?;
                    built.manifest = Some(pushed.digest);
                }
                Ok(())
            })?;
        }
        Ok(index)
    }
}

/// Tells of layers that go.
struct Pushing<'a> {
    observer: &'a dyn Observer,
    step: StepId,
}

impl registry::Progress for Pushing<'_> {
    fn layer(&self, layer: &Digest, event: registry::Event) {
        let (current, total, done) = match event {
            registry::Event::Pushing(current, total) => (current, total, false),
            registry::Event::Pushed | registry::Event::Exists | registry::Event::Mounted(_) => (0, 0, true),
            _ => return,
        };
        let id = format!("pushing layer {layer}");
        self.observer.step(self.step, Event::Status { id: &id, current, total, done });
    }
}
