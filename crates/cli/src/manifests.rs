//! Configurations of Kubernetes' programs, and the objects that a cluster begins with. JSON is YAML
//! as well, and what Kubernetes reads strictly.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::network::Network;

/// The domain of a cluster's names.
const DOMAIN: &str = "cluster.local";
/// The names of the API server: its certificate is for them. By the last of them it is the issuer of
/// tokens, whose keys anybody may ask for there.
pub const API_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// Where a control plane's API server listens, as it does by default.
pub const API_PORT: u16 = 6443;
/// The port at which CoreDNS tells that it can be asked.
pub const COREDNS_READY: u16 = 8181;
/// The port at which kube-proxy tells that it has written its rules.
pub const PROXY_HEALTH: u16 = 10256;
/// The user as which CoreDNS asks the API server.
pub const COREDNS_USER: &str = "crisp:coredns";
/// The user as which the API server hands requests on to aggregated APIs.
pub const FRONT_PROXY_USER: &str = "front-proxy-client";
/// The user as which the API server asks kubelets.
pub const APISERVER_USER: &str = "crisp:apiserver";

/// The kubelet's configuration in a node; all paths are the node's.
pub fn kubelet(network: &Network) -> Value {
    let file = |name: &str| format!("/node/{name}");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///node/crisp.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": true,
        "cgroupRoot": "/",
        // Nodes are as the machine is, and some have version 1, swap, or full disks.
        "failCgroupV1": false,
        "failSwapOn": false,
        // Disks of such machines may be full by a kubelet's measure, and images that were loaded have no
        // registry to come from again.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        // The usual place is below /usr, which is the machine's.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // To lower it takes a capability that not every machine gives.
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "clusterDNS": [network.dns()],
        "clusterDomain": DOMAIN,
        "resolvConf": file("resolv.conf"),
        "tlsCertFile": file("node.crt"),
        "tlsPrivateKeyFile": file("node.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "nodeStatusUpdateFrequency": "5s",
        "featureGates": {"PodAndContainerStatsFromCRI": true},
    })
}

/// kube-proxy's configuration in a node.
pub fn kube_proxy(network: &Network, node: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node,
        "healthzBindAddress": format!("0.0.0.0:{PROXY_HEALTH}"),
        "clusterCIDR": network.ranges.pods,
        "clientConnection": {"kubeconfig": "/node/proxy.kubeconfig"},
        "oomScoreAdj": 0,
        // Limits of the machine hold for all of its network namespaces, and are not a node's to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// The network of a node's pods, for its crispd.
pub fn pod_network(pods: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "crisp",
        "plugins": [{
            "type": "crisp",
            "bridge": "pods0",
            "subnets": [pods],
            // Pods of other nodes see a pod's own address; the node does the rest, see `firewall`.
            "masquerade": false,
            "capabilities": {"portMappings": true},
        }],
    })
}

/// The configuration of a node's crispd.
pub fn crispd() -> String {
    "root = \"/var/lib/crisp\"\n\
     state = \"/run/crisp\"\n\
     listen = \"unix:///node/crisp.sock\"\n\
     [network]\n\
     mode = \"cni\"\n\
     conf_dir = \"/node/net.d\"\n\
     bin_dirs = [\"/usr/lib/cni\"]\n\
     [images]\n\
     registry_config = \"/node/certs.d\"\n"
        .to_owned()
}

/// Rules by which pods reach the world beyond their cluster: as their node. Rules of a former life of
/// the node are gone with it, as on a machine that boots.
pub fn firewall(network: &Network) -> String {
    let pods = network.ranges.pods;
    format!(
        "flush ruleset\n\
         table ip crisp-node {{\n\
         chain postrouting {{\n\
         type nat hook postrouting priority srcnat\n\
         ip saddr {pods} ip daddr != {pods} oifname eth0 masquerade\n\
         }}\n}}\n"
    )
}

/// The id by which a node is known as a machine of its own: not this machine's, which all nodes would
/// share. It is the same as long as cluster and node have their names.
pub fn machine_id(cluster: &str, node: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(format!("crisp {cluster} {node}"));
    let digits = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    digits.collect::<String>() + "\n"
}

