//! TLS, and certificates that are renewed while the server runs.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::backend::played;
use super::spdy_client::{Client, Frame};
use crate::{Config, Server, Streams, TlsFiles};

/// Both are for `localhost`, until 2125, and sign themselves.
const ONE: [&str; 2] = [include_str!("one.crt"), include_str!("one.key")];
const TWO: [&str; 2] = [include_str!("two.crt"), include_str!("two.key")];

fn put(dir: &Path, [certificate, key]: [&str; 2]) {
    for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
        let new = dir.join("new");
        std::fs::File::create(&new)
            .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .unwrap();
        std::fs::rename(&new, dir.join(name)).unwrap();
    }
}

/// Runs a process for a client that trusts one certificate; `false` when it is shown another.
async fn trusts(server: &Server, certificate: &str) -> bool {
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    roots.add(trusted).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let Ok(mut socket) = connector.connect(name, socket).await else {
        return false;
    };
    let (start, mut process) = played();
    let url = server.exec(Streams::STDOUT, start).unwrap();
    let path = url.strip_prefix("https://stream.test:99/").unwrap();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let mut client = Client::over(socket);
    let ids = client.open_all(&["error", "stdout"]).await;
    process.stdout.write_all(b"secret").await.unwrap();
    let said = Frame::Data(ids[1], b"secret".to_vec(), false);
    client.next().await == said
}

#[tokio::test]
async fn a_renewed_certificate_is_used_from_the_next_connection_on() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), ONE);
    let config = Config {
        base: Some("https://stream.test:99/".to_owned()),
        tls: Some(TlsFiles {
            certificate: dir.path().join("tls.crt"),
            key: dir.path().join("tls.key"),
        }),
        ..Config::default()
    };
    let server = Server::start(config.clone()).await.unwrap();
    assert!(trusts(&server, ONE[0]).await && !trusts(&server, TWO[0]).await);
    put(dir.path(), TWO);
    assert!(trusts(&server, TWO[0]).await && !trusts(&server, ONE[0]).await);
    // Half of a renewal, or none: the last whole one goes on.
    put(dir.path(), [ONE[0], TWO[1]]);
    assert!(trusts(&server, TWO[0]).await);
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    assert!(trusts(&server, TWO[0]).await);
    let error = Server::start(config).await.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read ") && error.contains("tls.key"),
        "{error}"
    );
}
