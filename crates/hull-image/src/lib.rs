//! Images: references, the local store, snapshots.
