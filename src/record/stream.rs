//! Which delivery stream an event goes to: a name made of its values and its tag (`delivery_stream` as a template).
//!
//! The grammar is that of Fluent Bit's record accessors within a text, as `cloudwatch_logs` uses it for group and stream names:
//! `logs-$kubernetes['namespace_name']`, `$TAG`, `$TAG[1]`. A key after `$` is made of letters, digits and `_`, and ends with the
//! first other character, so that text may follow directly.

use crate::event::chunk::{Chunk, Token, Value};
use crate::event::path::{Found, Path, Paths};
use crate::event::raw::Finder;
use crate::record::remap::{KUBERNETES, TagFields};
use crate::service::is_stream_name;
use std::fmt::Write;

/// A name that is made for each event.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
    paths: Paths,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    /// The value at the path with this number, or else the tag's value for it.
    Value(usize, Path),
    Tag,
    /// A part of the tag between dots, from 0 on.
    Nth(usize),
}

/// Buffers that are kept from one event to the next.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    finder: Finder,
    found: Vec<Option<Found>>,
    name: String,
}

impl Template {
    /// Reads a template; `None` if the text has no `$`, and is a plain name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Template>, String> {
        if !text.contains('$') {
            return Ok(None);
        }
        let (mut parts, mut paths) = (Vec::new(), Paths::default());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(fixed(before)?));
            }
            let length = behind.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            let (key, mut behind) = behind.split_at(length);
            if key.is_empty() {
                return Err("behind a '$' stands a key of the record, TAG or TAG[n]".to_owned());
            }
            if key.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("'${key}' is a group of a regular expression, of which there is none here"));
            }
            if key == "TAG" {
                match behind.strip_prefix('[').and_then(|index| index.split_once(']')) {
                    Some((index, after)) => {
                        let index = index.parse().map_err(|_| {
                            format!("'$TAG[{index}]': in the brackets stands which part of the tag, from 0 on")
                        })?;
                        parts.push(Part::Nth(index));
                        behind = after;
                    }
                    None => parts.push(Part::Tag),
                }
            } else {
                let mut end = 0;
                while let Some(inner) = behind.get(end..).and_then(|behind| behind.strip_prefix("['")) {
                    let Some((part, _)) = inner.split_once("']") else {
                        return Err(format!("'${key}{behind}' is no record accessor: a part is written ['key']"));
                    };
                    end += "['']".len() + part.len();
                }
                let (keys, after) = behind.split_at(end);
                if after.starts_with('[') {
                    return Err(format!("'${key}{behind}' is no record accessor: a part is written ['key']"));
                }
                if key == "kubernetes" && keys.is_empty() {
                    return Err("'$kubernetes' alone is a map: write $kubernetes['namespace_name']".to_owned());
                }
                let path = Path::parse(&format!("${key}{keys}"))?;
                parts.push(Part::Value(paths.add(&path), path));
                behind = after;
            }
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(fixed(rest)?));
        }
        Ok(Some(Template { parts, paths }))
    }

    /// Whether an event's name depends on its `kubernetes` map and the tag alone.
    pub fn reads_kubernetes_alone(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Value(_, path) => path.segments().first().is_some_and(|first| **first == *KUBERNETES),
            Part::Text(_) | Part::Tag | Part::Nth(_) => true,
        })
    }

    /// The name for the next event of a chunk, which is moved past it; `None` at the chunk's end. There is no name if a value is
    /// missing, or the service would refuse the name. If the event has no text, the value comes from the tag, as for the attributes of
    /// the record.
    pub fn next<'s>(
        &self,
        chunk: &mut Chunk<'_>,
        tag: &str,
        fields: Option<&TagFields>,
        scratch: &'s mut Scratch,
    ) -> Option<Option<&'s str>> {
        let Scratch { finder, found, name } = scratch;
        let whole = match finder.find(&self.paths, chunk) {
            Some(data) => self.write(tag, fields, name, |number| finder.token(number, data)),
            None => {
                let body = chunk.next_event()?.body;
                self.paths.find(body, found);
                let value = |number: usize| found.get(number).copied().flatten();
                self.write(tag, fields, name, |number| {
                    Some(Value { tape: body.tape, at: value(number)?.value }.token())
                })
            }
        };
        Some((whole.is_some() && is_stream_name(name)).then_some(name))
    }

    /// Writes the name; `None` if a value is missing.
    fn write<'a>(
        &self,
        tag: &str,
        fields: Option<&TagFields>,
        name: &mut String,
        value: impl Fn(usize) -> Option<Token<'a>>,
    ) -> Option<()> {
        name.clear();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Tag => name.push_str(tag),
                Part::Nth(index) => name.push_str(tag.split('.').nth(*index)?),
                Part::Value(number, path) => match value(*number) {
                    Some(Token::Str(text) | Token::Bin(text)) if !text.is_empty() => {
                        name.push_str(std::str::from_utf8(text).ok()?);
                    }
                    Some(Token::UInt(number)) => write!(name, "{number}").ok()?,
                    Some(Token::Int(number)) => write!(name, "{number}").ok()?,
                    _ => name.push_str(std::str::from_utf8(fields?.at(path)?).ok()?),
                },
            }
        }
        Some(())
    }
}

