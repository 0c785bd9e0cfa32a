//! Trust: HTTP clients for each combination of roots, client certificates and verification.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use crate::config::Config;
use crate::error::{Context, Result};
use crate::hosts::{Endpoint, is_loopback};
use crate::tls_files::{TlsFiles, read_bounded};
use crate::trust::{self, Trust};

/// Clients kept: more combinations than a node has mirrors would be a configuration in motion.
const MAX_CLIENTS: usize = 32;

/// The files' content: what a cached client is known by, so that a renewed file is seen.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    ca: Vec<Vec<u8>>,
    clients: Vec<(Vec<u8>, Vec<u8>)>,
    skip_verify: bool,
    reach: Reach,
    dial_timeout: Option<Duration>,
}

/// Whether an endpoint is behind the proxy that the environment names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Direct,
    Proxied,
}

impl TlsFiles {
    fn read(&self, reach: Reach, dial_timeout: Option<Duration>) -> Result<Material> {
        let read = |path: &PathBuf| {
            let content = read_bounded(path)?.ok_or("no such file");
            content.context(|| ("read", path.display()))
        };
        Ok(Material {
            ca: self.ca.iter().map(read).collect::<Result<_>>()?,
            clients: self
                .clients
                .iter()
                .map(|(certificate, key)| Ok((read(certificate)?, read(key)?)))
                .collect::<Result<_>>()?,
            skip_verify: self.skip_verify,
            reach,
            dial_timeout,
        })
    }
}

/// HTTP clients by their trust. Connections are pooled within each.
pub(crate) struct Clients {
    config: Config,
    system: OnceLock<RootCertStore>,
    known: Mutex<Vec<(Material, reqwest::Client)>>,
}

impl Clients {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            system: OnceLock::new(),
            known: Mutex::new(Vec::new()),
        }
    }

    /// The client for an endpoint, with its files as they are now. Reads them: call it where
    /// blocking is allowed.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> Result<reqwest::Client> {
        // No proxy elsewhere can reach this machine's loopback.
        let reach = if is_loopback(&endpoint.base) {
            Reach::Direct
        } else {
            Reach::Proxied
        };
        let files = &endpoint.tls;
        let material = files.read(reach, endpoint.dial_timeout)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = known.iter().find(|(m, _)| *m == material) {
            return Ok(client.clone());
        }
        let client = self.build(files, &material)?;
        if known.len() >= MAX_CLIENTS {
            known.remove(0);
        }
        known.push((material, client.clone()));
        Ok(client)
    }

    fn build(&self, files: &TlsFiles, material: &Material) -> Result<reqwest::Client> {
        let timeouts = &self.config.timeouts;
        let builder = match material.reach {
            Reach::Direct => reqwest::Client::builder().no_proxy(),
            Reach::Proxied => reqwest::Client::builder(),
        };
        builder
            .tls_backend_preconfigured(self.tls(files, material)?)
            .user_agent(&self.config.user_agent)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(material.dial_timeout.unwrap_or(timeouts.connect))
            .read_timeout(timeouts.idle)
            .pool_idle_timeout(Duration::from_secs(10))
            .referer(false)
            .build()
            .context(|| ("set up", "TLS"))
    }

    fn tls(&self, files: &TlsFiles, material: &Material) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context(|| ("set up", "TLS"))?;
        let verifier: Arc<dyn ServerCertVerifier> = if material.skip_verify {
            Arc::new(Trust::of_anybody(&provider))
        } else {
            Arc::new(self.trust(files, material, provider.clone())?)
        };
        let builder = builder.dangerous();
        let builder = builder.with_custom_certificate_verifier(verifier);
        let mut config = if material.clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let identities = Identities::new(files, material, &provider)?;
            builder.with_client_cert_resolver(Arc::new(identities))
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn trust(
        &self,
        files: &TlsFiles,
        material: &Material,
        provider: Arc<CryptoProvider>,
    ) -> Result<Trust> {
        let system = self.system.get_or_init(|| {
            let mut store = RootCertStore::empty();
            // Single bad files in a system's store are common and no reason to stop.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        });
        let mut roots = system.clone();
        let mut exact = Vec::new();
        for (path, content) in files.ca.iter().zip(&material.ca) {
            let found = trust::certificates(path, content);
            let found = found.context(|| ("use", path.display()))?;
            roots.add_parsable_certificates(found.iter().cloned());
            exact.extend(found);
        }
        Trust::new(roots, exact, provider).context(|| ("set up", "TLS"))
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

/// Our certificates: the first whose key the server can check.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl Identities {
    fn new(files: &TlsFiles, material: &Material, provider: &CryptoProvider) -> Result<Self> {
        let mut keys = Vec::new();
        for (paths, (certificate, key)) in files.clients.iter().zip(&material.clients) {
            let (path, key_path) = (paths.0.display(), paths.1.display());
            let chain = CertificateDer::pem_slice_iter(certificate);
            let chain = chain.collect::<std::result::Result<Vec<_>, _>>();
            let chain = chain.context(|| ("read the client certificate in", &path))?;
            let key = PrivateKeyDer::from_pem_slice(key).context(|| {
                let hint = "two files are written [[\"certificate\", \"key\"]]";
                ("read the client key in", format!("{key_path} ({hint})"))
            })?;
            let certified = CertifiedKey::from_der(chain, key, provider)
                .context(|| ("use the client certificate and key of", &path))?;
            keys.push(Arc::new(certified));
        }
        Ok(Self(keys))
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        self.0.iter().find(usable).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
