//! Lists of CPUs and memory nodes such as `0-3,7`, as bit masks.

use crate::error::Error;

/// Numbers from here on are refused: the kernel's own limits are 8192 CPUs and 1024 nodes.
const LIMIT: usize = 65_536;

/// Parses a list into words, bit N of word N/64 being number N. An empty list has no words.
pub(super) fn parse(field: &str, list: &str) -> Result<Vec<u64>, Error> {
    let wrong = |part: &str| Error::config(field, format!("{part:?} is not a number or range in {list:?}"));
    let number = |text: &str| -> Option<usize> {
        let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        valid.then(|| text.parse().ok()).flatten().filter(|number| *number < LIMIT)
    };
    let list = list.trim();
    let mut mask: Vec<u64> = Vec::new();
    if list.is_empty() {
        return Ok(mask);
    }
    for part in list.split(',') {
        let text = part.trim();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(wrong(part)) };
        if first > last {
            return Err(wrong(part));
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        for number in first..=last {
            mask[number / 64] |= 1 << (number % 64);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (list, expected) in [
            ("", vec![]),
            ("0", vec![1]),
            ("0-3,7", vec![0x8f]),
            (" 1 , 3-3 ", vec![0b1010]),
            ("63-64", vec![1 << 63, 1]),
            ("2048", [vec![0; 32], vec![1]].concat()),
        ] {
            assert_eq!(parse("f", list).unwrap(), expected, "{list:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for list in [",", "1,", "3-1", "-1", "1-", "+1", "0x1", "a", "65536", "0-65536", "99999999999999999999", "1 2"]
        {
            let error = parse("process.execCPUAffinity.initial", list).unwrap_err();
            assert!(error.to_string().contains("process.execCPUAffinity.initial"), "{list:?}");
        }
    }
}
