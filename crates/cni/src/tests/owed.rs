//! DELs that fail: nobody waits for them, and they are tried again until they succeed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::lab::{Lab, open};
use super::plugin_programs::{RESULT, list, log, open_ready, put, script, verbs};
use crate::{Network, PodNetwork};

/// Waits until no DEL is owed any more.
pub(super) async fn until_paid(network: &Network) {
    for _ in 0..500 {
        if network.owed().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still owed: {:?}", network.owed());
}

/// A lab whose one plugin attaches every pod, and detaches them once there is a file `calm`.
fn moody_lab() -> (Lab, PodNetwork) {
    let lab = Lab::new();
    let calm = lab.path().join("calm");
    let body = format!(
        "{RESULT}\n[ $CNI_COMMAND != DEL ] || [ -e {} ]",
        calm.display()
    );
    script(&lab, "moody", &body);
    list(&lab, "1.0.0", r#"{"type": "moody"}"#);
    let pod = lab.pod("a");
    (lab, pod)
}

fn dels(lab: &Lab) -> usize {
    let log = log(lab);
    verbs(&log)
        .into_iter()
        .filter(|verb| *verb == "DEL")
        .count()
}

#[test]
fn privileged_a_del_that_fails_is_paid_in_the_background() {
    let (lab, pod) = moody_lab();
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        network.attach(&pod).await.unwrap();
        let owed = network.detach(&pod).await.unwrap_err();
        assert_eq!(owed.pod, pod.pod_id);
        assert!(
            owed.why.contains("moody") && owed.why.contains("DEL"),
            "{owed}"
        );
        network
            .detach(&pod)
            .await
            .expect_err("it is owed as before");
        assert_eq!(dels(&lab), 1, "and not tried by whoever asks");
        assert_eq!(network.owed().len(), 1);
        lab.unpin("a");
        put(&lab, "calm", "");
        until_paid(&network).await;
        assert_eq!(lab.recorded(&pod.pod_id), None);
        network.detach(&pod).await.expect("nothing is left");
    });
    let log = log(&lab);
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("moody DEL ns= ") && last.contains("10.1.0.5"),
        "with the result: {last}"
    );
}

#[test]
fn privileged_a_later_daemon_pays_what_an_earlier_one_owed() {
    let (lab, pod) = moody_lab();
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        network.attach(&pod).await.unwrap();
        network.detach(&pod).await.unwrap_err();
        drop(network);
        // The plugin and the configuration are gone, and the record says what there was.
        std::fs::remove_file(lab.path().join("bin/moody")).unwrap();
        std::fs::remove_dir_all(lab.path().join("net.d")).unwrap();
        let network = open(lab.conf());
        network.take_over(&BTreeSet::new()).await.unwrap();
        network.collect(&BTreeSet::new()).await.unwrap_err();
        let owed = network.owed();
        assert!(
            owed.len() == 1 && owed[0].why.contains("failed to find plugin"),
            "{owed:?}"
        );
        script(&lab, "moody", "");
        until_paid(&network).await;
        assert_eq!(lab.recorded(&pod.pod_id), None);
    });
}

#[test]
fn privileged_a_lost_record_is_owed_like_any_other() {
    let (lab, pod) = moody_lab();
    let record = lab
        .path()
        .join(format!("cache/results/{}.json", pod.pod_id));
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        network.attach(&pod).await.unwrap();
        drop(network);
        std::fs::remove_file(&record).unwrap();
        let network = open_ready(&lab).await;
        let live = BTreeSet::from([pod.pod_id.clone()]);
        network.take_over(&live).await.unwrap();
        network.detach(&pod).await.unwrap_err();
        drop(network);
        // The engine has no record of the pod any more.
        let network = open_ready(&lab).await;
        network.collect(&BTreeSet::new()).await.unwrap_err();
        put(&lab, "calm", "");
        until_paid(&network).await;
        assert!(!record.exists());
        // Nothing but its id is known of another.
        let other = lab.pod("b");
        network.detach_unknown(&other.pod_id).await.unwrap();
    });
    let log = log(&lab);
    let named = log
        .lines()
        .filter(|line| line.contains("DEL") && line.contains("K8S_POD_NAME=a;"));
    assert_eq!(named.count() + 1, dels(&lab), "{log}");
}

#[test]
fn privileged_failed_attachments_share_the_line_of_their_plugin() {
    let (lab, _) = moody_lab();
    script(
        &lab,
        "moody",
        &format!(
            "[ $CNI_COMMAND = DEL ] && [ -e {}/calm ]",
            lab.path().display()
        ),
    );
    let pods: Vec<PodNetwork> = (0..8)
        .map(|number| lab.pod(&format!("p{number}")))
        .collect();
    lab.on_node(|| async {
        let network = open_ready(&lab).await;
        for pod in &pods {
            network.attach(pod).await.unwrap_err();
            network.detach(pod).await.unwrap_err();
        }
        assert_eq!(network.owed().len(), pods.len());
        // Each was tried once, and since then one of them now and then.
        assert!(dels(&lab) < pods.len() + 4, "{}", log(&lab));
        put(&lab, "calm", "");
        until_paid(&network).await;
        // A pod that is attached anew is not detached for its earlier failure.
        script(&lab, "moody", RESULT);
        network.attach(&pods[0]).await.unwrap();
        assert!(lab.recorded(&pods[0].pod_id).is_some());
    });
}
