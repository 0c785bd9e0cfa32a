//! Debian's `docker-registry` as a child process, for the tests of this crate and of those above.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

/// The process, killed with the test.
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

/// Starts one on a free port of loopback, with its data below `dir`. `rest` is the end of its
/// configuration, inside the table `http` behind the address.
pub(crate) async fn serve(dir: &Path, rest: &str) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let data = dir.join("data");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
         http: {{addr: {address}{rest}",
        data.display()
    );
    let config = dir.join("registry.yml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("docker-registry");
    let command = command.arg("serve").arg(&config);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap();
    let served = Served { child, address };
    for _ in 0..500 {
        if TcpStream::connect(&served.address).await.is_ok() {
            return served;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("docker-registry does not listen");
}
