//! The socket that the edge connects to.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::app::{App, Error};

/// Makes the socket that the config of `app` names, replacing one that a dead process left behind.
///
/// # Errors
/// [`Error::SocketInUse`] when someone answers there, and [`Error::Listen`] otherwise.
pub(crate) fn bind(app: &App) -> Result<UnixListener, Error> {
    let settings = app.settings();
    let path = settings.config.listen.as_path();
    let failed = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    if is_answered(path).map_err(failed)? {
        return Err(Error::SocketInUse {
            path: path.to_owned(),
        });
    }
    let listen = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(settings.config.socket_mode))?;
        Ok(listener)
    };
    listen().map_err(failed)
}

/// Returns whether a process listens on the socket; removes a socket on which none does.
fn is_answered(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("it exists and is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/registry.sock");
        let config = Config::new(path.clone(), folder.path().join("root"));
        let app = App::open(config).unwrap();
        let listener = bind(&app).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind(&app), Err(Error::SocketInUse { .. })));
        drop(listener);
        drop(bind(&app).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&app), Err(Error::Listen { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
