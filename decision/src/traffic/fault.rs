//! Whether a request is delayed or aborted on purpose.

use std::time::Duration;

use model::fault::{AbortStatus, Fault};

use super::grpc;
use super::route::{self, RequestView};

/// What is done to one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Injected {
    /// Waited for first, whatever comes then.
    pub delay: Option<Duration>,
    /// The answer instead of sending it.
    pub abort: Option<AbortStatus>,
}

/// The first policy that fits a request decides on it, as [`thrown`] says.
pub fn inject(faults: &[Fault], request: &RequestView<'_>, dice: impl FnMut() -> f64) -> Injected {
    fitting(faults, request).map_or_else(Injected::default, |fault| thrown(fault, dice))
}

/// The policy that decides on a request.
pub fn fitting<'f>(faults: &'f [Fault], request: &RequestView<'_>) -> Option<&'f Fault> {
    let is_grpc = grpc::is_grpc(request.headers);
    faults.iter().find(|fault| {
        let mut matches = fault.matches.iter();
        matches.any(|wanted| route::fits(wanted, request, is_grpc))
    })
}

/// What a policy does to a request that it fits; `dice` is thrown once for the delay and once for the abort, each time
/// uniform in 0.0–1.0, so that the two do not depend on each other.
pub fn thrown(fault: &Fault, mut dice: impl FnMut() -> f64) -> Injected {
    let delay = fault.delay.filter(|delay| delay.share.includes(dice()));
    let abort = fault.abort.filter(|abort| abort.share.includes(dice()));
    Injected {
        delay: delay.map(|delay| delay.time),
        abort: abort.map(|abort| abort.status),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};
    use model::fault::{FaultAbort, FaultDelay, Share};
    use model::route::{PathMatch, RequestMatch};
    use proptest::prelude::*;

    use super::*;

    fn fault(path: &str, delay: Option<f64>, abort: Option<f64>) -> Fault {
        let matches = RequestMatch {
            path: PathMatch::prefix(path).expect("a path"),
            ..RequestMatch::default()
        };
        let share = |percent| Share::percent(percent).expect("a percentage");
        let delay = delay.map(|percent| FaultDelay {
            time: Duration::from_secs(1),
            share: share(percent),
        });
        let abort = abort.map(|percent| FaultAbort {
            status: AbortStatus::Http(StatusCode::IM_A_TEAPOT),
            share: share(percent),
        });
        Fault::new("FaultInjectionPolicy/shop/chaos", vec![matches], delay, abort).expect("valid")
    }

    fn injected(faults: &[Fault], path: &str, dice: [f64; 2]) -> Injected {
        let headers = HeaderMap::new();
        let request = RequestView {
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
        };
        let mut dice = dice.into_iter();
        inject(faults, &request, || dice.next().expect("two throws at most"))
    }

    proptest! {
        #[test]
        fn each_share_is_its_part_of_the_dice(
            delay in 0.0f64..=100.0,
            abort in 0.0f64..=100.0,
            dice in [0.0f64..1.0, 0.0f64..1.0],
        ) {
            let got = injected(&[fault("/", Some(delay), Some(abort))], "/", dice);
            let near = |percent: f64, dice: f64| (dice * 100.0 - percent).abs() < 0.001;
            prop_assert!(near(delay, dice[0]) || got.delay.is_some() == (dice[0] * 100.0 < delay));
            prop_assert!(near(abort, dice[1]) || got.abort.is_some() == (dice[1] * 100.0 < abort));
        }
    }

    #[test]
    fn all_is_all_and_none_is_none() {
        let all = fault("/", Some(100.0), Some(0.0));
        for dice in [0.0, 0.5, 0.999_999_999] {
            let got = injected(std::slice::from_ref(&all), "/", [dice, dice]);
            assert_eq!((got.delay.is_some(), got.abort.is_some()), (true, false));
        }
    }

    #[test]
    fn the_first_policy_that_fits_decides() {
        let faults = [fault("/cart", Some(100.0), None), fault("/", None, Some(100.0))];
        let cart = injected(&faults, "/cart/1", [0.5, 0.5]);
        assert_eq!((cart.delay.is_some(), cart.abort.is_some()), (true, false));
        let other = injected(&faults, "/other", [0.5, 0.5]);
        assert_eq!((other.delay.is_some(), other.abort.is_some()), (false, true));
        assert_eq!(injected(&faults[..1], "/other", [0.0, 0.0]), Injected::default());
    }
}
