//! Listeners of the node itself on ports that a pod takes: the kernel sends what comes for such a
//! port to the pod, and the program that listens is not told.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crisp_model::Protocol;

use crate::nft::HostPort;

/// The state that the kernel's tables give to a socket that waits for whoever comes: TCP's LISTEN,
/// and UDP's "unconnected".
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// The ports at which a program of this network namespace listens. A table that cannot be read
/// tells of none: the answer is for a warning.
pub(super) fn shadowed<'a>(ports: impl Iterator<Item = &'a HostPort>) -> Vec<&'a HostPort> {
    let mut tables: Vec<(&str, Vec<(IpAddr, u16)>)> = Vec::new();
    let mut found = Vec::new();
    for port in ports {
        for (file, state) in files(port.protocol) {
            if !tables.iter().any(|(known, _)| known == file) {
                tables.push((file, listeners(file, state)));
            }
        }
        let files = files(port.protocol);
        let read = tables.iter();
        let mut there = read
            .filter(|(file, _)| files.iter().any(|(own, _)| own == file))
            .flat_map(|(_, there)| there);
        if there.any(|listener| meets(port, *listener)) {
            found.push(port);
        }
    }
    found
}

fn files(protocol: Protocol) -> &'static [(&'static str, &'static str)] {
    match protocol {
        Protocol::Tcp => &[("tcp", LISTENS), ("tcp6", LISTENS)],
        Protocol::Udp => &[("udp", UNCONNECTED), ("udp6", UNCONNECTED)],
        Protocol::Sctp => &[],
    }
}

/// A listener on :: has the packets of both families.
fn meets(port: &HostPort, (address, number): (IpAddr, u16)) -> bool {
    let of_family = address.is_ipv4() == port.host.is_ipv4() || address.is_unspecified();
    let of_address = address == port.host || address.is_unspecified() || port.host.is_unspecified();
    port.port == number && of_family && of_address
}

fn listeners(file: &str, state: &str) -> Vec<(IpAddr, u16)> {
    let Ok(table) = File::open(format!("/proc/thread-self/net/{file}")) else {
        return Vec::new();
    };
    let lines = BufReader::new(table).lines().skip(1);
    let lines = lines.map_while(Result::ok);
    lines.filter_map(|line| parse(&line, state)).collect()
}

/// `0: 0100007F:1F90 00000000:0000 0A ...`: each word of an address is in the machine's own order.
fn parse(line: &str, state: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (address, port) = words.next()?.rsplit_once(':')?;
    if words.nth(1)? != state {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for start in (0..address.len()).step_by(8) {
        let word = address.get(start..start + 8)?;
        octets.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let address = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical(),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn port(protocol: Protocol, host: &str, port: u16) -> HostPort {
        HostPort {
            protocol,
            host: host.parse().unwrap(),
            port,
            target: "10.0.0.2".parse().unwrap(),
            target_port: 80,
        }
    }

    fn is_shadowed(protocol: Protocol, host: &str, number: u16) -> bool {
        let port = port(protocol, host, number);
        shadowed([&port].into_iter()) == [&port]
    }

    #[test]
    fn programs_that_listen_on_a_port_of_a_pod_are_seen() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = four.local_addr().unwrap().port();
        assert!(is_shadowed(tcp, "0.0.0.0", number));
        assert!(is_shadowed(tcp, "127.0.0.1", number));
        assert!(!is_shadowed(tcp, "127.0.0.2", number), "another address");
        assert!(!is_shadowed(tcp, "::", number), "another family");
        assert!(!is_shadowed(udp, "0.0.0.0", number), "another protocol");
        // A connection has a port of its own, and listens for nobody.
        let caller = TcpStream::connect(four.local_addr().unwrap()).unwrap();
        assert!(!is_shadowed(
            tcp,
            "0.0.0.0",
            caller.local_addr().unwrap().port()
        ));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = datagrams.local_addr().unwrap().port();
        assert!(is_shadowed(udp, "0.0.0.0", number));
        drop(datagrams);
        assert!(!is_shadowed(udp, "0.0.0.0", number));
        if let Ok(six) = TcpListener::bind("[::1]:0") {
            let number = six.local_addr().unwrap().port();
            assert!(is_shadowed(tcp, "::", number));
            assert!(!is_shadowed(tcp, "0.0.0.0", number));
        }
        if let Ok(both) = TcpListener::bind("[::]:0") {
            let number = both.local_addr().unwrap().port();
            assert!(is_shadowed(tcp, "::", number) && is_shadowed(tcp, "0.0.0.0", number));
        }
    }
}
