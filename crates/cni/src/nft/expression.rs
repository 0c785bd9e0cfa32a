//! The expressions of a rule, in the order in which the kernel runs them.
//!
//! An expression loads, changes or compares registers. Registers are counted here in *words* of
//! four bytes (`NFT_REG32_00` is word 0); a concatenated key or value lies in consecutive words.

use super::wire::*;
use crate::netlink::wire::Attributes;

/// The kernel compares interface names with all bytes of their buffer (`IFNAMSIZ`).
const IFNAME_LEN: usize = 16;

/// An interface's name as the kernel compares it.
pub(super) fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAME_LEN, 0);
    padded
}

/// How a rule decides about a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict<'a> {
    Drop,
    Accept,
    Jump(&'a str),
}

/// Data about a packet that `meta` loads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    InName,
    OutName,
    Family,
    Protocol,
    /// The frame's type (`ETH_P_…`), in network byte order, below one tag of a VLAN.
    FrameType,
}

impl Meta {
    fn key(self) -> u32 {
        let key = match self {
            Self::InName => libc::NFT_META_IIFNAME,
            Self::OutName => libc::NFT_META_OIFNAME,
            Self::Family => libc::NFT_META_NFPROTO,
            Self::Protocol => libc::NFT_META_L4PROTO,
            Self::FrameType => libc::NFT_META_PROTOCOL,
        };
        key.cast_unsigned()
    }
}

/// Where a connection's first packet went to, before any translation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Original {
    DestinationPort,
    DestinationV4,
    DestinationV6,
}

impl Original {
    fn key(self) -> u32 {
        let key = match self {
            Self::DestinationPort => libc::NFT_CT_PROTO_DST,
            Self::DestinationV4 => libc::NFT_CT_DST_IP,
            Self::DestinationV6 => libc::NFT_CT_DST_IP6,
        };
        key.cast_unsigned()
    }
}

/// The question that a comparison asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Test {
    Equal,
    NotEqual,
}

impl Test {
    fn operator(self) -> u32 {
        let operator = match self {
            Self::Equal => libc::NFT_CMP_EQ,
            Self::NotEqual => libc::NFT_CMP_NEQ,
        };
        operator.cast_unsigned()
    }
}

/// The header that a packet's bytes are counted from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Base {
    Network,
    Transport,
}

impl Base {
    fn number(self) -> u32 {
        let number = match self {
            Self::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
            Self::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
        };
        number.cast_unsigned()
    }
}

/// The register that is the nth word.
fn word(n: u32) -> u32 {
    libc::NFT_REG32_00.cast_unsigned() + n
}

/// Bytes as a constant of an expression.
fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(NFTA_DATA_VALUE, bytes)
}

fn membership(set: &str) -> Attributes {
    Attributes::new()
        .text(NFTA_LOOKUP_SET, set)
        .be32(NFTA_LOOKUP_SREG, word(0))
}

