//! The files of nodes, which each of them sees below `/node`. They are written by each `up`, and only
//! where they are to be others than before: certificates last as long as they are good.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::{Node, Nodes};
use crate::disk::{make_dir, write, write_private};
use crate::failure::{Context as _, Failure, Result};
use crate::init::{After, CRISP_DIR, Init, KUBERNETES_DIR, NODE_DIR, OBJECTS_MADE, Program};
use crate::kubeconfig;
use crate::manifests::{self, API_PORT};
use crate::names::CONTROL;
use crate::pki::{Authority, Issued, Pki, Subject, Usage};
use crate::settings;

/// Writes the files of all nodes of a cluster, and its administrator's kubeconfig.
pub fn write_files(nodes: &Nodes<'_>, all: &[Node]) -> Result<()> {
    let control = all.iter().find(|node| node.name == CONTROL);
    let control = control.ok_or_else(|| {
        let text = format!("cluster {}: it has no control plane", nodes.record.name);
        Failure::new(text)
    })?;
    let files = Files {
        nodes,
        pki: Pki::of(&nodes.dir.pki())?,
        all,
        control,
    };
    files.write_control()?;
    for (number, name) in nodes.record.workers() {
        let node = all.iter().find(|node| node.name == name);
        let node = node.ok_or_else(|| Failure::new(format!("node {name}: it has no pod")))?;
        files.write_worker(number, node)?;
    }
    files.write_administrator()
}

struct Files<'a> {
    nodes: &'a Nodes<'a>,
    pki: Pki,
    all: &'a [Node],
    control: &'a Node,
}

