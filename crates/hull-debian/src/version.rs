//! Versions of Debian packages and their order (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions as dpkg does. Text that is no valid version still has a place in the order.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (epoch_a, upstream_a, revision_a) = split(a);
    let (epoch_b, upstream_b, revision_b) = split(b);
    compare_epochs(epoch_a, epoch_b)
        .then_with(|| compare_part(upstream_a.as_bytes(), upstream_b.as_bytes()))
        .then_with(|| compare_part(revision_a.as_bytes(), revision_b.as_bytes()))
}

/// Whether a text is a version that dpkg would take.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    let (epoch, upstream, revision) = split(text);
    let epoch_ok = if text.contains(':') { epoch.parse::<i32>().is_ok_and(|number| number >= 0) } else { true };
    let part = |part: &str, also: &str| part.chars().all(|one| one.is_ascii_alphanumeric() || also.contains(one));
    text.len() <= 512
        && epoch_ok
        && upstream.starts_with(|one: char| one.is_ascii_digit())
        && part(upstream, ".+~-:")
        && part(revision, ".+~")
        && !(text.contains('-') && revision.is_empty())
}

/// Epoch, upstream version, revision; what is absent is empty.
fn split(text: &str) -> (&str, &str, &str) {
    let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Decimal numbers of any length.
fn compare_epochs(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Place of a character among what is not a digit: a tilde before the end, the end before letters, letters before the
/// rest.
fn place(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        Some(digit) if digit.is_ascii_digit() => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
        None => 0,
    }
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let digit = |part: &[u8]| part.first().is_some_and(u8::is_ascii_digit);
    while !a.is_empty() || !b.is_empty() {
        while (!a.is_empty() && !digit(a)) || (!b.is_empty() && !digit(b)) {
            let order = place(a.first().copied()).cmp(&place(b.first().copied()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let number = |part: &[u8]| part.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits_a, rest_a) = a.split_at(number(a));
        let (digits_b, rest_b) = b.split_at(number(b));
        let significant = |digits: &'_ [u8]| digits.iter().take_while(|byte| **byte == b'0').count();
        let (digits_a, digits_b) = (&digits_a[significant(digits_a)..], &digits_b[significant(digits_b)..]);
        let order = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_orders() {
        let ascending = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0+dfsg-1",
            "1.0.1-1",
            "1.2-1",
            "1.10-1",
            "1:0.1",
            "2:0",
        ];
        for (index, smaller) in ascending.iter().enumerate() {
            for larger in &ascending[index + 1..] {
                assert_eq!(compare(smaller, larger), Ordering::Less, "{smaller} {larger}");
                assert_eq!(compare(larger, smaller), Ordering::Greater, "{larger} {smaller}");
            }
        }
        for (a, b) in [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.00", "1.0"), ("1.0-01", "1.0-1"), ("00:1", "1")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn validity() {
        for good in ["1", "1:2.3~rc1+dfsg-4", "1-2-3", "2:1:3-1"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a1", "1/2", "-1", "1-", ":1", "x:1", "1 2", "1\n2"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    fn version() -> impl Strategy<Value = String> {
        ("([0-9]{1,2}:)?", "[0-9][0-9a-c.+~]{0,6}", "(-[0-9a-c.+~]{1,4})?").prop_map(|(e, u, r)| format!("{e}{u}{r}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_order(a in version(), b in version(), c in version()) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn any_text_has_a_place(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }

    #[test]
    fn as_dpkg_says() {
        if Command::new("dpkg").arg("--version").output().is_err() {
            println!("SKIPPED: dpkg is not installed");
            return;
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 150,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let pairs = (version(), version());
        runner
            .run(&pairs, |(a, b)| {
                let word = match compare(&a, &b) {
                    Ordering::Less => "lt",
                    Ordering::Equal => "eq",
                    Ordering::Greater => "gt",
                };
                let status = Command::new("dpkg").args(["--compare-versions", &a, word, &b]).status();
                prop_assert!(status.is_ok_and(|status| status.success()), "{} {} {}", a, word, b);
                Ok(())
            })
            .expect("dpkg agrees");
    }
}
