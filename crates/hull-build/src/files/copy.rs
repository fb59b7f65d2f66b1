//! Actions of a `COPY` or `ADD` onto a base, by BuildKit's rules.
//!
//! * A source's own links are followed, links in it are copied. Of a directory its contents are copied.
//! * The destination's links are followed inside the base, whether or not they lead somewhere. Names below it replace
//!   links, and directories never replace anything else or are replaced.
//! * Directories that are made on the way have mode 0755, or what an octal `--chmod` says, and the owner of `--chown`.
//!   A directory that was there keeps its attributes; only of those below the destination they become the source's.
//! * Several names of one file stay one file.

use std::collections::HashMap;
use std::sync::Arc;

use super::cursor::Cursor;
use super::error::{Error, absolute};
use super::onto::{Attributes, Content, Onto, Other, Seen, What};
use super::owner::Owner;
use super::select::{Match, Pick, Selected};
use super::settings::Settings;
use super::tree::{FileTree, Kind, components, join};
use super::unpack;
use crate::graph::CopyAction;
use hull_dockerfile::mode::Mode;

/// Where an action's files come from.
#[derive(Clone)]
pub(super) struct Source<'t> {
    /// The tree.
    pub tree: &'t dyn FileTree,
    /// What is taken of it.
    pub selected: Arc<Selected>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Source").field("origin", &self.tree.origin()).finish_non_exhaustive()
    }
}

/// Does one action; `number` is its place in the copy.
///
/// # Errors
/// When files cannot be read, or something is in the way.
pub(super) fn apply(
    onto: &mut Onto<'_>,
    number: usize,
    action: &CopyAction,
    source: Option<&Source<'_>>,
    base: Option<&dyn FileTree>,
    settings: &Settings<'_>,
) -> Result<(), Error> {
    let owner = match action.chown.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(Owner::new(text, base)?),
        None => None,
    };
    let chmod =
        action.chmod.as_deref().filter(|text| !text.is_empty()).map(Mode::parse).transpose().map_err(Error::Refused)?;
    let one = Action { number, action, owner, chmod, settings };
    if let Some(content) = &action.content {
        return one.content(onto, content);
    }
    let Some(source) = source else { return Ok(()) };
    for found in &source.selected.matches {
        if action.unpack && found.meta.kind == Kind::File && one.unpack(onto, source, found)? {
            continue;
        }
        one.copy(onto, source, found)?;
    }
    Ok(())
}

struct Action<'a> {
    number: usize,
    action: &'a CopyAction,
    owner: Option<Owner>,
    chmod: Option<Mode>,
    settings: &'a Settings<'a>,
}

