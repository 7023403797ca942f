//! One YAML document as a tree that remembers where everything stands.

use model::FieldPath;
use model::field::Step;
use serde_json::Value;

/// A line and a column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Never an array or an object.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

impl Node {
    /// The same value without its places.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect(),
            ),
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Content::Scalar(_) | Content::List(_) => None,
        }
    }

    /// Where a field stands, or the nearest of its ancestors that exists. A list or a mapping is pointed at by
    /// its key where it has one, because its own first line is already that of its first part.
    pub(super) fn place_of(&self, path: &FieldPath) -> Place {
        let (mut node, mut place) = (self, self.place);
        for step in &path.0 {
            match (step, &node.content) {
                (Step::Field(name), _) => {
                    let Some(entry) = node.entry(name) else { break };
                    node = &entry.value;
                    place = if matches!(node.content, Content::Scalar(_)) {
                        node.place
                    } else {
                        entry.key_place
                    };
                }
                (Step::Item(index), Content::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    (node, place) = (item, item.place);
                }
                (Step::Item(_), _) => break,
            }
        }
        place
    }

    /// Where the key of a field stands; as [`Node::place_of`] where it does not exist.
    pub(super) fn key_place_of(&self, path: &FieldPath) -> Place {
        let key = path.0.split_last().and_then(|(last, parents)| match last {
            Step::Field(name) => self.get(parents)?.entry(name).map(|entry| entry.key_place),
            Step::Item(_) => None,
        });
        key.unwrap_or_else(|| self.place_of(path))
    }

    fn get(&self, path: &[Step]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |node, step| match (step, &node.content) {
                (Step::Field(name), _) => node.entry(name).map(|entry| &entry.value),
                (Step::Item(index), Content::List(items)) => items.get(*index),
                (Step::Item(_), _) => None,
            })
    }
}
