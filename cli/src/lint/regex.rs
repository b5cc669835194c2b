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
    Regex::with_options(body, options, Syntax::ruby()).map_err(|error| error.description().to_owned())
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
        assert!(compile("/ABC/i").unwrap().find("abc").is_some());
    }
}
