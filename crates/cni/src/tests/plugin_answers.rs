//! Plugins that answer with something else than a good result, or cannot answer at all.

use super::lab::{Lab, open};
use super::plugin_programs::{RESULT, list, log, script, wait_ready};
use crate::{Error, PodNetwork};

/// The verbs that the plugins of a lab were called with.
fn verbs(lab: &Lab) -> Vec<String> {
    let log = log(lab);
    let words = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    log.lines().map(words).collect()
}

/// Attaches a pod by the lab's list, and expects that it fails.
fn refused(lab: &Lab, pod: &PodNetwork) -> Error {
    lab.on_node(|| async {
        let network = open(lab.conf());
        wait_ready(&network).await;
        let error = network.attach(pod).await.unwrap_err();
        assert_eq!(lab.recorded(&pod.pod_id), None);
        network.detach(pod).await.unwrap();
        error
    })
}

fn records(lab: &Lab) -> usize {
    std::fs::read_dir(lab.path().join("cache/results"))
        .unwrap()
        .count()
}

#[test]
fn privileged_a_result_without_an_address_of_the_pod_is_refused_and_undone() {
    for (result, expected) in [
        (
            r#"{"cniVersion": "1.0.0", "interfaces": [{"name": "eni0", "mac": "02:00:00:00:00:01"}], "ips": [{"address": "10.9.0.7/32", "interface": 0}]}"#,
            "no address of the pod",
        ),
        (
            r#"{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}]}"#,
            "names no address",
        ),
        ("{}", "names no address"),
        (
            r#"{"cniVersion": "1.0.0", "code": 7, "msg": "no luck"}"#,
            "no luck",
        ),
    ] {
        let lab = Lab::new();
        let body = format!("if [ $CNI_COMMAND = ADD ]; then echo '{result}'; fi");
        script(&lab, "odd", &body);
        list(&lab, "1.0.0", r#"{"type": "odd"}"#);
        let text = refused(&lab, &lab.pod("a")).to_string();
        for word in [expected, "\"net\"", "default/a"] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert_eq!(verbs(&lab), ["odd ADD", "odd DEL"], "{result}");
        assert_eq!(records(&lab), 0);
    }
}

#[test]
fn privileged_what_a_failing_plugin_says_is_told_in_bounds() {
    for (body, code, expected) in [
        (
            "echo 'no ip left'; exit 1",
            0,
            "exit status 1; it wrote: no ip left",
        ),
        (
            r#"echo '{"cniVersion": "1.0.0", "msg": "no addresses left"}'; exit 1"#,
            0,
            "no addresses left",
        ),
        (r#"echo '{"code": "7", "msg": "bad"}'; exit 1"#, 7, "bad"),
        (
            r#"echo '{"ips": []}{"code": 3, "msg": "late"}'; exit 1"#,
            3,
            "late",
        ),
        (
            "echo start >&2; head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1",
            0,
            "start",
        ),
        (
            "echo start; head -c 3000000 /dev/zero | tr '\\0' '%'; echo end; exit 1",
            0,
            "start",
        ),
    ] {
        let lab = Lab::new();
        script(
            &lab,
            "sad",
            &format!("[ $CNI_COMMAND = ADD ] || exit 0\n{body}"),
        );
        list(&lab, "1.0.0", r#"{"type": "sad"}"#);
        let error = refused(&lab, &lab.pod("a"));
        assert!(
            matches!(error, Error::Plugin { code: c, .. } if c == code),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.len() < 1500,
            "{expected}: {text}"
        );
    }
}

#[test]
fn privileged_plugins_that_never_ran_need_no_del() {
    let lab = Lab::new();
    script(&lab, "good", RESULT);
    // A program for another machine, as far as the kernel is concerned.
    super::plugin_programs::put(&lab, "bin/foreign", "\x7fELF");
    let foreign = lab.path().join("bin/foreign");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(foreign, executable).unwrap();
    for (plugins, called) in [
        (r#"{"type": "foreign"}"#, &[][..]),
        (r#"{"type": "foreign"}, {"type": "good"}"#, &[]),
        (
            r#"{"type": "good"}, {"type": "foreign"}"#,
            &["good ADD", "good DEL"],
        ),
    ] {
        list(&lab, "1.0.0", plugins);
        let error = refused(&lab, &lab.pod("a"));
        assert!(matches!(error, Error::NotStarted { .. }), "{error:?}");
        assert_eq!(
            (verbs(&lab), records(&lab)),
            (called.iter().map(ToString::to_string).collect(), 0)
        );
        lab.unpin("a");
    }
}

#[test]
fn privileged_annotations_that_no_plugin_asks_for_are_ignored() {
    let lab = Lab::new();
    script(&lab, "good", RESULT);
    let mut pod = lab.pod("a");
    let odd = [
        (
            "v1.multus-cni.io/default-network",
            r#"[{"name": "default/x", "ips": "10.0.0.1/24"}]"#,
        ),
        ("kubernetes.io/ingress-bandwidth", "unlimited"),
    ];
    for (name, text) in odd {
        pod.annotations.insert(name.into(), text.into());
    }
    for (capability, is_asked) in [("portMappings", false), ("mac", true), ("bandwidth", true)] {
        let plugin = format!(r#"{{"type": "good", "capabilities": {{"{capability}": true}}}}"#);
        list(&lab, "1.0.0", &plugin);
        lab.on_node(|| async {
            let network = open(lab.conf());
            wait_ready(&network).await;
            let attached = network.attach(&pod).await;
            assert_eq!(attached.is_err(), is_asked, "{capability}: {attached:?}");
            network.detach(&pod).await.unwrap();
        });
    }
}

#[test]
fn privileged_annotations_choose_builtin_addresses_only_where_that_is_allowed() {
    let lab = Lab::new();
    let chosen = r#"[{"name": "x", "ips": ["10.88.0.77/16"], "mac": "02:00:00:00:00:77"}]"#;
    let mut pod = lab.pod("a");
    pod.annotations
        .insert("v1.multus-cni.io/default-network".into(), chosen.into());
    for allow_annotations in [false, true] {
        let mode = crate::Mode::Builtin(crate::Builtin {
            allow_annotations,
            ..crate::Builtin::default()
        });
        lab.on_node(|| async {
            let network = open(lab.config(mode));
            let attachment = network.attach(&pod).await.unwrap();
            let address = attachment.ips[0].to_string() == "10.88.0.77";
            let mac = attachment.interfaces[2].mac == "02:00:00:00:00:77";
            assert_eq!((address, mac), (allow_annotations, allow_annotations));
            network.detach(&pod).await.unwrap();
        });
        lab.unpin("a");
        lab.pin("a");
    }
}
