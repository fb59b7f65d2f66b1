//! The wire format: reading queries, checking answers, writing our own (RFC 1035, RFC 6891).
//!
//! Only what a forwarding resolver must understand is parsed: the header, one question, and where the EDNS record is.
//! Names in a question may not be compressed; names elsewhere are skipped and never followed, so that no packet can make
//! this code loop. Nothing is allocated for a packet that is not answered.

/// Bytes of the header.
pub(super) const HEADER: usize = 12;
/// Bytes of an EDNS record without options.
const EDNS: usize = 11;
/// What we say that we take over UDP: fits an Ethernet frame with IPv6.
const OUR_UDP_SIZE: u16 = 1232;
/// Every client takes this much over UDP.
const MIN_UDP_SIZE: u16 = 512;
/// Longer answers over UDP are cut, whatever the client says.
pub(super) const MAX_UDP_SIZE: u16 = 4096;

pub(super) const CLASS_IN: u16 = 1;

pub(super) mod kind {
    pub(in crate::dns) const A: u16 = 1;
    pub(in crate::dns) const PTR: u16 = 12;
    pub(in crate::dns) const AAAA: u16 = 28;
    pub(in crate::dns) const SRV: u16 = 33;
    pub(in crate::dns) const OPT: u16 = 41;
    pub(in crate::dns) const ANY: u16 = 255;
}

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rcode {
    Success,
    FormatError,
    ServerFailure,
    NotImplemented,
    /// Needs the EDNS record for its upper bits.
    BadVersion,
}

impl Rcode {
    const fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::FormatError => 1,
            Self::ServerFailure => 2,
            Self::NotImplemented => 4,
            Self::BadVersion => 16,
        }
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

fn put_u16(bytes: &mut [u8], offset: usize, value: u16) {
    if let Some(place) = bytes.get_mut(offset..offset + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A question's name as lower-case text without the final dot.
#[derive(Clone, Copy)]
pub(super) struct Name {
    text: [u8; 254],
    length: u8,
    /// Only letters, digits, `-` and `_`: the only names that a table may have.
    plain: bool,
}

impl Name {
    /// The name, unless it has bytes that no container's name has; such names are never ours.
    pub(super) fn plain(&self) -> Option<&str> {
        let text = &self.text[..usize::from(self.length)];
        if self.plain && !text.is_empty() { std::str::from_utf8(text).ok() } else { None }
    }

    /// Reads an uncompressed name at the offset; gives the offset behind it too.
    fn read(packet: &[u8], mut offset: usize) -> Option<(Self, usize)> {
        let mut name = Self { text: [0; 254], length: 0, plain: true };
        let mut length = 0;
        loop {
            let size = usize::from(*packet.get(offset)?);
            offset += 1;
            if size == 0 {
                name.length = u8::try_from(length).ok()?;
                return Some((name, offset));
            }
            // The two upper bits: a pointer, or a kind of label that was never used.
            if size > 63 {
                return None;
            }
            let label = packet.get(offset..offset + size)?;
            offset += size;
            if length > 0 {
                *name.text.get_mut(length)? = b'.';
                length += 1;
            }
            // 255 bytes on the wire are 253 of text.
            let place = name.text.get_mut(length..length + size).filter(|_| length + size <= 253)?;
            for (to, from) in place.iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
                name.plain &= from.is_ascii_alphanumeric() || matches!(from, b'-' | b'_');
            }
            length += size;
        }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", String::from_utf8_lossy(&self.text[..usize::from(self.length)]))
    }
}

/// A client's EDNS record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edns {
    /// Where its size field is in the packet.
    size_at: usize,
    size: u16,
    version: u8,
}

/// A query that can be answered or passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    pub(super) id: u16,
    pub(super) name: Name,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Where the question ends in the packet.
    pub(super) question_end: usize,
    edns: Option<Edns>,
    recursion_desired: bool,
}

/// What is wrong with a packet that is no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Not even a header, or itself an answer: to answer it could start an endless exchange.
    Ignore,
    /// The client is told.
    Answer(Rcode),
}