impl Files<'_> {
    fn write_administrator(&self) -> Result<()> {
        let cluster = &self.nodes.record.name;
        let admin = Subject {
            group: Some("system:masters"),
            ..Subject::client("admin")
        };
        let client = Client {
            subject: &admin,
            server: format!("https://127.0.0.1:{}", self.nodes.record.port),
            cluster: format!("crisp-{cluster}"),
        };
        let dir = Dir::of(self.nodes.dir.path());
        dir.client(&self.pki.ca, "kubeconfig", &client)
    }

    fn write_control(&self) -> Result<()> {
        let dir = self.own_dir(self.control, &["var/etcd"])?;
        let network = self.nodes.network;
        let apiserver = Subject {
            usage: Usage::Server,
            hosts: manifests::API_NAMES.map(str::to_owned).to_vec(),
            addresses: vec![
                self.control.address,
                network.kubernetes().into(),
                std::net::Ipv4Addr::LOCALHOST.into(),
            ],
            ..Subject::client("kube-apiserver")
        };
        dir.pair(&self.pki.ca, "apiserver", &apiserver)?;
        let to_kubelet = Subject::client(manifests::APISERVER_USER);
        dir.pair(&self.pki.ca, "to-kubelet", &to_kubelet)?;
        let front_proxy = Subject::client(manifests::FRONT_PROXY_USER);
        dir.pair(&self.pki.front_proxy, "front-proxy-client", &front_proxy)?;
        let front_proxy_ca = self.pki.front_proxy.certificate.as_bytes();
        dir.public("front-proxy-ca.crt", front_proxy_ca)?;
        dir.private("ca.key", self.pki.ca.key.as_bytes())?;
        dir.private("tokens.key", self.pki.tokens.key.as_bytes())?;
        dir.public("tokens.pub", self.pki.tokens.certificate.as_bytes())?;
        for (file, user) in [
            ("controllers", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
            ("coredns", manifests::COREDNS_USER),
        ] {
            self.component(&dir, file, &Subject::client(user), "127.0.0.1")?;
        }
        let address = self.control.address.to_string();
        let corefile = manifests::corefile(&address, self.nodes.resolvers);
        dir.public("Corefile", corefile.as_bytes())?;
        dir.public("routes", self.routes(CONTROL).as_bytes())?;
        let init = init(false, manifests::control_plane(network, &address));
        dir.json("init.json", &init?)
    }

    fn write_worker(&self, number: u8, node: &Node) -> Result<()> {
        let dir = self.own_dir(node, &["net.d", "certs.d", "var", "log"])?;
        let network = self.nodes.network;
        let client = Subject {
            group: Some("system:nodes"),
            ..Subject::client(&format!("system:node:{}", node.name))
        };
        let server = Subject {
            usage: Usage::Server,
            hosts: vec![node.name.clone()],
            addresses: vec![node.address],
            ..client.clone()
        };
        let api = self.control.address.to_string();
        dir.pair(&self.pki.ca, "node", &server)?;
        self.component(&dir, "kubelet", &client, &api)?;
        self.component(&dir, "proxy", &Subject::client("system:kube-proxy"), &api)?;
        dir.json("kubelet.json", &manifests::kubelet(network))?;
        let kube_proxy = manifests::kube_proxy(network, &node.name);
        dir.json("kube-proxy.json", &kube_proxy)?;
        let pods = manifests::pod_network(&network.pods_of(number));
        dir.json("net.d/10-crisp.conflist", &pods)?;
        let runtime = settings::runtime(self.nodes.dir)?;
        dir.public("crispd.toml", runtime.as_bytes())?;
        dir.public("firewall.nft", manifests::firewall(network).as_bytes())?;
        dir.public("routes", self.routes(&node.name).as_bytes())?;
        let address = node.address.to_string();
        let init = init(true, manifests::node_programs(&node.name, &address));
        dir.json("init.json", &init?)
    }

    fn routes(&self, own: &str) -> String {
        let others = self.nodes.record.workers().filter(|(_, name)| name != own);
        let routes: Vec<(String, String)> = others
            .filter_map(|(number, name)| {
                let node = self.all.iter().find(|node| node.name == name)?;
                Some((self.nodes.network.pods_of(number), node.address.to_string()))
            })
            .collect();
        let routes = routes
            .iter()
            .map(|(pods, via)| (pods.clone(), via.as_str()));
        manifests::routes(routes)
    }

    /// A node's directory, with what each node has.
    fn own_dir(&self, node: &Node, more: &[&str]) -> Result<Dir> {
        let dir = Dir::of(&self.nodes.dir.node(&node.name));
        for name in more {
            make_dir(&dir.path.join(name))?;
        }
        dir.public("ca.crt", self.pki.ca.certificate.as_bytes())?;
        let cluster = self.nodes.record.name.to_string();
        let id = manifests::machine_id(&cluster, &node.name);
        dir.public("machine-id", id.as_bytes())?;
        let resolv_conf = manifests::resolv_conf(self.nodes.resolvers);
        dir.public("resolv.conf", resolv_conf.as_bytes())?;
        Ok(dir)
    }

    /// The kubeconfig of a program of a node.
    fn component(&self, dir: &Dir, name: &str, subject: &Subject, server: &str) -> Result<()> {
        let client = Client {
            subject,
            server: format!("https://{server}:{API_PORT}"),
            cluster: "crisp".to_owned(),
        };
        dir.client(&self.pki.ca, &format!("{name}.kubeconfig"), &client)
    }
}

/// Whom a kubeconfig is for, and where it leads.
struct Client<'a> {
    subject: &'a Subject,
    server: String,
    cluster: String,
}

/// A directory with files that are written where they change.
struct Dir {
    path: PathBuf,
}

impl Dir {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Whether a file is to be written.
    fn differs(&self, name: &str, bytes: &[u8]) -> bool {
        fs::read(self.path.join(name)).ok().as_deref() != Some(bytes)
    }

    fn public(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.differs(name, bytes) {
            true => write(&self.path.join(name), bytes),
            false => Ok(()),
        }
    }

    fn private(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.differs(name, bytes) {
            true => write_private(&self.path.join(name), bytes),
            false => Ok(()),
        }
    }

