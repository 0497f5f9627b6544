//! A disk that a test can fill.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{run, try_run};

/// A file system of its own, of a few megabytes; unmounted when dropped.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one, where the test may.
    pub(crate) fn mount(megabytes: u32) -> Option<Self> {
        let folder = TempDir::with_prefix("disk").unwrap();
        if !rustix::process::getuid().is_root() {
            return None;
        }
        let size = format!("size={megabytes}m,mode=0755");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tidegate"])
            .arg(folder.path()));
        Some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets it be read only, or written to again.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let mode = if read_only {
            "remount,ro"
        } else {
            "remount,rw"
        };
        run(Command::new("mount").args(["-o", mode]).arg(self.path()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(try_run(
            Command::new("umount").arg("--lazy").arg(self.path()),
        ));
    }
}
