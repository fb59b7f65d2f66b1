//! The kernel's firewall (nf_tables): tables, chains, rules, sets and maps, written in one transaction and read back.
//!
//! A [`Batch`] collects changes; [`Socket::commit`] carries all of them out or none. What is written is what `nft(8)`
//! writes for the same words, so that its listing shows them: the tests compare the two. Registers are used as `nft` uses
//! them: fields of a concatenation lie in consecutive registers of 4 bytes.
//!
//! ```text
//! batch:  BEGIN  (message: nlmsghdr, nfgenmsg{family, 0, res_id}, attributes)*  END
//! ```
//!
//! Never parses the output of a program, and never touches an object that it was not told the name of.

mod batch;
mod expression;
mod socket;
#[cfg(test)]
mod tests;

pub use batch::{Base, Batch, ChainKind, Element, Hook, Place, Set, Type, Value};
pub use expression::{Expression, Field, MetaKey, NatKind, PortProtocol, Verdict};
pub use socket::{ChainFound, RuleFound, Socket, Watch};

/// What kind of packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// Frames that are bridged.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

impl Family {
    /// The word that `nft` has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Bridge, Self::Ip6].into_iter().find(|family| *family as u8 == number)
    }
}

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const NEWGEN: u16 = 15;
const GETGEN: u16 = 16;

const fn message(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}
