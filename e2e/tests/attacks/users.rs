//! Spellings of users (CVE-2024-40635, CVE-2026-46680, and crun's CVE-2026-30892): the status of an
//! image, by which a kubelet judges `runAsNonRoot`, and the container say the same, or neither does.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;
use crisp_e2e::image::busybox;
use crisp_e2e::image::layer::{Layer, Packing};
use serde_json::json;

use crate::field::{Field, Row, of_image};

pub const ROWS: &[Row] = &[
    ("USER of an image is spelled oddly", of_images),
    ("a user that is asked for is spelled oddly", of_requests),
];

/// Spellings, all of which the image's passwd has as names of root.
const SPELLINGS: [&str; 18] = [
    "+5",
    "+0",
    "-0",
    "-1",
    "00",
    "007",
    "0x5",
    "5 ",
    " 5",
    "5\t",
    "1e3",
    "5.",
    "٥",
    "1_000",
    "4294967296",
    "4294967301",
    "18446744073709551621",
    "2147483648",
];

fn passwd() -> Layer {
    let lines = SPELLINGS.map(|name| format!("{name}:x:0:0::/:/bin/sh\n"));
    Layer::new().file("etc/passwd", lines.concat(), 0o644)
}

fn of_images(field: &mut Field<'_>) {
    let pod = field.pod("spelled");
    for (number, user) in SPELLINGS.iter().enumerate() {
        let name = format!("spelled-{number}");
        let image = busybox::image().with(passwd(), Packing::Gzip);
        let image = image.config(json!({"User": user}));
        field.fetch_image(&name, &image).unwrap();
        let request = cri::ImageStatusRequest {
            image: of_image(&name).image,
            verbose: false,
        };
        let told = field.cri.image_status(request).unwrap().image.unwrap();
        let Ok(container) = field.try_run(&pod, &of_image(&name)) else {
            continue;
        };
        let runs: i64 = field.cri.shell(&container, "id -u").trim().parse().unwrap();
        // A name is refused by a kubelet that has to know; a number has to be true.
        match told.uid {
            Some(uid) => assert_eq!(uid.value, runs, "{user:?}"),
            None => assert!(
                !told.username.is_empty(),
                "{user:?} runs as {runs}, told as root"
            ),
        }
        field.cri.stop(&container, 0);
    }
}

fn of_requests(field: &mut Field<'_>) {
    let image = busybox::image().with(passwd(), Packing::Gzip);
    field.fetch_image("asked", &image).unwrap();
    let pod = field.pod("asked");
    for (number, user) in (0..).zip(SPELLINGS) {
        let mut config = of_image("asked");
        config.metadata.as_mut().unwrap().attempt = number;
        user.clone_into(&mut configs::security(&mut config).run_as_username);
        let Ok(container) = field.try_run(&pod, &config) else {
            continue;
        };
        let runs: u64 = field.cri.shell(&container, "id -u").trim().parse().unwrap();
        let digits = user.bytes().all(|byte| byte.is_ascii_digit());
        // Digits are an id, exactly; anything else is a name, and the image has it as root's.
        let wanted = if digits { user.parse().unwrap() } else { 0 };
        assert_eq!(runs, wanted, "{user:?}");
        field.cri.stop(&container, 0);
    }
}
