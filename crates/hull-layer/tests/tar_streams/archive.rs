//! Archives put together byte by byte.

use hull_layer::tar::{Entry, Reader};
use hull_layer::tree::{Builder, Tree};
use hull_layer::{Error, Limits};

/// Blocks of an archive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

/// A ustar header without a checksum.
pub(crate) fn header(name: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header as it is, with its checksum.
    pub(crate) fn block(mut self, mut block: [u8; 512]) -> Self {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    /// Bytes, padded to a block.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn entry(self, name: &str, kind: u8, content: &[u8]) -> Self {
        self.block(header(name.as_bytes(), kind, content.len() as u64)).data(content)
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, b'0', content)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(name, b'5', b"")
    }

    pub(crate) fn link(self, name: &str, kind: u8, target: &str) -> Self {
        let mut block = header(name.as_bytes(), kind, 0);
        block[157..157 + target.len()].copy_from_slice(target.as_bytes());
        self.block(block)
    }

    /// An extended header with these records.
    pub(crate) fn pax(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() > length {
                length += 1;
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        let mut name = b"PaxHeaders/".to_vec();
        name.push(kind);
        self.block(header(&name, kind, body.len() as u64)).data(&body)
    }

    /// GNU's long name or long link.
    pub(crate) fn long(self, kind: u8, text: &[u8]) -> Self {
        let text = [text, b"\0"].concat();
        self.block(header(b"././@LongLink", kind, text.len() as u64)).data(&text)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    /// The entries, with the end added.
    pub(crate) fn entries(self) -> Result<Vec<Entry>, Error> {
        entries(&self.end())
    }

    /// The layer, with the end added.
    pub(crate) fn tree(self) -> Result<Tree, Error> {
        tree(&self.end())
    }
}

pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut reader = Reader::new(bytes, Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    assert_eq!(reader.position(), bytes.len() as u64, "everything is read");
    Ok(entries)
}

pub(crate) fn tree(bytes: &[u8]) -> Result<Tree, Error> {
    let mut reader = Reader::new(bytes, Limits::default());
    let mut builder = Builder::new(Limits::default());
    while let Some(entry) = reader.next()? {
        builder.add(entry)?;
    }
    builder.finish()
}

/// The error's message, which is one line.
pub(crate) fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let message = result.expect_err("refused").to_string();
    assert!(!message.contains(char::is_control), "{message:?}");
    message
}
