//! The identity of a registry of ours: a key that is in its memory alone, and the certificate by which a
//! crispd knows it. Settings that a killed command has left lead to a port that anybody may listen on then:
//! without the key, they cannot say which image is the one of a name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::failure::{Context as _, Result};

/// Clocks may differ, and be set back.
const EARLIER: Duration = Duration::from_secs(86_400);
/// No command takes longer.
const HOLDS: Duration = Duration::from_secs(30 * 86_400);
/// How long a client may take to agree on a secret.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A key with its certificate.
#[derive(Clone)]
pub struct Identity {
    /// The certificate in PEM.
    pub certificate: String,
    acceptor: TlsAcceptor,
}

impl Identity {
    /// Makes one for an address.
    pub fn of(ip: IpAddr) -> Result<Self> {
        let step = || format!("registry on {ip}: make its certificate");
        let key = KeyPair::generate().context(step)?;
        let certificate = params(ip).self_signed(&key).context(step)?;
        let config = config(certificate.der().clone(), &key).context(step)?;
        Ok(Self {
            certificate: certificate.pem(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Shows a client the certificate, and proves that the key is here. None where the client goes away.
    pub async fn meet(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let handshake = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream));
        handshake.await.ok()?.ok()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

fn params(ip: IpAddr) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::IpAddress(ip));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.unwrap_or_default();
    params.not_before = now - EARLIER;
    params.not_after = now + HOLDS;
    params
}

fn config(
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> std::result::Result<ServerConfig, tokio_rustls::rustls::Error> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
}
