//! The socket that the edge connects to.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::app::{App, Error};

/// Makes the socket that the config of `app` names, replacing one that a dead process left behind, or
/// takes it from `handed`, where a predecessor's are.
///
/// # Errors
/// [`Error::SocketInUse`] when someone answers there, and [`Error::Listen`] otherwise.
pub(crate) fn bind(app: &App, handed: &mut Vec<UnixListener>) -> Result<UnixListener, Error> {
    let settings = app.settings();
    let path = settings.config.listen.as_path();
    let failed = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    let mode = Permissions::from_mode(settings.config.socket_mode);
    if let Some(listener) = take(handed, path) {
        fs::set_permissions(path, mode).map_err(failed)?;
        return Ok(listener);
    }
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
        fs::set_permissions(path, mode)?;
        Ok(listener)
    };
    listen().map_err(failed)
}

/// Takes the socket that listens at `path`, unless the path is gone, by which alone it can be reached.
fn take(handed: &mut Vec<UnixListener>, path: &Path) -> Option<UnixListener> {
    let is_there = fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket());
    let listens = |listener: &UnixListener| {
        let address = listener.local_addr();
        address.is_ok_and(|address| address.as_pathname() == Some(path))
    };
    let index = handed.iter().position(listens).filter(|_| is_there)?;
    Some(handed.swap_remove(index))
}

/// Returns whether a process listens on the socket; removes a socket on which none does.
fn is_answered(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("it exists and is not a socket")),
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
        let app = App::open(config, &[]).unwrap();
        let listener = bind(&app, &mut Vec::new()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(
            bind(&app, &mut Vec::new()),
            Err(Error::SocketInUse { .. })
        ));
        drop(listener);
        drop(bind(&app, &mut Vec::new()).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            bind(&app, &mut Vec::new()),
            Err(Error::Listen { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_that_was_handed_over_goes_on_unless_its_path_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.sock");
        let config = Config::new(path.clone(), folder.path().join("root"));
        let app = App::open(config, &[]).unwrap();
        let elsewhere = UnixListener::bind(folder.path().join("other.sock")).unwrap();
        let first = bind(&app, &mut Vec::new()).unwrap();
        // Someone who has come before the successor took over is not turned away.
        let _early = UnixStream::connect(&path).unwrap();
        let mut handed = vec![elsewhere, first.try_clone().unwrap()];
        let second = bind(&app, &mut handed).unwrap();
        assert_eq!(handed.len(), 1, "what is not its own is left");
        drop(first);
        second.accept().unwrap();
        fs::remove_file(&path).unwrap();
        let third = bind(&app, &mut vec![second]).unwrap();
        let _late = UnixStream::connect(&path).unwrap();
        third.accept().unwrap();
    }
}
