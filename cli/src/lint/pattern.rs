//! Fluent Bit's Match patterns, in which `*` is any text: whether two of them have a tag in common.

/// Whether some tag matches both `a` and `b`.
pub fn overlap(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // reach[j]: whether a[..i] and b[..j] can stand for the same text.
    let mut reach = vec![false; b.len() + 1];
    reach[0] = true;
    for j in 0..b.len() {
        reach[j + 1] = reach[j] && b[j] == '*';
    }
    for &x in &a {
        let mut diagonal = reach[0];
        reach[0] = reach[0] && x == '*';
        for (j, &y) in b.iter().enumerate() {
            let above = reach[j + 1];
            reach[j + 1] = match (x, y) {
                ('*', _) => above || reach[j] || diagonal,
                (_, '*') => above || reach[j] || diagonal,
                _ => x == y && diagonal,
            };
            diagonal = above;
        }
    }
    reach[b.len()]
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn patterns_overlap_where_one_tag_fits_both() {
        for (a, b, expected) in [
            ("kube.*", "kube.var.log.containers.*", true),
            ("*", "kube.*", true),
            ("kube.*", "kube.*", true),
            ("*.log", "kube.*", true),
            ("app.*", "kube.*", false),
            ("kube.*", "kube", false),
            ("kube.a", "kube.b", false),
            ("*a", "b*", true),
            ("a*b", "a*c", false),
            ("", "*", true),
            ("", "a", false),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }
}
