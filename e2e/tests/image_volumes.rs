//! Image volumes: what of an image a container sees, what callers are told of it, and that it stays
//! for as long as the container does and no longer.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::Image;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::{Cri, Node, configs, trial};
use serde_json::json;
use tonic::Code;

/// An image that could not run: data, a program, and links that try to leave it.
fn models() -> Image {
    let below = Layer::new()
        .file("models/old", "old", 0o644)
        .file("models/both", "below", 0o644)
        .file("bin/hello", "#!/bin/sh\necho from the image\n", 0o755);
    let above = Layer::new()
        .file("models/both", "above", 0o644)
        .without("models/old")
        .symlink("link", "/models")
        .symlink("out", "../../../../etc");
    Image::new(below, json!({})).with(above, Packing::Gzip)
}

/// Pulls the image and tells its id, by which the kubelet mounts it.
fn pull(node: &Node, cri: &mut Cri) -> String {
    let entry = Entry::from(&models());
    node.registry.push_as(&node.net, "models", &entry);
    cri.pull(&configs::image("models")).unwrap()
}

fn volume(image: &str, at: &str, sub_path: &str) -> cri::Mount {
    cri::Mount {
        container_path: at.to_owned(),
        image: Some(cri::ImageSpec {
            image: image.to_owned(),
            user_specified_image: configs::image("models"),
            ..Default::default()
        }),
        image_sub_path: sub_path.to_owned(),
        readonly: true,
        ..Default::default()
    }
}

fn remove_image(cri: &mut Cri, image: &str) {
    let image = Some(cri::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    });
    cri.remove_image(cri::RemoveImageRequest { image }).unwrap();
}

#[test]
fn privileged_an_image_is_seen_and_stays_with_its_container() {
    trial(|node| {
        let mut cri = node.cri();
        let id = pull(node, &mut cri);
        let pod = node.pod("volumes");
        let pod_id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        configs::security(&mut config).privileged = false;
        config.mounts = vec![
            volume(&id, "/all", ""),
            volume(&configs::image("models"), "/part", "models"),
            volume(&id, "/linked", "link"),
            volume(&id, "/one", "models/both"),
            cri::Mount {
                mount_options: vec!["noexec".to_owned()],
                recursive_read_only: true,
                ..volume(&id, "/inert", "")
            },
        ];
        let container = cri.create(&pod_id, &pod, &config).unwrap();

        let mounts = cri.look(&container).mounts;
        let image = mounts[0].image.as_ref().unwrap();
        assert_eq!(
            image.image, id,
            "the kubelet compares it with the ids of images"
        );
        let digest = Entry::from(&models()).images[0].manifest.digest.clone();
        assert!(image.image_ref.ends_with(&digest), "{image:?}");
        assert_eq!(mounts[1].image_sub_path, "models");
        assert!(mounts.iter().all(|mount| mount.readonly));

        // Neither the image nor the daemon that made the container is needed.
        remove_image(&mut cri, &id);
        node.kill();
        node.restart();
        let mut cri = node.cri();
        assert_eq!(cri.look(&container).mounts, mounts);
        cri.start(&container).unwrap();
        let see = |cri: &mut Cri, line: &str| cri.shell(&container, line);
        assert_eq!(see(&mut cri, "cat /all/models/both"), "above");
        assert_eq!(see(&mut cri, "ls /part"), "both\n");
        assert_eq!(see(&mut cri, "ls /linked"), "both\n");
        assert_eq!(see(&mut cri, "cat /one"), "above");
        assert_eq!(see(&mut cri, "/all/bin/hello"), "from the image\n");
        for refused in [
            "touch /all/new",
            "rm /part/both",
            "echo x > /one",
            "/inert/bin/hello",
            "mount -o remount,rw /all",
        ] {
            let reply = cri.execute(&container, &["sh", "-c", refused]).unwrap();
            assert_ne!(reply.exit_code, 0, "{refused}");
        }
        cri.remove_pod(&pod_id);
    });
}

