//! To registries.

use hull_image::registry::{self, Entry, List, PushOptions};
use hull_oci::image::{Descriptor, media_type};
use hull_oci::{Digest, Reference};
use hull_registry::Client;

use super::{Exporter, Ready};
use crate::observer::{Event, Observer, StepId};
use crate::{BuiltImage, Error};

impl Exporter<'_> {
    /// Sends the images under all names; several platforms become one index.
    pub(super) fn push(&self, ready: &[Ready<'_>], built: &mut [BuiltImage], names: &[Reference]) -> Result<(), Error> {
        let client = Client::from_environment();
        let store = &self.engine.images;
        for name in names {
            self.sources.step(&format!("pushing {name}"), |step| {
                let progress = Pushing { observer: self.observer, step };
                let mut entries = Vec::with_capacity(ready.len());
                for (one, built) in ready.iter().zip(built.iter_mut()) {
                    let image = store.get(&built.id)?;
                    let pushed = registry::push(store, &client, &image, name, &PushOptions::default(), &progress)?;
                    let mut descriptor = Descriptor::new(media_type::MANIFEST, pushed.digest.clone(), pushed.size);
                    descriptor.platform = Some(one.planned.platform.clone());
                    let reference = name.with_digest(pushed.digest.clone()).to_string();
                    entries.push(Entry { reference, descriptor });
                    built.manifest = Some(pushed.digest);
                }
                if entries.len() > 1 {
                    let list = List { name: name.to_string(), entries };
                    let digest = registry::push_list(&client, name, &list, &mut |_| {})?;
                    self.told(step, &format!("pushing manifest list {digest}"));
                }
                Ok(())
            })?;
        }
        Ok(())
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
