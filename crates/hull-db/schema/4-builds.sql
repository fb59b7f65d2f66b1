-- Results of build steps. Times are seconds since 1970. step is what progress calls it; slot is the same whatever it
-- depends on (--explain compares with what its last result came of); inputs is JSON: the parts of its content key. added
-- tells whether it has a layer of its own, the last one. A number is never given twice: who has read one may use it later.
CREATE TABLE build_results (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    step TEXT NOT NULL,
    slot TEXT NOT NULL,
    kind TEXT NOT NULL,
    inputs TEXT NOT NULL,
    added INTEGER NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX build_results_slot ON build_results (slot);

-- Keys of a result: what the step does, and what it does to which contents.
CREATE TABLE build_keys (
    key TEXT PRIMARY KEY,
    result INTEGER NOT NULL REFERENCES build_results ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX build_keys_result ON build_keys (result);

-- Lowest layer first, from 0. They stay as long as the result does.
CREATE TABLE build_layers (
    result INTEGER NOT NULL REFERENCES build_results ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer INTEGER NOT NULL REFERENCES layers,
    PRIMARY KEY (result, position)
) WITHOUT ROWID;
CREATE INDEX build_layers_layer ON build_layers (layer);

-- Directories of RUN --mount=type=cache: ROOT/build/mounts/ID. slot counts those of one name that are private.
CREATE TABLE cache_mounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    slot INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    UNIQUE (name, slot)
);

-- Builds that run or have ended. record is JSON; what was printed is ROOT/build/logs/ID.
CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    started INTEGER NOT NULL,
    finished INTEGER,
    record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX builds_started ON builds (started);