/// The texts that are the same in each name.
fn fixed(text: &str) -> Result<Box<str>, String> {
    match is_stream_name(text) {
        true => Ok(text.into()),
        false => Err(format!("'{text}' is no part of a stream's name: it has letters, digits, '_', '.' and '-'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::chunk::Chunk;
    use crate::record::tests::{arbitrary_body, chunk_of};
    use proptest::prelude::*;
    use serde_json::json;

    const TAG: &str =
        "kube.var.log.containers.web-0_shop_app-0123456789012345678901234567890123456789012345678901234567890123.log";

    fn name(template: &str, body: &serde_json::Value, tag: &str) -> Option<String> {
        let data = chunk_of(body);
        let mut chunk = Chunk::new(&data);
        let template = Template::parse(template).unwrap().unwrap();
        let fields = TagFields::parse(tag.as_bytes());
        template.next(&mut chunk, tag, fields.as_ref(), &mut Scratch::default()).unwrap().map(str::to_owned)
    }

    #[test]
    fn a_name_is_made_of_values_the_tag_and_texts() {
        let body = json!({"kubernetes": {"namespace_name": "pay", "labels": {"app.kubernetes.io/name": "api", "n": 7}}, "tag": "mine"});
        for (template, expected) in [
            ("$kubernetes['namespace_name']", Some("pay")),
            ("logs-$kubernetes['namespace_name']-eu", Some("logs-pay-eu")),
            ("$kubernetes['labels']['app.kubernetes.io/name'].$kubernetes['labels']['n']", Some("api.7")),
            ("$tag", Some("mine")),
            ("x-$TAG[0]", Some("x-a")),
            ("$TAG[2]-$TAG[1]", Some("c-b")),
            ("$TAG", Some("a.b.c")),
            ("$TAG[3]", None),
            ("$kubernetes['no']", None),
            ("$kubernetes['labels']", None),
        ] {
            assert_eq!(name(template, &body, "a.b.c").as_deref(), expected, "{template}");
        }
    }

    #[test]
    fn what_the_event_does_not_say_the_tag_says() {
        for body in [json!({}), json!({"kubernetes": null}), json!({"kubernetes": {"namespace_name": ""}})] {
            assert_eq!(name("logs-$kubernetes['namespace_name']", &body, TAG).as_deref(), Some("logs-shop"), "{body}");
            assert_eq!(name("logs-$kubernetes['namespace_name']", &body, "other"), None);
        }
    }

    #[test]
    fn equal_maps_and_repeated_keys_are_each_their_own() {
        let head = b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80";
        // Longer than what decides the place of what is kept of it.
        let map = [b"\x82\xa1b\xa1x\xa1z\xd9\xc8", &[b'z'; 200][..]].concat();
        let equal = [b"\x82\xa1a", &map[..], b"\xa1c", &map].concat();
        for (body, template, expected) in [
            (&equal[..], "$a['b']-$c['b']", Some("x-x")),
            (b"\x82\xa1a\x81\xa1b\xa1x\xa1a\x80", "$a['b']", None),
            (b"\x81\xa1a\x82\xa1b\x81\xa1c\xa1x\xa1b\x81\xa1d\xa1x", "$a['b']['c']", None),
        ] {
            let template = Template::parse(template).unwrap().unwrap();
            let (data, mut scratch) = ([head, body].concat().repeat(2), Scratch::default());
            let mut chunk = Chunk::new(&data);
            for _ in 0..2 {
                assert_eq!(template.next(&mut chunk, "t", None, &mut scratch), Some(expected), "{body:02x?}");
            }
        }
    }

    #[test]
    fn what_the_service_would_not_take_is_no_name() {
        for value in ["", "a/b", "ä", "a b", "../x", "arn:aws:firehose:x", &"a".repeat(65), "a\u{0}", "\"},{"] {
            assert_eq!(name("$k", &json!({ "k": value }), "t"), None, "{value}");
        }
        assert_eq!(name("$k", &json!({"k": "a".repeat(64)}), "t"), Some("a".repeat(64)));
    }

    #[test]
    fn what_is_no_template_is_told() {
        for text in [
            "$",
            "a$",
            "$-",
            "$0",
            "a-$1",
            "$TAG[x]",
            "$TAG[-1]",
            "$a['b",
            "$a[b]",
            "$a[0]",
            "$a['']",
            "a b$c",
            "$a['b']/x",
            "$$a",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse("a-name").unwrap().is_none());
    }

    /// Bodies of few keys and values, so that keys are repeated, and attributes have equal maps.
    fn dense_body() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop::sample::select(vec![&b"\xa1x"[..], b"\xa1y", b"\xa0", b"\x07", b"\xc4\x01z"])
            .prop_map(<[u8]>::to_vec);
        let value = leaf.prop_recursive(3, 16, 4, |inner| {
            let key = prop::sample::select(vec![&b"\xa1a"[..], b"\xa1b", b"\xaakubernetes"]);
            prop::collection::vec((key, inner), 0..4).prop_map(|pairs| {
                let all: Vec<u8> = pairs.iter().flat_map(|(key, value)| [key, &value[..]].concat()).collect();
                [&[0x80 | pairs.len() as u8], &all[..]].concat()
            })
        });
        value.prop_filter("an event's body", |body| body[0] >> 4 == 8)
    }

    proptest! {
        #[test]
        fn events_that_are_read_without_a_tape_have_the_same_names(
            bodies in prop::collection::vec((prop_oneof![arbitrary_body(), dense_body()], 1..3usize), 1..6),
            damage in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut data = Vec::new();
            for (body, times) in bodies {
                for _ in 0..times {
                    data.extend_from_slice(b"\x92\x92\xd7\x00\x65\x53\xf1\x00\x07\x5b\xcd\x15\x80");
                    data.extend_from_slice(&body);
                }
            }
            if let Some((at, byte)) = damage {
                *at.get_mut(&mut data) = byte;
            }
            for template in ["$a", "$kubernetes['pod_name']-$a", "$a['b']$b['b']", "$a['b']['a']x$a$kubernetes['labels']['a']", "$kubernetes['labels']"] {
                let template = Template::parse(template).unwrap().unwrap();
                let (mut chunk, mut tape, mut scratch) = (Chunk::new(&data), Chunk::new(&data), Scratch::default());
                while let Some(name) = template.next(&mut chunk, "t", None, &mut scratch) {
                    let name = name.map(str::to_owned);
                    let body = tape.next_event().unwrap().body;
                    let mut found = Vec::new();
                    template.paths.find(body, &mut found);
                    let value = |number: usize| found[number].map(|found| Value { tape: body.tape, at: found.value }.token());
                    let mut expected = String::new();
                    let whole = template.write("t", None, &mut expected, value);
                    prop_assert_eq!(name, (whole.is_some() && is_stream_name(&expected)).then_some(expected));
                    prop_assert_eq!(chunk.resume_state(), tape.resume_state());
                }
                prop_assert!(tape.next_event().is_none());
            }
        }

        #[test]
        fn no_text_panics_and_each_name_is_one_that_the_service_takes(
            template in "[a$T\\[\\]'G_A0.-]{0,24}",
            value in "\\PC{0,8}",
            tag in "[a-c.]{0,8}",
        ) {
            let data = chunk_of(&json!({"a": value, "G": {"a": value}}));
            let mut chunk = Chunk::new(&data);
            if let Ok(Some(template)) = Template::parse(&template)
                && let Some(Some(name)) = template.next(&mut chunk, &tag, None, &mut Scratch::default())
            {
                prop_assert!(is_stream_name(name), "{name}");
            }
        }
    }
}
