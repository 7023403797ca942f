//! Which destinations this proxy wants to know, within bounds: applications may ask for any host name.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use model::Question;

/// Bounds on what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterestLimits {
    /// Destinations that are subscribed to at once, absent ones included; default 4,096. Beyond it new names
    /// are refused, unless an absent one can be forgotten instead.
    pub destinations: usize,
    /// Names without a service that are remembered; default 1,024. Beyond it the oldest is forgotten.
    pub absent: usize,
    /// How long such an answer is kept at least, so that whoever waits for it sees it; default 5 s.
    pub absent_kept: Duration,
}

impl Default for InterestLimits {
    fn default() -> Self {
        Self {
            destinations: 4096,
            absent: 1024,
            absent_kept: Duration::from_secs(5),
        }
    }
}

/// Every name that is wanted, how it stands, and what the control plane has yet to be told about it.
#[derive(Debug)]
pub(super) struct Interest {
    limits: InterestLimits,
    names: HashMap<Question, Standing>,
    /// Names without a service by the order in which that was learned.
    absent: BTreeMap<u64, (Question, Instant)>,
    answers: u64,
    untold: Questions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Asked,
    Exists,
    /// By its place in `Interest::absent`.
    Absent(u64),
}

/// What the control plane has to be told; what is forgotten comes first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Questions {
    pub(super) destinations: Vec<Question>,
    pub(super) forget: Vec<Question>,
}

/// The table is full of names that exist or have no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// How many names stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InterestCounts {
    /// Destinations subscribed to, in all.
    pub subscriptions: usize,
    /// Of these, names that have no service.
    pub absent: usize,
}

impl Interest {
    pub(super) fn new(limits: InterestLimits) -> Self {
        Self {
            limits,
            names: HashMap::new(),
            absent: BTreeMap::new(),
            answers: 0,
            untold: Questions::default(),
        }
    }

    /// Wants a name. True where nobody wanted it before, so that the control plane must be asked.
    pub(super) fn want(&mut self, service: &Question) -> Result<bool, Full> {
        if self.names.contains_key(service) {
            return Ok(false);
        }
        if self.names.len() >= self.limits.destinations && !self.forget_oldest() {
            return Err(Full);
        }
        self.names.insert(service.clone(), Standing::Asked);
        self.untold.destinations.push(service.clone());
        Ok(true)
    }

    pub(super) fn wants(&self, service: &Question) -> bool {
        self.names.contains_key(service)
    }

    /// The control plane told about this service.
    pub(super) fn exists(&mut self, service: &Question) {
        if let Some(standing) = self.names.get_mut(service) {
            if let Standing::Absent(place) = *standing {
                self.absent.remove(&place);
            }
            *standing = Standing::Exists;
        }
    }

    /// The control plane said at `now` that there is no such service.
    pub(super) fn is_absent(&mut self, service: &Question, now: Instant) {
        if let Some(standing) = self.names.get_mut(service)
            && !matches!(standing, Standing::Absent(_))
        {
            self.answers += 1;
            *standing = Standing::Absent(self.answers);
            self.absent.insert(self.answers, (service.clone(), now));
        }
    }

    /// Forgets absent names beyond the limit, the oldest first, except those of the last moment.
    pub(super) fn trim(&mut self, now: Instant) {
        while self.absent.len() > self.limits.absent {
            let Some((_, (_, since))) = self.absent.first_key_value() else {
                return;
            };
            if now.saturating_duration_since(*since) < self.limits.absent_kept {
                return;
            }
            self.forget_oldest();
        }
    }

    pub(super) fn has_questions(&self) -> bool {
        self.untold != Questions::default()
    }

    /// Takes what the control plane has not been told yet.
    pub(super) fn questions(&mut self) -> Questions {
        let mut questions = std::mem::take(&mut self.untold);
        questions
            .destinations
            .retain(|service| self.names.contains_key(service));
        questions
    }

