//! Trust and identity, against Debian's `docker-registry` with certificates that `openssl` makes.

use std::path::Path;
use std::process::{Command, Stdio};

use crisp_registry::{Credentials, Error};

use crate::served::{self, Served};
use crate::{client_with, hosts, image};

fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl")
        .args(arguments.split_ascii_whitespace())
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(done.success(), "openssl {arguments}");
}

/// A root, and a certificate under it for this machine's loopback that serves both sides.
fn certificates(dir: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        dir,
        &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=root"),
    );
    openssl(
        dir,
        &format!("req {key} -keyout own.key -out own.csr -subj /CN=own"),
    );
    std::fs::write(dir.join("own.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        dir,
        "x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 2 \
         -extfile own.ext",
    );
}

fn serve(dir: &Path, more: &str) -> Served {
    let at = dir.display();
    let rest = format!(", tls: {{certificate: {at}/own.pem, key: {at}/own.key{more}");
    served::serve(dir, "127.0.0.1:0", &rest)
}

/// Asks for an image that is not there: `NotFound` means that all before it went well.
async fn ask(dir: &Path, served: &Served, lines: &str, who: Option<&Credentials>) -> Error {
    let server = format!("server = \"https://{}\"\n{lines}", served.address);
    hosts(dir, "r.example", &server);
    client_with(dir, None)
        .resolve(&image("r.example"), who)
        .await
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_when_its_root_is() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let served = serve(dir.path(), "}}\n");
    let error = ask(dir.path(), &served, "", None).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    for lines in ["ca = \"../../ca.pem\"", "skip_verify = true"] {
        let error = ask(dir.path(), &served, lines, None).await;
        assert!(
            matches!(error, Error::NotFound { .. }),
            "{lines}: {error:?}"
        );
    }
    for (lines, part) in [
        ("ca = \"absent.pem\"", "absent.pem"),
        ("ca = \"hosts.toml\"", ""),
    ] {
        let error = ask(dir.path(), &served, lines, None).await;
        assert!(
            !matches!(error, Error::NotFound { .. }),
            "{lines}: {error:?}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_certificate_and_password() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    // bcrypt of "p".
    let password = "u:$2b$04$3dK9T3ZaJZBHFmF.NFuZX.4wx1ft1ECfIn6Uom/fXj.dDAXJYukSm\n";
    std::fs::write(dir.path().join("htpasswd"), password).unwrap();
    let at = dir.path().display();
    let more = format!(
        ", clientcas: [{at}/ca.pem]}}}}\nauth: {{htpasswd: {{realm: r, path: {at}/htpasswd}}}}\n"
    );
    let served = serve(dir.path(), &more);
    let trust = "ca = \"../../ca.pem\"\n";
    let pair = format!("{trust}client = [[\"../../own.pem\", \"../../own.key\"]]\n");
    let mut who = Credentials {
        username: "u".to_owned(),
        password: "p".to_owned(),
        ..Credentials::default()
    };
    let error = ask(dir.path(), &served, trust, Some(&who)).await;
    assert!(
        matches!(error, Error::Tls { .. } | Error::Unavailable { .. }),
        "{error:?}"
    );
    let error = ask(dir.path(), &served, &pair, Some(&who)).await;
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    who.password = "wrong".to_owned();
    for who in [None, Some(&who)] {
        let error = ask(dir.path(), &served, &pair, who).await;
        assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    }
}

/// A certificate that is its own root, as registries' manuals make it, for this name and time.
fn self_signed(dir: &Path, name: &str, days: &str) {
    openssl(
        dir,
        &format!(
            "req -x509 -newkey rsa:2048 -nodes -sha256 -keyout own.key -out new.pem -days 2 \
             -subj /CN=own -addext subjectAltName={name}"
        ),
    );
    let again = format!("x509 -in new.pem -signkey own.key -days {days} -out own.pem");
    openssl(dir, &again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_its_own_root_is_trusted_when_laid_down() {
    for (name, days, is_trusted) in [
        ("IP:127.0.0.1", "2", true),
        ("DNS:other.example", "2", false),
        ("IP:127.0.0.1", "-1", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        self_signed(dir.path(), name, days);
        let served = serve(dir.path(), "}}\n");
        let error = ask(dir.path(), &served, "ca = \"../../own.pem\"", None).await;
        let found = matches!(error, Error::NotFound { .. });
        assert_eq!(found, is_trusted, "{name} {days}: {error:?}");
        if name == "IP:127.0.0.1" {
            // Another certificate of the same name is not this one.
            std::fs::rename(dir.path().join("own.pem"), dir.path().join("served.pem")).unwrap();
            self_signed(dir.path(), name, "2");
            let error = ask(dir.path(), &served, "ca = \"../../own.pem\"", None).await;
            assert!(matches!(error, Error::Tls { .. }), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_counts_by_its_good_blocks() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let served = serve(dir.path(), "}}\n");
    let good = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let open = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    openssl(dir.path(), "x509 -in ca.pem -outform der -out ca.der");
    let der = std::fs::read(dir.path().join("ca.der")).unwrap();
    for (content, expected) in [
        (format!("{broken}{good}").into_bytes(), None),
        (format!("{open}{good}").into_bytes(), None),
        (format!("# words\n{good}{broken}").into_bytes(), None),
        (broken.into(), Some("no usable certificate")),
        (Vec::new(), Some("empty")),
        (der, Some("DER")),
    ] {
        std::fs::write(dir.path().join("some.pem"), content).unwrap();
        let error = ask(dir.path(), &served, "ca = \"../../some.pem\"", None).await;
        let Some(expected) = expected else {
            assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
            continue;
        };
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("some.pem"),
            "{text}"
        );
    }
}
