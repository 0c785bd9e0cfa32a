//! The user of a container, from the request and the image's databases, as runc and Docker do it.

use crisp_model::security::id_of;
use crisp_model::{Field, GroupsPolicy, UserSpec};

use crate::group_file::{Account, MAX_GROUPS, accounts, groups};
use crate::{Error, Result};

/// The user, group and groups of a container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one first: a file that excludes a group must exclude
    /// those for whom it is the primary one too.
    pub additional_gids: Vec<u32>,
    /// Home directory of the image's passwd.
    pub home: Option<String>,
    /// Name in the image's passwd.
    pub name: Option<String>,
}

/// Finds the user: the request's if it names one, else the image's `USER`, else root.
///
/// A text of digits is always an id, never a name, and need not be in passwd. Groups that list the
/// user are added unless the policy is strict, or the image's `USER` names a group (`user:group`).
///
/// # Errors
/// When a name is in neither database, or an id is above 2147483647.
pub fn resolve_user(
    image_user: &str,
    spec: &UserSpec,
    passwd: Option<&[u8]>,
    group: Option<&[u8]>,
) -> Result<ResolvedUser> {
    let wanted = Wanted::of(image_user, spec)?;
    let (passwd, group) = (passwd.unwrap_or_default(), group.unwrap_or_default());
    let account = wanted.account(passwd);
    let uid = match (&account, wanted.user) {
        (Some(account), _) => account.uid,
        (None, Who::Id(uid)) => uid,
        (None, Who::Name(name)) => {
            let why = format!("no user {name:?} in the image's /etc/passwd");
            return Err(Error::invalid(wanted.user_field, why));
        }
    };
    let own = account.as_ref().map_or(0, |account| account.gid);
    let gid = match wanted.group {
        None => own,
        Some(Who::Id(gid)) => gid,
        Some(Who::Name(name)) => group_id(name, group)?,
    };
    let listed = match &account {
        Some(account) if wanted.with_image_groups => listing(account.name, group)?,
        _ => Vec::new(),
    };
    let asked = spec
        .supplemental_groups
        .iter()
        .map(|gid| number(Field::Groups, *gid));
    let asked = asked.collect::<Result<Vec<u32>>>()?;
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids: once_each([vec![gid], listed, asked].concat())?,
        home: account
            .as_ref()
            .map(|a| a.home.to_owned())
            .filter(|home| is_path(home)),
        name: account.map(|account| account.name.to_owned()),
    })
}

/// An id or a name.
#[derive(Debug, Clone, Copy)]
enum Who<'a> {
    Id(u32),
    Name(&'a str),
}

/// The request and the image's word, merged.
#[derive(Debug)]
struct Wanted<'a> {
    user: Who<'a>,
    user_field: Field,
    group: Option<Who<'a>>,
    with_image_groups: bool,
}

impl<'a> Wanted<'a> {
    fn of(image_user: &'a str, spec: &'a UserSpec) -> Result<Self> {
        let group = spec.gid.map(|gid| number(Field::GroupId, gid).map(Who::Id));
        let group = group.transpose()?;
        let with_image_groups = spec.policy == GroupsPolicy::Merge;
        let by = |user, user_field| Self {
            user,
            user_field,
            group,
            with_image_groups,
        };
        if let Some(uid) = spec.uid {
            return Ok(by(Who::Id(number(Field::UserId, uid)?), Field::UserId));
        }
        if !spec.name.is_empty() {
            return Ok(by(who(Field::UserName, &spec.name)?, Field::UserName));
        }
        if group.is_some() {
            let why = "needs run_as_user or run_as_username";
            return Err(Error::invalid(Field::GroupId, why));
        }
        let (user, image_group) = match image_user.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (image_user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let image_group = image_group
            .map(|group| who(Field::ImageUser, group))
            .transpose()?;
        Ok(Self {
            user: who(Field::ImageUser, user)?,
            user_field: Field::ImageUser,
            with_image_groups: with_image_groups && image_group.is_none(),
            group: image_group,
        })
    }

    /// The first entry wins, as in getpwent(3).
    fn account<'p>(&self, passwd: &'p [u8]) -> Option<Account<'p>> {
        accounts(passwd).find(|account| match self.user {
            Who::Id(uid) => account.uid == uid,
            Who::Name(name) => account.name == name,
        })
    }
}

fn who<'a>(field: Field, text: &'a str) -> Result<Who<'a>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Who::Name(text));
    }
    let why = || format!("{text} is not an id: 0 to 2147483647 is expected");
    id_of(text)
        .map(Who::Id)
        .ok_or_else(|| Error::invalid(field, why()))
}

fn number(field: Field, value: i64) -> Result<u32> {
    let why = || format!("{value} is not an id: 0 to 2147483647 is expected");
    let known = i32::try_from(value)
        .ok()
        .and_then(|id| u32::try_from(id).ok());
    known.ok_or_else(|| Error::invalid(field, why()))
}

fn group_id(name: &str, group: &[u8]) -> Result<u32> {
    let found = groups(group).find(|group| group.name == name);
    let why = || format!("no group {name:?} in the image's /etc/group");
    found
        .map(|group| group.gid)
        .ok_or_else(|| Error::invalid(Field::ImageUser, why()))
}

/// The groups that list a user.
fn listing(user: &str, group: &[u8]) -> Result<Vec<u32>> {
    let gids = groups(group)
        .filter(|group| group.has(user))
        .map(|group| group.gid);
    let gids: Vec<u32> = gids.take(MAX_GROUPS + 1).collect();
    if gids.len() > MAX_GROUPS {
        let why = format!("{user:?} is in more than {MAX_GROUPS} groups of the image's /etc/group");
        return Err(Error::invalid(Field::ImageUser, why));
    }
    Ok(gids)
}

fn once_each(gids: Vec<u32>) -> Result<Vec<u32>> {
    let mut seen = std::collections::BTreeSet::new();
    let gids: Vec<u32> = gids.into_iter().filter(|gid| seen.insert(*gid)).collect();
    if gids.len() > MAX_GROUPS {
        let why = format!(
            "{} groups in all, the kernel takes {MAX_GROUPS}",
            gids.len()
        );
        return Err(Error::invalid(Field::Groups, why));
    }
    Ok(gids)
}

/// Home directories become an environment variable, which other programs may write into files.
fn is_path(home: &str) -> bool {
    home.starts_with('/') && !home.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
