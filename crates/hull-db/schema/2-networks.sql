-- record is JSON: options, labels, subnets. removing: its kernel objects are being taken away.
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    removing INTEGER NOT NULL DEFAULT 0,
    record TEXT NOT NULL
) WITHOUT ROWID;

-- Where the search for a free address goes on.
CREATE TABLE cursors (
    network TEXT NOT NULL REFERENCES networks ON DELETE CASCADE,
    family INTEGER NOT NULL,
    next BLOB NOT NULL,
    PRIMARY KEY (network, family)
) WITHOUT ROWID;

-- A container on a network. link is the device on the machine's side. leaving: the container is gone, its device perhaps
-- not yet; nobody gets its addresses before. bridge counts a network's bridges from 0. record is JSON.
CREATE TABLE endpoints (
    id INTEGER PRIMARY KEY,
    network TEXT NOT NULL REFERENCES networks,
    container TEXT NOT NULL,
    link TEXT NOT NULL UNIQUE,
    bridge INTEGER NOT NULL,
    leaving INTEGER NOT NULL DEFAULT 0,
    record TEXT NOT NULL
);
CREATE INDEX endpoints_network ON endpoints (network, bridge);
CREATE UNIQUE INDEX endpoints_container ON endpoints (container, network) WHERE leaving = 0;
CREATE INDEX endpoints_leaving ON endpoints (id) WHERE leaving = 1;

-- 4 or 16 bytes.
CREATE TABLE addresses (
    network TEXT NOT NULL REFERENCES networks,
    address BLOB NOT NULL,
    endpoint INTEGER NOT NULL REFERENCES endpoints ON DELETE CASCADE,
    PRIMARY KEY (network, address)
) WITHOUT ROWID;
CREATE INDEX addresses_endpoint ON addresses (endpoint);

-- Published ports of an endpoint, one behind the other; the form is in hull-network. One row, because there may be hundreds,
-- and nobody asks for one of them but to say whose it is.
CREATE TABLE ports (
    endpoint INTEGER PRIMARY KEY REFERENCES endpoints ON DELETE CASCADE,
    list BLOB NOT NULL
);
