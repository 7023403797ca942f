//! Builds the tree of one YAML document from the parser's events, within named limits.

use std::collections::HashMap;
use std::rc::Rc;

use model::FieldPath;
use model::field::Step;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use super::diagnostic::Fault;
use super::split::Part;
use super::tree::{Content, Entry, Node, Place};
use super::{MAX_DIAGNOSTICS, scalar};

/// Deepest nesting of one document, aliases resolved.
pub const MAX_DEPTH: usize = 64;
/// Most values of one document, aliases resolved.
pub const MAX_NODES: usize = 100_000;
/// Largest sum of all keys and scalars of one document in bytes, aliases resolved.
pub const MAX_EXPANDED_BYTES: usize = 4 * 1024 * 1024;

/// Longest key, in bytes: it is repeated in the path of everything beneath it.
const MAX_KEY_BYTES: usize = 1024;

/// Reads one document. `None` where it is empty, and where it cannot be read at all; faults that do not
/// hinder reading on, such as a key given twice, are only noted.
pub(super) fn tree(part: &Part<'_>, faults: &mut Vec<Fault>) -> Option<Node> {
    let mut builder = Builder::new(part.line, faults);
    for event in Parser::new_from_str(part.text) {
        let fault = match event {
            Ok((event, span)) => match builder.take(event, span) {
                Ok(()) => continue,
                Err((place, why)) => Fault {
                    place,
                    path: builder.path(),
                    why,
                },
            },
            // Where a text is no YAML, the field that was being read is often not the one that is wrong.
            Err(error) => {
                let place = builder.place(*error.marker());
                Fault {
                    place,
                    path: FieldPath::default(),
                    why: error.info().to_owned(),
                }
            }
        };
        builder.faults.push(fault);
        return None;
    }
    builder
        .root
        .filter(|root| !matches!(root.content, Content::Scalar(Value::Null)))
}

/// A list or a mapping that has begun.
struct Open {
    place: Place,
    anchor: usize,
    weight: Weight,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    /// The key, once it is read, waits for its value.
    Map(Vec<Entry>, HashMap<String, Place>, Option<Key>),
}

struct Key {
    /// `None` for one that is refused; its value is read and dropped.
    text: Option<String>,
    place: Place,
}

/// What a value costs, everything in it included.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// Why reading must stop.
type Stop = (Place, String);

