//! Back references: `{"$ref":"<path>"}` stands for an object that appears elsewhere in the document.
//!
//! Paths: `$` the root, `$.name.name[0]` from the root. A backslash in a path makes the next character part of a name. A
//! reference that contains itself has no finite value and is refused; this includes `@` (the object that holds the
//! reference) and `..` (that object's parent). Source: SerialContext, DefaultJSONParser.handleResovleTask.

use super::limits::{MAX_DEPTH, MAX_NODES, MAX_REFERENCE_LENGTH, MAX_RESOLVED_TEXT_LENGTH};
use super::{JsonError, Value};

/// The member name that marks a reference.
pub const REFERENCE_KEY: &str = "$ref";

/// Returns a copy of `root` in which each reference has been replaced by what it names.
pub fn resolve(root: &Value) -> Result<Value, JsonError> {
    let mut resolver = Resolver { root, nodes: 0, text_length: 0 };
    resolver.copy(root, &mut Vec::new(), 0)
}

struct Resolver<'a> {
    root: &'a Value,
    nodes: usize,
    text_length: usize,
}

impl<'a> Resolver<'a> {
    /// `ancestors`: the containers around `value` in the unresolved document, outermost first. `depth` counts levels of
    /// the result, which also ends references that contain themselves.
    fn copy(&mut self, value: &'a Value, ancestors: &mut Vec<&'a Value>, depth: usize) -> Result<Value, JsonError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(JsonError::TooLarge);
        }
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        if let Some(path) = reference_path(value) {
            let mut target_ancestors = self.find(path)?;
            let bad = || JsonError::BadReference { path: path.to_owned() };
            let target = target_ancestors.pop().ok_or_else(bad)?;
            if std::ptr::eq(target, value) || ancestors.iter().any(|&ancestor| std::ptr::eq(ancestor, target)) {
                return Err(bad());
            }
            return self.copy(target, &mut target_ancestors, depth + 1);
        }
        ancestors.push(value);
        let copy = match value {
            Value::Array(items) => {
                let mut copies = Vec::with_capacity(items.len());
                for item in items {
                    copies.push(self.copy(item, ancestors, depth + 1)?);
                }
                Value::Array(copies)
            }
            Value::Object(members) => {
                let mut copies = serde_json::Map::new();
                for (key, member) in members {
                    self.count_text(key)?;
                    copies.insert(key.clone(), self.copy(member, ancestors, depth + 1)?);
                }
                Value::Object(copies)
            }
            Value::String(text) => {
                self.count_text(text)?;
                Value::String(text.clone())
            }
            scalar => scalar.clone(),
        };
        ancestors.pop();
        Ok(copy)
    }

    fn count_text(&mut self, text: &str) -> Result<(), JsonError> {
        self.text_length += text.len();
        if self.text_length > MAX_RESOLVED_TEXT_LENGTH { Err(JsonError::TooLarge) } else { Ok(()) }
    }

    /// The chain from the root to the target of `path`, the target last.
    fn find(&self, path: &str) -> Result<Vec<&'a Value>, JsonError> {
        let bad = || JsonError::BadReference { path: path.chars().take(200).collect() };
        if path.len() > MAX_REFERENCE_LENGTH {
            return Err(bad());
        }
        let mut rest = path.strip_prefix('$').ok_or_else(bad)?;
        let mut chain = vec![self.root];
        let mut current = self.root;
        while !rest.is_empty() {
            let (step, after) = next_step(rest).ok_or_else(bad)?;
            current = match current {
                Value::Object(members) => members.get(&step),
                Value::Array(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            }
            .ok_or_else(bad)?;
            chain.push(current);
            if chain.len() > MAX_DEPTH + 1 {
                return Err(JsonError::TooDeep);
            }
            rest = after;
        }
        Ok(chain)
    }
}

fn reference_path(value: &Value) -> Option<&str> {
    let members = value.as_object()?;
    if members.len() != 1 {
        return None;
    }
    members.get(REFERENCE_KEY)?.as_str()
}

/// Splits the first step (`.name` or `[index]`) off a path.
fn next_step(path: &str) -> Option<(String, &str)> {
    if let Some(indexed) = path.strip_prefix('[') {
        let (index, after) = indexed.split_once(']')?;
        return Some((index.trim_matches(['\'', '"']).to_owned(), after));
    }
    let named = path.strip_prefix('.')?;
    let mut name = String::new();
    let mut characters = named.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '.' | '[' => return Some((name, &named[position..])),
            '\\' => name.push(characters.next()?.1),
            other => name.push(other),
        }
    }
    Some((name, ""))
}
