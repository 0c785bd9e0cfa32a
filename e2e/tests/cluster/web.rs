//! A service on three nodes, as its clients see it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crisp_e2e::cluster::Cluster;

pub(crate) const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
/// The port of loopback that leads to the service.
pub(crate) const PUBLISHED: u16 = 8080;
/// Requests from each node. That some pod gets none of them is less likely than one in 10^8.
const REQUESTS: usize = 48;
/// Requests in a row that are answered when a node knows all pods again.
const SETTLED: usize = 16;

/// The pods that are to be, without those that end.
pub(crate) fn pods(cluster: &Cluster) -> Vec<Value> {
    let all = cluster.get(&["pods", "-l", "app=web"])["items"].take();
    let all = all.as_array().unwrap().iter();
    all.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .cloned()
        .collect()
}

pub(crate) fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

pub(crate) fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap().to_owned()
}

pub(crate) fn service_url(cluster: &Cluster) -> String {
    let service = cluster.get(&["service", "web"]);
    format!("http://{}/", service["spec"]["clusterIP"].as_str().unwrap())
}

pub(crate) fn service_answers_everywhere(cluster: &Cluster) {
    let names: BTreeSet<String> = pods(cluster).iter().map(name_of).collect();
    let url = service_url(cluster);
    for node in NODES {
        let answers = (0..REQUESTS).map(|_| cluster.page(node, &url));
        let answers: BTreeSet<String> = answers.collect();
        assert_eq!(answers, names, "from {node}; one without a name was lost");
    }
    let answer = cluster.net.run(published_page);
    assert!(
        names.iter().any(|name| answer.trim_end().ends_with(name)),
        "{answer}"
    );
}

/// The service at a port of loopback.
fn published_page() -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", PUBLISHED)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The control plane is no node, and yet its API server sends requests to pods.
pub(crate) fn the_api_server_reaches_pods(cluster: &Cluster) {
    for pod in pods(cluster) {
        let name = name_of(&pod);
        let path = format!("/api/v1/namespaces/default/pods/{name}:8080/proxy/");
        let answer = cluster.kubectl(&["get", "--raw", &path]);
        assert!(answer.trim_end().ends_with(&name), "{name}: {answer}");
    }
    let path = "/api/v1/namespaces/default/services/web/proxy/";
    assert!(!cluster.kubectl(&["get", "--raw", path]).is_empty());
}

/// The issuer of tokens is who its certificate says, and its keys are where it says.
pub(crate) fn the_issuer_of_tokens_is_trusted(cluster: &Cluster) {
    let path = "/.well-known/openid-configuration";
    let answer = cluster.kubectl(&["get", "--raw", path]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let issuer = answer["issuer"].as_str().unwrap();
    let host = issuer.trim_start_matches("https://");
    let service = cluster.get(&["service", "kubernetes"]);
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    // The end of curl tells whether it trusts whom it asks; it has no right to an answer.
    cluster.crisp(&format!(
        "exec node-1 curl --silent --show-error --cacert /node/ca.crt --resolve {host}:443:{ip} {issuer}{path}"
    ));
}

pub(crate) fn names_are_known(cluster: &Cluster) {
    let service = cluster.get(&["service", "web"]);
    let ip = service["spec"]["clusterIP"].as_str().unwrap();
    for pod in pods(cluster) {
        let name = name_of(&pod);
        let asks = [
            "exec",
            &name,
            "-c",
            "web",
            "--",
            "nslookup",
            "web.default.svc.cluster.local",
        ];
        let said = cluster.kubectl(&asks);
        assert!(said.contains(ip), "{name}: {said}");
    }
}

/// How often containers of these pods were restarted. Sidecars count beside others: their node restarts
/// them with the pod.
pub(crate) fn restarts(cluster: &Cluster) -> u64 {
    let count = |pod: &Value, kind: &str| -> u64 {
        let statuses = pod["status"][kind].as_array().into_iter().flatten();
        let counts = statuses.filter_map(|status| status["restartCount"].as_u64());
        counts.max().unwrap_or(0)
    };
    let pods = pods(cluster);
    let kinds = ["initContainerStatuses", "containerStatuses"];
    let of_pod = |pod: &Value| kinds.iter().map(|kind| count(pod, kind)).max().unwrap_or(0);
    pods.iter().map(of_pod).sum()
}

/// Pods are ready again, and each node knows where they are now: kube-proxy learns of changes a second
/// later, and a kubelet that starts first repeats what it told in its former life.
pub(crate) fn settled(cluster: &Cluster) {
    cluster.until("all pods are ready again", |cluster| {
        let web = cluster.get(&["deployment", "web"]);
        web["status"]["readyReplicas"] == 3
    });
    let url = service_url(cluster);
    for node in NODES {
        cluster.until(&format!("{node} loses no request"), |cluster| {
            (0..SETTLED).all(|_| !cluster.page(node, &url).is_empty())
        });
    }
}
