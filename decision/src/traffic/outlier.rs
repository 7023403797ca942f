//! Endpoints whose answers are bad are left out for a while, and come back.
//!
//! As Envoy's outlier detection: a run of bad answers puts an endpoint out at once; rates are compared every interval.
//! The first time out is short, and longer each time it happens again. Only a share of the endpoints may be out together,
//! and one always may.

use std::time::{Duration, Instant};

use model::traffic_policy::{OutlierDetection, SuccessRate};

/// Endpoints with enough requests that [`OutlierDetection::failure_percentage`] needs, as in Envoy.
pub const FAILURE_PERCENTAGE_HOSTS: u32 = 5;
/// Requests within an interval that make an endpoint count for it, as in Envoy.
pub const FAILURE_PERCENTAGE_VOLUME: u32 = 50;

/// What one attempt showed of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// An answer with this status; for gRPC the one that means the same.
    Status(u16),
    /// No answer: no connection, a broken one, or no time left.
    Local,
}

/// What is known of a list of endpoints, which are known by their places in it.
#[derive(Debug, Clone)]
pub struct Outliers {
    policy: OutlierDetection,
    records: Vec<Record>,
    /// When rates are looked at next.
    next_interval: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    /// In a row.
    errors: u32,
    gateway_errors: u32,
    local_failures: u32,
    /// Within the interval.
    good: u32,
    all: u32,
    /// Until when it is out.
    out: Option<Instant>,
    /// How often it was out lately.
    times: u32,
}

impl Outliers {
    pub fn new(policy: OutlierDetection, count: usize, now: Instant) -> Self {
        Self {
            next_interval: now + policy.interval,
            policy,
            records: vec![Record::default(); count],
        }
    }

    /// Takes up a changed list: for each of its endpoints the place that it had, if it was there.
    pub fn follow(&mut self, before: &[Option<usize>]) {
        let known = |place: &Option<usize>| place.and_then(|at| self.records.get(at)).copied();
        self.records = before
            .iter()
            .map(|place| known(place).unwrap_or_default())
            .collect();
    }

    /// Notes what was seen of an endpoint; whether it is out from now on because of it.
    pub fn see(&mut self, at: usize, seen: Seen, now: Instant) -> bool {
        let policy = &self.policy;
        let Some(record) = self.records.get_mut(at) else {
            return false;
        };
        record.see(seen, policy.split_local);
        let over = |count: u32, limit: u32| limit > 0 && count >= limit;
        let is_bad = over(record.errors, policy.consecutive_5xx)
            || over(record.gateway_errors, policy.consecutive_gateway)
            || (policy.split_local && over(record.local_failures, policy.consecutive_local));
        is_bad && self.eject(at, now)
    }

    /// Whether an endpoint is out.
    pub fn is_out(&self, at: usize) -> bool {
        self.records.get(at).is_some_and(|record| record.out.is_some())
    }

    /// When to [`look`](Self::look) next.
    pub fn next(&self) -> Instant {
        let returns = self.records.iter().filter_map(|record| record.out);
        returns
            .chain([self.next_interval])
            .min()
            .unwrap_or(self.next_interval)
    }

    /// Lets back whose time is over, and compares rates where an interval is. Returns which came back; `None` where
    /// nothing is different.
    pub fn look(&mut self, now: Instant) -> Option<Vec<usize>> {
        let mut back = Vec::new();
        for (at, record) in self.records.iter_mut().enumerate() {
            if record.out.is_some_and(|until| until <= now) {
                record.out = None;
                (record.errors, record.gateway_errors, record.local_failures) = (0, 0, 0);
                back.push(at);
            }
        }
        let mut changed = !back.is_empty();
        if self.next_interval <= now {
            let bad = self.bad_rates();
            for (at, record) in self.records.iter_mut().enumerate() {
                // Whoever came back just now keeps its count for another interval.
                if record.out.is_none() && !back.contains(&at) {
                    record.times = record.times.saturating_sub(1);
                }
                (record.good, record.all) = (0, 0);
            }
            for at in bad {
                changed |= self.eject(at, now);
            }
            self.next_interval = now + self.policy.interval;
        }
        changed.then_some(back)
    }

    fn eject(&mut self, at: usize, now: Instant) -> bool {
        let out = self.records.iter().filter(|record| record.out.is_some()).count();
        let allowed = self.records.len() * usize::from(self.policy.max_ejection_percent) / 100;
        let Some(record) = self.records.get_mut(at) else {
            return false;
        };
        if record.out.is_some() || (out > 0 && out + 1 > allowed) || self.policy.max_ejection_percent == 0 {
            return false;
        }
        record.times = record.times.saturating_add(1);
        let time = self.policy.base_ejection.saturating_mul(record.times);
        let time = time.min(self.policy.max_ejection.max(self.policy.base_ejection));
        record.out = Some(now.checked_add(time).unwrap_or(now + Duration::from_secs(3600)));
        true
    }