    /// For a new stream, which begins with everything: all wanted names, and whatever was forgotten since.
    pub(super) fn all(&mut self) -> Questions {
        let forget = std::mem::take(&mut self.untold).forget;
        Questions {
            destinations: self.names.keys().cloned().collect(),
            forget,
        }
    }

    pub(super) fn counts(&self) -> InterestCounts {
        InterestCounts {
            subscriptions: self.names.len(),
            absent: self.absent.len(),
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, (service, _))) = self.absent.pop_first() else {
            return false;
        };
        self.names.remove(&service);
        self.untold.forget.push(service);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Question {
        format!("shop/s{number}").parse().expect("valid")
    }

    fn interest(destinations: usize, absent: usize) -> Interest {
        Interest::new(InterestLimits {
            destinations,
            absent,
            absent_kept: Duration::from_secs(5),
        })
    }

    #[test]
    fn a_name_is_asked_for_once() {
        let mut interest = interest(10, 10);
        assert_eq!(interest.want(&name(1)), Ok(true));
        assert_eq!(interest.want(&name(1)), Ok(false));
        assert_eq!(interest.questions().destinations, [name(1)]);
        assert_eq!(interest.questions(), Questions::default());
        interest.exists(&name(1));
        assert_eq!(interest.want(&name(1)), Ok(false));
    }

    #[test]
    fn a_full_table_refuses_rather_than_forget_what_exists() {
        let mut interest = interest(2, 2);
        assert!(interest.want(&name(1)).is_ok() && interest.want(&name(2)).is_ok());
        interest.exists(&name(1));
        assert_eq!(interest.want(&name(3)), Err(Full));
        interest.is_absent(&name(2), Instant::now());
        assert_eq!(interest.want(&name(3)), Ok(true));
        assert!(interest.wants(&name(1)) && !interest.wants(&name(2)));
        assert_eq!(
            interest.questions(),
            Questions {
                destinations: vec![name(1), name(3)],
                forget: vec![name(2)]
            }
        );
    }

    #[test]
    fn a_flood_of_absent_names_stays_within_its_bound() {
        let mut interest = interest(100, 10);
        let begin = Instant::now();
        for number in 0..100_000 {
            let now = begin + Duration::from_secs(number as u64);
            assert!(interest.want(&name(number)).is_ok());
            interest.is_absent(&name(number), now);
            interest.trim(now);
            assert!(interest.counts().subscriptions <= 15);
            interest.questions();
        }
        assert!(interest.wants(&name(99_999)) && !interest.wants(&name(0)));
    }

    #[test]
    fn answers_of_the_last_moment_are_kept() {
        let mut interest = interest(100, 1);
        let now = Instant::now();
        for number in 0..50 {
            assert!(interest.want(&name(number)).is_ok());
            interest.is_absent(&name(number), now);
        }
        interest.trim(now + Duration::from_secs(4));
        assert_eq!(interest.counts().absent, 50);
        interest.trim(now + Duration::from_secs(5));
        assert_eq!(
            interest.counts(),
            InterestCounts {
                subscriptions: 1,
                absent: 1
            }
        );
        assert!(interest.wants(&name(49)));
    }

    #[test]
    fn an_absent_name_that_comes_to_exist_is_not_forgotten() {
        let mut interest = interest(100, 0);
        let now = Instant::now();
        assert!(interest.want(&name(1)).is_ok());
        interest.is_absent(&name(1), now);
        interest.exists(&name(1));
        interest.trim(now + Duration::from_secs(60));
        assert!(interest.wants(&name(1)));
        assert_eq!(
            interest.counts(),
            InterestCounts {
                subscriptions: 1,
                absent: 0
            }
        );
    }

    #[test]
    fn a_new_stream_begins_with_everything() {
        let mut interest = interest(100, 10);
        assert!(interest.want(&name(1)).is_ok() && interest.want(&name(2)).is_ok());
        interest.questions();
        let mut all = interest.all().destinations;
        all.sort();
        assert_eq!(all, [name(1), name(2)]);
        assert_eq!(interest.questions(), Questions::default());
    }
}
