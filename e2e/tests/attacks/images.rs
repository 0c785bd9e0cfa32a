//! Layers whose entries lead out of them (CVE-2021-32760, CVE-2021-41103, CVE-2025-47290), and
//! layers that are larger than they look (CVE-2023-25153).

use crisp_e2e::image::layer::Layer;
use tar::EntryType;

use crate::field::{Field, Row, of_image};

pub const ROWS: &[Row] = &[
    ("entries of layers lead out", leads_out),
    ("a small blob is a large layer", bomb),
];

fn leads_out(field: &mut Field<'_>) {
    let bait = field.bait();
    let up = format!("../../../../../../../../../../../..{bait}");
    let link = |target: &str| Layer::new().symlink("out", target);
    let file = |layer: Layer, path: &str| layer.entry(EntryType::Regular, path, "");
    let hard = |layer: Layer, target: &str| layer.entry(EntryType::Link, "h", target);
    let cases = [
        ("up", file(Layer::new(), &format!("{up}/new"))),
        ("absolute", file(Layer::new(), &format!("{bait}/new"))),
        ("through", file(link(&bait), "out/new")),
        ("through-up", file(link(&up), "out/new")),
        ("over", file(link(&format!("{bait}/file")), "out")),
        ("mode", link(&bait).entry(EntryType::Directory, "out", "")),
        ("hard", hard(Layer::new(), &format!("{bait}/file"))),
        ("hard-up", hard(Layer::new(), &format!("{up}/file"))),
        ("hard-through", hard(link(&bait), "out/file")),
        ("white", file(link(&bait), "out/.wh.file")),
        ("white-up", file(Layer::new(), &format!("{up}/.wh.file"))),
        ("white-dots", file(Layer::new(), "d/.wh...")),
        ("opaque", file(link(&bait), "out/.wh..wh..opq")),
        (
            "device",
            Layer::new().entry(EntryType::Char, "dev/null", ""),
        ),
    ];
    let pod = field.pod("leads-out");
    for (name, layer) in cases {
        let name = format!("leads-{name}");
        // Refused, or held within the layer: both will do.
        if field.fetch(&name, layer).is_err() {
            field.watched.check(&name);
            continue;
        }
        if let Ok(container) = field.try_run(&pod, &of_image(&name)) {
            let line =
                "echo evil >/h; echo evil >/out/file; chmod 777 /out /h; rm -rf /out /h; true";
            field.cri.execute(&container, &["sh", "-c", line]).ok();
            field.cri.stop(&container, 0);
        }
        field.watched.check(&name);
    }
}

fn bomb(field: &mut Field<'_>) {
    let before = field.node.peak_memory();
    let zeros = Layer::new().file("zeros", vec![0; 64 << 20], 0o644);
    field.fetch("bomb", zeros).ok();
    let grown = field.node.peak_memory().saturating_sub(before);
    assert!(grown < 32 << 10, "the daemon grew by {grown} KiB");
}