    /// Whose rates are bad beside those of the others, or by themselves.
    fn bad_rates(&self) -> Vec<usize> {
        let mut bad = Vec::new();
        if let Some(rate) = &self.policy.success_rate {
            bad.extend(self.below_the_others(rate));
        }
        if let Some(percent) = self.policy.failure_percentage {
            let rates = self.success_rates(FAILURE_PERCENTAGE_VOLUME);
            if rates.len() >= FAILURE_PERCENTAGE_HOSTS as usize {
                let fails = |rate: &f64| (1.0 - rate) * 100.0 >= f64::from(percent) - 1e-9;
                bad.extend(rates.iter().filter(|(_, rate)| fails(rate)).map(|(at, _)| *at));
            }
        }
        bad
    }

    fn below_the_others(&self, policy: &SuccessRate) -> Vec<usize> {
        let rates = self.success_rates(policy.request_volume);
        if rates.is_empty() || rates.len() < policy.minimum_hosts as usize {
            return Vec::new();
        }
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let least = mean - variance.sqrt() * f64::from(policy.stdev_factor) / 1000.0;
        rates
            .into_iter()
            .filter(|(_, rate)| *rate < least)
            .map(|(at, _)| at)
            .collect()
    }

    fn success_rates(&self, volume: u32) -> Vec<(usize, f64)> {
        let records = self.records.iter().enumerate();
        records
            .filter(|(_, record)| record.all > 0 && record.all >= volume)
            .map(|(at, record)| (at, f64::from(record.good) / f64::from(record.all)))
            .collect()
    }
}

impl Record {
    fn see(&mut self, seen: Seen, split_local: bool) {
        let add = |count: &mut u32| *count = count.saturating_add(1);
        match seen {
            Seen::Local if split_local => add(&mut self.local_failures),
            // Envoy counts it as the 503 that becomes of it.
            Seen::Local => self.error(503),
            Seen::Status(status) => {
                self.local_failures = 0;
                self.error(status);
            }
        }
    }

