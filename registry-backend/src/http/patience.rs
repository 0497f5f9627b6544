//! How long clients may take that others wait for.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked whether others wait.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A client that others wait for takes or sends so many bytes a second, or loses its request...
const BYTES_PER_SEC_MIN: u64 = 64 << 10;

/// ...once so much time has passed.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Returns whether a client that has moved so many bytes since `begun` should have moved more by now.
pub(super) fn is_late(begun: Instant, bytes: u64) -> bool {
    begun.elapsed() > GRACE + Duration::from_secs(bytes / BYTES_PER_SEC_MIN)
}
