//! The expressions of a rule, in the order in which the kernel runs them.
//!
//! Register numbers are those of `NFT_REG32_00`…: words of four bytes. A concatenated key or
//! value lies in consecutive words.

use crate::netlink::wire::Attributes;

const FIRST_WORD: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const IFNAME_LEN: usize = 16;

/// What a packet's rule ends with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    Jump(&'a str),
}

/// Data that `meta` loads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// Data of the connection's original direction.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Original {
    DestinationPort = 12,
    DestinationV4 = 20,
    DestinationV6 = 22,
}

/// Whether a comparison asks for equality.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    Equal = 0,
    NotEqual = 1,
}

/// Where a packet's bytes are counted from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

fn word(n: u32) -> u32 {
    FIRST_WORD + n
}

/// A rule being written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_attributes(self) -> Attributes {
        self.0
    }

    fn then(self, name: &str, data: &Attributes) -> Self {
        let expression = Attributes::new().text(NAME, name).nest(DATA, data);
        Self(self.0.nest(LIST_ELEMENT, &expression))
    }

    pub(crate) fn meta(self, key: Meta, to: u32) -> Self {
        let data = Attributes::new().be32(1, word(to)).be32(2, key as u32);
        self.then("meta", &data)
    }

    pub(crate) fn payload(self, base: Base, offset: u32, length: u32, to: u32) -> Self {
        let data = Attributes::new()
            .be32(1, word(to))
            .be32(2, base as u32)
            .be32(3, offset)
            .be32(4, length);
        self.then("payload", &data)
    }

    pub(crate) fn original(self, key: Original, to: u32) -> Self {
        let data = Attributes::new()
            .be32(1, word(to))
            .be32(2, key as u32)
            .bytes(3, &[0]);
        self.then("ct", &data)
    }

    /// `ct status` in host order.
    pub(crate) fn connection_status(self, to: u32) -> Self {
        let data = Attributes::new().be32(1, word(to)).be32(2, 2);
        self.then("ct", &data)
    }

    pub(crate) fn mask(self, at: u32, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        let data = Attributes::new()
            .be32(1, word(at))
            .be32(2, word(at))
            .be32(3, length)
            .nest(4, &Attributes::new().bytes(DATA_VALUE, mask))
            .nest(
                5,
                &Attributes::new().bytes(DATA_VALUE, &vec![0; mask.len()]),
            );
        self.then("bitwise", &data)
    }

    pub(crate) fn compare(self, at: u32, test: Test, value: &[u8]) -> Self {
        let data = Attributes::new()
            .be32(1, word(at))
            .be32(2, test as u32)
            .nest(3, &Attributes::new().bytes(DATA_VALUE, value));
        self.then("cmp", &data)
    }

    /// Compares an interface's name.
    pub(crate) fn interface(self, key: Meta, test: Test, name: &str) -> Self {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(IFNAME_LEN, 0);
        self.meta(key, 0).compare(0, test, &padded)
    }

    pub(crate) fn constant(self, to: u32, value: &[u8]) -> Self {
        let data = Attributes::new()
            .be32(1, word(to))
            .nest(2, &Attributes::new().bytes(DATA_VALUE, value));
        self.then("immediate", &data)
    }

    /// Looks the key that starts at word `key` up in a map, and goes on with the value at `to`
    /// only when it is there.
    pub(crate) fn map(self, name: &str, key: u32, to: u32) -> Self {
        let data = Attributes::new()
            .text(1, name)
            .be32(2, word(key))
            .be32(3, word(to));
        self.then("lookup", &data)
    }

    /// The kind of the destination address as the node's routing sees it (`RTN_LOCAL` is 2).
    pub(crate) fn destination_type(self, to: u32) -> Self {
        let data = Attributes::new().be32(1, word(to)).be32(2, 3).be32(3, 2);
        self.then("fib", &data)
    }

    pub(crate) fn destination_nat(self, family: u8, address: u32, port: u32) -> Self {
        let data = Attributes::new()
            .be32(1, 1)
            .be32(2, family.into())
            .be32(3, word(address))
            .be32(5, word(port));
        self.then("nat", &data)
    }

    pub(crate) fn masquerade(self) -> Self {
        self.then("masq", &Attributes::new())
    }

    pub(crate) fn verdict(self, verdict: Verdict<'_>) -> Self {
        let (code, chain): (u32, _) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (0xffff_fffd, Some(chain)),
        };
        let mut inner = Attributes::new().be32(1, code);
        if let Some(chain) = chain {
            inner = inner.text(2, chain);
        }
        let data = Attributes::new()
            .be32(1, VERDICT_REGISTER)
            .nest(2, &Attributes::new().nest(DATA_VERDICT, &inner));
        self.then("immediate", &data)
    }
}