    fn error(&mut self, status: u16) {
        let count = |is_one: bool, run: &mut u32| *run = if is_one { run.saturating_add(1) } else { 0 };
        count((500..600).contains(&status), &mut self.errors);
        count((502..=504).contains(&status), &mut self.gateway_errors);
        self.all = self.all.saturating_add(1);
        self.good = self.good.saturating_add(u32::from(status < 500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn outliers(count: usize, change: impl Fn(&mut OutlierDetection)) -> (Outliers, Instant) {
        let mut policy = OutlierDetection::default();
        change(&mut policy);
        let now = Instant::now();
        (Outliers::new(policy, count, now), now)
    }

    fn bad(outliers: &mut Outliers, at: usize, times: usize, now: Instant) -> bool {
        (0..times).fold(false, |_, _| outliers.see(at, Seen::Status(500), now))
    }

    #[test]
    fn the_fifth_bad_answer_in_a_row_puts_it_out_for_30_s_and_then_for_60() {
        let (mut all, start) = outliers(5, |_| {});
        assert!(!bad(&mut all, 2, 4, start));
        assert!(!all.see(2, Seen::Status(200), start));
        assert!(bad(&mut all, 2, 5, start) && all.is_out(2));
        assert_eq!(all.look(start + 29 * SECOND), None);
        assert!(all.is_out(2));
        assert_eq!(all.look(start + 30 * SECOND), Some(vec![2]));
        let again = start + 31 * SECOND;
        assert!(bad(&mut all, 2, 5, again));
        assert_eq!(
            all.next(),
            start + 39 * SECOND,
            "rates are looked at before it comes back"
        );
        let mut now = again;
        while all.is_out(2) {
            now = all.next();
            all.look(now);
        }
        assert_eq!(now, again + 60 * SECOND);
        // Quiet intervals are forgiven one by one.
        for step in 1..=3 {
            all.look(now + step * 10 * SECOND);
        }
        let later = now + 40 * SECOND;
        assert!(bad(&mut all, 2, 5, later));
        while all.is_out(2) {
            now = all.next();
            all.look(now);
        }
        assert_eq!(now, later + 30 * SECOND);
    }

    #[test]
    fn a_tenth_may_be_out_and_one_always() {
        let (mut all, now) = outliers(5, |_| {});
        assert!(bad(&mut all, 0, 5, now));
        assert!(!bad(&mut all, 1, 50, now));
        let (mut all, now) = outliers(30, |_| {});
        let out = (0..30).filter(|at| bad(&mut all, *at, 5, now)).count();
        assert_eq!(out, 3);
        let (mut all, now) = outliers(5, |policy| policy.max_ejection_percent = 0);
        assert!(!bad(&mut all, 0, 50, now));
    }

    #[test]
    fn failures_of_this_side_are_503_unless_they_are_split_off() {
        let (mut all, now) = outliers(5, |policy| policy.consecutive_gateway = 2);
        assert!(!all.see(0, Seen::Local, now));
        assert!(all.see(0, Seen::Local, now));
        let (mut all, now) = outliers(5, |policy| {
            (
                policy.split_local,
                policy.consecutive_gateway,
                policy.consecutive_local,
            ) = (true, 2, 3);
        });
        assert!(!all.see(0, Seen::Local, now) && !all.see(0, Seen::Local, now));
        assert!(all.see(0, Seen::Local, now));
        assert!(!all.see(1, Seen::Status(500), now) && !all.see(1, Seen::Status(502), now));
        assert!(all.see(1, Seen::Status(504), now) || !all.is_out(1));
    }

    #[test]
    fn who_fails_far_more_than_the_others_is_found_at_the_end_of_an_interval() {
        for by_rate in [true, false] {
            let (mut all, start) = outliers(6, |policy| {
                policy.consecutive_5xx = 0;
                policy.success_rate = by_rate.then(SuccessRate::default);
                policy.failure_percentage = (!by_rate).then_some(30);
            });
            for number in 0..600usize {
                let at = number % 6;
                let fails = at == 4 && number.is_multiple_of(12) || number == 7;
                all.see(
                    at,
                    Seen::Status(if fails || (at == 4 && number % 5 < 2) {
                        500
                    } else {
                        200
                    }),
                    start,
                );
            }
            assert_eq!(all.look(start + 9 * SECOND), None);
            assert_eq!(all.look(start + 10 * SECOND), Some(vec![]), "{by_rate}");
            assert_eq!((0..6).filter(|at| all.is_out(*at)).collect::<Vec<_>>(), [4]);
        }
    }

    #[test]
    fn a_changed_list_forgets_nobody_who_stays() {
        let (mut all, now) = outliers(3, |_| {});
        bad(&mut all, 2, 5, now);
        all.follow(&[Some(2), None, Some(0)]);
        assert_eq!([0, 1, 2].map(|at| all.is_out(at)), [true, false, false]);
    }

    /// Of five endpoints one answers 500 to everything. After its first ejection under 0.5 % of the requests touch it,
    /// over ten minutes at 100 requests a second; once it is well again it has its fifth.
    #[test]
    fn an_endpoint_that_only_fails_is_hardly_touched_and_comes_back_when_it_is_well() {
        let (mut all, start) = outliers(5, |_| {});
        let (mut turn, mut touched, mut out_since) = (0usize, 0u32, None);
        let mut requests_after = 0u32;
        let mut last = [0u32; 5];
        for number in 0..120_000u32 {
            let now = start + Duration::from_millis(10) * number;
            if all.next() <= now {
                all.look(now);
            }
            let usable: Vec<usize> = (0..5).filter(|at| !all.is_out(*at)).collect();
            let at = usable[turn % usable.len()];
            turn += 1;
            let is_ill = number < 60_000;
            if all.see(at, Seen::Status(if at == 3 && is_ill { 500 } else { 200 }), now) {
                out_since.get_or_insert(number);
            }
            if is_ill && out_since.is_some_and(|since| since < number) {
                requests_after += 1;
                touched += u32::from(at == 3);
            }
            if number >= 110_000 {
                last[at] += 1;
            }
        }
        let share = f64::from(touched) / f64::from(requests_after);
        assert!(share < 0.005, "{touched} of {requests_after}");
        assert!(touched > 0, "it was tried again");
        assert_eq!(last, [2_000; 5]);
    }

    proptest! {
        #[test]
        fn there_are_never_more_out_than_allowed_and_all_come_back(
            count in 1usize..20,
            percent in 0u8..=100,
            events in vec((0usize..20, any::<bool>(), 0u64..2_000), 0..200),
        ) {
            let (mut all, start) = outliers(count, |policy| {
                (policy.consecutive_5xx, policy.max_ejection_percent) = (1, percent);
            });
            let mut now = start;
            for (at, fails, pause) in events {
                now += Duration::from_millis(pause);
                if all.next() <= now {
                    all.look(now);
                }
                all.see(at, Seen::Status(if fails { 503 } else { 200 }), now);
                let out = (0..count).filter(|at| all.is_out(*at)).count();
                let most = if percent == 0 { 0 } else { (count * usize::from(percent) / 100).max(1) };
                prop_assert!(out <= most);
                prop_assert!(all.next() > now);
            }
            all.look(now + 3600 * SECOND);
            prop_assert!((0..count).all(|at| !all.is_out(at)));
        }
    }
}
