//! An image of a root file system's tar archive, as `docker import` makes it.

use std::io::Read;

use hull_oci::Reference;
use hull_oci::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};

use super::time;
use crate::{Error, Image, LayerSource, Store};

/// What the archive does not say.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The new image's names.
    pub names: Vec<Reference>,
    /// Instructions such as `CMD ["sh"]`, applied in order.
    pub changes: Vec<String>,
    /// The comment of the history.
    pub message: Option<String>,
    /// What the files are for; this machine if absent.
    pub platform: Option<Platform>,
}

/// Makes an image with one layer from a tar archive in any compression.
///
/// The same archive, options and `SOURCE_DATE_EPOCH` make the same image.
///
/// # Errors
/// When the archive or a change is refused, or the store cannot take it; the store is as before then.
pub fn import(store: &Store, input: impl Read + Send, options: &ImportOptions) -> Result<Image, Error> {
    let mut defaults = ContainerConfig::default();
    crate::apply_changes(&mut defaults, &options.changes)?;
    let created = time::created()?;
    let transfer = store.begin()?;
    let layer = transfer.layer(input, LayerSource { blob: None, diff_id: None, keep_blob: false })?;
    // Docker's words for a file too: a path of this machine is nobody's business elsewhere, and would change the ID.
    let comment = options.message.clone().unwrap_or_else(|| "Imported from -".to_owned());
    let config = ImageConfig {
        created: Some(created.clone()),
        platform: options.platform.clone().unwrap_or_else(Platform::native),
        config: defaults,
        rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
        history: vec![History { created: Some(created), comment: Some(comment), ..History::default() }],
        ..ImageConfig::default()
    };
    let config = serde_json::to_vec(&config).map_err(|error| Error::image("import", error.to_string()))?;
    transfer.image(&config, None, &options.names)
}