/// Routes to the pods of other nodes, for `ip -batch`: each a range and the node's address.
pub fn routes<'a>(others: impl Iterator<Item = (String, &'a str)>) -> String {
    let lines = others.map(|(pods, address)| format!("route replace {pods} via {address}\n"));
    lines.collect()
}

/// The file by which a program knows servers of names.
pub fn resolv_conf(servers: &[IpAddr]) -> String {
    let lines = servers.iter().map(|ip| format!("nameserver {ip}\n"));
    lines.collect()
}

/// CoreDNS' configuration: names of the cluster, and those of the world where somebody knows them.
pub fn corefile(address: &str, servers: &[IpAddr]) -> String {
    let all: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let forward = match all.is_empty() {
        true => String::new(),
        false => format!("  forward . {}\n", all.join(" ")),
    };
    format!(
        ".:53 {{\n  bind {address}\n  errors\n  health 127.0.0.1:8080\n  cache 5\n  \
         ready {address}:{COREDNS_READY}\n  \
         kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{\n    kubeconfig /node/coredns.kubeconfig crisp\n    \
         pods insecure\n    fallthrough in-addr.arpa ip6.arpa\n  }}\n\
         {forward}}}\n"
    )
}

/// The command lines of the control plane, each with its name. Paths are the node's.
pub fn control_plane(network: &Network, address: &str) -> Vec<(&'static str, Vec<String>)> {
    let services = format!("--service-cluster-ip-range={}", network.ranges.services);
    let [.., name] = API_NAMES;
    let issuer = format!("--service-account-issuer=https://{name}");
    let front_proxy = format!("--requestheader-allowed-names={FRONT_PROXY_USER}");
    let apiserver = [
        &format!("--advertise-address={address}"),
        "--etcd-servers=http://127.0.0.1:2379",
        &services,
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        // Beside the control plane nothing leads the addresses of services to their pods.
        "--enable-aggregator-routing",
        "--client-ca-file=/node/ca.crt",
        "--tls-cert-file=/node/apiserver.crt",
        "--tls-private-key-file=/node/apiserver.key",
        "--kubelet-certificate-authority=/node/ca.crt",
        "--kubelet-client-certificate=/node/to-kubelet.crt",
        "--kubelet-client-key=/node/to-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        // How servers of aggregated APIs know it, and whom it asks for.
        "--requestheader-client-ca-file=/node/front-proxy-ca.crt",
        &front_proxy,
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--proxy-client-cert-file=/node/front-proxy-client.crt",
        "--proxy-client-key-file=/node/front-proxy-client.key",
        &issuer,
        "--service-account-key-file=/node/tokens.pub",
        "--service-account-signing-key-file=/node/tokens.key",
    ];
    let controllers = [
        "--kubeconfig=/node/controllers.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--use-service-account-credentials",
        // Forty controllers ask for credentials one after another before pods can have theirs; by default that
        // is twenty requests in a second.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--service-account-private-key-file=/node/tokens.key",
        "--root-ca-file=/node/ca.crt",
        // It signs what CertificateSigningRequests that were approved ask for.
        "--cluster-signing-cert-file=/node/ca.crt",
        "--cluster-signing-key-file=/node/ca.key",
        // Each node's range stands in its object from the start.
        "--allocate-node-cidrs=false",
    ];
    let scheduler = [
        "--kubeconfig=/node/scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ];
    let etcd = ["--data-dir=/var/lib/etcd", "--log-level=warn"];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        ("etcd", words(&etcd)),
        ("kube-apiserver", words(&apiserver)),
        ("kube-controller-manager", words(&controllers)),
        ("kube-scheduler", words(&scheduler)),
        ("coredns", words(&["-conf", "/node/Corefile"])),
    ]
}

/// The command lines of a node's programs, each with its name. Paths are the node's.
pub fn node_programs(node: &str, address: &str) -> Vec<(&'static str, Vec<String>)> {
    let kubelet = [
        "--config=/node/kubelet.json".to_owned(),
        "--kubeconfig=/node/kubelet.kubeconfig".to_owned(),
        format!("--hostname-override={node}"),
        format!("--node-ip={address}"),
    ];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        ("crispd", words(&["--config", "/node/crispd.toml"])),
        ("kubelet", kubelet.to_vec()),
        ("kube-proxy", words(&["--config=/node/kube-proxy.json"])),
    ]
}

