//! The body of a manifest that is pushed, received whole.

use std::pin::pin;

use permits::Share;
use tokio::time::Instant;

use super::error::Error;
use super::patience::{LOOK, is_late};
use super::payload::Payload;
use super::permits::SMALL_BODY_BYTES;
use super::threads::Asking;

/// Receives a body of up to `size_max` bytes, and takes a share of the memory for such once it turns out
/// to be large, of as much as it will need in the end: none waits for more with a part of what others
/// wait for.
///
/// # Errors
/// [`Error::ManifestTooLarge`]; [`Error::SentTooSlowly`] when others wait for the memory.
pub(super) async fn receive(
    asking: &Asking<'_>,
    payload: &mut Payload,
    announced_bytes: Option<u64>,
    size_max: u64,
) -> Result<(Vec<u8>, Option<Share>), Error> {
    if announced_bytes.is_some_and(|size_bytes| size_bytes > size_max) {
        return Err(Error::ManifestTooLarge { size_max });
    }
    let mut content = Vec::new();
    let mut held: Option<(Share, Instant)> = None;
    loop {
        let next = payload.next();
        let received = content.len() as u64;
        let data = match &held {
            Some((share, begun)) => in_time(next, share, *begun, received).await?,
            None => next.await?,
        };
        let Some(data) = data else { break };
        if let Some((share, begun)) = &held
            && share.is_wanted()
            && is_late(*begun, received)
        {
            return Err(Error::SentTooSlowly);
        }
        let received = received + data.len() as u64;
        if received > size_max {
            return Err(Error::ManifestTooLarge { size_max });
        }
        if held.is_none() && received > SMALL_BODY_BYTES {
            let share = asking.to_hold(announced_bytes.unwrap_or(size_max)).await?;
            held = Some((share, Instant::now()));
        }
        data.append_to(&mut content);
    }
    Ok((content, held.map(|(share, _)| share)))
}

/// Waits for the next bytes of a body of which so many have come, unless others wait for its share and
/// it is late.
async fn in_time<T>(
    next: impl Future<Output = Result<T, Error>>,
    share: &Share,
    begun: Instant,
    received_bytes: u64,
) -> Result<T, Error> {
    let mut next = pin!(next);
    loop {
        if let Ok(next) = tokio::time::timeout(LOOK, next.as_mut()).await {
            return next;
        }
        if share.is_wanted() && is_late(begun, received_bytes) {
            return Err(Error::SentTooSlowly);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;
    use std::time::Duration;

    use permits::Shares;

    use super::super::patience::GRACE;
    use super::*;

    async fn nothing_comes(share: &Share) -> bool {
        let never = future::pending::<Result<(), Error>>();
        let waiting = in_time(never, share, Instant::now(), 0);
        match tokio::time::timeout(GRACE * 10, waiting).await {
            Ok(cut) => !matches!(cut, Err(Error::SentTooSlowly)),
            Err(_still_waiting) => true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_cut_when_others_wait_and_not_before() {
        let shares = Shares::new(1, 1);
        let share = shares.acquire("slow", 1).await;
        assert!(nothing_comes(&share).await);
        let waiting = shares.acquire("next", 1);
        tokio::pin!(waiting);
        tokio::select! {
            _ = &mut waiting => panic!("all was taken"),
            waited = nothing_comes(&share) => assert!(!waited),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_received_whoever_waits() {
        let shares = Shares::new(1, 1);
        let share = shares.acquire("slow", 1).await;
        let waiting = shares.acquire("next", 1);
        tokio::pin!(waiting);
        let comes = async {
            tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
            Ok(7)
        };
        tokio::select! {
            _ = &mut waiting => panic!("all was taken"),
            came = in_time(comes, &share, Instant::now(), 0) => assert_eq!(came.unwrap(), 7),
        }
    }
}
