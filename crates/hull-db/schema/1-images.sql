-- Digests are kept as algorithm:hex. Nothing here orders by a clock: `used` counts.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- layers/HEX. `disk` is what it takes, in bytes.
CREATE TABLE layers (
    id INTEGER PRIMARY KEY,
    diff_id TEXT NOT NULL UNIQUE,
    snapshotter TEXT NOT NULL,
    content INTEGER NOT NULL,
    tar INTEGER NOT NULL,
    disk INTEGER NOT NULL
);

-- digest is that of the configuration; manifest is the one it came with last.
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    manifest TEXT,
    added INTEGER NOT NULL,
    used INTEGER NOT NULL
);

-- Lowest layer first, from 0.
CREATE TABLE image_layers (
    image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer INTEGER NOT NULL REFERENCES layers,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers (layer);

-- The files below blobs/.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL
) WITHOUT ROWID;

-- Blobs that unpack to a layer, held or not.
CREATE TABLE compressions (
    blob TEXT PRIMARY KEY,
    layer INTEGER NOT NULL REFERENCES layers ON DELETE CASCADE,
    size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX compressions_layer ON compressions (layer);

-- Manifests of an image; their bytes are blobs.
CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE
) WITHOUT ROWID;

-- HOST/PATH:TAG
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images
) WITHOUT ROWID;
CREATE INDEX names_image ON names (image);

-- HOST/PATH@DIGEST of a manifest or an index.
CREATE TABLE repo_digests (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX repo_digests_image ON repo_digests (image);

-- Who uses an image for longer than a command: container:ID.
CREATE TABLE holds (
    owner TEXT PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images
) WITHOUT ROWID;
CREATE INDEX holds_image ON holds (image);

-- What a running command relies on. `work` is its directory below ingest/, locked while it lives.
CREATE TABLE leases (
    work TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('layer', 'blob', 'image')),
    object TEXT NOT NULL,
    PRIMARY KEY (work, kind, object)
) WITHOUT ROWID;
