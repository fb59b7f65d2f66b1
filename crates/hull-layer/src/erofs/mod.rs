//! EROFS indexes: the names and attributes of a layer as a file system whose file content is the layer's tar.
//!
//! ```text
//! index   0      1024        1536                                                                       (blocks of 512)
//!         zeros | superblock | inodes, each with     | shared     | blocks of big | pieces that the tar
//!               | and device | attributes, chunk     | extended   | directories,  | does not have at a
//!               | slot       | index or short content| attributes | long symlinks | multiple of 512
//! tar     the data device (number 1): a chunk index names the block where a file's content begins
//! ```
//!
//! The writer is deterministic: the same [`Tree`](crate::tree::Tree) gives the same bytes, so that a check can make the
//! index again and compare. [`read`] understands what [`Index::write`] makes and no other EROFS image. [`mount()`] gives a
//! detached read-only mount of both files by descriptor; no loop device, no path, nothing in the host's mount table.
//!
//! The on-disk format is `Documentation/filesystems/erofs.rst` of Linux; device tables need Linux 5.16, blocks of 512
//! bytes 6.4, and mounting from files 6.12.

mod chunks;
mod directory;
mod format;
mod mount;
mod reader;
mod shape;
mod writer;
mod xattr;

pub use mount::{MountError, MountOptions, mount};
pub use reader::{Contents, read};
pub use writer::{Index, Source};
