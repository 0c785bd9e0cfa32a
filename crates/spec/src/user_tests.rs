//! Users as images and callers name them.

use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/sbin/nologin
daemon:x:2:2:daemon:/sbin:/sbin/nologin
alice:x:1000:1000::/home/alice:/bin/sh
twin:x:1000:2000::/home/twin:/bin/sh
1234:x:7:7::/seven:/bin/sh
evil:x:8:8::/x\x0b0::0:/:/bin/sh
";
const GROUP: &[u8] = b"root:x:0:root
bin:x:1:root,bin,daemon
daemon:x:2:root,bin,daemon
sys:x:3:root,bin,adm
alice:x:1000:
image:x:50000:alice
";

fn resolve(image_user: &str, spec: &UserSpec) -> Result<ResolvedUser> {
    resolve_user(image_user, spec, Some(PASSWD), Some(GROUP))
}

#[test]
fn image_users_resolve_as_docker_does() {
    let table: [(&str, (u32, u32), &[u32]); 13] = [
        ("", (0, 0), &[0, 1, 2, 3]),
        ("root", (0, 0), &[0, 1, 2, 3]),
        ("0", (0, 0), &[0, 1, 2, 3]),
        ("bin", (1, 1), &[1, 2, 3]),
        ("bin:root", (1, 0), &[0]),
        ("bin:", (1, 1), &[1, 2, 3]),
        ("daemon", (2, 2), &[2, 1]),
        ("1000", (1000, 1000), &[1000, 50000]),
        ("1000:3000", (1000, 3000), &[3000]),
        ("007", (7, 7), &[7]),
        ("1234", (1234, 0), &[0]),
        ("4242:sys", (4242, 3), &[3]),
        (":3000", (0, 3000), &[3000]),
    ];
    for (user, ids, gids) in table {
        let resolved = resolve(user, &UserSpec::default()).unwrap();
        assert_eq!((resolved.uid, resolved.gid), ids, "{user:?}");
        assert_eq!(resolved.additional_gids, gids, "{user:?}");
    }
    let alice = resolve("alice", &UserSpec::default()).unwrap();
    assert_eq!(alice.home.as_deref(), Some("/home/alice"));
    let evil = resolve("evil", &UserSpec::default()).unwrap();
    assert_eq!(evil.home, None, "a control character in it");
}

#[test]
fn no_text_becomes_root_by_accident() {
    for user in [
        "2147483648",
        "4294967295",
        "4294967296",
        "99999999999:1",
        "99999999999999999999999999",
        "-1",
        "-0",
        "1x",
        "0x0",
        "+0",
        " 0",
        "root ",
        "nobody",
        "1:nogroup",
        "1:4294967296",
        "1:-1",
    ] {
        let refused = resolve(user, &UserSpec::default());
        assert!(refused.is_err(), "{user:?}: {refused:?}");
    }
}

#[test]
fn the_request_wins_over_the_image() {
    let spec = |uid, gid, policy| UserSpec {
        uid: Some(uid),
        gid,
        supplemental_groups: vec![4000, 4000],
        policy,
        ..UserSpec::default()
    };
    let (merge, strict) = (GroupsPolicy::Merge, GroupsPolicy::Strict);
    let table: [(UserSpec, (u32, u32), &[u32]); 5] = [
        (
            spec(1000, Some(3000), merge),
            (1000, 3000),
            &[3000, 50000, 4000],
        ),
        (spec(1000, Some(3000), strict), (1000, 3000), &[3000, 4000]),
        (spec(1000, None, merge), (1000, 1000), &[1000, 50000, 4000]),
        (spec(1000, None, strict), (1000, 1000), &[1000, 4000]),
        (spec(5555, None, merge), (5555, 0), &[0, 4000]),
    ];
    for (spec, ids, gids) in table {
        let resolved = resolve("bin:sys", &spec).unwrap();
        assert_eq!((resolved.uid, resolved.gid), ids, "{spec:?}");
        assert_eq!(resolved.additional_gids, gids, "{spec:?}");
    }
    let named = UserSpec {
        name: "alice".to_owned(),
        gid: Some(7),
        ..UserSpec::default()
    };
    let resolved = resolve("", &named).unwrap();
    assert_eq!((resolved.uid, resolved.gid), (1000, 7));
    assert_eq!(resolved.additional_gids, [7, 50000]);
}

#[test]
fn requests_out_of_range_name_their_field() {
    let uid = |uid| UserSpec {
        uid: Some(uid),
        ..UserSpec::default()
    };
    let group = UserSpec {
        gid: Some(5),
        ..UserSpec::default()
    };
    let groups = UserSpec {
        supplemental_groups: vec![-1],
        ..UserSpec::default()
    };
    let name = UserSpec {
        name: "nobody".to_owned(),
        ..UserSpec::default()
    };
    let table = [
        (uid(-1), Field::UserId),
        (uid(1 << 31), Field::UserId),
        (uid(1 << 32), Field::UserId),
        (group, Field::GroupId),
        (groups, Field::Groups),
        (name, Field::UserName),
    ];
    for (spec, expected) in table {
        let Err(Error::Invalid { field, .. }) = resolve("", &spec) else {
            panic!("{spec:?} is taken");
        };
        assert_eq!(field, expected);
    }
}

#[test]
fn images_without_databases_have_numbers_alone() {
    let none = |user: &str| resolve_user(user, &UserSpec::default(), None, None);
    assert_eq!(none("").unwrap().additional_gids, [0]);
    assert_eq!(none("5:6").unwrap().gid, 6);
    assert!(none("root").is_err());
}

#[test]
fn endless_group_files_are_refused() {
    let many: String = (0..70_000)
        .map(|gid| format!("g{gid}:x:{gid}:root\n"))
        .collect();
    let refused = resolve_user(
        "",
        &UserSpec::default(),
        Some(PASSWD),
        Some(many.as_bytes()),
    );
    assert!(refused.is_err());
}
