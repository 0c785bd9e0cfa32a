//! Ports of this machine's loopback that lead to nodes. A connection to such a port goes to its node,
//! whoever else listens there.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::arguments::Publish;
use crate::failure::{Context as _, Failure, Result};
use crate::record::Record;

/// Ports for API servers. The kernel gives none of them to clients by default.
const API: RangeInclusive<u16> = 16384..=32767;
/// How long an answer of this machine to itself may take.
const ANSWER: Duration = Duration::from_millis(500);

/// The port for the API server of a new cluster, and the ports that are to be published, judged by
/// those of other clusters and by who listens.
pub fn choose(home: &Path, publish: &[Publish], mut taken: BTreeMap<u16, String>) -> Result<u16> {
    for Publish { host, .. } in publish {
        check(&mut taken, *host)?;
        if let Some(who) = holder(*host)? {
            let text = format!("--publish: port {host} of 127.0.0.1: {who}");
            return Err(Failure::new(text).remedy("name another port, or end that program"));
        }
    }
    let clients = clients();
    let mut free =
        candidates(home).filter(|port| !taken.contains_key(port) && !clients.contains(port));
    let mut found = None;
    while let (None, Some(port)) = (found, free.next()) {
        found = holder(port)?.is_none().then_some(port);
    }
    found.ok_or_else(|| {
        let text = format!(
            "port for the API server: none from {} to {} is free",
            API.start(),
            API.end()
        );
        Failure::new(text)
    })
}

/// Warnings about ports of a cluster that is there on which a program listens, or which are another's.
pub fn warnings(record: &Record, others: &BTreeMap<u16, String>) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for port in all(record) {
        let listener = listener(port)?;
        for who in listener
            .into_iter()
            .chain(others.get(&port).map(String::as_str))
        {
            warnings.push(format!(
                "port {port} of 127.0.0.1 leads to a node, and {who}"
            ));
        }
    }
    Ok(warnings)
}

/// Whose each port of some clusters is, with their directory where it is another one.
pub fn of(clusters: &[Record], dir: Option<&Path>) -> BTreeMap<u16, String> {
    let whose = |record: &Record| match dir {
        Some(dir) => format!("cluster {} of {} has it", record.name, dir.display()),
        None => format!("cluster {} has it", record.name),
    };
    let ports = |record| all(record).map(move |port| (port, whose(record)));
    clusters.iter().flat_map(ports).collect()
}

/// The ports of a cluster.
fn all(record: &Record) -> impl Iterator<Item = u16> {
    let published = record.publish.iter().map(|publish| publish.host);
    published.chain([record.port])
}

/// Takes a port, or refuses it by the name of who has it.
fn check(taken: &mut BTreeMap<u16, String>, port: u16) -> Result<()> {
    match taken.insert(port, "it is published twice".to_owned()) {
        None => Ok(()),
        Some(who) => Err(
            Failure::new(format!("--publish: port {port} of 127.0.0.1: {who}"))
                .remedy("name another port"),
        ),
    }
}

/// All ports for API servers, from another one on in each home: a port of a home that has not been up since the
/// machine's boot looks free.
fn candidates(home: &Path) -> impl Iterator<Item = u16> {
    use std::os::unix::ffi::OsStrExt as _;

    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(home.as_os_str().as_bytes());
    let offset = u16::from_be_bytes([hash[0], hash[1]]) % (API.end() - API.start() + 1);
    let first = API.start() + offset;
    (first..=*API.end()).chain(*API.start()..first)
}

/// The program that listens at a port, or the node that the port leads to.
fn holder(port: u16) -> Result<Option<&'static str>> {
    if let Some(who) = listener(port)? {
        return Ok(Some(who));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answers = TcpStream::connect_timeout(&address, ANSWER).is_ok();
    Ok(answers.then_some("it leads to a container that answers there"))
}

/// Whether a program listens at a port.
fn listener(port: u16) -> Result<Option<&'static str>> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Ok(Some("a program of this machine listens there"))
        }
        Err(error) => Err(error).context(|| format!("port {port} of 127.0.0.1: try it")),
    }
}

/// The ports that the kernel gives to clients: one that is free now is not free after a boot.
fn clients() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32768..=60999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(port: u16, publish: &[&str]) -> Record {
        let mut record = Record::new("other".parse().unwrap(), 1, 1, "/k".into());
        record.port = port;
        record.publish = publish.iter().map(|text| text.parse().unwrap()).collect();
        record
    }

    fn refused(publish: &[&str], others: &[Record]) -> String {
        let wish = of(0, publish).publish;
        let refused = choose(Path::new("/h"), &wish, super::of(others, None));
        refused.unwrap_err().to_string()
    }

    #[test]
    fn ports_that_others_have_are_refused_by_their_name() {
        let others = [of(16443, &["8080:80"])];
        assert!(refused(&["8080:30080"], &others).contains("cluster other has it"));
        assert!(refused(&["16443:30080"], &others).contains("cluster other has it"));
        assert!(refused(&["8081:1", "8081:2"], &others).contains("published twice"));
        let choose = |others: &[Record]| {
            let others = super::of(others, Some(Path::new("/srv")));
            super::choose(Path::new("/h"), &[], others).unwrap()
        };
        let api = choose(&others);
        assert!(API.contains(&api) && !clients().contains(&api), "{api}");
        assert_ne!(choose(&[of(api, &[])]), api);
    }

    #[test]
    fn homes_begin_at_ports_of_their_own() {
        let all = |home: &str| candidates(Path::new(home)).collect::<Vec<_>>();
        let (one, other) = (all("/var/lib/crisp-clusters"), all("/srv"));
        assert_ne!(one[0], other[0]);
        assert_eq!((one.len(), other.len()), (16384, 16384));
        assert_eq!(one, all("/var/lib/crisp-clusters"));
    }

    #[test]
    fn ports_where_somebody_listens_are_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let publish = format!("{port}:30080");
        assert!(refused(&[&publish], &[]).contains("listens there"));
        let warnings = |others| warnings(&of(port, &[]), others).unwrap();
        let none = BTreeMap::new();
        assert_eq!(warnings(&none).len(), 1);
        drop(listener);
        assert!(warnings(&none).is_empty());
        let others = super::of(&[of(port, &[])], Some(Path::new("/srv")));
        let told = warnings(&others).concat();
        assert!(told.contains("cluster other of /srv has it"), "{told}");
    }
}
