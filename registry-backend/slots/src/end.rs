//! The end of a body, told within the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::Notify;

/// Whether the end was told, and what wakes those who wait for it. No other process has the descriptor.
#[derive(Debug)]
pub(crate) struct End {
    told: AtomicBool,
    /// Wakes a task.
    task: Notify,
    /// Wakes a thread that waits for messages as well.
    thread: OwnedFd,
}

impl End {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            told: AtomicBool::new(false),
            task: Notify::new(),
            thread: eventfd(0, flags)?,
        })
    }

    pub(crate) fn tell(&self) -> io::Result<()> {
        self.told.store(true, Ordering::Release);
        self.task.notify_one();
        rustix::io::write(&self.thread, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Acquire)
    }

    /// Forgets that it was told.
    pub(crate) fn forget(&self) -> io::Result<()> {
        self.told.store(false, Ordering::Relaxed);
        rustix::io::read(&self.thread, &mut [0; 8])?;
        Ok(())
    }

    /// Waits, in a task, until it may have been told.
    pub(crate) async fn wait(&self) {
        self.task.notified().await;
    }
}

/// Readable once it was told.
impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.thread.as_fd()
    }
}
