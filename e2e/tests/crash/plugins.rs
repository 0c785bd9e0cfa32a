//! A network of plugins: Debian's bridge behind a script that is slow enough to be killed, and that
//! marks what it owes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crisp_e2e::{Network, Node, Options};
use serde_json::{Value, json};

const SCRIPT: &str = "#!/bin/sh
conf=$(cat)
mark=MARKS/$CNI_CONTAINERID
[ $CNI_COMMAND = ADD ] && : >$mark
sleep 0.02
printf %s \"$conf\" | /usr/lib/cni/bridge || exit
[ $CNI_COMMAND = DEL ] && rm -f $mark
exit 0
";

pub(crate) fn options() -> Options {
    Options {
        network: Network::Cni,
        plugins: Some(chain),
        config: "timeout_seconds = 20\n".to_owned(),
        ..Default::default()
    }
}

fn chain(node: &Path) -> Value {
    let (marks, program) = (node.join("owed"), node.join("bin/slow"));
    fs::create_dir(&marks).unwrap();
    let script = SCRIPT.replace("MARKS", marks.to_str().unwrap());
    fs::write(&program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    json!([
        {
            "type": "slow", "bridge": "br-crash", "isGateway": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.join("addresses"),
                "ranges": [[{"subnet": "10.98.0.0/24"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ])
}

/// Attachments that were added and not deleted, and addresses that are taken: a text for each.
pub(crate) fn owed(node: &Node) -> Vec<String> {
    let names = |dir: &str| {
        let entries = fs::read_dir(node.path(dir)).unwrap().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.collect::<Vec<_>>()
    };
    let marks = names("owed").into_iter();
    let attached = marks.map(|pod| format!("attachment of {pod}"));
    let mut taken = names("addresses/test");
    taken.retain(|name| name.starts_with("10."));
    let taken = taken.iter().map(|address| {
        let owner = fs::read_to_string(node.path("addresses/test").join(address));
        format!("{address} of {:?}", owner.unwrap_or_default())
    });
    attached.chain(taken).collect()
}
