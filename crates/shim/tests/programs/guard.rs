//! Guards of a shim against the container that it owns.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crisp_model::ExitStatus;
use crisp_shim_api::{Reply, Request};
use crisp_sys::rootfs::proc_path;
use serde_json::json;

use crate::lab::{Lab, copy_libraries, in_rootfs, until};

/// Tries to open the program of the shim and of its workers for writing, again and again.
const ATTACK: &str = "
until read shim < /tmp/shim; do :; done 2> /dev/null
while :; do
    for pid in $shim $(cat /proc/$shim/task/$shim/children); do
        (: >> /proc/$pid/exe && echo $pid >> /tmp/opened) 2> /dev/null
    done
    : > /tmp/tried
done";

/// CVE-2019-5736: whoever can write to the shim's file is root of the host with the next container.
#[test]
fn privileged_the_shims_file_is_out_of_reach_for_the_container() {
    let mut lab = Lab::new(ATTACK).in_host_pid_namespace();
    for set in ["bounding", "effective", "permitted"] {
        lab.spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]);
    }
    // A copy, which nobody else runs: what runs cannot be written to anyway.
    let program = lab.dir.path().join("crisp-shim");
    fs::copy(&lab.program, &program).unwrap();
    copy_libraries(&lab.dir.path().join("rootfs"), program.to_str().unwrap());
    lab.program.clone_from(&program);
    let before = fs::read(&program).unwrap();
    let image = in_rootfs(&lab, "image");
    fs::write(&image, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755)).unwrap();
    lab.start();
    let shim = lab.shim.as_ref().unwrap().id();
    fs::write(in_rootfs(&lab, "tmp/shim"), format!("{shim}\n")).unwrap();
    until("the attack", || in_rootfs(&lab, "tmp/tried").exists());
    let held = File::open(format!("/proc/{shim}/exe")).unwrap();
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(shim, &program, &over));
        // The watch ends with this block, however it ends.
        let end = End(&over);
        for number in 0..20 {
            let id = format!("image-{number}");
            crate::exec::run(&mut lab, &id, &["/image", "x"]);
            // It is the shim's own program, in the container, and finds no socket.
            assert_eq!(crate::exec::ended(&mut lab, &id), ExitStatus::Code(1));
        }
        drop(end);
        watch.join().unwrap()
    });
    assert!(seen.len() > 2, "no worker was seen: {seen:?}");
    lab.ask(Request::KillAll);
    lab.exited();
    assert!(!in_rootfs(&lab, "tmp/opened").exists());
    assert_eq!(lab.ask(Request::Shutdown), Reply::Done);
    lab.is_gone();
    // Now that it does not run any more, only the mount is in the way.
    let again = File::options()
        .append(true)
        .open(proc_path(&held))
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(fs::read(&program).unwrap() == before);
}

/// Sets the flag when it goes.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at every process of the shim that runs its program; returns them.
fn watch(shim: u32, program: &Path, over: &AtomicBool) -> BTreeSet<String> {
    let file = |file: fs::Metadata| (file.dev(), file.ino());
    let ours = file(fs::metadata(program).unwrap());
    let mut seen = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        let children = format!("/proc/{shim}/task/{shim}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        for pid in children
            .split_whitespace()
            .chain([shim.to_string().as_str()])
        {
            let Ok(held) = File::open(format!("/proc/{pid}/exe")) else {
                continue;
            };
            if file(held.metadata().unwrap()) == ours {
                let access = rustix::fs::access(proc_path(&held), rustix::fs::Access::WRITE_OK);
                assert_eq!(access, Err(rustix::io::Errno::ROFS), "{pid}");
                seen.insert(pid.to_owned());
            }
        }
    }
    seen
}

/// Others find a shim among the processes by its argument, and by its name.
#[test]
fn privileged_a_shim_is_found_by_its_arguments() {
    let mut lab = Lab::new("sleep 1000");
    lab.start();
    let proc = format!("/proc/{}", lab.shim.as_ref().unwrap().id());
    let arguments = fs::read_to_string(format!("{proc}/cmdline")).unwrap();
    let id = lab.launch.container_id.as_str();
    assert!(
        arguments.ends_with(&format!("crisp-shim\0{id}\0")),
        "{arguments:?}"
    );
    assert_eq!(
        fs::read_to_string(format!("{proc}/comm")).unwrap(),
        "crisp-shim\n"
    );
    lab.ask(Request::KillAll);
    lab.exited();
    lab.shut_down();
}
