//! A client that pulls and removes images beside all others.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::{Cri, Node, configs};

use crate::client::{Answer, is_lost, wait_for_death};
use crate::random::Random;

const NAMES: [&str; 3] = ["web", "zstd", "layers"];
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct Images {
    cri: Cri,
    random: Random,
    /// Whether an image is here, as it was answered.
    here: BTreeMap<&'static str, bool>,
    /// Asked, and not answered: an image, and whether it shall be here.
    pending: Option<(&'static str, bool)>,
}

impl Images {
    pub(crate) fn new(node: &Node, random: Random) -> Self {
        for name in NAMES {
            node.registry.push(&node.net, name);
        }
        Self {
            cri: node.cri(),
            random,
            here: NAMES.map(|name| (name, false)).into(),
            pending: None,
        }
    }

    pub(crate) fn work(&mut self, over: &AtomicBool) {
        loop {
            if self.pending.is_none() {
                let name = NAMES[self.random.index(NAMES.len())];
                self.pending = Some((name, !self.here[name]));
            }
            if let Err(status) = self.settle() {
                return wait_for_death(&status, over);
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn settle(&mut self) -> Answer {
        let Some((name, shall)) = self.pending else {
            return Ok(());
        };
        let answer = if shall {
            self.cri.pull(&configs::image(name)).map(drop)
        } else {
            let image = Some(cri::ImageSpec {
                image: configs::image(name),
                ..Default::default()
            });
            self.cri
                .remove_image(cri::RemoveImageRequest { image })
                .map(drop)
        };
        match answer {
            Err(status) if !is_lost(&status) => panic!("{name}, {shall}: {status:?}"),
            other => other?,
        }
        self.here.insert(name, shall);
        self.pending = None;
        Ok(())
    }

    /// Every image that was answered for is here, and no removed one is.
    pub(crate) fn compare(&mut self) {
        let names = self.cri.image_names();
        for (name, here) in &self.here {
            if self.pending.is_none_or(|(pending, _)| pending != *name) {
                let image = configs::image(name);
                assert_eq!(names.contains(&image), *here, "{image} is here");
            }
        }
    }

    pub(crate) fn remove_all(&mut self) {
        for (name, here) in self.here.clone() {
            if here {
                self.cri.forget(name);
            }
        }
    }
}
