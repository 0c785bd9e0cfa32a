//! TLS of the server. The files are looked at for each connection, so that a renewed certificate is
//! used from the next one on; one that cannot be read or used leaves the last good one in place.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Context, Result};

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// The files of a certificate, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How a file is known from the one before it: its device, inode, size and time of change.
type Stamp = (u64, u64, u64, i64, i64);

/// The certificate that connections get.
pub(crate) struct Certificate {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    stamps: [Option<Stamp>; 2],
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads the files: call it where blocking is allowed.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub(crate) fn load(files: TlsFiles) -> Result<Self> {
        let current = Current {
            stamps: files.stamps(),
            config: files.config()?,
        };
        Ok(Self {
            files,
            current: Mutex::new(current),
        })
    }

    /// The configuration for the next connection, read anew when the files have changed: call it
    /// where blocking is allowed.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let stamps = self.files.stamps();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.stamps != stamps {
            // Once for each change: what cannot be used is told once.
            current.stamps = stamps;
            match self.files.config() {
                Ok(config) => current.config = config,
                Err(error) => tracing::warn!(
                    %error,
                    "the streaming server goes on with its last certificate; mend the files"
                ),
            }
        }
        Arc::clone(&current.config)
    }
}

impl TlsFiles {
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let of = path.metadata().ok()?;
            Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
        })
    }

    fn config(&self) -> Result<Arc<ServerConfig>> {
        let path = &self.certificate;
        let chain = CertificateDer::pem_slice_iter(&read(path)?)
            .collect::<std::result::Result<Vec<_>, _>>()
            .context(|| ("read the certificate in", path.display()))?;
        let path = &self.key;
        let key = PrivateKeyDer::from_pem_slice(&read(path)?);
        let key = key.context(|| ("read the key in", path.display()))?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .context(|| ("use the certificate in", self.certificate.display()))?;
        Ok(Arc::new(config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let step = || ("read", path.display());
    let mut content = Vec::new();
    let file = File::open(path).context(step)?;
    let read = file.take(MAX_FILE).read_to_end(&mut content);
    read.context(step)?;
    Ok(content)
}
