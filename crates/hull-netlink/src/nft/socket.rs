//! The firewall's socket: transactions and what is there.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::RecvFlags;

use super::batch::Base;
use super::{
    Batch, ChainKind, DELCHAIN, DELRULE, DELSET, DELTABLE, Element, Family, GETCHAIN, GETGEN, GETRULE, GETSETELEM,
    GETTABLE, Hook, NEWCHAIN, NEWGEN, NEWRULE, NEWSETELEM, NEWTABLE, SUBSYSTEM, message,
};
use crate::Error;
use crate::codec::{self, NLM_F_ACK, NLM_F_DUMP, NLMSG_ERROR, Request};
use crate::transport::{Connection, DUMP_ATTEMPTS, refusal};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// Bytes of `struct nfgenmsg`.
const FIXED: usize = 4;
const NFTA_GEN_ID: u16 = 1;
/// A batch that fits any socket; longer ones ask for room.
const SMALL: usize = 128 << 10;
/// The group of changes, `NFNLGRP_NFTABLES`, as a mask.
const CHANGES: u32 = 1 << 6;

/// A chain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFound {
    /// Of its table.
    pub family: Family,
    /// Of its table.
    pub table: String,
    /// Its own.
    pub name: String,
    /// Its place in a hook; absent for chains that only rules jump to, and for hooks that are unknown here.
    pub base: Option<Base>,
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFound {
    /// Of its table.
    pub family: Family,
    /// Of its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// What it is removed by.
    pub handle: u64,
    /// Its comment; may be empty.
    pub comment: String,
    /// Names of its expressions, in order.
    pub expressions: Vec<String>,
}

/// A socket for the firewall of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    connection: Connection,
    room: usize,
}

fn text(value: &[u8]) -> String {
    codec::string(value)
}

fn u64_of(value: &[u8]) -> Result<u64, &'static str> {
    Ok(u64::from_be_bytes(value.try_into().map_err(|_| "number is not 8 bytes")?))
}

fn u32_of(value: &[u8]) -> Result<u32, &'static str> {
    Ok(u32::from_be_bytes(value.try_into().map_err(|_| "number is not 4 bytes")?))
}

fn parts(payload: &[u8]) -> Result<(Option<Family>, &[u8]), &'static str> {
    let short = "truncated message";
    let family = *payload.first().ok_or(short)?;
    Ok((Family::from_number(family), payload.get(FIXED..).ok_or(short)?))
}

fn parse_base(value: &[u8], kind: &str, policy: u32) -> Result<Option<Base>, &'static str> {
    let (mut hook, mut priority) = (u32::MAX, 0);
    for attribute in codec::attributes(value) {
        match attribute? {
            (1, value) => hook = u32_of(value)?,
            (2, value) => priority = u32_of(value)?.cast_signed(),
            _ => {}
        }
    }
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let Some(hook) = hooks.into_iter().find(|one| *one as u32 == hook) else { return Ok(None) };
    let kind = if kind == "nat" { ChainKind::Nat } else { ChainKind::Filter };
    Ok(Some(Base { kind, hook, priority, drop: policy == 0 }))
}

pub(super) fn parse_chain(payload: &[u8]) -> Result<Option<ChainFound>, &'static str> {
    let (family, attributes) = parts(payload)?;
    let (mut table, mut name, mut kind, mut hook, mut policy) = (String::new(), String::new(), String::new(), None, 1);
    for attribute in codec::attributes(attributes) {
        match attribute? {
            (1, value) => table = text(value),
            (3, value) => name = text(value),
            (4, value) => hook = Some(value),
            (5, value) => policy = u32_of(value)?,
            (7, value) => kind = text(value),
            _ => {}
        }
    }
    let base = hook.map(|hook| parse_base(hook, &kind, policy)).transpose()?.flatten();
    Ok(family.map(|family| ChainFound { family, table, name, base }))
}

pub(super) fn parse_rule(payload: &[u8]) -> Result<Option<RuleFound>, &'static str> {
    let (family, attributes) = parts(payload)?;
    let Some(family) = family else { return Ok(None) };
    let mut rule = RuleFound {
        family,
        table: String::new(),
        chain: String::new(),
        handle: 0,
        comment: String::new(),
        expressions: Vec::new(),
    };
    for attribute in codec::attributes(attributes) {
        match attribute? {
            (1, value) => rule.table = text(value),
            (2, value) => rule.chain = text(value),
            (3, value) => rule.handle = u64_of(value)?,
            (4, value) => {
                for element in codec::attributes(value) {
                    for inner in codec::attributes(element?.1) {
                        if let (1, name) = inner? {
                            rule.expressions.push(text(name));
                        }
                    }
                }
            }
            // A list of type, length, value; type 0 is the comment.
            (7, [0, length, rest @ ..]) => {
                rule.comment = text(rest.get(..usize::from(*length)).ok_or("length in notes of a rule")?);
            }
            _ => {}
        }
    }
    Ok(Some(rule))
}