impl Query {
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Invalid> {
        let header: &[u8; HEADER] = packet.first_chunk().ok_or(Invalid::Ignore)?;
        if header[2] & 0x80 != 0 {
            return Err(Invalid::Ignore);
        }
        if header[2] & 0x78 != 0 {
            return Err(Invalid::Answer(Rcode::NotImplemented));
        }
        let malformed = Invalid::Answer(Rcode::FormatError);
        let count = |offset| u16_at(packet, offset).map_or(0, usize::from);
        if count(4) != 1 {
            return Err(malformed);
        }
        let (name, offset) = Name::read(packet, HEADER).ok_or(malformed)?;
        let kind = u16_at(packet, offset).ok_or(malformed)?;
        let class = u16_at(packet, offset + 2).ok_or(malformed)?;
        let question_end = offset + 4;
        let edns = find_edns(packet, question_end, count(6) + count(8), count(10)).ok_or(malformed)?;
        if edns.is_some_and(|edns| edns.version != 0) {
            return Err(Invalid::Answer(Rcode::BadVersion));
        }
        let recursion_desired = header[2] & 1 != 0;
        let id = u16::from_be_bytes([header[0], header[1]]);
        Ok(Self { id, name, kind, class, question_end, edns, recursion_desired })
    }

    /// The longest answer that the client takes over UDP.
    pub(super) fn udp_limit(&self) -> usize {
        usize::from(self.edns.map_or(MIN_UDP_SIZE, |edns| edns.size.clamp(MIN_UDP_SIZE, MAX_UDP_SIZE)))
    }

    /// The packet as a server gets it from us: with our identifier, and not asking for more than we take.
    pub(super) fn forwarded(&self, packet: &[u8], id: u16) -> Box<[u8]> {
        let mut copy: Box<[u8]> = packet.into();
        put_u16(&mut copy, 0, id);
        if let Some(edns) = self.edns.filter(|edns| edns.size > MAX_UDP_SIZE) {
            put_u16(&mut copy, edns.size_at, MAX_UDP_SIZE);
        }
        copy
    }
}

/// The EDNS record among the records behind the question; `None` when they are malformed.
#[expect(clippy::option_option, reason = "malformed is not absent")]
fn find_edns(packet: &[u8], mut offset: usize, before: usize, additional: usize) -> Option<Option<Edns>> {
    let mut found = None;
    // Each record takes 11 bytes at least, so the loop ends with the packet, whatever the counts say.
    for index in 0..before + additional {
        let name_at = offset;
        offset = skip_name(packet, offset)?;
        let kind = u16_at(packet, offset)?;
        let length = usize::from(u16_at(packet, offset + 8)?);
        if index >= before && kind == kind::OPT {
            if found.is_some() || packet[name_at] != 0 {
                return None;
            }
            let size = u16_at(packet, offset + 2)?;
            found = Some(Edns { size_at: offset + 2, size, version: *packet.get(offset + 5)? });
        }
        offset += 10 + length;
        if offset > packet.len() {
            return None;
        }
    }
    Some(found)
}

/// The offset behind a name, which may end in a pointer; the pointer is not followed.
fn skip_name(packet: &[u8], mut offset: usize) -> Option<usize> {
    loop {
        let size = *packet.get(offset)?;
        match size {
            0 => return Some(offset + 1),
            1..=63 => offset += 1 + usize::from(size),
            64..=191 => return None,
            192.. => return packet.get(offset + 1).map(|_| offset + 2),
        }
    }
}

/// Whether a packet from a server answers the query that it was sent, as far as that can be told.
pub(super) fn answers(packet: &[u8], sent: &[u8], question_end: usize) -> bool {
    let (Some(head), Some(question)) = (packet.get(..HEADER), sent.get(HEADER..question_end)) else { return false };
    if head[..2] != sent[..2] || head[2] & 0x80 == 0 {
        return false;
    }
    // A server that could not read the question may leave it out.
    if head[4..6] == [0, 0] {
        return matches!(rcode(packet), 1 | 2 | 4 | 5) && packet.len() >= HEADER;
    }
    head[4..6] == [0, 1] && packet.get(HEADER..question_end).is_some_and(|copy| copy.eq_ignore_ascii_case(question))
}

/// The lower four bits of the response code.
pub(super) fn rcode(packet: &[u8]) -> u8 {
    packet.get(3).map_or(2, |byte| byte & 15)
}

/// Gives an answer the identifier that the client chose.
pub(super) fn set_id(packet: &mut [u8], id: u16) {
    put_u16(packet, 0, id);
}