#[test]
fn privileged_who_may_mount_cannot_write_to_the_image_either() {
    trial(|node| {
        let mut cri = node.cri();
        let id = pull(node, &mut cri);
        let mut pod = node.pod("mighty");
        configs::pod_security(&mut pod).privileged = true;
        let pod_id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        configs::security(&mut config).privileged = true;
        config.mounts = vec![volume(&id, "/all", "")];
        let container = cri.run(&pod_id, &pod, &config);
        let line = "mount -o remount,rw /all; mount -o remount,bind,rw /all; echo x > /all/new";
        let reply = cri.execute(&container, &["sh", "-c", line]).unwrap();
        assert_ne!(reply.exit_code, 0, "{reply:?}");
        assert!(!cri.shell(&container, "ls /all").contains("new"));
        cri.remove_pod(&pod_id);
        remove_image(&mut cri, &id);
    });
}

/// The owners in the image are those that the pod sees, whatever ids it has on the host.
#[test]
fn privileged_in_a_user_namespace_an_image_has_its_own_owners() {
    const FIRST: u32 = 0x0100_0000;
    trial(|node| {
        let mut cri = node.cri();
        let id = pull(node, &mut cri);
        let mut pod = node.pod("mapped");
        configs::namespaces(&mut pod).userns_options = Some(configs::users(FIRST));
        let pod_id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        let security = configs::security(&mut config);
        let options = security.namespace_options.get_or_insert_default();
        options.userns_options = Some(configs::users(FIRST));
        config.mounts = vec![
            volume(&id, "/all", ""),
            volume(&id, "/part", "models"),
            volume(&id, "/linked", "link"),
            volume(&id, "/one", "models/both"),
            cri::Mount {
                mount_options: vec!["noexec".to_owned()],
                ..volume(&id, "/inert", "")
            },
        ];
        let container = cri.run(&pod_id, &pod, &config);
        let see = |cri: &mut Cri, line: &str| cri.shell(&container, line);
        let line = "stat -c %u:%g /all /all/models/both /part /linked/both /one";
        assert_eq!(see(&mut cri, line), "0:0\n".repeat(5));
        assert_eq!(see(&mut cri, "cat /all/models/both /one"), "aboveabove");
        assert_eq!(
            see(&mut cri, "ls /part /linked"),
            "/linked:\nboth\n\n/part:\nboth\n"
        );
        assert_eq!(see(&mut cri, "/all/bin/hello"), "from the image\n");
        for refused in [
            "touch /all/new",
            "rm /part/both",
            "chown 5 /all/models",
            "echo x > /one",
            "/inert/bin/hello",
            "mount -o remount,rw /all",
        ] {
            let reply = cri.execute(&container, &["sh", "-c", refused]).unwrap();
            assert_ne!(reply.exit_code, 0, "{refused}");
        }
        config.metadata.as_mut().unwrap().name = "odd".to_owned();
        config.mounts = vec![volume(&id, "/all", "none")];
        let error = cri.create(&pod_id, &pod, &config).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
        cri.remove_pod(&pod_id);
        remove_image(&mut cri, &id);
    });
}

#[test]
fn privileged_a_volume_that_cannot_be_shown_changes_nothing() {
    trial(|node| {
        let mut cri = node.cri();
        let id = pull(node, &mut cri);
        let pod = node.pod("refused");
        let pod_id = cri.run_pod(&pod);
        let unknown = configs::image("unknown");
        let cases = [
            (
                volume(&unknown, "/all", ""),
                Code::NotFound,
                unknown.as_str(),
            ),
            (volume(&id, "/all", "none"), Code::InvalidArgument, "none"),
            (volume(&id, "/all", "out"), Code::InvalidArgument, "out"),
            (
                volume(&id, "/all", "../etc"),
                Code::InvalidArgument,
                "../etc",
            ),
            (volume(&id, "/proc/x", ""), Code::InvalidArgument, "/proc/x"),
        ];
        for (mount, code, told) in cases {
            let mut config = configs::idle("main");
            config.mounts = vec![mount];
            let error = cri.create(&pod_id, &pod, &config).unwrap_err();
            assert_eq!(error.code(), code, "{}", error.message());
            assert!(error.message().contains(told), "{}", error.message());
        }
        assert_eq!(cri.container_ids(), <[String; 0]>::default());
        cri.remove_pod(&pod_id);
        remove_image(&mut cri, &id);
    });
}
