//! Callers rely on this beyond the proto's text: ids by prefix, images that are gone, what is listed
//! when, what is told before there is any pod.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Events, cgroups, configs, eventually, in_pod, trial};

/// A prefix of one id alone is that one, as crictl shows it; `odd_ids` has those of several.
#[test]
fn privileged_an_id_may_be_short() {
    in_pod("short", |node, cri, id, pod| {
        let container = cri.create(id, pod, &configs::idle("main")).unwrap();
        let short = &container[..13];
        let text = node.crictl().ok(&["start", short]);
        assert_eq!(text.trim(), short);
        let running = cri::ContainerState::ContainerRunning;
        assert_eq!(cri.look(&container).state(), running);
    });
}

/// A kubelet looks for the file systems of images and of containers at these paths itself.
#[test]
fn privileged_the_file_systems_are_at_directories_that_are_there() {
    trial(|node| {
        let info = node.cri().image_fs_info(cri::ImageFsInfoRequest::default());
        let info = info.unwrap();
        for told in [info.image_filesystems, info.container_filesystems] {
            assert_eq!(told.len(), 1);
            let path = &told[0].fs_id.as_ref().unwrap().mountpoint;
            assert!(std::fs::metadata(path).unwrap().is_dir(), "{path}");
            assert!(told[0].timestamp > 0 && told[0].used_bytes.is_some());
        }
    });
}

#[test]
fn privileged_a_container_names_its_image_also_when_that_is_gone() {
    in_pod("images", |node, cri, id, pod| {
        let image_ref = cri.pull(&configs::image("busybox")).unwrap();
        let container = cri.run(id, pod, &configs::idle("main"));
        let listed = |cri: &mut Cri| {
            let list = cri.list_containers(cri::ListContainersRequest { filter: None });
            list.unwrap().containers.remove(0)
        };
        let (before, listed_before) = (cri.look(&container), listed(cri));
        assert!(before.image_ref.contains("@sha256:"), "{before:?}");
        assert_eq!(
            (&before.image_id, &listed_before.image_id),
            (&image_ref, &image_ref)
        );
        assert_eq!(
            before.image.as_ref().unwrap().image,
            configs::image("busybox")
        );
        // The name of the image goes, with the image that nobody but its container uses.
        for name in [configs::image("busybox"), image_ref] {
            let image = Some(cri::ImageSpec {
                image: name,
                ..Default::default()
            });
            cri.remove_image(cri::RemoveImageRequest { image }).unwrap();
        }
        assert!(!cri.image_names().contains(&configs::image("busybox")));
        let (after, listed_after) = (cri.look(&container), listed(cri));
        assert_eq!(
            (&after.image, &after.image_ref),
            (&before.image, &before.image_ref)
        );
        assert_eq!(after.image_id, before.image_id);
        assert_eq!(
            (&listed_after.image, &listed_after.image_ref),
            (&listed_before.image, &listed_before.image_ref)
        );
        assert_eq!(listed_after.image_id, listed_before.image_id);
        assert_eq!(cri.shell(&container, "echo lives"), "lives\n");
        node.pull(&["busybox"]);
    });
}

#[test]
fn privileged_what_is_asked_once_at_start_is_whole_before_any_pod() {
    trial(|node| {
        let mut cri = node.cri();
        let described = |cri: &mut Cri| {
            let asked = cri::ListMetricDescriptorsRequest {};
            cri.list_metric_descriptors(asked).unwrap().descriptors
        };
        let before = described(&mut cri);
        let known: BTreeSet<_> = before.iter().map(|one| one.name.clone()).collect();
        assert!(known.len() == before.len() && known.len() > 50, "{known:?}");
        let pod = node.pod("metrics");
        let id = cri.run_pod(&pod);
        cri.run(&id, &pod, &configs::idle("main"));
        assert_eq!(described(&mut cri), before);
        let mut met = BTreeSet::new();
        eventually("there are figures of the container", || {
            let asked = cri::ListPodSandboxMetricsRequest {};
            let pods = cri.list_pod_sandbox_metrics(asked).unwrap().pod_metrics;
            let containers = pods.iter().flat_map(|pod| &pod.container_metrics);
            let all = pods.iter().flat_map(|pod| &pod.metrics);
            let all = all.chain(containers.flat_map(|one| &one.metrics));
            for metric in all {
                let described = before.iter().find(|one| one.name == metric.name);
                let described =
                    described.unwrap_or_else(|| panic!("{} is not described", metric.name));
                assert_eq!(
                    described.label_keys.len(),
                    metric.label_values.len(),
                    "{}",
                    metric.name
                );
                met.insert(metric.name.clone());
            }
            met.contains("container_memory_usage_bytes")
        });
        cri.remove_pod(&id);
    });
}

#[test]
fn privileged_the_default_handler_is_listed_with_its_features() {
    in_pod("handlers", |_, cri, _, _| {
        let status = cri.status(cri::StatusRequest { verbose: false }).unwrap();
        let default = status
            .runtime_handlers
            .iter()
            .find(|one| one.name.is_empty());
        let features = default.unwrap().features.as_ref().unwrap();
        assert!(
            features.recursive_read_only_mounts && features.user_namespaces,
            "{features:?}"
        );
    });
}