/// Cuts an answer to its header and question and says so in it; the client asks again over TCP.
pub(super) fn truncate(packet: &mut [u8], question_end: usize) -> &mut [u8] {
    let has_question = packet.get(4..6).is_some_and(|count| count == [0, 1]) && packet.len() >= question_end;
    let end = if has_question { question_end } else { HEADER.min(packet.len()) };
    let packet = &mut packet[..end];
    if let Some(flags) = packet.get_mut(2) {
        *flags |= 2;
    }
    if !has_question {
        put_u16(packet, 4, 0);
    }
    for offset in [6, 8, 10] {
        put_u16(packet, offset, 0);
    }
    packet
}

/// An answer of our own, written into a buffer that is used again and again.
#[derive(Debug)]
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
    /// Where the records begin.
    start: usize,
    records: u16,
    edns: bool,
    rcode: Rcode,
}

impl<'o> Writer<'o> {
    /// Begins an answer of at most `limit` bytes to a query.
    pub(super) fn new(query: &Query, packet: &[u8], limit: usize, rcode: Rcode, out: &'o mut Vec<u8>) -> Self {
        let edns = query.edns.is_some();
        begin(packet, query.question_end, query.recursion_desired, rcode, out);
        let start = out.len();
        Self { out, limit: limit.saturating_sub(if edns { EDNS } else { 0 }), start, records: 0, edns, rcode }
    }

    /// Adds a record of the question's name. What does not fit cuts the answer.
    pub(super) fn record(&mut self, kind: u16, ttl: u32, data: &[u8]) {
        let Ok(length) = u16::try_from(data.len()) else { return };
        if self.out[2] & 2 != 0 || self.out.len() + 12 + data.len() > self.limit || self.records == u16::MAX {
            self.out[2] |= 2;
            return;
        }
        // The name is a pointer to the question.
        self.out.extend_from_slice(&[0xc0, 0x0c]);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(data);
        self.records += 1;
    }

    /// Lets another record come first, where all are of one length: clients that take the first address then spread.
    pub(super) fn rotate(&mut self, by: usize) {
        let count = usize::from(self.records);
        let records = &mut self.out[self.start..];
        if count > 1 && records.len().is_multiple_of(count) {
            let length = records.len() / count;
            if records.chunks_exact(length).all(|record| record[..4] == records[..4]) {
                records.rotate_left(by % count * length);
            }
        }
    }

    /// Writes the counts and the EDNS record.
    pub(super) fn finish(self) {
        put_u16(self.out, 6, self.records);
        if self.edns {
            write_edns(self.rcode, self.out);
        }
    }
}

fn begin(packet: &[u8], question_end: usize, recursion_desired: bool, rcode: Rcode, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(packet.get(..question_end).unwrap_or_default());
    out.resize(out.len().max(HEADER), 0);
    // Recursion is available, and this is an answer.
    out[2] = 0x80 | (out[2] & 0x78) | u8::from(recursion_desired);
    out[3] = 0x80 | (rcode.number() & 15);
    put_u16(out, 4, u16::from(question_end > HEADER));
    out[6..HEADER].fill(0);
}

fn write_edns(rcode: Rcode, out: &mut Vec<u8>) {
    put_u16(out, 10, 1);
    out.push(0);
    out.extend_from_slice(&kind::OPT.to_be_bytes());
    out.extend_from_slice(&OUR_UDP_SIZE.to_be_bytes());
    out.extend_from_slice(&[rcode.number() >> 4, 0, 0, 0, 0, 0]);
}

/// An answer without records to a packet whose question cannot be trusted.
pub(super) fn refuse(packet: &[u8], rcode: Rcode, out: &mut Vec<u8>) {
    let desired = packet.get(2).is_some_and(|byte| byte & 1 != 0);
    begin(packet, HEADER, desired, rcode, out);
    if rcode == Rcode::BadVersion {
        write_edns(rcode, out);
    }
}

/// A name in the form that records carry; `None` when it is none.
pub(super) fn encode_name(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    for label in text.trim_end_matches('.').split('.') {
        let size = u8::try_from(label.len()).ok().filter(|size| (1..=63).contains(size))?;
        out.push(size);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() - start <= 255).then_some(())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
