//! mount_setattr(2), open_tree_attr(2) and file system creation parameters.