#[test]
fn privileged_a_create_that_is_repeated_keeps_the_first_ones_mounts() {
    in_pod("repeated", |node, cri, id, pod| {
        let [first, second] = ["first", "second"].map(|name| {
            let file = node.path(name);
            std::fs::File::create(&file).unwrap();
            file.to_str().unwrap().to_owned()
        });
        let with = |path: &str| {
            let mut config = configs::shell("main", "echo why > /dev/termination-log");
            let at = "/dev/termination-log".to_owned();
            config.mounts = vec![configs::mount(path, &at)];
            let name = "io.kubernetes.container.terminationMessagePath".to_owned();
            config.annotations.insert(name, at);
            config
        };
        let container = cri.create(id, pod, &with(&first)).unwrap();
        // A kubelet whose patience was over asks again, with another file of the node.
        assert_eq!(cri.create(id, pod, &with(&second)).unwrap(), container);
        let paths: Vec<String> = cri
            .look(&container)
            .mounts
            .into_iter()
            .map(|one| one.host_path)
            .collect();
        assert_eq!(paths, std::slice::from_ref(&first));
        cri.start(&container).unwrap();
        cri.wait_exit(&container);
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&first).as_str(), read(&second).as_str()),
            ("why\n", "")
        );
    });
}

#[test]
fn privileged_memory_that_ended_a_child_is_the_reason_of_a_failure() {
    in_pod("memory", |_, cri, id, pod| {
        let greedy = "a=x; while :; do a=$a$a; done";
        // Process 1 lives on, and ends with a code of its own, or well.
        for (name, code, reason) in [("fails", 3, "OOMKilled"), ("mends", 0, "Completed")] {
            let line = format!("sh -c '{greedy}'; exit {code}");
            let mut config = configs::shell(name, &line);
            let limits = configs::resources(&mut config);
            limits.memory_limit_in_bytes = 16 << 20;
            limits.memory_swap_limit_in_bytes = 16 << 20;
            // On cgroup v2 a kubelet asks for the group to end together unless its user says not to.
            if cgroups::is_v2() {
                limits.unified.insert("memory.oom.group".into(), "0".into());
            }
            let container = cri.run(id, pod, &config);
            let status = cri.wait_exit(&container);
            let told = (status.exit_code, status.reason.as_str());
            assert_eq!(told, (code, reason), "{name}: {status:?}");
        }
    });
}

/// Sets the node's clock so many seconds ahead.
fn step_clock(seconds: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let then = i64::try_from(now.as_secs()).unwrap() + seconds;
    let set = Command::new("date").arg(format!("--set=@{then}")).output();
    assert!(set.unwrap().status.success());
}

#[test]
fn privileged_a_later_attempt_is_newer_though_the_clock_stepped_back() {
    if std::env::var_os("CRISP_OWN_CLOCK").is_none() {
        println!("SKIPPED: the clock is that of this machine; the cgroup v2 node has its own");
        return;
    }
    trial(|node| {
        let (mut cri, pod) = (node.cri(), node.pod("clock"));
        let id = cri.run_pod(&pod);
        let mut config = configs::idle("main");
        let first = cri.run(&id, &pod, &config);
        let first = cri.look(&first);
        node.kill();
        step_clock(-3600);
        node.restart();
        let mut cri = node.cri();
        config.metadata.as_mut().unwrap().attempt = 1;
        let second = cri.create(&id, &pod, &config).unwrap();
        let second = cri.look(&second);
        let mut again = pod.clone();
        again.metadata.as_mut().unwrap().attempt = 1;
        cri.remove_pod(&id);
        let id = cri.run_pod(&again);
        let newer = cri.pod(&id).created_at;
        cri.remove_pod(&id);
        step_clock(3600);
        assert!(second.created_at > first.created_at, "{second:?} {first:?}");
        assert!(newer > second.created_at, "{newer} {second:?}");
    });
}

/// The kinds of a container's events, as they came.
fn kinds(seen: &[cri::ContainerEventResponse], id: &str) -> Vec<cri::ContainerEventType> {
    let own = seen.iter().filter(|event| event.container_id == id);
    own.map(cri::ContainerEventResponse::container_event_type)
        .collect()
}

#[test]
fn privileged_events_of_each_container_are_in_order_and_go_on_after_a_restart() {
    use cri::ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
        ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
    };
    trial(|node| {
        let (mut cri, mut events) = (node.cri(), node.events());
        let mut seen = Vec::new();
        let pods = ["one", "two"].map(|name| {
            let pod = node.pod(name);
            (cri.run_pod(&pod), pod)
        });
        let (short, long) = (configs::shell("short", "true"), configs::idle("long"));
        let until = |events: &Events, seen: &mut Vec<_>, ids: &[String], wanted: &[_]| {
            while !ids.iter().all(|id| kinds(seen, id) == wanted) {
                let event = events.next();
                let status = event.pod_sandbox_status.as_ref().unwrap();
                assert!(
                    status.metadata.is_some(),
                    "a kubelet passes over it: {event:?}"
                );
                seen.push(event);
            }
        };
        // Both pods at once, each with one that ends and one that stays.
        let shorts = pods.each_ref().map(|(id, pod)| cri.run(id, pod, &short));
        let longs = pods.each_ref().map(|(id, pod)| cri.run(id, pod, &long));
        until(&events, &mut seen, &shorts, &[Created, Started, Stopped]);
        until(&events, &mut seen, &longs, &[Created, Started]);
        node.kill();
        node.restart();
        (cri, events) = (node.cri(), node.events());
        seen.clear();
        for id in &longs {
            cri.stop(id, 5);
        }
        until(&events, &mut seen, &longs, &[Stopped]);
        for id in shorts.iter().chain(&longs) {
            let container_id = id.clone();
            cri.remove_container(cri::RemoveContainerRequest { container_id })
                .unwrap();
        }
        until(&events, &mut seen, &shorts, &[Deleted]);
        until(&events, &mut seen, &longs, &[Stopped, Deleted]);
        for (id, _) in &pods {
            cri.remove_pod(id);
        }
        let ids = pods.map(|(id, _)| id);
        until(&events, &mut seen, &ids, &[Stopped, Deleted]);
        // Nothing is told twice.
        let quiet = Duration::from_millis(300);
        assert!(events.is_quiet(quiet));
    });
}
