//! Squashing: adjacent layers of an image become one, and containers see the same files as before.
//!
//! What the range hides below itself it still hides: whiteouts and opaque directories are kept unless the range begins
//! with the lowest layer. The new layer is written by the deterministic tar writer, and nothing but `rootfs.diff_ids`
//! and the history changes in the configuration, so the same image and range make the same image everywhere.
//! [`rootfs_hash`] proves that nothing else changed.

mod hash;
mod merge;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write};
use std::ops::RangeInclusive;

use hull_layer::tree::{Builder, Kind, Node, Tree};
use hull_layer::{Limits, tar};
use hull_oci::image::{History, ImageConfig};
use hull_oci::{Digest, Reference};

use self::merge::Archives;
use crate::{Error, Image, Kind as Snapshotter, Layer, LayerSource, Store, archive};

/// The hash of an image's root file system: names, attributes and content as overlayfs shows them. Two images with the
/// same hash cannot be told apart by what runs in them, whatever their layers are.
///
/// # Errors
/// When the store cannot be read.
pub fn rootfs_hash(store: &Store, image: &Image) -> Result<Digest, Error> {
    let (trees, archives) = read(store, image, 0..=image.layers.len().saturating_sub(1))?;
    let tree = merge::merge(trees.iter().map(|(tree, length)| (tree, *length)), false);
    hash::hash(&tree, &archives).map_err(Error::io("read", "layers"))
}

/// Merges a range of layers, counted from 1 at the lowest, and gives the new image a name.
///
/// # Errors
/// When the range has fewer than two layers or is not within the image, or the store fails; the store is as before then.
pub fn squash(store: &Store, image: &Image, range: RangeInclusive<usize>, names: &[Reference]) -> Result<Image, Error> {
    let count = image.layers.len();
    let (from, to) = (*range.start(), *range.end());
    if from < 1 || to > count || to <= from {
        return Err(Error::image(
            image.id.short(),
            format!("layers {from} to {to} cannot be squashed: two or more of its {count} are needed"),
        ));
    }
    let range = from - 1..=to - 1;
    let (trees, archives) = read(store, image, range.clone())?;
    let tree = merge::merge(trees.iter().map(|(tree, length)| (tree, *length)), from > 1);
    drop(trees);
    let transfer = store.begin()?;
    let layer =
        transfer.layer(write(store, &tree, &archives)?, LayerSource { blob: None, diff_id: None, keep_blob: false })?;
    let mut config: serde_json::Value = serde_json::from_slice(&store.config_bytes(&image.id)?)
        .map_err(|error| Error::image(&image.id, error.to_string()))?;
    let new = squashed_config(&image.config, range, &layer.diff_id);
    let refused = |error: serde_json::Error| Error::image(&image.id, error.to_string());
    // Fields that Hull does not know stay.
    config["rootfs"] = serde_json::to_value(&new.rootfs).map_err(refused)?;
    config["history"] = serde_json::to_value(&new.history).map_err(refused)?;
    let bytes = serde_json::to_vec(&config).map_err(refused)?;
    transfer.image(&bytes, None, names)
}

/// Reads the names of the layers of a range.
fn read(store: &Store, image: &Image, range: RangeInclusive<usize>) -> Result<(Vec<(Tree, u64)>, Archives), Error> {
    let layers = image.layers.get(range).unwrap_or_default();
    let mut trees = Vec::with_capacity(layers.len());
    let mut files = Vec::with_capacity(layers.len());
    for layer in layers {
        let file = tar_file(store, layer)?;
        trees.push((tree(&file)?, layer.tar_size));
        files.push((file, layer.tar_size));
    }
    Ok((trees, Archives::new(files)))
}

pub(crate) fn tree(archive: impl Read) -> Result<Tree, Error> {
    let mut reader = tar::Reader::new(archive, Limits::default()).end_optional();
    let mut builder = Builder::new(Limits::default());
    while let Some(entry) = reader.next()? {
        builder.add(entry)?;
    }
    Ok(builder.finish()?)
}

/// A layer's archive as a file: the one of the store, or a copy without name.
pub(crate) fn tar_file(store: &Store, layer: &Layer) -> Result<File, Error> {
    if layer.kind == Snapshotter::Erofs {
        let path = store.layer_path(&layer.diff_id).join("tar");
        return File::open(&path).map_err(Error::io("open", &path));
    }
    let failed = |error: io::Error| Error::io("copy layer", layer.diff_id.to_string())(error);
    let mut file = archive::unnamed_file(store)?;
    let length = io::copy(&mut store.layer_tar(layer)?, &mut file).map_err(failed)?;
    if length != layer.tar_size {
        return Err(Error::damaged(format!("layer {}", layer.diff_id), format!("it has {length} bytes")));
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Writes the merged layer into a file without name.
fn write(store: &Store, tree: &Tree, archives: &Archives) -> Result<File, Error> {
    let failed = |error: io::Error| Error::io("write", "squashed layer")(error);
    let output = BufWriter::with_capacity(256 << 10, archive::unnamed_file(store)?);
    let output = write_layer(tree, archives, output).map_err(failed)?;
    let mut file = output.into_inner().map_err(|error| failed(error.into_error()))?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn write_layer<W: Write>(tree: &Tree, archives: &Archives, output: W) -> io::Result<W> {
    let mut writer = tar::Writer::new(output);
    let content = |id, _: &Node| match &tree.node(id).kind {
        Kind::File { size, extents } => Ok(archives.content(*size, extents)),
        _ => Ok(archives.content(0, &[])),
    };
    writer.write_tree(tree, content)?;
    writer.finish()
}

/// The configuration after squashing: the steps of the range make no layer of their own, but the last.
fn squashed_config(config: &ImageConfig, range: RangeInclusive<usize>, layer: &Digest) -> ImageConfig {
    let mut config = config.clone();
    let last = *range.end();
    let ids = &mut config.rootfs.diff_ids;
    let merged: Vec<String> = ids.splice(range.clone(), [layer.clone()]).map(|id| id.to_string()).collect();
    let comment = format!("squashed {} layers: {}", merged.len(), merged.join(" "));
    let steps = config.history.iter().filter(|row| !row.empty_layer).count();
    if steps + 1 != config.rootfs.diff_ids.len() + merged.len() {
        // The history does not tell which step made which layer: it can only be added to.
        let created = config.created.clone();
        config.history.push(History { created, comment: Some(comment), empty_layer: true, ..History::default() });
        return config;
    }
    for (position, row) in config.history.iter_mut().filter(|row| !row.empty_layer).enumerate() {
        if range.contains(&position) && position != last {
            row.empty_layer = true;
        } else if position == last {
            row.comment = Some(match row.comment.take().filter(|text| !text.is_empty()) {
                Some(text) => format!("{text}; {comment}"),
                None => comment.clone(),
            });
        }
    }
    config
}
