//! What a record must be, for tests: the same rules over `serde_json::Value`, as simple as possible, sharing no code with the writer.

use crate::event::chunk::{Token, Value as Tape};
use serde_json::{Map, Value, json};

/// The options that decide what a record contains.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Source paths and targets.
    pub remap: Vec<(Vec<&'static str>, &'static str)>,
    pub preserve_source: bool,
    pub overwrite: bool,
    /// Pod, namespace, container, id.
    pub tag: Option<[String; 4]>,
    pub constants: Vec<(&'static str, &'static str)>,
    pub keep: Option<Vec<Vec<&'static str>>>,
    pub drop: Vec<Vec<&'static str>>,
    pub dots: Option<&'static str>,
    pub time: Option<(&'static str, &'static str)>,
}

/// The value as JSON.
pub fn json_of(value: Tape<'_, '_>, in_key: bool) -> Value {
    match value.token() {
        Token::Nil => Value::Null,
        Token::Bool(flag) => flag.into(),
        Token::UInt(number) => number.into(),
        Token::Int(number) => number.into(),
        // Through its shortest text, as the writer does.
        Token::F32(number) => serde_json::from_str(&serde_json::to_string(&number).unwrap()).unwrap(),
        Token::F64(number) => json!(number),
        Token::Str(text) => String::from_utf8_lossy(text).into(),
        Token::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => String::from_utf8_lossy(bytes).into(),
        Token::Bin(bytes) | Token::Ext(bytes) => base64_simd::STANDARD.encode_to_string(bytes).into(),
        Token::TooDeep => "[nested too deep]".into(),
        Token::Array { len, .. } => {
            let mut at = value.at + 1;
            let item = |_| {
                let item = Tape { tape: value.tape, at };
                at = item.next();
                json_of(item, in_key)
            };
            (0..len).map(item).collect()
        }
        Token::Map { .. } => {
            // A repeated key keeps its first place and its last value.
            let mut map = Map::new();
            for (key, value) in value.pairs() {
                let name = match (key.token(), json_of(key, true)) {
                    (Token::Array { .. } | Token::Map { .. }, _) if in_key => "[nested too deep]".to_owned(),
                    (_, Value::String(text)) => text,
                    (_, other) => other.to_string(),
                };
                map.insert(name, json_of(value, in_key));
            }
            map.into()
        }
    }
}

fn find<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, part| value.as_object()?.get(*part))
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some((last, way)) = path.split_last() else { return };
    let map = way.iter().try_fold(value, |value, part| value.as_object_mut()?.get_mut(*part));
    if let Some(Value::Object(map)) = map {
        map.shift_remove(*last);
    }
}

fn keep(value: &Value, paths: &[&[&str]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let kept: Map<String, Value> = value
        .as_object()?
        .iter()
        .filter_map(|(name, value)| {
            let below: Vec<&[&str]> = paths.iter().filter(|path| path[0] == name).map(|path| &path[1..]).collect();
            if below.is_empty() { None } else { Some((name.clone(), keep(value, &below)?)) }
        })
        .collect();
    (!kept.is_empty()).then(|| kept.into())
}

fn undot(value: &mut Value, with: &str, reserved: &[String]) {
    match value {
        Value::Object(map) => {
            let mut renamed = Map::new();
            for (name, mut value) in std::mem::take(map) {
                undot(&mut value, with, &[]);
                let name = name.replace('.', with);
                if !reserved.contains(&name) && !renamed.contains_key(&name) {
                    renamed.insert(name, value);
                }
            }
            *map = renamed;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| undot(item, with, &[])),
        _ => {}
    }
}

/// Whether the `kubernetes` map has a text there; a value that only becomes a text in JSON does not count.
fn is_name(body: Tape<'_, '_>, field: &str) -> bool {
    let value = body.get(b"kubernetes").and_then(|(_, map)| map.get(field.as_bytes()));
    value.is_some_and(|(_, value)| match value.token() {
        Token::Str(text) => !text.is_empty(),
        Token::Bin(text) => !text.is_empty() && std::str::from_utf8(text).is_ok(),
        _ => false,
    })
}

/// The record of an event outside of groups, without its newline; `None` if it is empty.
pub fn record(body: Tape<'_, '_>, rules: &Rules) -> Option<Value> {
    let whole = match json_of(body, false) {
        Value::Object(map) if map.is_empty() => return None,
        Value::Object(map) => Value::Object(map),
        other => json!({"log": other}),
    };
    // A body that is not a map has no attributes to map.
    let is_map = matches!(body.token(), Token::Map { .. });
    let nothing = json!({});
    let mapped = if is_map { &whole } else { &nothing };
    let mut own = whole.clone();
    let (mut removed, mut moved) = (Vec::new(), Vec::new());
    for (path, target) in &rules.remap {
        if **path == [*target] && find(mapped, path).is_some() {
            continue;
        }
        let field = ["pod_name", "namespace_name", "container_name", "docker_id"]
            .iter()
            .position(|field| **path == ["kubernetes", *field]);
        let source = find(mapped, path).filter(|_| field.is_none() || is_name(body, path[1]));
        let from_tag = field.and_then(|field| Some(rules.tag.as_ref()?[field].clone()));
        if source.is_none() && from_tag.is_none() || mapped.get(target).is_some() && !rules.overwrite {
            continue;
        }
        if mapped.get(target).is_some() {
            remove(&mut own, &[target]);
        }
        if source.is_some() && !rules.preserve_source {
            removed.push(path.clone());
        }
        moved.push((*target, source.map(|source| (path.clone(), source.clone())), from_tag));
    }
    for path in &removed {
        remove(&mut own, path);
    }
    if let Some((name, _)) = rules.time {
        remove(&mut own, &[name]);
    }
    let mut behind = Map::new();
    for (target, source, from_tag) in moved {
        let value = match source {
            Some((path, mut value)) => {
                for below in removed.iter().filter_map(|other| other.strip_prefix(&path[..])) {
                    remove(&mut value, below);
                }
                value
            }
            None => from_tag.unwrap_or_default().into(),
        };
        behind.insert(target.to_owned(), value);
    }
    let mut behind = Value::Object(behind);
    for part in [&mut own, &mut behind] {
        if let Some(paths) = &rules.keep {
            let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
            *part = keep(part, &paths).unwrap_or_else(|| json!({}));
        }
        for path in &rules.drop {
            remove(part, path);
        }
    }
    if let Some(with) = rules.dots {
        let added = behind.as_object()?.keys().map(String::as_str).chain(rules.time.map(|(name, _)| name));
        let reserved: Vec<String> = added.map(|name| name.replace('.', with)).collect();
        undot(&mut own, with, &reserved);
        undot(&mut behind, with, &[]);
    }
    let name = |name: &str| rules.dots.map_or(name.to_owned(), |with| name.replace('.', with));
    let Value::Object(mut all) = own else { return None };
    all.extend(behind.as_object()?.clone());
    if all.is_empty() {
        return None;
    }
    for (constant, value) in &rules.constants {
        all.entry(name(constant)).or_insert_with(|| (*value).into());
    }
    if let Some((time, text)) = rules.time {
        all.insert(name(time), text.into());
    }
    Some(all.into())
}