    /// Keys may be in it.
    fn json(&self, name: &str, value: &Value) -> Result<()> {
        self.private(name, value.to_string().as_bytes())
    }

    /// A certificate and its key, which are made anew only where those that are there are no good.
    fn pair(&self, ca: &Authority, name: &str, subject: &Subject) -> Result<()> {
        let files = [format!("{name}.crt"), format!("{name}.key")];
        let subject_text = format!("{subject:?}");
        let made_from = [subject_text.as_str(), &ca.certificate];
        let names = [files[0].as_str(), &files[1]];
        let issued = Issued::of(&self.path, name, &names, &made_from);
        if issued.is_good(SystemTime::now()) {
            return Ok(());
        }
        let pair = ca.issue(subject)?;
        self.public(&files[0], pair.certificate.as_bytes())?;
        self.private(&files[1], pair.key.as_bytes())?;
        issued.note(SystemTime::now())
    }

    /// A kubeconfig, which is made anew in the same way.
    fn client(&self, ca: &Authority, file: &str, client: &Client<'_>) -> Result<()> {
        let subject = format!("{:?}", client.subject);
        let made_from = [&subject, &client.server, &client.cluster, &ca.certificate];
        let issued = Issued::of(&self.path, file, &[file], &made_from.map(String::as_str));
        if issued.is_good(SystemTime::now()) {
            return Ok(());
        }
        let pair = ca.issue(client.subject)?;
        let Client {
            server, cluster, ..
        } = client;
        let document = kubeconfig::document(cluster, server, &ca.certificate, &pair);
        self.json(file, &document)?;
        issued.note(SystemTime::now())
    }
}

/// The things that a program of the control plane has to find: refused by an API server that is about to come, or
/// without the right to ask, it would pause for longer and longer.
fn after(program: &str) -> Option<After> {
    let file = match program {
        "coredns" => Some(Path::new(NODE_DIR).join(OBJECTS_MADE)),
        "kube-controller-manager" | "kube-scheduler" => None,
        _ => return None,
    };
    Some(After {
        file,
        port: API_PORT,
    })
}