/// A rule that is being written: a list of expressions.
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
        let expression = Attributes::new()
            .text(NFTA_EXPR_NAME, name)
            .nest(NFTA_EXPR_DATA, data);
        Self(self.0.nest(NFTA_LIST_ELEM, &expression))
    }

    pub(crate) fn meta(self, key: Meta, to: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_META_DREG, word(to))
            .be32(NFTA_META_KEY, key.key());
        self.then("meta", &data)
    }

    pub(crate) fn payload(self, base: Base, offset: u32, length: u32, to: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_PAYLOAD_DREG, word(to))
            .be32(NFTA_PAYLOAD_BASE, base.number())
            .be32(NFTA_PAYLOAD_OFFSET, offset)
            .be32(NFTA_PAYLOAD_LEN, length);
        self.then("payload", &data)
    }

    pub(crate) fn original(self, key: Original, to: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_CT_DREG, word(to))
            .be32(NFTA_CT_KEY, key.key())
            .bytes(NFTA_CT_DIRECTION, &[IP_CT_DIR_ORIGINAL]);
        self.then("ct", &data)
    }

    /// The connection's status flags, in host byte order.
    pub(crate) fn connection_status(self, to: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_CT_DREG, word(to))
            .be32(NFTA_CT_KEY, libc::NFT_CT_STATUS.cast_unsigned());
        self.then("ct", &data)
    }

    /// Clears the bits that are not in the mask.
    pub(crate) fn mask(self, at: u32, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        let data = Attributes::new()
            .be32(NFTA_BITWISE_SREG, word(at))
            .be32(NFTA_BITWISE_DREG, word(at))
            .be32(NFTA_BITWISE_LEN, length)
            .nest(NFTA_BITWISE_MASK, &value(mask))
            .nest(NFTA_BITWISE_XOR, &value(&vec![0; mask.len()]));
        self.then("bitwise", &data)
    }

    /// Goes on with the rule only when the comparison holds.
    pub(crate) fn compare(self, at: u32, test: Test, wanted: &[u8]) -> Self {
        let data = Attributes::new()
            .be32(NFTA_CMP_SREG, word(at))
            .be32(NFTA_CMP_OP, test.operator())
            .nest(NFTA_CMP_DATA, &value(wanted));
        self.then("cmp", &data)
    }

    /// Compares an interface's name.
    pub(crate) fn interface(self, key: Meta, test: Test, name: &str) -> Self {
        self.meta(key, 0).compare(0, test, &padded(name))
    }

    pub(crate) fn constant(self, to: u32, constant: &[u8]) -> Self {
        let data = Attributes::new()
            .be32(NFTA_IMMEDIATE_DREG, word(to))
            .nest(NFTA_IMMEDIATE_DATA, &value(constant));
        self.then("immediate", &data)
    }

    /// Looks the key that starts at word `key` up in a map. The rule goes on, with the value at
    /// `to`, only when the key is there.
    pub(crate) fn map(self, name: &str, key: u32, to: u32) -> Self {
        let data = Attributes::new()
            .text(NFTA_LOOKUP_SET, name)
            .be32(NFTA_LOOKUP_SREG, word(key))
            .be32(NFTA_LOOKUP_DREG, word(to));
        self.then("lookup", &data)
    }

    /// Goes on with the rule only when the key that starts at word 0 is in a set.
    pub(crate) fn within(self, set: &str) -> Self {
        self.then("lookup", &membership(set))
    }

    /// Goes on with the rule only when the key that starts at word 0 is in no element of a set.
    pub(crate) fn outside(self, set: &str) -> Self {
        let inverted = libc::NFT_LOOKUP_F_INV.cast_unsigned();
        let data = membership(set).be32(NFTA_LOOKUP_FLAGS, inverted);
        self.then("lookup", &data)
    }

    /// The type of the destination address in the node's routing, as `RTN_LOCAL` is one.
    pub(crate) fn destination_type(self, to: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_FIB_DREG, word(to))
            .be32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
            .be32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        self.then("fib", &data)
    }

    pub(crate) fn destination_nat(self, family: u8, address: u32, port: u32) -> Self {
        let data = Attributes::new()
            .be32(NFTA_NAT_TYPE, libc::NFT_NAT_DNAT.cast_unsigned())
            .be32(NFTA_NAT_FAMILY, family.into())
            .be32(NFTA_NAT_REG_ADDR_MIN, word(address))
            .be32(NFTA_NAT_REG_PROTO_MIN, word(port));
        self.then("nat", &data)
    }

    pub(crate) fn masquerade(self) -> Self {
        self.then("masq", &Attributes::new())
    }

    pub(crate) fn verdict(self, verdict: Verdict<'_>) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Accept => (libc::NF_ACCEPT, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
        };
        let mut inner = Attributes::new().be32(NFTA_VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            inner = inner.text(NFTA_VERDICT_CHAIN, chain);
        }
        let register = libc::NFT_REG_VERDICT.cast_unsigned();
        let verdict = Attributes::new().nest(NFTA_DATA_VERDICT, &inner);
        let data = Attributes::new()
            .be32(NFTA_IMMEDIATE_DREG, register)
            .nest(NFTA_IMMEDIATE_DATA, &verdict);
        self.then("immediate", &data)
    }
}
