//! What a socket with labels sees of images, networks and volumes, and what it marks as its own.

use std::collections::BTreeMap;

use hull_engine::volumes::Volume;
use hull_image::Image;
use hull_network::Network;
use hull_oci::image::Platform;
use hull_oci::spec::one_line;

use crate::api::Api;
use crate::refusal::{Refusal, tagged};

/// Docker's words for a name that no image can have.
pub(crate) fn lower(name: &str) -> Result<(), Refusal> {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let end = name[last..].find([':', '@']).map_or(name.len(), |at| last + at);
    let repository = &name[..end];
    if repository.contains(|one: char| one.is_ascii_uppercase()) {
        let shown = if repository.contains('/') { repository.to_owned() } else { format!("library/{repository}") };
        let shown = one_line(&shown);
        return Err(Refusal::bad(format!("invalid reference format: repository name ({shown}) must be lowercase")));
    }
    Ok(())
}

impl Api {
    /// An image by name or ID, if this socket sees it.
    pub(crate) fn image(&self, name: &str) -> Result<Image, Refusal> {
        self.image_on(name, None)
    }

    /// The same for a platform.
    pub(crate) fn image_on(&self, name: &str, platform: Option<&Platform>) -> Result<Image, Refusal> {
        lower(name)?;
        let image = self.engine.images.find_on(name, platform)?;
        if self.sees(&image.config.config.labels) {
            return Ok(image);
        }
        Err(Refusal::missing(format!("No such image: {}", one_line(&tagged(name)))))
    }

    /// A network by name or ID; the predefined ones are everybody's.
    pub(crate) fn network(&self, name: &str) -> Result<Network, Refusal> {
        let network = self.engine.networks().find(name)?;
        if self.sees_network(&network) {
            return Ok(network);
        }
        Err(Refusal::missing(format!("network {} not found", one_line(name))))
    }

    pub(crate) fn sees_network(&self, network: &Network) -> bool {
        network.predefined() || self.sees(&network.labels)
    }

    /// A volume by name.
    pub(crate) fn volume(&self, name: &str) -> Result<Volume, Refusal> {
        let volume = self.engine.volume(name)?;
        if self.sees(&volume.labels) {
            return Ok(volume);
        }
        Err(Refusal::missing(format!("get {}: no such volume", one_line(name))))
    }

    /// Labels of what is made through this socket.
    pub(crate) fn labelled(&self, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        labels.extend(self.options.labels.iter().cloned());
        labels
    }
}
