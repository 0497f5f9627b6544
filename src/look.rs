//! Has a running edge look at the files of users and robots at once: what a command has changed counts when
//! it returns, and not up to a second later.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use settings::Document;

use crate::control::Request;
use crate::{config, control, files};

/// A little more than the time after which an edge looks by itself.
const BY_ITSELF: Duration = Duration::from_millis(1200);

/// Asks the edge that runs with this config, if there is one. Where it cannot be asked, as by another user
/// than its own and root, this waits until it has looked by itself.
pub(crate) fn edge(config: &Path) {
    // Without a config, or with one that cannot be read, there is nobody to ask.
    let Ok((socket, _)) = config::control_sockets(config) else {
        return;
    };
    if control::ask(&socket, Request::Look).is_err() {
        thread::park_timeout(BY_ITSELF);
    }
}

/// Asks the edge whose users an htpasswd file holds.
pub(crate) fn edge_of_users(file: &Path) {
    let folder = std::path::absolute(files::directory(file)).unwrap_or_default();
    // As `tidegate up` and /etc/tidegate have it.
    let beside = [Some(&*folder), folder.parent()];
    let beside = beside.into_iter().flatten();
    let mut configs: Vec<PathBuf> = beside.map(|folder| folder.join("edge.toml")).collect();
    let default = config::default_path();
    if !configs.contains(&default) {
        configs.push(default);
    }
    for config in configs.iter().filter(|config| names(config, file)) {
        edge(config);
    }
}

/// Returns whether a site of this config has these users.
fn names(config: &Path, file: &Path) -> bool {
    let Ok(mut document) = Document::read(config) else {
        return false;
    };
    let same = |named: PathBuf| match (named.canonicalize(), file.canonicalize()) {
        (Ok(named), Ok(file)) => named == file,
        _ => false,
    };
    let mut sites = document.root().tables("site").into_iter();
    sites.any(|mut site| {
        let auth = site.table("auth");
        auth.and_then(|mut auth| auth.path("htpasswd_file"))
            .is_some_and(same)
    })
}