impl Action<'_> {
    /// What directories get that are made on the way.
    fn new_directory(&self) -> Attributes {
        let mode = self.chmod.as_ref().and_then(Mode::absolute).map_or(0o755, |mode| bits(mode) & 0o777);
        let owner = self.owner.unwrap_or_default();
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime: (self.settings.time, 0), xattrs: Vec::new() }
    }

    /// The destination without links, its parents made, for a file or directory with this name.
    fn destination(&self, onto: &mut Onto<'_>, name: &[u8], directory: bool) -> Result<Vec<Vec<u8>>, Error> {
        let text = self.action.destination.as_bytes();
        let parent = if text.ends_with(b"/") || text.ends_with(b"/.") {
            text
        } else {
            &text[..text.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
        };
        let parent = onto.resolve(&[], &join(&components(parent)))?;
        onto.make_directories(&parent, &self.new_directory())?;
        let mut path = onto.resolve(&[], &join(&components(text)))?;
        if directory {
            if onto.see(&path)? == Seen::Nothing {
                onto.make_directories(&path, &self.new_directory())?;
            }
            return Ok(path);
        }
        if onto.see(&path)? == Seen::Directory {
            path.push(name.to_vec());
        }
        if let Some((_, parent)) = path.split_last() {
            onto.make_directories(parent, &self.new_directory())?;
        }
        Ok(path)
    }

    fn content(&self, onto: &mut Onto<'_>, content: &[u8]) -> Result<(), Error> {
        let name = self.action.name.as_deref().unwrap_or(&self.action.source);
        let name = components(name.as_bytes()).pop().unwrap_or_default();
        let path = self.destination(onto, &name, false)?;
        let mode = self.chmod.as_ref().map_or(0o644, |chmod| bits(chmod.apply(0o644, false)));
        let attributes = Attributes { mode, ..self.new_directory() };
        let what = What::File { size: content.len() as u64, content: Content::Bytes(content.into()) };
        onto.put(&path, Other { attributes, what, file: None })
    }

    fn copy(&self, onto: &mut Onto<'_>, source: &Source<'_>, found: &Match) -> Result<(), Error> {
        let top = self.destination(onto, &found.name, found.meta.is_dir())?;
        let mut files: HashMap<&[u8], u64> = HashMap::new();
        for first in found.picks.iter().filter_map(|pick| pick.first.as_deref()) {
            files.entry(first).or_insert_with(|| onto.file());
        }
        for pick in &found.picks {
            let mut path = top.clone();
            path.extend(components(&pick.path));
            let attributes = self.attributes(source, pick);
            if pick.meta.is_dir() {
                self.directory(onto, &path, pick, attributes)?;
                continue;
            }
            let what = match pick.meta.kind {
                Kind::File | Kind::Directory => {
                    let content = Content::Tree { action: self.number, path: found.path_of(pick), meta: pick.meta };
                    What::File { size: pick.meta.size, content }
                }
                Kind::Symlink => What::Symlink(pick.target.clone()),
                Kind::Character(major, minor) => What::Character(major, minor),
                Kind::Block(major, minor) => What::Block(major, minor),
                Kind::Fifo => What::Fifo,
                // What a tar makes of it, too.
                Kind::Socket => What::File { size: 0, content: Content::Bytes([].into()) },
            };
            let file = files.get(pick.first.as_deref().unwrap_or(&pick.path)).copied();
            onto.put(&path, Other { attributes, what, file })?;
        }
        Ok(())
    }

    fn attributes(&self, source: &Source<'_>, pick: &Pick) -> Attributes {
        let own = Owner { uid: pick.meta.uid, gid: pick.meta.gid };
        let owner = self.owner.unwrap_or(if source.tree.keeps_owners() { own } else { Owner::default() });
        let mode = match (&self.chmod, pick.meta.kind) {
            (_, Kind::Symlink) => 0o777,
            (Some(chmod), kind) => bits(chmod.apply(u32::from(pick.meta.mode), kind == Kind::Directory)),
            (None, _) => pick.meta.mode,
        };
        let checkout = self.settings.fixed && source.tree.has_times_of_checkout();
        let fixed = source.tree.fixed_time().or(checkout.then_some(self.settings.time));
        let mtime = fixed.map_or(pick.meta.mtime, |time| (time, 0));
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime, xattrs: pick.xattrs.clone() }
    }

    fn directory(
        &self,
        onto: &mut Onto<'_>,
        path: &[Vec<u8>],
        pick: &Pick,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let seen = onto.see(path)?;
        let keeps = pick.path.is_empty() || pick.implied;
        if seen != Seen::Directory || !keeps {
            return onto.put_directory(path, attributes);
        }
        if path.is_empty() {
            return Ok(());
        }
        if let Some(directory) = onto.directory(path)? {
            if pick.path.is_empty() {
                directory.attributes.mtime = attributes.mtime;
                directory.changed = true;
            } else if directory.attributes.mode != pick.meta.mode {
                directory.attributes.mode = pick.meta.mode;
                directory.changed = true;
            }
        }
        Ok(())
    }

    /// Unpacks an archive; false if it is none.
    fn unpack(&self, onto: &mut Onto<'_>, source: &Source<'_>, found: &Match) -> Result<bool, Error> {
        let open = || {
            let file = Cursor::new(source.tree)?.open(&found.path);
            file.map_err(Error::at("open", &found.path))
        };
        if !unpack::is_archive(open()?)? {
            return Ok(false);
        }
        let top = onto.resolve(&[], &join(&components(self.action.destination.as_bytes())))?;
        let attributes = Attributes { mode: 0o755, ..self.new_directory() };
        onto.make_directories(&top, &attributes)?;
        let archive = open()?;
        unpack::unpack(onto, &top, archive, self.owner, self.settings)
            .map_err(|error| match error {
                Error::Layer(error) => Error::Refused(format!("unpack {}: {error}", absolute(&found.path))),
                other => other,
            })
            .map(|()| true)
    }
}

fn bits(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}
