//! Tests of cgroups for which directories and files stand: what no machine here has.

use std::fs;
use std::io;
use std::sync::Arc;

use super::{Cgroup, Layout, Unified};

/// Directories and files in place of a version 2 tree in which no controller can be enabled.
#[test]
fn a_refused_controller_is_missed_by_its_limit_alone() {
    let root = std::env::temp_dir().join(format!("crisp-cgroup-{}", std::process::id()));
    fs::create_dir_all(root.join("cgroup.subtree_control")).unwrap();
    crate::file::write_atomic(&root.join("cgroup.controllers"), b"cpu pids", 0o600).unwrap();
    let controllers = vec!["cpu".to_owned(), "pids".to_owned()];
    let layout = Layout::V2(Unified {
        root: root.clone(),
        controllers,
    });
    let cgroup = Cgroup::new(Arc::new(layout), "pod");
    cgroup.create().unwrap();
    let dir = root.join("pod");
    crate::file::write_atomic(&dir.join("cgroup.controllers"), b"cpu", 0o600).unwrap();
    crate::file::write_atomic(&dir.join("cpu.weight"), b"100", 0o600).unwrap();
    cgroup.write("cpu", "cpu.weight", "200").unwrap();
    let error = cgroup.write("cpu", "cpu.new", "1").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = cgroup.write("pids", "pids.max", "1").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("the pids controller is not enabled"),
        "{text}"
    );
    fs::remove_dir_all(&root).unwrap();
}

/// Directories and files in place of the version 2 tree of a machine with both versions.
#[test]
fn a_rare_controller_is_enabled_by_its_limit() {
    let root = std::env::temp_dir().join(format!("crisp-late-{}", std::process::id()));
    let layout = Layout::Hybrid {
        controllers: [("cpu".to_owned(), root.join("cpu"))].into(),
        unified: Some(Unified {
            root: root.join("unified"),
            controllers: vec!["hugetlb".to_owned()],
        }),
    };
    let cgroup = Cgroup::new(Arc::new(layout), "pod/one");
    let control = |dir: &str| {
        root.join("unified")
            .join(dir)
            .join("cgroup.subtree_control")
    };
    for dir in ["", "pod"] {
        let dir = root.join("unified").join(dir);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [("controllers", "hugetlb"), ("subtree_control", "")] {
            let file = dir.join(format!("cgroup.{file}"));
            crate::file::write_atomic(&file, text.as_bytes(), 0o600).unwrap();
        }
    }
    fs::create_dir_all(root.join("cpu")).unwrap();
    assert!(cgroup.create().unwrap());
    assert_eq!(fs::read_to_string(control("")).unwrap(), "");
    // No kernel makes the file here.
    let error = cgroup.write("hugetlb", "hugetlb.2MB.max", "0").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    for dir in ["", "pod"] {
        assert_eq!(fs::read_to_string(control(dir)).unwrap(), "+hugetlb");
    }
    assert!(!control("pod/one").exists());
    let error = cgroup.write("rdma", "rdma.max", "0").unwrap_err();
    assert!(
        error.to_string().contains("no rdma cgroup controller"),
        "{error}"
    );
    fs::remove_dir_all(&root).unwrap();
}
