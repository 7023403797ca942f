//! Waiting with an end: everything a test waits for comes in time, or the test says what did not.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything may take before a test gives up; generous, because tests share few cores.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at something that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Waits for `future`, at most [`DEADLINE`].
#[track_caller]
pub fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let (what, place) = (what.to_owned(), std::panic::Location::caller());
    async move {
        match timeout(DEADLINE, future).await {
            Ok(output) => output,
            Err(_) => panic!("not within {DEADLINE:?}: {what} ({place})"),
        }
    }
}

/// Looks until `look` finds something, at most [`DEADLINE`]: for what can only be polled.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        sleep(LOOK_EVERY).await;
    }
}