/// Each element's key, the last key of its range if it has one, and the value's bytes; verdicts have none.
pub(super) fn parse_elements(payload: &[u8], found: &mut Vec<[Vec<u8>; 3]>) -> Result<(), &'static str> {
    let data = |value| {
        for attribute in codec::attributes(value) {
            if let (1, bytes) = attribute? {
                return Ok::<_, &'static str>(bytes.to_vec());
            }
        }
        Ok(Vec::new())
    };
    let (_, attributes) = parts(payload)?;
    for attribute in codec::attributes(attributes) {
        let (3, list) = attribute? else { continue };
        for element in codec::attributes(list) {
            let (mut key, mut last, mut value, mut flags) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for attribute in codec::attributes(element?.1) {
                match attribute? {
                    (1, bytes) => key = data(bytes)?,
                    (2, bytes) => value = data(bytes)?,
                    (3, bytes) => flags = u32_of(bytes)?,
                    (10, bytes) => last = data(bytes)?,
                    _ => {}
                }
            }
            // The end of a range is no element of its own.
            if flags & 1 == 0 {
                found.push([key, last, value]);
            }
        }
    }
    Ok(())
}

impl Socket {
    /// Gives memory back, of a socket that is kept for later.
    pub fn rest(&mut self) {
        self.connection.rest();
    }

    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] with `EPROTONOSUPPORT` when the kernel has no nf_tables.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { connection: Connection::open(Some(rustix::net::netlink::NETFILTER), 0)?, room: SMALL })
    }

    /// Carries all changes out, or none.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the first change that was refused: `EEXIST` and `ENOENT` when something is, or is not,
    /// there; `EBUSY` when something is referred to.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let operation = "firewall transaction";
        if batch.bytes > self.room {
            let wanted = batch.bytes * 2;
            // Beyond the machine's limit only with CAP_NET_ADMIN, which changes need anyhow.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.connection.fd, wanted);
            self.room = wanted;
        }
        let count = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX - 2);
        let first = self.connection.take_sequences(count + 2);
        let last = first.wrapping_add(count);
        let mut bytes = Vec::with_capacity(batch.bytes + 64);
        let frame = |kind| {
            let [high, low] = SUBSYSTEM.to_be_bytes();
            Request::new(kind, 0, 0, &[0, 0, high, low])
        };
        bytes.extend_from_slice(&frame(BATCH_BEGIN).sequence(first).finish());
        let mut names = Vec::with_capacity(batch.messages.len());
        let mut sequence = first;
        for (operation, object, request) in batch.messages {
            sequence = sequence.wrapping_add(1);
            // The last one's acknowledgement tells that the transaction is over.
            let request = if sequence == last { request.acknowledge() } else { request };
            bytes.extend_from_slice(&request.sequence(sequence).finish());
            names.push((operation, object));
        }
        bytes.extend_from_slice(&frame(BATCH_END).sequence(last.wrapping_add(1)).finish());
        self.connection.send(operation, &bytes)?;
        let (mut done, mut failed) = (false, None);
        while !done {
            // All answers are there when the transaction was sent.
            let more = self.connection.receive(operation, RecvFlags::DONTWAIT, |message| {
                let position = message.sequence.wrapping_sub(first);
                if position > count + 1 || message.kind != NLMSG_ERROR {
                    return Ok(true);
                }
                let (what, object) = names
                    .get((position as usize).wrapping_sub(1))
                    .map_or((operation, ""), |(operation, object)| (operation, object));
                failed = failed.take().or_else(|| refusal(message, what, object));
                done |= message.sequence == last;
                Ok(true)
            })?;
            if more.is_none() {
                break;
            }
        }
        match failed {
            Some(error) => Err(error),
            None if done => Ok(()),
            None => Err(Error::Malformed { operation, what: "no answer" }),
        }
    }

    /// A number that every change of the namespace's firewall, by anyone, raises.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Socket`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        let operation = "get firewall generation";
        let request = Request::new(message(GETGEN), NLM_F_ACK, self.connection.next_sequence(), &[0; FIXED]);
        let mut found = None;
        self.connection.transact(operation, "", &request.finish(), |answer| {
            if answer.kind == message(NEWGEN) {
                for attribute in codec::attributes(parts(answer.payload)?.1) {
                    if let (NFTA_GEN_ID, value) = attribute? {
                        found = Some(u32_of(value)?);
                    }
                }
            }
            Ok(())
        })?;
        found.ok_or(Error::Malformed { operation, what: "no generation" })
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// [`Error::Refused`] for another reason than that there is none.
    pub fn has_table(&mut self, family: Family, table: &str) -> Result<bool, Error> {
        let sequence = self.connection.next_sequence();
        let request =
            Request::new(message(GETTABLE), NLM_F_ACK, sequence, &[family as u8, 0, 0, 0]).attribute_name(1, table);
        let mut found = false;
        let asked = self.connection.transact("get table", table, &request.finish(), |answer| {
            found |= answer.kind == message(NEWTABLE);
            Ok(())
        });
        match asked {
            Err(Error::Refused { errno: rustix::io::Errno::NOENT, .. }) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(found),
        }
    }

    fn dump<T>(
        &mut self,
        operation: &'static str,
        object: &str,
        request: impl Fn(u32) -> Request,
        mut each: impl FnMut(&codec::Message<'_>, &mut Vec<T>) -> Result<(), &'static str>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let bytes = request(self.connection.next_sequence()).finish();
            if !self.connection.transact(operation, object, &bytes, |answer| each(answer, &mut found))? {
                return Ok(found);
            }
        }
        Err(Error::Malformed { operation, what: "the list changes all the time" })
    }

    /// All chains of all tables.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Socket`].
    pub fn chains(&mut self) -> Result<Vec<ChainFound>, Error> {
        let request = |sequence| Request::new(message(GETCHAIN), NLM_F_DUMP, sequence, &[0; FIXED]);
        self.dump("list chains", "", request, |answer, found| {
            if answer.kind == message(NEWCHAIN) {
                found.extend(parse_chain(answer.payload)?);
            }
            Ok(())
        })
    }

    /// The rules of a table, chain by chain in order; of one chain if it is named.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Socket`].
    pub fn rules(&mut self, family: Family, table: &str, chain: Option<&str>) -> Result<Vec<RuleFound>, Error> {
        let request = |sequence| {
            let request = Request::new(message(GETRULE), NLM_F_DUMP, sequence, &[family as u8, 0, 0, 0]);
            let request = request.attribute_name(1, table);
            if let Some(chain) = chain { request.attribute_name(2, chain) } else { request }
        };
        self.dump("list rules of", table, request, |answer, found| {
            if answer.kind == message(NEWRULE) {
                found.extend(parse_rule(answer.payload)?);
            }
            Ok(())
        })
    }

    /// The elements of a set; networks by their first key.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ENOENT` when there is no such set.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let request = |sequence| {
            Request::new(message(GETSETELEM), NLM_F_DUMP, sequence, &[family as u8, 0, 0, 0])
                .attribute_name(1, table)
                .attribute_name(2, set)
        };
        let found = self.dump("list elements of", set, request, |answer, found| {
            if answer.kind == message(NEWSETELEM) {
                parse_elements(answer.payload, found)?;
            }
            Ok(())
        })?;
        Ok(found.into_iter().map(|[key, last, data]| Element::raw(key, last, data)).collect())
    }
}

/// Told of chains, rules and sets that are removed by anyone, and of tables that come and go: a socket that is
/// readable then. What it says is not looked at: it is a reason to look.
#[derive(Debug)]
pub struct Watch(Connection);

impl Watch {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let connection = Connection::open(Some(rustix::net::netlink::NETFILTER), CHANGES)?;
        // Elements and rules come with every container; nobody is to be woken for those.
        let kinds = [DELTABLE, DELCHAIN, DELRULE, DELSET, NEWTABLE].map(message);
        hull_sys::attributes::netlink_only(connection.fd.as_fd(), &kinds)
            .map_err(|errno| Error::Socket { operation: "filter messages", errno })?;
        Ok(Self(connection))
    }

    /// Takes all that has come in; whether there was anything.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn drain(&mut self) -> Result<bool, Error> {
        let mut some = false;
        loop {
            match self.0.receive("watch firewall", RecvFlags::DONTWAIT, |_| Ok(true)) {
                Ok(None) => return Ok(some),
                // More came than the socket holds: all the more reason to look.
                Ok(Some(_)) | Err(Error::Socket { errno: rustix::io::Errno::NOBUFS, .. } | Error::Malformed { .. }) => {
                    some = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
