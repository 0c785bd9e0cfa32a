//! crictl's commands about images.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;

use crisp_e2e::configs::image;
use crisp_e2e::crictl_files::{container_file, pod_file};
use crisp_e2e::registry::HOST;
use crisp_e2e::trial;
use serde_json::{Value, json};

#[test]
fn privileged_images_by_crictl() {
    trial(|node| {
        let crictl = node.crictl();
        node.registry.push(&node.net, "zstd");
        let pulled = crictl.ok(&["pull", &image("zstd")]);
        assert!(
            pulled.contains("sha256:") || pulled.contains(&image("zstd")),
            "{pulled}"
        );
        let images = crictl.json(&["images", "-o", "json"]);
        let images = images["images"].as_array().unwrap();
        let tag = |i: &&Value| i["repoTags"][0] == image("zstd").as_str();
        let id = images.iter().find(tag).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let status = crictl.json(&["inspecti", &id[..20]]);
        assert_eq!(status["status"]["id"], id.as_str());
        let usage = crictl.json(&["imagefsinfo", "-o", "json"]);
        let usage = &usage["status"]["imageFilesystems"][0];
        let bytes: u64 = usage["usedBytes"]["value"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(bytes > 1 << 20, "{usage}");
        let mountpoint = usage["fsId"]["mountpoint"].as_str().unwrap();
        assert!(fs::exists(mountpoint).unwrap());

        // An image that is in use stays when the others are pruned.
        let idle = json!({"command": ["sleep", "1000"]});
        crictl.ok(&[
            "run",
            &container_file(node, "user", &idle),
            &pod_file(node, "user", &json!({})),
        ]);
        crictl.ok(&["rmi", "--prune"]);
        let left = crictl.json(&["images", "-o", "json"]);
        let left = left["images"].as_array().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["repoTags"][0], image("busybox").as_str());
        crictl.ok(&["rmp", "-fa"]);
        crictl.ok(&["rmi", "-a"]);
        assert_eq!(crictl.line(&["images", "-q"]), "");
        node.pull(&["busybox"]);
    });
}

#[test]
fn privileged_by_tag_by_digest_and_through_an_index() {
    trial(|node| {
        let crictl = node.crictl();
        for name in ["index", "plain", "docker", "layers"] {
            node.registry.push(&node.net, name);
        }
        let known = crisp_e2e::registry::known();
        crictl.ok(&["pull", &image("index")]);
        let status = crictl.json(&["inspecti", &image("index")]);
        let here = &known["index"].images[1];
        assert_eq!(
            status["status"]["id"],
            here.id(),
            "this machine's of several"
        );
        let index = &known["index"].index.as_ref().unwrap().digest;
        // Its manifest is the base image's, so the image has names of both.
        let named = status["status"]["repoDigests"].as_array().unwrap();
        let expected = format!("{HOST}/index@{index}");
        assert!(
            named.iter().any(|name| *name == expected.as_str()),
            "{named:?}"
        );

        let plain = &known["plain"].images[0];
        let by_digest = format!("{HOST}/plain@{}", plain.manifest.digest);
        crictl.ok(&["pull", &by_digest]);
        let status = crictl.json(&["inspecti", &by_digest]);
        assert_eq!(status["status"]["id"], plain.id());
        assert_eq!(
            status["status"]["repoTags"].as_array().map_or(0, Vec::len),
            0
        );
        assert_eq!(status["status"]["repoDigests"][0], by_digest.as_str());
        let both = format!("{HOST}/plain:1@{}", plain.manifest.digest);
        crictl.ok(&["pull", &both]);

        for name in ["docker", "layers"] {
            crictl.ok(&["pull", &image(name)]);
            let status = crictl.json(&["inspecti", &image(name)]);
            assert_eq!(status["status"]["id"], known[name].images[0].id(), "{name}");
        }
        let table = crictl.ok(&["images", "--digests"]);
        assert!(table.contains(&format!("{HOST}/layers")), "{table}");
        crictl.ok(&["rmi", &by_digest, &image("layers")]);
        // "docker" and "index" are names of the base image too.
        let left = crictl.line(&["images", "-q"]);
        assert_eq!(left.lines().count(), 1, "the base image stays: {left}");
    });
}

#[test]
fn privileged_a_removed_name_leaves_the_others() {
    trial(|node| {
        let crictl = node.crictl();
        let entry = &crisp_e2e::registry::known()["zstd"];
        for name in ["one", "two"] {
            node.registry.push_as(&node.net, name, entry);
            crictl.ok(&["pull", &image(name)]);
        }
        let status = crictl.json(&["inspecti", &image("one")]);
        let mut tags: Vec<&str> = status["status"]["repoTags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag.as_str().unwrap())
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, [image("one"), image("two")]);
        // As with containerd: by one of its names, the whole image goes.
        crictl.ok(&["rmi", entry.images[0].id()]);
        assert!(
            crictl
                .fails(&["inspecti", &image("one")])
                .contains("no such image")
        );
        assert!(
            crictl
                .fails(&["rmi", &image("never-was")])
                .contains("no such image")
        );
    });
}
