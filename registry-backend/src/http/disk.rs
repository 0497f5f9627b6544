//! Whether storage can be written to, and how much room there is: looked at now and again, by one
//! thread at most, and only when somebody asks.
//!
//! A disk that hangs holds that one thread. Who asks meanwhile is told what was known before, and after
//! a while that it hangs.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::registry::{Registry, Space};

/// How long what a look has found is good enough: a look writes to the disk.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// How long somebody who asks waits for a look.
const LOOK_PATIENCE: Duration = Duration::from_millis(300);

/// How long a look may take. Under load a sync may take seconds, which is no reason to be sent no
/// requests.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What a look has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// How much room there is, if that could be learnt.
    pub(super) space: Option<Space>,
    /// Why nothing can be written.
    pub(super) trouble: Option<Arc<str>>,
}

/// The disk of a registry.
#[derive(Debug)]
pub(super) struct Disk {
    registry: Arc<Registry>,
    looks: Arc<watch::Sender<Looks>>,
}

#[derive(Debug, Default)]
struct Looks {
    /// When the one under way began.
    begun: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// What that has found. Before the first, all is well: the tree was written to when it was opened.
    found: Found,
}

impl Disk {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self {
            registry: Arc::clone(registry),
            looks: Arc::new(watch::Sender::default()),
        }
    }

    /// Looks, if the last look is too long ago, and returns what is known.
    pub(super) async fn look(&self) -> Found {
        let begins = self.looks.send_if_modified(|looks| {
            let is_due = looks.ended.is_none_or(|ended| ended.elapsed() >= GOOD_FOR);
            let begins = is_due && looks.begun.is_none();
            if begins {
                looks.begun = Some(Instant::now());
            }
            begins
        });
        if begins {
            let (registry, looks) = (Arc::clone(&self.registry), Arc::clone(&self.looks));
            tokio::spawn(async move {
                let found = tokio::task::spawn_blocking(move || look(&registry)).await;
                let found = found.unwrap_or_else(|_panic| Found {
                    trouble: Some("a look at the storage panicked".into()),
                    space: None,
                });
                looks.send_modify(|looks| {
                    *looks = Looks {
                        begun: None,
                        ended: Some(Instant::now()),
                        found,
                    };
                });
            });
        }
        let mut looks = self.looks.subscribe();
        // What is not there in time is told the next time.
        drop(timeout(LOOK_PATIENCE, looks.wait_for(|looks| looks.begun.is_none())).await);
        self.known()
    }

    /// Returns what is known, without a look.
    pub(super) fn known(&self) -> Found {
        let looks = self.looks.borrow();
        match looks.begun.map(|begun| begun.elapsed()) {
            Some(elapsed) if elapsed >= LOOK_MAX => {
                let seconds = elapsed.as_secs();
                let trouble = format!("the storage has not taken a write for {seconds} s");
                Found {
                    trouble: Some(trouble.into()),
                    ..looks.found.clone()
                }
            }
            _ => looks.found.clone(),
        }
    }
}

fn look(registry: &Registry) -> Found {
    let trouble = registry.probe_storage().err().map(|error| {
        let mut cause: &dyn StdError = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        format!("the storage cannot be written to: {cause}").into()
    });
    Found {
        space: registry.space().ok(),
        trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::faulty_registry;

    #[tokio::test]
    async fn a_full_disk_is_told_and_looked_at_once_in_a_while() {
        let (registry, faults, _root) = faulty_registry();
        let disk = Disk::new(&registry);
        faults.set_full(true);
        let found = disk.look().await;
        let trouble = found.trouble.unwrap();
        assert!(trouble.contains("No space left"), "{trouble}");
        assert!(found.space.unwrap().free_bytes > 0);
        faults.set_full(false);
        assert!(
            disk.look().await.trouble.is_some(),
            "it is not looked again at once"
        );
        let long_ago = Instant::now().checked_sub(GOOD_FOR);
        disk.looks.send_modify(|looks| looks.ended = long_ago);
        assert!(disk.look().await.trouble.is_none());
        assert_eq!(
            faults.take_record(),
            ["write docker/registry/v2/_tidegate/probe"]
        );
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_told_after_a_while_and_takes_one_thread() {
        let (registry, faults, _root) = faulty_registry();
        let disk = Disk::new(&registry);
        disk.look().await;
        faults.take_record();
        let ago = |time| Instant::now().checked_sub(time);
        // As if the thread of this look had not come back.
        disk.looks.send_modify(|looks| {
            looks.begun = ago(Duration::from_secs(2));
            looks.ended = ago(GOOD_FOR);
        });
        assert!(disk.look().await.trouble.is_none());
        disk.looks.send_modify(|looks| looks.begun = ago(LOOK_MAX));
        let trouble = disk.look().await.trouble.unwrap();
        assert!(trouble.contains("for 10 s"), "{trouble}");
        assert!(
            faults.take_record().is_empty(),
            "nobody else was sent to look"
        );
    }
}
