//! Pulls: what registries can do wrong, credentials, mirrors, and many who ask at a time.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs::image;
use crisp_e2e::fake_registry::{CREDENTIALS, FakeRegistry, Guard, PASSWORD, Reply, Site, USER};
use crisp_e2e::image::Blob;
use crisp_e2e::image::catalogue::{Entry, web};
use crisp_e2e::registry::{ADDRESS, HOST, known, write_hosts};
use crisp_e2e::{Cri, Node, Options, trial, trial_with};
use tonic::{Code, Status};

const FAKE: &str = "127.0.0.1:5001";

/// Puts a site behind the name `fake.test`.
fn serve(node: &Node, site: Site) -> FakeRegistry {
    write_hosts(&node.certs(), "fake.test", &[FAKE]);
    FakeRegistry::start(&node.net, FAKE, site)
}

fn pull_as(cri: &mut Cri, image: &str, auth: Option<cri::AuthConfig>) -> Result<String, Code> {
    try_pull_as(cri, image, auth).map_err(|status| status.code())
}

fn try_pull_as(
    cri: &mut Cri,
    image: &str,
    auth: Option<cri::AuthConfig>,
) -> Result<String, Status> {
    let image = Some(cri::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    });
    let request = cri::PullImageRequest {
        image,
        auth,
        ..Default::default()
    };
    Ok(cri.pull_image(request)?.image_ref)
}

