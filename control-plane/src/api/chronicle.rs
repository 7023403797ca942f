//! Since when conditions are as they are. A status is worked out when it is asked for; what has to be remembered is only when it
//! was last seen to be different.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use model::WorkloadId;
use serde_json::Value;

use super::answers::reports;
use super::shown::{observed, time};
use crate::mesh::Mesh;
use crate::sources::ObjectKey;
use crate::store::ObjectRecord;
use crate::stream::{Fleet, ProxyRecord};
use crate::tasks::Tasks;
use crate::view::{Judge, MeshState, Observed};

/// How long changes are gathered before all conditions are looked at again. So much later than it came about a change may be
/// dated, or by as long as looking rests ([`REST`]).
const GATHER: Duration = Duration::from_secs(1);
/// The share of its time that looking may take: after it, it rests this many times as long.
const REST: u32 = 20;
/// When each condition of each object last changed between true and false. It is not stored: after a restart a condition counts
/// as it is from the last change of its object, until it is seen to change.
#[derive(Debug, Default)]
pub(crate) struct Chronicle {
    objects: Mutex<BTreeMap<ObjectKey, Seen>>,
}

/// What was seen of one object.
#[derive(Debug)]
struct Seen {
    /// [`ObjectRecord::created`]: another one is another object of the same name.
    created: u64,
    /// By the place of a condition in the status.
    conditions: BTreeMap<String, Since>,
}

#[derive(Debug, Clone)]
struct Since {
    status: String,
    /// RFC 3339.
    time: String,
}

/// What of a record counts here.
struct Written {
    key: ObjectKey,
    created: u64,
    observed: Observed,
}

impl Written {
    fn of(key: &ObjectKey, record: &ObjectRecord) -> Self {
        Self {
            key: key.clone(),
            created: record.created,
            observed: observed(record),
        }
    }
}

impl Chronicle {
    /// Dates the conditions of a status as they are now.
    /// `created` is the record's.
    pub(super) fn date(&self, key: &ObjectKey, created: u64, now: SystemTime, status: &mut Value) {
        let mut objects = self.objects();
        let before = objects.remove(key).filter(|seen| seen.created == created);
        let mut seen = Seen {
            created,
            conditions: BTreeMap::new(),
        };
        let now = time(unix(now));
        each_condition(status, &mut String::new(), &mut |place, condition| {
            let is = condition["status"].as_str().unwrap_or_default();
            let known = before.as_ref().map(|before| before.conditions.get(place));
            let since = match known {
                Some(Some(since)) if since.status == is => since.clone(),
                Some(_) => Since {
                    status: is.to_owned(),
                    time: now.clone(),
                },
                None => Since {
                    status: is.to_owned(),
                    time: condition["lastTransitionTime"]
                        .as_str()
                        .unwrap_or(&now)
                        .to_owned(),
                },
            };
            condition["lastTransitionTime"] = since.time.as_str().into();
            seen.conditions.insert(place.to_owned(), since);
        });
        objects.insert(key.clone(), seen);
    }

    /// Looks whenever something may have changed, until the control plane stops.
    pub(crate) async fn follow(self: &Arc<Self>, mesh: &Mesh, fleet: &Fleet, tasks: &Tasks) {
        let (mut generations, mut proxies) = (mesh.generations(), fleet.watch());
        loop {
            let began = Instant::now();
            self.look(mesh, fleet).await;
            tokio::select! {
                () = tokio::time::sleep(GATHER.max(began.elapsed() * REST)) => {}
                () = tasks.stopping() => return,
            }
            tokio::select! {
                Ok(()) = generations.changed() => {}
                Ok(()) = proxies.changed() => {}
                () = tasks.stopping() => return,
                else => return,
            }
            generations.borrow_and_update();
            proxies.borrow_and_update();
        }
    }

    async fn look(self: &Arc<Self>, mesh: &Mesh, fleet: &Fleet) {
        let proxies = fleet.records();
        // A copy: nobody waits for what is worked out from it.
        let (state, written) = mesh.read_written(|state, records| {
            let written = records.iter();
            let written: Vec<_> = written.map(|(key, record)| Written::of(key, record)).collect();
            (state.clone(), written)
        });
        let (this, now) = (self.clone(), SystemTime::now());
        let looking = tokio::task::spawn_blocking(move || this.look_at(&state, &proxies, &written, now));
        if looking.await.is_err() {
            tracing::error!("conditions were not looked at to the end");
        }
        mesh.read_written(|_, records| {
            self.objects().retain(|key, _| records.contains_key(key));
        });
    }

