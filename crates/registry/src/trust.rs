//! Trust in registries: judges the certificates of servers, also by those that an operator laid
//! down.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// First byte of a certificate in DER, which is no text.
const DER: u8 = 0x30;

/// The certificates of a `ca` file. A block that cannot be read is passed over, as other clients
/// do, because bundles are glued together by hand.
///
/// # Errors
/// When no block can be used: the file is then none that says whom to trust.
pub(crate) fn certificates(
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = String::from_utf8_lossy(content);
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let mut found = Vec::new();
    for (start, end) in starts.iter().copied().zip(ends) {
        let certificate = CertificateDer::from_pem_slice(&text.as_bytes()[start..end]);
        let certificate = certificate.map_err(|e| e.to_string()).and_then(|der| {
            let mut alone = RootCertStore::empty();
            alone.add(der.clone()).map_err(|e| e.to_string())?;
            Ok(der)
        });
        match certificate {
            Ok(certificate) => found.push(certificate),
            Err(why) => tracing::warn!(file = %path.display(), why, "unusable certificate in `ca`"),
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    Err(match content.first() {
        None => "`ca`: the file is empty".to_owned(),
        Some(&DER) => "`ca`: DER, but PEM is wanted: openssl x509 -inform der".to_owned(),
        Some(_) => format!("`ca`: no usable certificate in it; it wants blocks of {BEGIN}"),
    })
}

/// Judges the certificates of servers, and whether a server holds the key of its own.
#[derive(Debug)]
pub(crate) struct Trust {
    signatures: WebPkiSupportedAlgorithms,
    whom: Whom,
}

/// Whose certificates are taken.
#[derive(Debug)]
enum Whom {
    /// Certificates that lead to a root, and those that an operator trusts one by one.
    ///
    /// `openssl req -x509` makes a certificate that is its own root, and a root cannot serve by
    /// the rules of the library below. Laid down as `ca` it is trusted all the same, as by other
    /// clients: there is nothing else that its operator can have meant.
    Known {
        roots: Arc<WebPkiServerVerifier>,
        exact: Vec<CertificateDer<'static>>,
    },
    /// Any, for `skip_verify`.
    Any,
}

impl Trust {
    /// `exact` are certificates that are among the roots as well.
    pub(crate) fn new(
        roots: RootCertStore,
        exact: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let signatures = provider.signature_verification_algorithms;
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let roots = roots.build().map_err(|e| e.to_string())?;
        let whom = Whom::Known { roots, exact };
        Ok(Self { signatures, whom })
    }

    /// Takes any certificate.
    pub(crate) fn of_anybody(provider: &CryptoProvider) -> Self {
        Self {
            signatures: provider.signature_verification_algorithms,
            whom: Whom::Any,
        }
    }
}

/// Whether a certificate, whose dates are right, was refused only because it is a root. The dates
/// are judged before that, which a test holds on to.
fn is_root_that_serves(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error
    else {
        return false;
    };
    let cause = cause.downcast_ref::<webpki::Error>();
    matches!(cause, Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Whom::Known { roots, exact } = &self.whom else {
            return Ok(ServerCertVerified::assertion());
        };
        match roots.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(error) if is_root_that_serves(&error) && exact.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.signatures;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.signatures;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}
