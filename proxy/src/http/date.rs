//! `Date`, which a proxy adds where an answer has none (RFC 9110 section 6.6.1); written once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{DATE, HeaderMap, HeaderValue};

thread_local! {
    static WRITTEN: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Adds `Date` where there is none.
pub(crate) fn ensure(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Some(now) = now()
    {
        headers.insert(DATE, now);
    }
}

fn now() -> Option<HeaderValue> {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    WRITTEN.with_borrow_mut(|written| match written {
        Some((at, value)) if *at == second => Some(value.clone()),
        _ => {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            let value = HeaderValue::try_from(text).ok()?;
            *written = Some((second, value.clone()));
            Some(value)
        }
    })
}
