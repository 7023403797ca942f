//! What checks say about an endpoint: some in a row change it, and the first one decides by itself.

use model::traffic_policy::HealthCheck;

/// The health of one endpoint as its checks have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// `None` until the first check.
    healthy: Option<bool>,
    /// Checks in a row that said the opposite.
    against: u32,
}

impl Health {
    /// Takes up one check. Returns the health where it is another now.
    pub fn checked(&mut self, passed: bool, policy: &HealthCheck) -> Option<bool> {
        if self.healthy == Some(passed) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let threshold = match (self.healthy, passed) {
            (None, _) => 1,
            (Some(_), true) => policy.healthy_threshold,
            (Some(_), false) => policy.unhealthy_threshold,
        };
        if self.against < threshold {
            return None;
        }
        (self.healthy, self.against) = (Some(passed), 0);
        self.healthy
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::traffic_policy::Check;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn policy(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
        HealthCheck {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(3),
            unhealthy_threshold,
            healthy_threshold,
            check: Check::Grpc {
                service: String::new(),
            },
        }
    }

    #[test]
    fn the_first_check_decides_and_then_three_against_two() {
        let (policy, mut health) = (policy(3, 2), Health::default());
        let said = [
            (false, Some(false)),
            (true, None),
            (false, None),
            (true, None),
            (true, Some(true)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
            (false, Some(false)),
        ];
        for (number, (passed, expected)) in said.into_iter().enumerate() {
            assert_eq!(health.checked(passed, &policy), expected, "check {number}");
        }
    }

    proptest! {
        /// Counted anew over the whole history, after the first check.
        #[test]
        fn it_is_what_the_last_long_run_said(
            checks in vec(any::<bool>(), 1..60), down in 1u32..4, up in 1u32..4,
        ) {
            let (policy, mut health) = (policy(down, up), Health::default());
            let mut expected = checks[0];
            for (number, check) in checks.iter().enumerate() {
                health.checked(*check, &policy);
                let run = checks[..=number].iter().rev().take_while(|other| *other == check).count() as u32;
                if *check != expected && run >= if *check { up } else { down } {
                    expected = *check;
                }
                prop_assert_eq!(health.healthy, Some(expected));
            }
        }
    }
}
