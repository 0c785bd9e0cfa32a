//! The keys and certificates of a cluster. One authority signs all of them, and another the one by which
//! the API server hands requests on in a user's name (aggregated APIs). Nodes see only what is theirs;
//! the first authority's key is also the control plane's, which signs what users may ask it to.

mod issued;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::disk::{keep, keep_private, make_dir};
use crate::failure::{Context as _, Failure, Result};

pub use issued::Issued;

/// How long an authority holds.
const AUTHORITY_HOLDS: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Clocks may differ, and be set back.
const EARLIER: Duration = Duration::from_secs(86_400);

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The use that a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// To ask a server.
    Client,
    /// To be asked.
    Server,
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its use.
    pub usage: Usage,
    /// The user, to the API server.
    pub name: String,
    /// The group of that user.
    pub group: Option<&'static str>,
    /// Names of the server.
    pub hosts: Vec<String>,
    /// Addresses of the server.
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    /// A client.
    pub fn client(name: &str) -> Self {
        Self {
            usage: Usage::Client,
            name: name.to_owned(),
            group: None,
            hosts: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn params(&self) -> std::result::Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(self.hosts.clone())?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.name.as_str());
        if let Some(group) = self.group {
            name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name = name;
        let addresses = self.addresses.iter().copied().map(SanType::IpAddress);
        params.subject_alt_names.extend(addresses);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        hold(&mut params, issued::HOLDS);
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// Has a certificate hold from now on.
fn hold(params: &mut CertificateParams, holds: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.unwrap_or_default();
    params.not_before = now - EARLIER;
    params.not_after = now + holds;
}

/// An authority signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub certificate: String,
    /// Its key in PEM.
    pub key: String,
}

impl Authority {
    /// Reads what there is of it, or makes it. A certificate that is none of its key is made anew: by name and key
    /// it is the same authority.
    fn of(dir: &Path, file: &str, name: &str) -> Result<Self> {
        let key = key(&dir.join(format!("{file}.key")))?;
        let params = authority(name);
        let path = dir.join(format!("{file}.crt"));
        let certificate = match read(&path)?.filter(|text| is_of(text, &key)) {
            Some(text) => text,
            None => {
                let made = params.self_signed(&key);
                let text = made
                    .context(|| format!("{}: make it", path.display()))?
                    .pem();
                keep(&path, text.as_bytes())?;
                text
            }
        };
        Ok(Self {
            certificate,
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Makes a key and a certificate for a subject.
    pub fn issue(&self, subject: &Subject) -> Result<Pair> {
        let step = || format!("certificate of {}: make it", subject.name);
        let key = KeyPair::generate().context(step)?;
        let params = subject.params().context(step)?;
        let certificate = params.signed_by(&key, &self.issuer).context(step)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The authorities of a cluster, and the key of its service accounts' tokens.
#[derive(Debug)]
pub struct Pki {
    /// Of all components and users.
    pub ca: Authority,
    /// Of the API server, as servers of aggregated APIs know it.
    pub front_proxy: Authority,
    /// The key of tokens; its `certificate` is the public key alone.
    pub tokens: Pair,
}

impl Pki {
    /// Reads what a cluster has, or makes it.
    pub fn of(dir: &Path) -> Result<Self> {
        make_private(dir)?;
        let tokens = self::key(&dir.join("tokens.key"))?;
        Ok(Self {
            ca: Authority::of(dir, "ca", "crisp cluster")?,
            front_proxy: Authority::of(dir, "front-proxy-ca", "crisp cluster front proxy")?,
            tokens: Pair {
                certificate: tokens.public_key_pem(),
                key: tokens.serialize_pem(),
            },
        })
    }
}

/// The authority is made of these each time: its name and its key make it the same one.
fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    hold(&mut params, AUTHORITY_HOLDS);
    params
}

/// Whether a certificate in PEM is one of a key.
fn is_of(certificate: &str, key: &KeyPair) -> bool {
    use base64::Engine as _;
    let lines = certificate.lines().map(str::trim);
    let lines = lines.skip_while(|line| *line != "-----BEGIN CERTIFICATE-----");
    let lines = lines.skip(1).take_while(|line| !line.starts_with('-'));
    let text: String = lines.collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let (bytes, key) = (bytes.unwrap_or_default(), key.public_key_raw());
    bytes.windows(key.len()).any(|part| part == key)
}

/// Reads a key, or makes it. A key that cannot be read is never replaced: all that it signed would be worth nothing.
fn key(path: &Path) -> Result<KeyPair> {
    if let Some(text) = read(path)? {
        let step = || format!("{}: read the key", path.display());
        let key = match text.trim().is_empty() {
            true => Err(Failure::new(format!("{}: it is empty", step()))),
            false => KeyPair::from_pem(&text).context(step),
        };
        return key.map_err(|failure| {
            failure.remedy(format!(
                "bring {} back, of which nodes/control may have a copy; a cluster without it can only be deleted",
                path.display()
            ))
        });
    }
    let key = KeyPair::generate().context(|| format!("{}: make the key", path.display()))?;
    keep_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("{}: read it", path.display())),
    }
}

fn make_private(dir: &Path) -> Result<()> {
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    crisp_sys::file::make_private_dirs(dir).context(|| format!("{}: make it", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Output;

    use super::*;
    use crate::disk::write;

    fn openssl(words: &[&str]) -> Output {
        let mut command = crisp_sys::process::command("openssl");
        command.args(words).output().unwrap()
    }

    fn server() -> Subject {
        Subject {
            usage: Usage::Server,
            name: "system:node:n".to_owned(),
            group: Some("system:nodes"),
            hosts: vec!["n".to_owned()],
            addresses: vec!["192.0.2.7".parse().unwrap()],
        }
    }

    #[test]
    fn certificates_of_before_and_after_a_reading_hold_under_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Pki::of(&pki).unwrap();
        let again = Pki::of(&pki).unwrap();
        assert_eq!(
            (&first.ca.certificate, &first.tokens.key),
            (&again.ca.certificate, &again.tokens.key)
        );
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let ca = pki.join("ca.crt").to_str().unwrap().to_owned();
        for (name, made) in [("a", &first), ("b", &again)] {
            let pair = made.ca.issue(&server()).unwrap();
            std::fs::File::create(path(name)).unwrap();
            write(Path::new(&path(name)), pair.certificate.as_bytes()).unwrap();
            let words = ["-CAfile", &ca, "-verify_ip", "192.0.2.7"];
            let verified = openssl(&[&["verify"], &words[..], &[&path(name)]].concat());
            assert!(verified.status.success(), "{verified:?}");
            let other = ["-CAfile", &ca, "-verify_ip", "192.0.2.8"];
            let refused = openssl(&[&["verify"], &other[..], &[&path(name)]].concat());
            assert!(!refused.status.success());
        }
        // Versions differ in how they write names unless they are told.
        let form = ["-nameopt", "utf8,space_eq,sep_comma_plus_space"];
        let subject = ["x509", "-noout", "-subject", "-in", &path("a")];
        let subject = openssl(&[&subject[..], &form].concat());
        let subject = String::from_utf8(subject.stdout).unwrap();
        assert!(subject.contains("CN = system:node:n") && subject.contains("O = system:nodes"));
    }

    #[test]
    fn a_certificate_is_for_one_use_for_some_years_and_of_one_authority() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::of(&dir.path().join("pki")).unwrap();
        let file = dir.path().join("x").to_str().unwrap().to_owned();
        let purpose = |pair: &Pair, ca: &str, purpose: &str| {
            write(Path::new(&file), pair.certificate.as_bytes()).unwrap();
            let ca = dir.path().join("pki").join(ca);
            let words = [
                "verify",
                "-purpose",
                purpose,
                "-CAfile",
                ca.to_str().unwrap(),
                &file,
            ];
            openssl(&words).status.success()
        };
        let client = pki.ca.issue(&Subject::client("x")).unwrap();
        assert!(purpose(&client, "ca.crt", "sslclient"));
        assert!(!purpose(&client, "ca.crt", "sslserver"));
        assert!(!purpose(&client, "front-proxy-ca.crt", "sslclient"));
        let years = ["x509", "-noout", "-in", &file, "-checkend"];
        let holds = |seconds: &str| openssl(&[&years[..], &[seconds]].concat()).status.success();
        assert!(
            holds("63072000") && !holds("126144000"),
            "two years and not four"
        );
        let server = pki.front_proxy.issue(&server()).unwrap();
        assert!(purpose(&server, "front-proxy-ca.crt", "sslserver"));
        assert!(!purpose(&server, "front-proxy-ca.crt", "sslclient"));
    }

    #[test]
    fn keys_are_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        Pki::of(&pki).unwrap();
        for name in ["ca.key", "front-proxy-ca.key", "tokens.key", ""] {
            let mode = std::fs::metadata(pki.join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        make_private(&pki).unwrap();
        for damaged in ["x", "", "\n"] {
            write(&pki.join("ca.key"), damaged.as_bytes()).unwrap();
            let error = Pki::of(&pki).unwrap_err().to_string();
            assert!(error.contains("ca.key"), "{error}");
            assert!(error.contains("deleted"), "{error}");
            let left = std::fs::read_to_string(pki.join("ca.key")).unwrap();
            assert_eq!(left, damaged);
        }
    }

    #[test]
    fn a_damaged_certificate_is_made_anew_of_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Pki::of(&pki).unwrap();
        let made = first.ca.issue(&server()).unwrap();
        let path = dir.path().join("made");
        write(&path, made.certificate.as_bytes()).unwrap();
        let others = first.front_proxy.certificate.clone();
        for damaged in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n", &others] {
            write(&pki.join("ca.crt"), damaged.as_bytes()).unwrap();
            let again = Pki::of(&pki).unwrap();
            assert_eq!(again.ca.key, first.ca.key);
            assert_ne!(again.ca.certificate, damaged);
            let ca = pki.join("ca.crt");
            let [ca, path] = [&ca, &path].map(|path| path.to_str().unwrap());
            let verified = openssl(&["verify", "-CAfile", ca, path]);
            assert!(verified.status.success(), "{verified:?}");
        }
    }
}
