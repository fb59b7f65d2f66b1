-- What was changed in a step's layer so that it does not depend on when and where it was made. JSON.
CREATE TABLE layer_notes (
    layer INTEGER PRIMARY KEY REFERENCES layers ON DELETE CASCADE,
    notes TEXT NOT NULL
);

-- How an image was built: the predicate of its provenance. JSON.
CREATE TABLE provenance (
    image INTEGER PRIMARY KEY REFERENCES images ON DELETE CASCADE,
    predicate TEXT NOT NULL
);
