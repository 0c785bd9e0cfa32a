//! The pod CIDR that a kubelet hands on: pods of the built-in network get their addresses of it, also
//! from the next daemon on, and none changes below pods that have addresses.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, eventually, trial};
use tonic::{Code, Status};

fn take(cri: &mut Cri, pod_cidr: &str) -> Result<(), Status> {
    let request = cri::UpdateRuntimeConfigRequest {
        runtime_config: Some(cri::RuntimeConfig {
            network_config: Some(cri::NetworkConfig {
                pod_cidr: pod_cidr.to_owned(),
            }),
        }),
    };
    cri.update_runtime_config(request).map(drop)
}

/// Whether the last that the log says of pod CIDRs is that this one is in force.
fn in_force(node: &Node, pod_cidr: &str) -> bool {
    let log = node.log();
    let mut lines = log.lines().rev();
    let last = lines.find(|line| line.contains("pod_cidr=")).unwrap();
    last.contains("pods get their addresses of the pod CIDR") && last.contains(pod_cidr)
}

/// Hands a pod CIDR on until it is taken: addresses of pods that were removed are free a little later.
fn take_in_the_end(node: &Node, cri: &mut Cri, pod_cidr: &str) {
    eventually("the pod CIDR is taken", || {
        take(cri, pod_cidr).unwrap();
        in_force(node, pod_cidr)
    });
}

/// Runs a pod and tells its id and its addresses.
fn run(node: &Node, cri: &mut Cri, name: &str) -> (String, Vec<String>) {
    let id = cri.run_pod(&node.pod(name));
    let network = cri.pod(&id).network.unwrap();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    (id, [network.ip].into_iter().chain(more).collect())
}

#[track_caller]
fn check(addresses: &[String], beginnings: &[&str]) {
    let fits = |(address, beginning): (&String, &&str)| address.starts_with(*beginning);
    let all_fit = addresses.iter().zip(beginnings).all(fits);
    assert!(
        all_fit && addresses.len() == beginnings.len(),
        "{addresses:?} are not of {beginnings:?}"
    );
}

#[test]
fn privileged_pods_get_addresses_of_the_pod_cidr() {
    trial(|node| {
        let mut cri = node.cri();
        let (id, usual) = run(node, &mut cri, "usual");
        cri.remove_pod(&id);
        let both = ["10.97.3.", "fd00:97::"];
        take_in_the_end(node, &mut cri, "10.97.3.0/24,fd00:97::/64");
        let (first, addresses) = run(node, &mut cri, "first");
        check(&addresses, &both);
        // Texts that are no networks change nothing.
        for wrong in [
            "x",
            "10.96.0.0",
            "10.96.0.0/33",
            "10.96.0.0/16,y",
            "fd00::/129",
        ] {
            let error = take(&mut cri, wrong).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{wrong}: {error:?}");
            assert!(error.message().contains("pod_cidr"), "{wrong}: {error:?}");
        }
        // An empty one is what a kubelet without a CIDR sends.
        take(&mut cri, "").unwrap();
        // Subnets stay while a pod has an address of them; the kubelet is not made to wait.
        take(&mut cri, "10.96.0.0/24").unwrap();
        assert!(
            node.log()
                .contains("the pod CIDR is taken later, since pods have addresses")
        );
        let (second, addresses) = run(node, &mut cri, "second");
        check(&addresses, &both);
        node.terminate();
        node.restart();
        let mut cri = node.cri();
        let (third, addresses) = run(node, &mut cri, "third");
        check(&addresses, &both);
        for id in [first, second, third] {
            cri.remove_pod(&id);
        }
        // The one that had to wait comes once they have gone, though the daemon is another one by now.
        eventually("the pod CIDR is in force", || {
            in_force(node, "10.96.0.0/24")
        });
        // A network with bits of a host is no subnet for pods.
        take(&mut cri, "10.96.0.1/24").unwrap_err();
        let (id, addresses) = run(node, &mut cri, "as-before");
        check(&addresses, &["10.96.0."]);
        cri.remove_pod(&id);
        // A CIDR that has to wait comes once the pods have gone, and nobody sends it again.
        let (waits_for, _) = run(node, &mut cri, "waits-for");
        take(&mut cri, "10.95.0.0/24").unwrap();
        cri.remove_pod(&waits_for);
        eventually("the pod CIDR is in force", || {
            in_force(node, "10.95.0.0/24")
        });
        let (id, addresses) = run(node, &mut cri, "one-family");
        check(&addresses, &["10.95.0."]);
        cri.remove_pod(&id);
        take_in_the_end(node, &mut cri, "10.88.0.0/16,fd63:7269:7370::/64");
        let (id, addresses) = run(node, &mut cri, "usual");
        check(&addresses, &["10.88.", "fd63:7269:7370:"]);
        assert_eq!(addresses.len(), usual.len());
        cri.remove_pod(&id);
        // The next daemon would begin with it; here it is the one thing that is left.
        std::fs::remove_file(node.root().join("cni/crisp/pod-cidr.json")).unwrap();
    });
}