/// The objects that a cluster begins with: its nodes with the ranges of their pods, names, and who may
/// do what.
pub fn objects<'a>(
    network: &Network,
    control: &str,
    nodes: impl Iterator<Item = (&'a str, String)>,
) -> Vec<Value> {
    let nodes = nodes.map(|(name, pods)| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        })
    });
    nodes
        .chain(names_service(network, control))
        .chain(rights())
        .collect()
}

/// The service of names, whose only server is beside the control plane.
fn names_service(network: &Network, control: &str) -> [Value; 2] {
    let metadata = json!({"name": "kube-dns", "namespace": "kube-system"});
    let mut slice = metadata.clone();
    slice["labels"] = json!({"kubernetes.io/service-name": "kube-dns"});
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 53, "protocol": protocol});
    let ports = [port("dns", "UDP"), port("dns-tcp", "TCP")];
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"clusterIP": network.dns(), "ports": ports},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice,
            "addressType": "IPv4", "endpoints": [{"addresses": [control]}], "ports": ports,
        }),
    ]
}

fn rights() -> [Value; 3] {
    let bind = |role: &str, user: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        })
    };
    let read = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": COREDNS_USER},
            "rules": [
                read("", &["endpoints", "namespaces", "pods", "services"]),
                read("discovery.k8s.io", &["endpointslices"]),
            ],
        }),
        bind(COREDNS_USER, COREDNS_USER),
        bind("system:kubelet-api-admin", APISERVER_USER),
    ]
}

/// Whether a path of this machine is to be seen in nodes: certificates of registries of the world, and which program has a name.
pub fn shared_settings() -> impl Iterator<Item = &'static str> {
    // Names of programs below /usr/bin lead to the last one on Debian.
    let settings = [
        "/etc/ssl",
        "/etc/pki",
        "/etc/ca-certificates",
        "/etc/alternatives",
    ];
    settings.into_iter().filter(|path| Path::new(path).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::usual;

    #[test]
    fn each_node_object_has_its_own_range() {
        let nodes = [("node-1", "10.244.1.0/24".to_owned())];
        let objects = objects(&usual(), "192.0.2.1", nodes.into_iter());
        assert_eq!(objects[0]["spec"]["podCIDR"], "10.244.1.0/24");
        assert_eq!(objects[1]["spec"]["clusterIP"], "10.96.0.10");
        assert_eq!(objects[2]["endpoints"][0]["addresses"][0], "192.0.2.1");
    }

    #[test]
    fn names_of_the_world_are_asked_where_somebody_knows_them() {
        let with = corefile("192.0.2.1", &["192.0.2.9".parse().unwrap()]);
        assert!(with.contains("forward . 192.0.2.9\n"), "{with}");
        // Else addresses of the world would have no names.
        assert!(
            with.contains("    fallthrough in-addr.arpa ip6.arpa\n"),
            "{with}"
        );
        assert!(!corefile("192.0.2.1", &[]).contains("forward"));
    }

    #[test]
    fn each_node_is_a_machine_of_its_own() {
        let id = machine_id("a", "node-1");
        assert!(id.len() == 33 && id.trim().chars().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(id, machine_id("a", "node-2"));
        assert_ne!(id, machine_id("b", "node-1"));
    }

    #[test]
    fn routes_lead_to_the_nodes_of_the_ranges() {
        let others = [(usual().pods_of(2), "192.0.2.2")];
        let text = routes(others.into_iter());
        assert_eq!(text, "route replace 10.244.2.0/24 via 192.0.2.2\n");
    }

    #[test]
    fn files_that_hold_keys_are_the_nodes_own() {
        for (_, words) in control_plane(&usual(), "192.0.2.1") {
            let paths = words.iter().filter_map(|word| word.split_once("=/"));
            for (_, path) in paths {
                assert!(
                    path.starts_with("node/") || path == "var/lib/etcd",
                    "{path}"
                );
            }
        }
    }
}
