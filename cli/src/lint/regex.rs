//! Regular expressions, compiled as Fluent Bit compiles them (src/flb_regex.c): Onigmo's syntax of Ruby, with `/…/imx`.

use onig::{Regex, RegexOptions, Syntax};

/// Compiles `pattern`, or says why Fluent Bit cannot.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let mut options = RegexOptions::REGEX_OPTION_NONE;
    let mut body = pattern;
    if let Some(inner) = pattern.strip_prefix('/')
        && let Some((expression, flags)) = inner.rsplit_once('/')
        && !(expression.is_empty() && flags.is_empty())
        && flags.chars().all(|flag| "imxo".contains(flag))
    {
        body = expression;
        for flag in flags.chars() {
            options |= match flag {
                'i' => RegexOptions::REGEX_OPTION_IGNORECASE,
                'm' => RegexOptions::REGEX_OPTION_MULTILINE,
                'x' => RegexOptions::REGEX_OPTION_EXTEND,
                _ => RegexOptions::REGEX_OPTION_NONE,
            };
        }
    }
    let body = as_onigmo(body)?;
    Regex::with_options(&body, options, Syntax::ruby()).map_err(|error| error.description().to_owned())
}

/// The pattern for Oniguruma, the library here, or what Onigmo, its fork in Fluent Bit, refuses of what the library accepts: a
/// look-behind of any length, names with other signs than a word's, a repetition of which the most is less than the least.
/// The fork alone has the options a, d and u, which are left out.
fn as_onigmo(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    // Of each open group, whether it is in a look-behind.
    let mut groups: Vec<bool> = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let behind = groups.last().is_some_and(|behind| *behind);
        let mut taken = c.len_utf8();
        match c {
            '\\' => {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
                if let Some((digits, _)) = rest.strip_prefix("\\x{").and_then(|digits| digits.split_once('}'))
                    && u32::from_str_radix(digits, 16).is_ok_and(|code| code > 0x10_FFFF)
                {
                    return Err(format!("there is no character \\x{{{digits}}}"));
                }
            }
            '[' => taken = class(rest),
            '(' if rest.starts_with("(?#") => taken = rest.find(')').map_or(rest.len(), |end| end + 1),
            '(' => {
                groups.push(behind || rest.starts_with("(?<=") || rest.starts_with("(?<!"));
                if let Some(name) = rest.strip_prefix("(?<").filter(|name| !name.starts_with(['=', '!']))
                    && let Some((name, _)) = name.split_once('>')
                    && name.chars().any(|c| !c.is_alphanumeric() && c != '_')
                {
                    return Err(format!("invalid char in group name <{name}>"));
                }
                if let Some(inner) = rest.strip_prefix("(?") {
                    taken += 1;
                    let end = inner.find(|c: char| !"imxadu-".contains(c)).unwrap_or(inner.len());
                    let (flags, tail) = inner.split_at(end);
                    // They can only be switched on.
                    let (on, off) = flags.find('-').map_or((flags, ""), |at| flags.split_at(at));
                    let kept = format!("{}{off}", on.replace(['a', 'd', 'u'], ""));
                    if kept != flags && tail.starts_with([')', ':']) {
                        // Without any, `(?)` is no group, and a comment is.
                        out.push_str(if kept.is_empty() && tail.starts_with(')') { "(?#" } else { "(?" });
                        out.push_str(&kept);
                        rest = tail;
                        continue;
                    }
                }
            }
            ')' => drop(groups.pop()),
            '*' | '+' | '?' if behind => return Err(LOOK_BEHIND.to_owned()),
            '{' => {
                let times = rest[1..].split_once('}').map(|(times, _)| times);
                let number = |text: &str| text.parse::<u32>().ok();
                match times.map(|times| (times, times.split_once(','))) {
                    Some((_, Some((least, most))))
                        if is_count(least) && is_count(most) && !(least.is_empty() && most.is_empty()) =>
                    {
                        if let (Some(least), Some(most)) = (number(least), number(most))
                            && least > most
                        {
                            return Err("upper is smaller than lower in repeat range".to_owned());
                        }
                        if behind && least != most {
                            return Err(LOOK_BEHIND.to_owned());
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let (item, tail) = rest.split_at(taken);
        rest = tail;
        if ANCHORS.contains(&item) && !behind {
            // Only the fork repeats an anchor: what may be there no time at all says nothing, and twice is as once.
            rest = tail.trim_start_matches(['*', '+', '?']);
            if tail.starts_with(['*', '?']) {
                continue;
            }
        }
        out.push_str(item);
    }
    Ok(out)
}

const ANCHORS: [&str; 8] = ["^", "$", "\\b", "\\B", "\\A", "\\z", "\\Z", "\\G"];
const LOOK_BEHIND: &str = "invalid pattern in look-behind";

fn is_count(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The bytes of a class of characters, which begins the text; classes may stand in one.
fn class(text: &str) -> usize {
    let mut depth = 0;
    let mut characters = text.char_indices().peekable();
    let mut first = false;
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '[' => {
                depth += 1;
                // A bracket that closes stands for itself where it comes first.
                characters.next_if(|(_, c)| *c == '^');
                first = true;
                continue;
            }
            ']' if first => {}
            ']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        first = false;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_compiled_as_ruby_has_them() {
        for good in ["^(?<a>[^ ]+)$", "/a/i", "(?<=x)y", "a++", "", "/", "\\h+", "[[:alpha:]]"] {
            assert!(compile(good).is_ok(), "{good}");
        }
        for bad in ["(", "*", "[a", "(?<a>", "a{2,1}(", "(?<!a*)b("] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        // What Onigmo 6.2 itself says, which is stricter in some and has options of its own.
        for good in [
            "(?<=ab|c)d",
            "(?<=a{2})b",
            "(?<=[*+?])b",
            "(?<=\\*)b",
            "(?<=a)b+",
            "(?<=(?:a))b?",
            "(?<é_1>x)",
            "(?a)x",
            "(?u:x)",
            "(?ia-m:x)",
            "(?d)(x)+",
            "a{1,2}",
            "a{,2}",
            "{a",
            "(?#+)(?<=a)",
            "[(?<=]a+",
            "[]?]b*",
            "x{2}",
            "^*a$?b\\b+",
            "\\b+x",
            "\\x{10FFFF}",
        ] {
            assert!(compile(good).is_ok(), "{good}: {:?}", compile(good).err());
        }
        for bad in [
            "(?<=a+)b",
            "(?<!a|b*)c",
            "(?<=a?)b",
            "(?<=a{1,2})b",
            "(?<=a{,2})b",
            "(?<=(?:a+))b",
            "(?<=.*)x",
            "(?<a-b>x)",
            "(?<a b>x)",
            "(?<@t>x)",
            "a{2,1}",
            "\\x{110000}",
            "(?s)x",
            "(?i-mu:x)",
        ] {
            assert!(compile(bad).is_err(), "{bad}");
        }
        assert!(compile("/ABC/i").unwrap().find("abc").is_some());
    }
}