struct Builder<'f> {
    first_line: u32,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    anchors: HashMap<usize, (Rc<Node>, Weight)>,
    /// Everything that was built so far.
    spent: Weight,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Builder<'f> {
    fn new(first_line: u32, faults: &'f mut Vec<Fault>) -> Self {
        Self {
            first_line,
            open: Vec::new(),
            root: None,
            documents: 0,
            anchors: HashMap::new(),
            spent: Weight::default(),
            faults,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = self.place(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((
                        place,
                        "documents are separated by `---` on a line that ends with LF".to_owned(),
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.scalar(place, &text, style, anchor, tag.as_deref())?
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(
                    place,
                    anchor,
                    tag.as_deref(),
                    "seq",
                    OpenContent::List(Vec::new()),
                )?;
            }
            Event::MappingStart(anchor, tag) => {
                let content = OpenContent::Map(Vec::new(), HashMap::new(), None);
                self.begin(place, anchor, tag.as_deref(), "map", content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => self.alias(place, anchor)?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        place: Place,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
    ) -> Result<(), Stop> {
        let weight = Weight {
            nodes: 1,
            bytes: text.len(),
            height: 1,
        };
        self.spend(place, weight)?;
        if self.awaits_key() {
            if text.len() > MAX_KEY_BYTES {
                return Err((place, format!("a key is over {MAX_KEY_BYTES} bytes")));
            }
            self.key(place, Some(text.to_owned()));
            return Ok(());
        }
        let read = match tag {
            None if style == ScalarStyle::Plain => scalar::plain(text).map_err(str::to_owned),
            None => Ok(Value::String(text.to_owned())),
            Some(tag) => tagged(tag, text),
        };
        let value = read.unwrap_or_else(|why| {
            self.note(place, why);
            Value::Null
        });
        self.add(
            Node {
                place,
                content: Content::Scalar(value),
            },
            anchor,
            weight,
        )
    }

    fn begin(
        &mut self,
        place: Place,
        anchor: usize,
        tag: Option<&Tag>,
        core: &str,
        content: OpenContent,
    ) -> Result<(), Stop> {
        let weight = Weight {
            nodes: 1,
            bytes: 0,
            height: 1,
        };
        self.spend(place, weight)?;
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == core)
        {
            self.note(place, format!("the tag {} is not supported", shown(tag)));
        }
        self.open.push(Open {
            place,
            anchor,
            weight,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let content = match open.content {
            OpenContent::List(items) => Content::List(items),
            OpenContent::Map(entries, ..) => Content::Map(entries),
        };
        self.add(
            Node {
                place: open.place,
                content,
            },
            open.anchor,
            open.weight,
        )
    }

    /// An alias costs as much as what it stands for, before that is copied.
    fn alias(&mut self, place: Place, anchor: usize) -> Result<(), Stop> {
        let Some((node, weight)) = self.anchors.get(&anchor).cloned() else {
            return Err((
                place,
                "the alias refers to no value that is complete before it".to_owned(),
            ));
        };
        self.spend(place, weight)?;
        self.add(
            Node {
                place,
                content: node.content.clone(),
            },
            0,
            weight,
        )
    }

    /// Refuses what would be over a limit.
    fn spend(&mut self, place: Place, weight: Weight) -> Result<(), Stop> {
        self.spent.nodes = self.spent.nodes.saturating_add(weight.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(weight.bytes);
        let why = if self.open.len() + weight.height > MAX_DEPTH {
            format!("the document is nested deeper than {MAX_DEPTH}")
        } else if self.spent.nodes > MAX_NODES {
            format!("the document has more than {MAX_NODES} values")
        } else if self.spent.bytes > MAX_EXPANDED_BYTES {
            format!("the document is over {MAX_EXPANDED_BYTES} bytes with its aliases resolved")
        } else {
            return Ok(());
        };
        Err((place, why))
    }

    /// Puts a value that is complete where it belongs. One with an anchor is kept for its aliases too, and
    /// costs twice.
    fn add(&mut self, node: Node, anchor: usize, weight: Weight) -> Result<(), Stop> {
        if anchor != 0 {
            self.spend(node.place, weight)?;
            self.anchors.insert(anchor, (Rc::new(node.clone()), weight));
        }
        if self.awaits_key() {
            let text = match &node.content {
                Content::Scalar(Value::String(text)) if text.len() <= MAX_KEY_BYTES => Some(text.clone()),
                Content::Scalar(_) | Content::List(_) | Content::Map(_) => None,
            };
            self.key(node.place, text);
            return Ok(());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.weight.nodes += weight.nodes;
        open.weight.bytes += weight.bytes;
        open.weight.height = open.weight.height.max(weight.height + 1);
        match &mut open.content {
            OpenContent::List(items) => items.push(node),
            OpenContent::Map(entries, _, key) => {
                if let Some(Key {
                    text: Some(text),
                    place,
                }) = key.take()
                {
                    entries.push(Entry {
                        key: text,
                        key_place: place,
                        value: node,
                    });
                }
            }
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: OpenContent::Map(_, _, None),
                ..
            })
        )
    }

    fn key(&mut self, place: Place, mut text: Option<String>) {
        let Some(Open {
            content: OpenContent::Map(_, seen, key),
            weight,
            ..
        }) = self.open.last_mut()
        else {
            return;
        };
        weight.nodes += 1;
        weight.bytes += text.as_ref().map_or(0, String::len);
        let why = match &text {
            None => Some("a key is a short text, not a list or a mapping".to_owned()),
            Some(name) => seen
                .get(name)
                .map(|first| format!("the key is given twice, first at line {}", first.line)),
        };
        if let Some(name) = &text {
            seen.entry(name.clone()).or_insert(place);
        }
        let named = text.clone();
        if why.is_some() {
            text = None;
        }
        *key = Some(Key { text, place });
        if let Some(why) = why {
            let mut path = self.path_to_open();
            path.0.extend(named.map(Step::Field));
            self.tell(Fault { place, path, why });
        }
    }

    fn note(&mut self, place: Place, why: impl Into<String>) {
        let path = self.path();
        self.tell(Fault {
            place,
            path,
            why: why.into(),
        });
    }

    /// Those beyond the limit would not be shown.
    fn tell(&mut self, fault: Fault) {
        if self.faults.len() < MAX_DIAGNOSTICS {
            self.faults.push(fault);
        }
    }

    /// The path to the value that is read next.
    fn path(&self) -> FieldPath {
        FieldPath(self.open.iter().filter_map(step).collect())
    }

    /// The path to the innermost list or mapping that is open.
    fn path_to_open(&self) -> FieldPath {
        let outer = self.open.split_last().map_or(&[][..], |(_, outer)| outer);
        FieldPath(outer.iter().filter_map(step).collect())
    }

    fn place(&self, marker: Marker) -> Place {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            line: number(marker.line())
                .max(1)
                .saturating_add(self.first_line.saturating_sub(1)),
            column: number(marker.col()).saturating_add(1),
        }
    }
}

fn step(open: &Open) -> Option<Step> {
    match &open.content {
        OpenContent::List(items) => Some(Step::Item(items.len())),
        OpenContent::Map(_, _, key) => key.as_ref()?.text.clone().map(Step::Field),
    }
}

/// A scalar whose type is written before it, such as `!!str 8080`.
fn tagged(tag: &Tag, text: &str) -> Result<Value, String> {
    let suffix = if tag.is_yaml_core_schema() {
        tag.suffix.as_str()
    } else {
        ""
    };
    let fits: fn(&Value) -> bool = match suffix {
        "str" => return Ok(Value::String(text.to_owned())),
        "int" => |value| value.is_i64() || value.is_u64(),
        "float" => Value::is_number,
        "bool" => Value::is_boolean,
        "null" => Value::is_null,
        _ => return Err(format!("the tag {} is not supported", shown(tag))),
    };
    let value = scalar::plain(text)?;
    if fits(&value) {
        Ok(value)
    } else {
        Err(format!("{text:?} is not what its tag {} says", shown(tag)))
    }
}

/// The tag as it is usually written, `!!str`.
fn shown(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        tag.to_string()
    }
}
