//! The numbers of nftables messages and attributes, under the names that the kernel gives them in
//! `linux/netfilter/nf_tables.h`, and how a transaction and a comment are written.
//!
//! `libc` has the numbers of messages, registers and keys, but none of the attributes (`NFTA_…`).

use crate::netlink::Batch;
use crate::netlink::netfilter::{body_of, message_type, octet};
use crate::netlink::wire::{Attributes, text};

const fn nft(message: libc::c_int) -> u16 {
    message_type(libc::NFNL_SUBSYS_NFTABLES, message)
}

pub(super) const NEW_TABLE: u16 = nft(libc::NFT_MSG_NEWTABLE);
pub(super) const GET_TABLE: u16 = nft(libc::NFT_MSG_GETTABLE);
pub(super) const DELETE_TABLE: u16 = nft(libc::NFT_MSG_DELTABLE);
pub(super) const NEW_CHAIN: u16 = nft(libc::NFT_MSG_NEWCHAIN);
pub(super) const GET_CHAIN: u16 = nft(libc::NFT_MSG_GETCHAIN);
pub(super) const NEW_RULE: u16 = nft(libc::NFT_MSG_NEWRULE);
pub(super) const GET_RULE: u16 = nft(libc::NFT_MSG_GETRULE);
pub(super) const DELETE_RULE: u16 = nft(libc::NFT_MSG_DELRULE);
pub(super) const NEW_SET: u16 = nft(libc::NFT_MSG_NEWSET);
pub(super) const NEW_ELEMENT: u16 = nft(libc::NFT_MSG_NEWSETELEM);
pub(super) const GET_ELEMENT: u16 = nft(libc::NFT_MSG_GETSETELEM);
pub(super) const DELETE_ELEMENT: u16 = nft(libc::NFT_MSG_DELSETELEM);
const BATCH_BEGIN: u16 = message_type(libc::NFNL_SUBSYS_NONE, libc::NFNL_MSG_BATCH_BEGIN);
const BATCH_END: u16 = message_type(libc::NFNL_SUBSYS_NONE, libc::NFNL_MSG_BATCH_END);

/// One table for both address families.
pub(super) const INET: u8 = octet(libc::NFPROTO_INET);
/// The family of tables that see frames where a bridge forwards them.
pub(super) const BRIDGE: u8 = octet(libc::NFPROTO_BRIDGE);

// How `nft list` shows keys and values; the kernel only stores these. From `enum datatypes` of
// nftables' `datatype.h`, which packs the types of a concatenation with six bits each.
pub(super) const TYPE_BITS: u32 = 6;
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_INET_PROTOCOL: u32 = 12;
pub(super) const TYPE_INET_SERVICE: u32 = 13;
pub(super) const TYPE_IFNAME: u32 = 41;

// enum nft_list_attributes
pub(super) const NFTA_LIST_ELEM: u16 = 1;

// enum nft_table_attributes
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;

// enum nft_chain_attributes and nft_hook_attributes
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;

// enum nft_rule_attributes
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;

// enum nft_set_attributes
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_USERDATA: u16 = 13;

// enum nft_set_elem_list_attributes and nft_set_elem_attributes
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;

// enum nft_data_attributes and nft_verdict_attributes
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;

// enum nft_expr_attributes, then those of each expression
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;
pub(super) const NFTA_CT_DIRECTION: u16 = 3;
pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;
pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SREG: u16 = 2;
pub(super) const NFTA_LOOKUP_DREG: u16 = 3;
pub(super) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(super) const NFTA_FIB_DREG: u16 = 1;
pub(super) const NFTA_FIB_RESULT: u16 = 2;
pub(super) const NFTA_FIB_FLAGS: u16 = 3;
pub(super) const NFTA_NAT_TYPE: u16 = 1;
pub(super) const NFTA_NAT_FAMILY: u16 = 2;
pub(super) const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub(super) const NFTA_NAT_REG_PROTO_MIN: u16 = 5;

// enum nft_fib_result and nft_fib_flags
pub(super) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(super) const NFTA_FIB_F_DADDR: u32 = 1 << 1;

/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
pub(super) const IPS_DST_NAT: u32 = 1 << 5;
/// `IP_CT_DIR_ORIGINAL` of `linux/netfilter/nf_conntrack_tuple_common.h`.
pub(super) const IP_CT_DIR_ORIGINAL: u8 = 0;

/// A transaction's first message. It has no name: its errors are those of the whole.
pub(super) fn begin() -> Batch {
    let mut batch = Batch::default();
    batch.push("", BATCH_BEGIN, 0, &transaction_body());
    batch
}

/// Adds a transaction's last message, at which the kernel does all of it or nothing.
pub(super) fn end(mut batch: Batch) -> Batch {
    batch.push("", BATCH_END, 0, &transaction_body());
    batch
}

fn transaction_body() -> Vec<u8> {
    let subsystem = u16::from(octet(libc::NFNL_SUBSYS_NFTABLES));
    body_of(octet(libc::NFPROTO_UNSPEC), subsystem, &Attributes::new())
}

/// A comment in the form that `nft list` shows: a type, a length, a text with a zero byte.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// The text of a comment; empty when the bytes are none.
pub(crate) fn uncomment(bytes: &[u8]) -> String {
    bytes.get(2..).map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        assert_eq!(uncomment(&comment("abc")), "abc");
        assert_eq!(uncomment(&[0]), "");
    }
}