fn login(user: &str, password: &str) -> Option<cri::AuthConfig> {
    Some(cri::AuthConfig {
        username: user.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

#[test]
fn privileged_bad_names_and_dead_registries_change_nothing() {
    trial(|node| {
        let mut cri = node.cri();
        for name in ["foreign", "liar", "plain"] {
            node.registry.push(&node.net, name);
        }
        write_hosts(&node.certs(), "down.test", &["127.0.0.1:9"]);
        let before = cri.image_names();
        let zeros = "0".repeat(64);
        let cases = [
            (image("unknown"), Code::NotFound),
            (format!("{HOST}/plain:no-such-tag"), Code::NotFound),
            (format!("{HOST}/plain@sha256:{zeros}"), Code::NotFound),
            (format!("{HOST}/plain@sha256:12"), Code::InvalidArgument),
            (format!("{HOST}/UPPER:1"), Code::InvalidArgument),
            (String::new(), Code::InvalidArgument),
            ("a b".to_owned(), Code::InvalidArgument),
            ("x".repeat(5000), Code::InvalidArgument),
            ("down.test/plain:1".to_owned(), Code::Unavailable),
            (image("foreign"), Code::FailedPrecondition),
            (image("liar"), Code::DataLoss),
        ];
        for (name, code) in cases {
            let shown = &name[..name.len().min(80)];
            let error = cri.pull(&name).expect_err(shown);
            assert_eq!(error.code(), code, "{shown:?}: {}", error.message());
            assert!(!error.message().is_empty());
            assert_eq!(cri.image_names(), before, "{shown:?}");
        }
    });
}

#[test]
fn privileged_what_a_registry_sends_is_verified() {
    trial(|node| {
        let entry = &known()["plain"];
        let packed = &entry.images[0];
        let (config, manifest) = (packed.blobs[0].digest.clone(), &packed.manifest);
        // The one above the base, which is there already.
        let layer = packed.blobs[2].digest.clone();
        let mut sites = Vec::new();
        let changes: [(&str, &str, Spoil); 6] = [
            ("flipped config", &config, flip),
            ("short config", &config, cut),
            ("flipped layer", &layer, flip),
            ("short layer", &layer, cut),
            ("malformed manifest", "/manifests/", garbage),
            ("flipped manifest", &manifest.digest, flip),
        ];
        for (what, part, change) in changes {
            let mut site = Site::of("plain", entry);
            site.change(part, change);
            sites.push((what, site));
        }
        sites.push(("manifest and index in one", two_faced(entry)));
        sites.push(("huge manifest", huge_manifest(entry)));
        let mut cri = node.cri();
        let before = cri.image_names();
        for (number, (what, site)) in sites.into_iter().enumerate() {
            let address = format!("127.0.0.1:{}", 5100 + number);
            write_hosts(&node.certs(), "fake.test", &[&address]);
            let _registry = FakeRegistry::start(&node.net, &address, site);
            let name = format!("fake.test/plain@{}", manifest.digest);
            let name = match what {
                "flipped manifest" => &name,
                _ => "fake.test/plain:1",
            };
            let error = cri.pull(name).expect_err(what);
            let codes = [Code::DataLoss, Code::ResourceExhausted, Code::Unavailable];
            assert!(codes.contains(&error.code()), "{what}: {error:?}");
            assert_eq!(cri.image_names(), before, "{what}");
        }
    });
}

type Spoil = fn(&mut Reply);

fn flip(reply: &mut Reply) {
    *reply.body.last_mut().unwrap() ^= 1;
}

fn cut(reply: &mut Reply) {
    reply.body.truncate(reply.body.len() / 2);
}

fn garbage(reply: &mut Reply) {
    reply.body = b"{\"schemaVersion\": 2".to_vec();
}

/// A document that is both, which one reader takes as this and another as that (CVE-2021-41190).
fn two_faced(entry: &Entry) -> Site {
    let packed = &entry.images[0];
    let mut document: serde_json::Value = serde_json::from_slice(&packed.manifest.bytes).unwrap();
    document["manifests"] = serde_json::json!([packed.manifest.descriptor()]);
    let blob = Blob::new(
        packed.manifest.media_type.clone(),
        document.to_string().into_bytes(),
    );
    let mut site = Site::of("plain", entry);
    site.manifest("plain", "1", &blob);
    site
}

fn huge_manifest(entry: &Entry) -> Site {
    let packed = &entry.images[0];
    let mut bytes = packed.manifest.bytes.clone();
    bytes.extend(std::iter::repeat_n(b' ', 64 << 20));
    let mut site = Site::of("plain", entry);
    site.manifest(
        "plain",
        "1",
        &Blob::new(packed.manifest.media_type.clone(), bytes),
    );
    site
}

#[test]
fn privileged_credentials_are_asked_for_and_used() {
    for guard in [Guard::Basic, Guard::Bearer] {
        trial(|node| {
            let site = Site::of("plain", &known()["plain"]).behind(guard);
            let _registry = serve(node, site);
            let mut cri = node.cri();
            let name = "fake.test/plain:1";
            for auth in [None, login(USER, "wrong"), login("nobody", PASSWORD)] {
                let code = pull_as(&mut cri, name, auth).unwrap_err();
                assert_eq!(code, Code::Unauthenticated, "{guard:?}");
            }
            assert!(
                !cri.image_names()
                    .iter()
                    .any(|image| image.contains("fake.test"))
            );
            // Base64 of nothing that has a colon, and no base64.
            for auth in ["bm8gY29sb24=", "no base64"] {
                let auth = cri::AuthConfig {
                    auth: auth.to_owned(),
                    ..Default::default()
                };
                let error = try_pull_as(&mut cri, name, Some(auth)).unwrap_err();
                let text = error.message();
                assert_eq!(error.code(), Code::Unauthenticated, "{text}");
                assert!(
                    text.contains("not base64 of USERNAME:PASSWORD") && !text.contains("bm8"),
                    "{text}"
                );
            }
            pull_as(&mut cri, name, login(USER, PASSWORD)).unwrap();
            let crictl = node.crictl();
            crictl.ok(&["rmi", name]);
            crictl.ok(&["pull", "--creds", &format!("{USER}:{PASSWORD}"), name]);
            crictl.ok(&["rmi", name]);
            crictl.ok(&["pull", "--auth", CREDENTIALS, name]);
            crictl.ok(&["rmi", name]);
        });
    }
}

#[test]
fn privileged_docker_config_has_credentials_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let auths = serde_json::json!({"auths": {FAKE: {"auth": CREDENTIALS}}});
    fs::write(&file, auths.to_string()).unwrap();
    let options = Options {
        config: format!("[images]\ndocker_config = \"{}\"\n", file.display()),
        ..Default::default()
    };
    trial_with(&options, |node| {
        let _registry = serve(
            node,
            Site::of("plain", &known()["plain"]).behind(Guard::Bearer),
        );
        node.cri().pull("fake.test/plain:1").unwrap();
        node.crictl().ok(&["rmi", "fake.test/plain:1"]);
    });
}

#[test]
fn privileged_no_credentials_for_another_host() {
    // CVE-2020-15157: a redirect led the registry's credentials to a host of the image's choice.
    trial(|node| {
        const OTHER: &str = "127.0.0.1:5002";
        let entry = &known()["plain"];
        let other = FakeRegistry::start(&node.net, OTHER, Site::of("plain", entry));
        let mut site = Site::of("plain", entry).behind(Guard::Basic);
        for blob in &entry.images[0].blobs {
            let path = format!("/v2/plain/blobs/{}", blob.digest);
            let there = format!("Location: http://{OTHER}{path}");
            site.reply(&path, Reply::bare("307 Temporary Redirect", &there));
        }
        let _registry = serve(node, site);
        let mut cri = node.cri();
        let pulled = pull_as(&mut cri, "fake.test/plain:1", login(USER, PASSWORD));
        assert_eq!(pulled.unwrap(), entry.images[0].id());
        let asked = other.asked();
        assert!(!asked.is_empty());
        assert!(
            asked.iter().all(|request| request.authorization.is_none()),
            "{asked:?}"
        );
        node.crictl().ok(&["rmi", "fake.test/plain:1"]);
    });
}

#[test]
fn privileged_mirrors_are_tried_in_their_order() {
    trial(|node| {
        let entry = &known()["plain"];
        node.registry.push_as(&node.net, "plain", entry);
        // The mirrors in order: down, without the image, with a broken layer, with the image.
        let empty = Site::of("other", entry);
        let mut broken = Site::of("plain", entry);
        broken.change("/blobs/", |reply| reply.status = "500 Oops".to_owned());
        let without = FakeRegistry::start(&node.net, "127.0.0.1:5003", empty);
        let failing = FakeRegistry::start(&node.net, "127.0.0.1:5004", broken);
        let servers = ["127.0.0.1:9", "127.0.0.1:5003", "127.0.0.1:5004", ADDRESS];
        write_hosts(&node.certs(), "mirrored.test", &servers);
        let id = node.cri().pull("mirrored.test/plain:1").unwrap();
        assert_eq!(id, entry.images[0].id());
        assert!(!without.asked().is_empty() && !failing.asked().is_empty());
        node.crictl().ok(&["rmi", "mirrored.test/plain:1"]);
    });
}

#[test]
fn privileged_many_callers_are_one_pull() {
    trial(|node| {
        let entry = &known()["layers"];
        let mut site = Site::of("layers", entry);
        site.change("/blobs/", |reply| reply.delay = Duration::from_millis(100));
        let registry = serve(node, site);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let id = node.cri().pull("fake.test/layers:1").unwrap();
                    assert_eq!(id, entry.images[0].id());
                });
            }
        });
        let asked = registry.asked();
        for blob in &entry.images[0].blobs {
            let times = asked
                .iter()
                .filter(|asked| asked.method == "GET" && asked.path.contains(&blob.digest))
                .count();
            assert!(times <= 1, "{} was fetched {times} times", blob.digest);
        }
        node.crictl().ok(&["rmi", "fake.test/layers:1"]);
    });
}

