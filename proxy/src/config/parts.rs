//! Single things that a config says, for commands that need no more of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use settings::Section;

use super::acme::{self, KeyType};
use crate::state_dir::StateDir;

/// Reads where the edge keeps what it makes itself; by default where systemd says, or else beside the
/// config file.
pub fn read_state_dir(root: &mut Section) -> StateDir {
    let written = root.path("state_dir");
    let given = || {
        let folders = std::env::var_os("STATE_DIRECTORY")?;
        // There may be several; ours is the first.
        let first = folders.as_bytes().split(|byte| *byte == b':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(first)))
    };
    StateDir::new(
        written
            .or_else(given)
            .unwrap_or_else(|| root.beside("state")),
    )
}

/// Reads the types of key that sites have a certificate of a CA for.
pub fn read_key_types(root: &mut Section) -> Vec<KeyType> {
    let acme = root.table("acme");
    acme.map_or_else(
        || vec![KeyType::default()],
        |mut table| acme::key_types(&mut table),
    )
}

/// Returns the hosts of the sites that a config names, whatever else is wrong with it.
pub fn read_hosts(root: &mut Section) -> Vec<String> {
    let sites = root.tables("site");
    let hosts = |mut site: Section| site.optional::<Vec<String>>("hosts").unwrap_or_default();
    sites.into_iter().flat_map(hosts).collect()
}
