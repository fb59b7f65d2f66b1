-- Where an image was pulled from, and the signatures that it had there: for asking a policy again without a network.
-- An image without a row was made here. `evidence` is JSON, see hull-image's `origins`.
CREATE TABLE origins (
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (repository, digest),
    FOREIGN KEY (repository, digest) REFERENCES repo_digests ON DELETE CASCADE
) WITHOUT ROWID;
