//! The Stream lists beside the List calls: the same items under the same filters, and as many
//! messages as it takes.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, configs, trial};
use tonic::Code;

/// Asks both calls with the same filter, and compares the items.
macro_rules! same {
    ($cri:ident, $list:ident($filter:expr).$items:ident, $stream:ident.$streamed:ident) => {{
        let listed = $cri.$list(with($filter)).unwrap().$items;
        let streamed = $cri.$stream(with($filter)).unwrap();
        let streamed: Vec<_> = streamed.into_iter().flat_map(|m| m.$streamed).collect();
        assert_eq!(
            format!("{streamed:?}"),
            format!("{listed:?}"),
            "{}",
            stringify!($stream)
        );
        listed.len()
    }};
}

/// A request that has a filter and nothing else.
fn with<F, R: Filtered<F>>(filter: F) -> R {
    R::of(filter)
}

trait Filtered<F> {
    fn of(filter: F) -> Self;
}

macro_rules! filtered {
    ($($request:ident($filter:ident),)*) => {$(
        impl Filtered<cri::$filter> for cri::$request {
            fn of(filter: cri::$filter) -> Self {
                Self { filter: Some(filter) }
            }
        }
    )*};
}

filtered! {
    ListPodSandboxRequest(PodSandboxFilter),
    StreamPodSandboxesRequest(PodSandboxFilter),
    ListContainersRequest(ContainerFilter),
    StreamContainersRequest(ContainerFilter),
    ListImagesRequest(ImageFilter),
    StreamImagesRequest(ImageFilter),
}

#[test]
fn privileged_streams_have_the_items_of_the_lists() {
    trial(|node| {
        let mut cri = node.cri();
        no_items_no_message(&mut cri);
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let mut pod = node.pod(name);
            // Two pods of this size fill a message each.
            pod.annotations.insert("long".into(), "x".repeat(300_000));
            pod.labels.insert("which".into(), name.into());
            let id = cri.run_pod(&pod);
            for container in ["a", "b", "c"] {
                cri.run(&id, &pod, &configs::idle(container));
            }
            ids.push(id);
        }
        pods(&mut cri, &ids);
        containers(&mut cri, &ids);
        images(&mut cri);
        figures(&mut cri, &ids);
        for id in &ids {
            cri.remove_pod(id);
        }
    });
}

fn no_items_no_message(cri: &mut Cri) {
    let pods = cri.stream_pod_sandboxes(Default::default()).unwrap();
    let containers = cri.stream_containers(Default::default()).unwrap();
    let stats = cri.stream_container_stats(Default::default()).unwrap();
    let pod_stats = cri.stream_pod_sandbox_stats(Default::default()).unwrap();
    assert!(pods.is_empty() && containers.is_empty());
    assert!(stats.is_empty() && pod_stats.is_empty());
}

fn pods(cri: &mut Cri, ids: &[String]) {
    let messages = cri.stream_pod_sandboxes(Default::default()).unwrap();
    let sizes: Vec<_> = messages.iter().map(|m| m.pod_sandboxes.len()).collect();
    assert_eq!(sizes, [1, 1], "one large pod a message");
    let all = cri::PodSandboxFilter::default();
    let one = cri::PodSandboxFilter {
        id: ids[0][..13].to_owned(),
        ..all.clone()
    };
    let labelled = cri::PodSandboxFilter {
        label_selector: [("which".to_owned(), "two".to_owned())].into(),
        ..all.clone()
    };
    for (filter, wanted) in [(all, 2), (one, 1), (labelled, 1)] {
        let count = same!(
            cri,
            list_pod_sandbox(filter.clone()).items,
            stream_pod_sandboxes.pod_sandboxes
        );
        assert_eq!(count, wanted, "{filter:?}");
    }
    let odd = cri::PodSandboxFilter {
        state: Some(cri::PodSandboxStateValue { state: 7 }),
        ..Default::default()
    };
    let error = cri.stream_pod_sandboxes(with(odd)).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

fn containers(cri: &mut Cri, ids: &[String]) {
    let all = cri::ContainerFilter::default();
    let one_pod = cri::ContainerFilter {
        pod_sandbox_id: ids[1].clone(),
        ..all.clone()
    };
    let nothing = cri::ContainerFilter {
        id: "no such".into(),
        ..all.clone()
    };
    for (filter, wanted) in [(all, 6), (one_pod, 3), (nothing, 0)] {
        let count = same!(
            cri,
            list_containers(filter.clone()).containers,
            stream_containers.containers
        );
        assert_eq!(count, wanted, "{filter:?}");
    }
}

fn images(cri: &mut Cri) {
    let named = |image: &str| cri::ImageFilter {
        image: Some(cri::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        }),
    };
    let all = cri::ImageFilter::default();
    let count = same!(cri, list_images(all.clone()).images, stream_images.images);
    assert!(count > 0);
    for (image, wanted) in [(configs::image("busybox"), 1), ("no/such:1".into(), 0)] {
        let count = same!(cri, list_images(named(&image)).images, stream_images.images);
        assert_eq!(count, wanted, "{image}");
    }
}

/// Figures differ from look to look: the subjects and their order are compared.
fn figures(cri: &mut Cri, ids: &[String]) {
    let filter = Some(cri::ContainerStatsFilter {
        pod_sandbox_id: ids[0].clone(),
        ..Default::default()
    });
    let of = |stats: &[cri::ContainerStats]| -> Vec<_> {
        let told = |s: &cri::ContainerStats| (s.attributes.clone(), s.cpu.is_some());
        stats.iter().map(told).collect()
    };
    for (filter, wanted) in [(None, 6), (filter, 3)] {
        let request = cri::ListContainerStatsRequest {
            filter: filter.clone(),
        };
        let listed = cri.list_container_stats(request).unwrap().stats;
        let request = cri::StreamContainerStatsRequest { filter };
        let streamed = cri.stream_container_stats(request).unwrap();
        let streamed: Vec<_> = streamed
            .into_iter()
            .flat_map(|m| m.container_stats)
            .collect();
        assert_eq!(of(&streamed), of(&listed));
        assert_eq!(streamed.len(), wanted);
        assert!(streamed.iter().all(|s| s.cpu.is_some()));
    }
    let listed = cri
        .list_pod_sandbox_stats(Default::default())
        .unwrap()
        .stats;
    let messages = cri.stream_pod_sandbox_stats(Default::default()).unwrap();
    assert_eq!(messages.len(), 2, "one large pod a message");
    let streamed: Vec<_> = messages
        .into_iter()
        .flat_map(|m| m.pod_sandbox_stats)
        .collect();
    let of = |stats: &[cri::PodSandboxStats]| -> Vec<_> {
        let told = |s: &cri::PodSandboxStats| {
            let containers = &s.linux.as_ref().unwrap().containers;
            (s.attributes.clone(), containers.len())
        };
        stats.iter().map(told).collect()
    };
    assert_eq!(of(&streamed), of(&listed));
    assert!(of(&streamed).iter().all(|(_, containers)| *containers == 3));
}
