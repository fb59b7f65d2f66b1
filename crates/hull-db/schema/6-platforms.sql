-- What a name means on other platforms: `names` has the image that it means where no platform is asked for.
CREATE TABLE variants (
    name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,
    position INTEGER NOT NULL,
    image INTEGER NOT NULL REFERENCES images,
    PRIMARY KEY (name, position)
) WITHOUT ROWID;
CREATE INDEX variants_image ON variants (image);
