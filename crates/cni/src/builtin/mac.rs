//! The MAC address of an interface, derived from its IP address.

use std::net::{IpAddr, Ipv6Addr};

/// The MAC that belongs to an IP address. It is derived, not random: when an address is given to
/// another pod, the neighbours' ARP and NDP caches still hold its former MAC, and the new pod
/// would be unreachable until those entries expire.
pub(crate) fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => v6.octets().last_chunk().copied().unwrap_or_default(),
    };
    [0x02, 0x63, a, b, c, d]
}

/// The link-local address that the kernel derives from a MAC (RFC 4291, appendix A).
pub(crate) fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_mac() {
        let mac = |a: &str| mac_of(a.parse().unwrap());
        assert_eq!(mac("10.88.1.2"), [0x02, 0x63, 10, 88, 1, 2]);
        assert_eq!(mac("fd00::1:2"), [0x02, 0x63, 0, 1, 0, 2]);
    }

    #[test]
    fn a_mac_has_one_link_local_address() {
        let own = link_local([0x02, 0x63, 10, 88, 1, 2]);
        assert_eq!(own.to_string(), "fe80::63:aff:fe58:102");
    }
}
