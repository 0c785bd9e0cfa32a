//! The commands of `docs/migrate.md`, as its readers type them: what the page says is what is tested.

use crisp_e2e::moving::Runtime;

const PAGE: &str = include_str!("../../../docs/migrate.md");
/// The first command after the one step that the page tells in words: the kubelet gets its other endpoint.
pub const WITH_OTHER_ENDPOINT: &str = "systemctl start kubelet";

/// The commands that give a node another runtime, in their order.
pub fn commands(to: Runtime, node: &str) -> Vec<String> {
    let lines = chapter(match to {
        Runtime::Crisp => "There",
        Runtime::Containerd => "Back",
    });
    let is_there = lines.iter().any(|line| line == WITH_OTHER_ENDPOINT);
    assert!(is_there, "{lines:?}");
    lines
        .iter()
        .map(|line| line.replace("NODE", node))
        .collect()
}

/// The lines of a chapter that are typed: those of blocks that are in no language of files.
fn chapter(name: &str) -> Vec<String> {
    let heading = format!("## {name}");
    let lines = PAGE.lines().skip_while(|line| *line != heading).skip(1);
    let mut block = None;
    let mut commands = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("")) => commands.push(line.to_owned()),
            (None, _) => {}
        }
    }
    commands
}
