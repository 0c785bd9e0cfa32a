//! Debian's `docker-registry` as a child process, for tests of all crates: those below `e2e` and
//! `crates/image` include this file.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The process, killed with the test.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Starts one that listens on `address`, with port 0 on a free port, with its data and its log
/// below `dir`. `rest` is the end of its configuration, inside the table `http` behind the address.
pub(crate) fn serve(dir: &Path, address: &str, rest: &str) -> Served {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let data = dir.join("registry");
    let text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: {address}{rest}",
        data.display()
    );
    let config = dir.join("registry.yml");
    fs::write(&config, text).unwrap();
    let log = File::create(dir.join("registry.log")).unwrap();
    let mut command = Command::new("docker-registry");
    let command = command.arg("serve").arg(&config).stdin(Stdio::null());
    let child = command.stdout(Stdio::null()).stderr(log).spawn();
    let child = child.expect("docker-registry, which hack/tools installs");
    let served = Served { child, address };
    for _ in 0..1000 {
        if TcpStream::connect(&served.address).is_ok() {
            return served;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("docker-registry does not listen: {}", config.display());
}