/// The description of a node for its first process.
fn init(runs_pods: bool, programs: Vec<(&'static str, Vec<String>)>) -> Result<Value> {
    let programs = programs.into_iter().map(|(name, words)| {
        let at = match name {
            "crispd" => CRISP_DIR,
            _ => KUBERNETES_DIR,
        };
        let path = format!("{at}/{name}");
        Program {
            name: name.to_owned(),
            command: std::iter::once(path).chain(words).collect(),
            after: after(name),
        }
    });
    let init = Init {
        runs_pods,
        programs: programs.collect(),
    };
    serde_json::to_value(init).context(|| "node: describe it".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::cri::Cri;
    use crate::home::Home;
    use crate::network::tests::usual;
    use crate::programs::Programs;
    use crate::record::Record;

    /// Has a cluster of two nodes in a directory, of which nothing runs.
    fn with_nodes(place: &Path, judge: impl FnOnce(&Nodes<'_>, &[Node])) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        // A connection that is never made belongs to one.
        let runtime = runtime.unwrap();
        let _entered = runtime.enter();
        let record = Record::new("x".parse().unwrap(), 2, 1, "/k".into());
        let (dir, network) = (Home::at(place).unwrap().cluster(&record.name), usual());
        let nodes = Nodes {
            cgroup_parent: "/x",
            record: &record,
            dir: &dir,
            cri: &Cri::at(&place.join("sock"), "x").unwrap(),
            image: "i",
            programs: &Programs {
                ours: "/o".into(),
                kubernetes: "/k".into(),
            },
            network: &network,
            resolvers: &["192.0.2.9".parse().unwrap()],
        };
        let all = record.all().map(|name| Node {
            address: record.address(&network, &name).into(),
            pod: String::new(),
            name,
        });
        judge(&nodes, &all.collect::<Vec<Node>>());
    }

    /// The files below `/node` that a text names.
    fn named(text: &str) -> BTreeSet<String> {
        let is_of_name = |letter: &char| letter.is_ascii_alphanumeric() || "._-".contains(*letter);
        let names = text.split("/node/").skip(1);
        names
            .map(|rest| rest.chars().take_while(is_of_name).collect())
            .collect()
    }

    #[test]
    fn each_file_that_a_program_is_told_of_is_there_and_keys_are_private() {
        let place = tempfile::tempdir().unwrap();
        with_nodes(place.path(), |nodes, all| {
            write_files(nodes, all).unwrap();
            for node in all {
                let own = nodes.dir.node(&node.name);
                let mut expected = named(&fs::read_to_string(own.join("init.json")).unwrap());
                expected.insert("routes".to_owned());
                if node.name != CONTROL {
                    expected.insert("firewall.nft".to_owned());
                }
                for file in expected.clone() {
                    let text = fs::read_to_string(own.join(&file)).unwrap_or_default();
                    expected.extend(named(&text));
                }
                // It is there as soon as the crispd is.
                expected.remove("crisp.sock");
                // And this one once the API server is.
                expected.remove(OBJECTS_MADE);
                assert!(expected.len() > 5, "{expected:?}");
                for file in expected {
                    let data = fs::metadata(own.join(&file));
                    let mode = data
                        .unwrap_or_else(|_| panic!("{}/{file}", node.name))
                        .mode();
                    let text = fs::read_to_string(own.join(&file)).unwrap_or_default();
                    let has_key = text.contains("PRIVATE KEY") || text.contains("client-key-data");
                    assert!(!has_key || mode & 0o077 == 0, "{file} {mode:o}");
                }
            }
        });
    }

    #[test]
    fn only_nodes_whose_files_change_have_other_settings() {
        let place = tempfile::tempdir().unwrap();
        with_nodes(place.path(), |nodes, all| {
            let written = || {
                write_files(nodes, all).unwrap();
                let settings = all.iter().map(|node| nodes.settings_of(&node.name));
                settings.collect::<Result<Vec<String>>>().unwrap()
            };
            let first = written();
            let kubeconfig = fs::read(nodes.dir.kubeconfig()).unwrap();
            assert_eq!(written(), first);
            fs::remove_file(nodes.dir.node("node-2").join("node.key")).unwrap();
            let second = written();
            assert_eq!(second[..2], first[..2]);
            assert_ne!(second[2], first[2]);
            assert_eq!(written(), second);
            assert_eq!(fs::read(nodes.dir.kubeconfig()).unwrap(), kubeconfig);
        });
    }

    #[test]
    fn files_are_written_where_they_change() {
        let place = tempfile::tempdir().unwrap();
        let pki = Pki::of(&place.path().join("pki")).unwrap();
        let subject = Subject::client("x");
        let client = Client {
            subject: &subject,
            server: "https://192.0.2.1".to_owned(),
            cluster: "c".to_owned(),
        };
        let settings = || super::super::lived::settings(place.path(), &[]).unwrap();
        let write = |text: &str| {
            let before = settings();
            let dir = Dir::of(place.path());
            dir.public("public", text.as_bytes()).unwrap();
            dir.pair(&pki.ca, "pair", &subject).unwrap();
            dir.client(&pki.ca, "kubeconfig", &client).unwrap();
            settings() != before
        };
        assert!(write("a") && !write("a") && write("b") && !write("b"));
        // As after an end between the two of them.
        fs::remove_file(place.path().join("pair.key")).unwrap();
        assert!(write("b") && !write("b"));
        let mode = |name: &str| {
            let data = fs::metadata(place.path().join(name)).unwrap();
            data.permissions().mode() & 0o777
        };
        assert_eq!((mode("pair.key"), mode("kubeconfig")), (0o600, 0o600));
        assert_eq!((mode("pair.crt"), mode("public")), (0o644, 0o644));
    }
}
