//! The users of this machine, as its own file has them.
//!
//! Users that another service knows (LDAP) are not asked for: that would take a network, which this
//! process does without. They can be given by number.

use std::fs;

/// Returns the number of a local user, who is given by name or number.
pub(crate) fn id(user: &str) -> Option<u32> {
    if let Ok(uid) = user.parse() {
        return Some(uid);
    }
    let passwd = passwd();
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == user).then(|| fields.nth(1)?.parse().ok())?)
}

/// Returns the name of a local user that is most like `name`, if one is.
pub(crate) fn like(name: &str) -> Option<String> {
    let passwd = passwd();
    let names = passwd.lines().filter_map(|line| line.split(':').next());
    settings::nearest(name, names).map(str::to_owned)
}

fn passwd() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(id("root"), Some(0));
        assert_eq!(id("4711"), Some(4711));
        assert_eq!(id("no-such-user"), None);
        assert_eq!(like("nobdoy").as_deref(), Some("nobody"));
        assert_eq!(like("no-such-user-here"), None);
    }
}