    fn look_at(
        &self,
        state: &MeshState,
        proxies: &BTreeMap<WorkloadId, ProxyRecord>,
        objects: &[Written],
        now: SystemTime,
    ) {
        let reports = reports(state, proxies);
        let judge = Judge::new(state, &reports);
        for written in objects {
            if let Some(mut status) = judge.status(&written.key, &written.observed) {
                self.date(&written.key, written.created, now, &mut status);
            }
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Seen>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Visits the conditions of a status and of what it lists, each with its place: parents, ancestors and listeners are told apart by
/// what they are for, not by their order.
fn each_condition(value: &mut Value, place: &mut String, visit: &mut impl FnMut(&str, &mut Value)) {
    let Value::Object(fields) = value else { return };
    let end = place.len();
    for (name, value) in fields {
        let Value::Array(items) = value else { continue };
        let mut earlier = BTreeSet::new();
        for item in items {
            let of_item = match name.as_str() {
                "conditions" => item["type"].as_str().map(ToOwned::to_owned),
                _ => ["parentRef", "ancestorRef", "name"]
                    .iter()
                    .find_map(|field| item.get(field).map(ToString::to_string)),
            };
            let Some(of_item) = of_item else { continue };
            place.push('/');
            place.push_str(&of_item);
            // Two that are the same, as far as this tells, are told apart by their order.
            while !earlier.insert(place.clone()) {
                place.push('+');
            }
            match name.as_str() {
                "conditions" => visit(place, item),
                _ => each_condition(item, place, visit),
            }
            place.truncate(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sources::parse_documents;
    use crate::view::StoredObject;

    const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                         spec: {parentRefs: [{group: '', kind: Service, name: cart}], \
                         rules: [{backendRefs: [{name: gone, port: 80}]}]}\n";

    fn service(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    }

    fn state(texts: &[&str]) -> MeshState {
        let mut state = MeshState::default();
        for document in texts
            .iter()
            .flat_map(|text| parse_documents("f.yaml", text).unwrap())
        {
            let object = document.object;
            state
                .objects
                .insert(object.key(), StoredObject { object, created: 1 });
        }
        state
    }

    fn record(created: u64, changed_at: u64) -> ObjectRecord {
        ObjectRecord {
            text: String::new(),
            file: None,
            created,
            generation: 1,
            created_at: 1,
            changed_at,
        }
    }

    /// `type=status second` of each condition of the route, as shown at a second after 1970.
    fn shown(chronicle: &Chronicle, state: &MeshState, record: &ObjectRecord, now: u64) -> Vec<String> {
        let key: ObjectKey = "HTTPRoute/default/r".parse().unwrap();
        let mut status = Judge::of_configuration(state)
            .status(&key, &observed(record))
            .unwrap();
        chronicle.date(
            &key,
            record.created,
            SystemTime::UNIX_EPOCH + Duration::from_secs(now),
            &mut status,
        );
        let mut told = Vec::new();
        each_condition(&mut status, &mut String::new(), &mut |_, condition| {
            let since = humantime::parse_rfc3339(condition["lastTransitionTime"].as_str().unwrap()).unwrap();
            let word = |field: &str| condition[field].as_str().unwrap().to_owned();
            told.push(format!("{}={} {}", word("type"), word("status"), unix(since)));
        });
        told
    }

    #[test]
    fn a_condition_is_dated_by_its_own_change_and_not_by_its_objects() {
        let chronicle = Chronicle::default();
        let (cart, gone) = (service("cart"), service("gone"));
        let (broken, whole) = (state(&[&cart, ROUTE]), state(&[&cart, &gone, ROUTE]));
        let first = record(1, 10);
        assert_eq!(
            shown(&chronicle, &broken, &first, 11),
            ["Accepted=True 10", "ResolvedRefs=False 10"]
        );
        // Another version of the object that changes no condition, and one condition that others change.
        let second = record(1, 20);
        assert_eq!(
            shown(&chronicle, &broken, &second, 21),
            ["Accepted=True 10", "ResolvedRefs=False 10"]
        );
        for now in [30, 31] {
            assert_eq!(
                shown(&chronicle, &whole, &second, now),
                ["Accepted=True 10", "ResolvedRefs=True 30"]
            );
        }
        // A condition that was not there before.
        let bad = ROUTE.replace("rules: [", "rules: [{retry: {attempts: 99}}, ");
        let in_part = state(&[&cart, &gone, &bad]);
        assert_eq!(
            shown(&chronicle, &in_part, &second, 40),
            [
                "Accepted=True 10",
                "ResolvedRefs=True 30",
                "PartiallyInvalid=True 40"
            ]
        );
        // Another object of the same name.
        assert_eq!(
            shown(&chronicle, &whole, &record(9, 50), 51),
            ["Accepted=True 50", "ResolvedRefs=True 50"]
        );
    }

    #[test]
    fn what_nobody_asked_for_is_seen_all_the_same() {
        let chronicle = Chronicle::default();
        let (cart, gone) = (service("cart"), service("gone"));
        let first = record(1, 10);
        let key: ObjectKey = "HTTPRoute/default/r".parse().unwrap();
        for (second, state) in [(11, state(&[&cart, ROUTE])), (12, state(&[&cart, &gone, ROUTE]))] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            chronicle.look_at(&state, &BTreeMap::new(), &[Written::of(&key, &first)], now);
        }
        assert_eq!(
            shown(&chronicle, &state(&[&cart, &gone, ROUTE]), &first, 99),
            ["Accepted=True 10", "ResolvedRefs=True 12"]
        );
    }

    #[test]
    fn conditions_are_told_apart_by_what_they_are_for() {
        let condition = json!({"type": "Accepted", "status": "True"});
        let parent = |name: &str| json!({"parentRef": {"name": name}, "conditions": [condition]});
        let mut status = json!({
            "conditions": [condition],
            "listeners": [{"name": "web", "conditions": [condition]}],
            "parents": [parent("a"), parent("b"), parent("b")],
            "addresses": [{"value": "127.0.0.1"}],
        });
        let mut places = Vec::new();
        each_condition(&mut status, &mut String::new(), &mut |place, _| {
            places.push(place.to_owned())
        });
        let expected = [
            "/Accepted",
            "/\"web\"/Accepted",
            "/{\"name\":\"a\"}/Accepted",
            "/{\"name\":\"b\"}/Accepted",
            "/{\"name\":\"b\"}+/Accepted",
        ];
        assert_eq!(places, expected);
    }
}
