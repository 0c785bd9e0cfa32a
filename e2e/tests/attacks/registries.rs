//! Registries that lead elsewhere: foreign URLs of layers (CVE-2020-15157), redirects and token
//! servers that are no HTTP, redirects without end.

use crisp_e2e::fake_registry::{Asked, FakeRegistry, Guard, Reply, Site};
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::image::{Blob, Packed, busybox};
use crisp_e2e::registry::{always, write_hosts};
use serde_json::json;

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[
    ("layers name a foreign URL", foreign_urls),
    ("blobs are redirected to what is no registry", redirects),
    ("the token server is no server", token_servers),
];

const OWN: &str = "127.0.0.1:5301";
const OTHER: &str = "127.0.0.1:5302";

/// An image whose upper layer is not on the node yet.
fn packed(word: &str) -> Packed {
    let marker = Layer::new().file("marker", word, 0o644);
    busybox::image().with(marker, Packing::Gzip).pack()
}

fn site(packed: &Packed) -> Site {
    let entry = Entry {
        images: vec![packed.clone()],
        index: None,
    };
    Site::of("evil", &entry)
}

fn foreign_urls(field: &mut Field<'_>) {
    let mut packed = packed("urls");
    let mut manifest: serde_json::Value = serde_json::from_slice(&packed.manifest.bytes).unwrap();
    let layer = packed.blobs.pop().unwrap();
    manifest["layers"][1]["urls"] =
        json!([format!("http://{OTHER}/v2/evil/blobs/{}", layer.digest)]);
    packed.manifest = Blob::new(
        packed.manifest.media_type,
        manifest.to_string().into_bytes(),
    );
    let mut elsewhere = site(&packed);
    let reply = Reply::document("application/octet-stream", layer.bytes.clone());
    elsewhere.reply(&format!("/v2/evil/blobs/{}", layer.digest), reply);
    let other = FakeRegistry::start(&field.node.net, OTHER, elsewhere);
    let _own = FakeRegistry::start(&field.node.net, OWN, site(&packed));
    write_hosts(&field.node.certs(), "evil.test", &[OWN]);
    let status = field.cri.pull("evil.test/evil:1").unwrap_err();
    assert!(status.message().contains(&layer.digest), "{status:?}");
    assert_eq!(other.asked(), Vec::<Asked>::new());
}

fn redirects(field: &mut Field<'_>) {
    let targets = [
        "file:///etc/passwd",
        "gopher://127.0.0.1:5303/x",
        "//",
        "http://[::1",
        "",
    ];
    for (number, target) in (0..).zip(targets) {
        let packed = packed(target);
        let mut site = site(&packed);
        let blob = &packed.blobs[2];
        let place = format!("Location: {target}");
        site.reply(
            &format!("/v2/evil/blobs/{}", blob.digest),
            Reply::bare("307 Temporary Redirect", &place),
        );
        let address = format!("127.0.0.1:{}", 5310 + number);
        let _own = FakeRegistry::start(&field.node.net, &address, site);
        write_hosts(&field.node.certs(), "evil.test", &[&address]);
        let status = field.cri.pull("evil.test/evil:1").expect_err(target);
        assert!(!status.message().contains("root:"), "{status:?}");
    }
    // A redirect that leads to itself.
    let own = "127.0.0.1:5320";
    always(
        &field.node.net,
        own,
        &format!("307 Temporary Redirect\r\nLocation: http://{own}/v2/evil/manifests/1"),
    );
    write_hosts(&field.node.certs(), "evil.test", &[own]);
    let begun = std::time::Instant::now();
    field.cri.pull("evil.test/evil:1").unwrap_err();
    assert!(begun.elapsed().as_secs() < 10, "a redirect without end");
}

fn token_servers(field: &mut Field<'_>) {
    let realms = ["file:///etc/passwd", "javascript:x", "/token", ""];
    for (number, realm) in (0..).zip(realms) {
        let address = format!("127.0.0.1:{}", 5330 + number);
        let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\"");
        always(
            &field.node.net,
            &address,
            &format!("401 Unauthorized\r\n{challenge}"),
        );
        write_hosts(&field.node.certs(), "evil.test", &[&address]);
        let status = field.cri.pull("evil.test/evil:1").expect_err(realm);
        assert!(!status.message().contains("root:"), "{status:?}");
    }
    let _guarded = FakeRegistry::start(
        &field.node.net,
        "127.0.0.1:5340",
        site(&packed("guarded")).behind(Guard::Bearer),
    );
    write_hosts(&field.node.certs(), "evil.test", &["127.0.0.1:5340"]);
    field.cri.pull("evil.test/evil:1").unwrap_err();
}
