//! The field is the node under attack, with what its rows share.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::image::{Image, busybox};
use crisp_e2e::{Cri, Node, Watched, configs};

/// A name, and the attack; it panics when it succeeds.
pub type Row = (&'static str, fn(&mut Field<'_>));

/// The node under attack.
pub struct Field<'a> {
    pub node: &'a Node,
    pub cri: Cri,
    pub watched: Watched,
}

/// A pod of a row.
pub struct Pod {
    pub id: String,
    pub config: cri::PodSandboxConfig,
}

impl<'a> Field<'a> {
    pub fn new(node: &'a Node) -> Self {
        Self {
            cri: node.cri(),
            watched: Watched::new(node),
            node,
        }
    }

    /// The bait's path.
    pub fn bait(&self) -> String {
        self.watched.bait.to_str().unwrap().to_owned()
    }

    /// A path in the node's directory.
    pub fn path(&self, name: &str) -> String {
        self.node.path(name).to_str().unwrap().to_owned()
    }

    /// A directory in the node's directory, to be a volume.
    pub fn volume(&self, name: &str) -> String {
        std::fs::create_dir(self.node.path(name)).unwrap();
        self.path(name)
    }

    /// Runs a pod.
    pub fn pod(&mut self, name: &str) -> Pod {
        let config = self.node.pod(name);
        let id = self.cri.run_pod(&config);
        Pod { id, config }
    }

    /// Creates and starts a container, or tells why not.
    pub fn try_run(&mut self, pod: &Pod, config: &cri::ContainerConfig) -> Result<String, String> {
        let id = self.cri.create(&pod.id, &pod.config, config);
        let id = id.map_err(|status| status.message().to_owned())?;
        match self.cri.start(&id) {
            Ok(()) => Ok(id),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    /// Creates and starts a container.
    #[track_caller]
    pub fn run(&mut self, pod: &Pod, config: &cri::ContainerConfig) -> String {
        self.cri.run(&pod.id, &pod.config, config)
    }

    /// Pushes an image of busybox with a layer above, and pulls it.
    pub fn fetch(&mut self, name: &str, layer: Layer) -> Result<String, String> {
        self.fetch_image(name, &busybox::image().with(layer, Packing::Gzip))
    }

    /// Pushes and pulls an image.
    pub fn fetch_image(&mut self, name: &str, image: &Image) -> Result<String, String> {
        let registry = &self.node.registry;
        registry.push_as(&self.node.net, name, &Entry::from(image));
        let pulled = self.cri.pull(&configs::image(name));
        pulled.map_err(|status| status.message().to_owned())
    }

    /// Removes the pods of a row, and looks for what it changed.
    #[track_caller]
    pub fn clear(&mut self, attack: &str) {
        for id in self.cri.pod_ids() {
            self.cri.remove_pod(&id);
        }
        self.watched.check(attack);
    }

    /// Removes the images of all rows.
    pub fn leave(self) {
        self.node.crictl().ok(&["rmi", "--all"]);
        self.node.pull(&["busybox"]);
    }
}

/// A container that is idle, of an image.
pub fn of_image(name: &str) -> cri::ContainerConfig {
    let mut config = configs::idle(name);
    config.image.as_mut().unwrap().image = configs::image(name);
    config
}
