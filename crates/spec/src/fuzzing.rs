//! Laws for any bytes that an image may have in its databases of users: the fuzzer
//! tries bytes of its own, the tests those of `fuzz/corpus`.

use crisp_model::UserSpec;

use crate::user::{ResolvedUser, resolve_user};

/// `USER`, passwd and group of an image, with a zero byte between each.
pub fn users(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let user = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (passwd, group) = (parts.next(), parts.next());
    if let Ok(found) = resolve_user(&user, &UserSpec::default(), passwd, group) {
        check(&found);
        let written = user.split(':').next().unwrap_or_default();
        if !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit()) {
            assert_eq!(
                written.parse(),
                Ok(found.uid),
                "digits are an id and no name"
            );
        }
    }
    let by_name = UserSpec {
        name: user.clone().into_owned(),
        supplemental_groups: vec![7, 7],
        ..UserSpec::default()
    };
    if let Ok(found) = resolve_user("4711", &by_name, passwd, group) {
        check(&found);
        assert!(
            found.additional_gids.contains(&7),
            "a group that was asked for"
        );
    }
}

fn check(found: &ResolvedUser) {
    let is_id = |id: u32| i32::try_from(id).is_ok();
    assert!(is_id(found.uid) && is_id(found.gid), "{found:?}");
    assert_eq!(found.additional_gids.first(), Some(&found.gid));
    let mut once = found.additional_gids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), found.additional_gids.len(), "a group twice");
    let line = |text: &str| text.starts_with('/') && !text.contains('\n');
    assert!(found.home.as_deref().is_none_or(line), "{:?}", found.home);
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("users", users)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