#[test]
fn privileged_a_pull_that_was_given_up_names_nothing() {
    trial(|node| {
        let entry = &known()["layers"];
        let mut site = Site::of("layers", entry);
        site.change("/blobs/", |reply| reply.delay = Duration::from_millis(500));
        let _registry = serve(node, site);
        let crictl = node.crictl();
        let complaint = crictl.fails(&["pull", "--pull-timeout", "300ms", "fake.test/layers:1"]);
        assert!(complaint.contains("DeadlineExceeded"), "{complaint}");
        let mut cri = node.cri();
        assert!(
            !cri.image_names()
                .iter()
                .any(|name| name.contains("fake.test"))
        );
        // The kubelet asks again, and gets it.
        let id = cri.pull("fake.test/layers:1").unwrap();
        assert_eq!(id, entry.images[0].id());
        crictl.ok(&["rmi", "fake.test/layers:1"]);
    });
}

#[test]
fn privileged_a_filter_that_begins_several_ids_lists_them_all() {
    trial(|node| {
        let mut cri = node.cri();
        // Of seventeen ids two begin alike: there are sixteen digits.
        for number in 0..17 {
            let made = web().config(serde_json::json!({"User": number.to_string()}));
            let name = format!("alike{number}");
            node.registry.push_as(&node.net, &name, &Entry::from(&made));
            cri.pull(&image(&name)).unwrap();
        }
        let listed = |cri: &mut Cri, filter: &str| {
            let spec = cri::ImageSpec {
                image: filter.to_owned(),
                ..Default::default()
            };
            let filter = Some(cri::ImageFilter { image: Some(spec) });
            let reply = cri.list_images(cri::ListImagesRequest { filter }).unwrap();
            let ids = reply.images.into_iter().map(|image| image.id);
            ids.collect::<BTreeSet<String>>()
        };
        let all = listed(&mut cri, "");
        assert!(all.len() >= 17);
        let mut most = 0;
        for digit in "0123456789abcdef".chars() {
            let begins = format!("sha256:{digit}");
            let wanted: BTreeSet<String> = all
                .iter()
                .filter(|id| id.starts_with(&begins))
                .cloned()
                .collect();
            most = most.max(wanted.len());
            assert_eq!(listed(&mut cri, &digit.to_string()), wanted, "{digit}");
            assert_eq!(listed(&mut cri, &begins), wanted, "{begins}");
        }
        assert!(most > 1);
        for number in 0..17 {
            cri.forget(&format!("alike{number}"));
        }
    });
}
