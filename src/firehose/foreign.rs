//! Makes text from outside fit for a log line or a dead letter.

/// The most bytes of such a text: an endpoint may say megabytes.
pub(super) const LIMIT: usize = 512;

/// Marks where a text was cut.
const CUT: char = '…';

/// The text with a space for each control character, cut at a character to [`LIMIT`] bytes.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LIMIT));
    // Where to cut if more follows than fits.
    let mut fits = 0;
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if shown.len() + c.len_utf8() > LIMIT {
            shown.truncate(fits);
            shown.push(CUT);
            break;
        }
        shown.push(c);
        if shown.len() + CUT.len_utf8() <= LIMIT {
            fits = shown.len();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_fits_is_left_as_it_is_and_the_rest_is_cut_at_a_character(text in "[\\PC\\x00-\\x1f]{0,700}") {
            let shown = shown(&text);
            prop_assert!(shown.len() <= LIMIT && !shown.contains(char::is_control));
            let plain = |text: &str| text.replace(char::is_control, " ");
            let kept = shown.strip_suffix(CUT).filter(|_| text.len() > LIMIT).unwrap_or(&shown);
            prop_assert!(plain(&text).starts_with(kept), "{:?}", shown);
            // No more is cut than must be: one character and the sign.
            prop_assert!(text.len() <= LIMIT && shown == plain(&text) || shown.len() > LIMIT - CUT.len_utf8() - 4);
        }
    }
}
