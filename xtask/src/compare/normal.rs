//! What two engines cannot agree on: IDs, times, ages, addresses, the name of the program, who says an error.

/// Words that begin an error: who found it is not compared, as Hull has no daemon.
const SPEAKERS: [&str; 11] = [
    "hull: ",
    "Error response from daemon: ",
    "Error: ",
    "template parsing error: ",
    "template: ",
    "failed to set up container networking: ",
    "failed to create task for container: ",
    "failed to create shim task: ",
    "OCI runtime create failed: ",
    "runc create failed: ",
    "unable to start container process: error during container init: ",
];

/// Numbers of a unit of time.
const UNITS: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];

/// Standard output.
pub(super) fn output(text: &str) -> String {
    // The program's own name, and keys that Hull takes over from Docker.
    let text: String = text.lines().map(|line| sorted(line) + "\n").collect();
    let text = text.replace("docker", "hull").replace("Docker", "Hull");
    let (text, aged) = ages(&words(&text));
    // The width of a column with an age depends on the age.
    if aged { text.lines().map(|line| squeeze(line) + "\n").collect() } else { text }
}

/// A JSON document with its keys sorted: their order says nothing.
fn sorted(line: &str) -> String {
    if !line.starts_with(['{', '[']) {
        return line.to_owned();
    }
    let document = serde_json::from_str::<serde_json::Value>(line);
    document.map_or_else(|_| line.to_owned(), |document| document.to_string())
}

/// `--memory: ` before what is wrong with it: Hull always names the flag.
fn flag(text: &str) -> Option<&str> {
    let (flag, rest) = text.split_once(": ")?;
    (flag.starts_with("--") && !flag.contains(' ')).then_some(rest)
}

/// The first line of standard error.
pub(super) fn error(line: &str) -> String {
    let text = output(line);
    let mut rest = text.trim();
    while let Some(shorter) = SPEAKERS.iter().find_map(|speaker| rest.strip_prefix(speaker)).or_else(|| flag(rest)) {
        rest = shorter;
    }
    // Hull says in the same line what comes after an empty line with Docker, and what to do about it.
    for end in ["; see 'hull ", "; did you mean ", ": did you mean ", "; use ", "; look at "] {
        rest = rest.split(end).next().unwrap_or(rest);
    }
    let rest = rest.trim_end_matches('.').trim_end();
    let mut letters = rest.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Replaces each word that is an ID, a time or an address; a word is what has letters, digits and `.:_-+`.
fn words(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for letter in text.chars().chain(['\0']) {
        if letter.is_ascii_alphanumeric() || ".:+-".contains(letter) {
            word.push(letter);
            continue;
        }
        out.push_str(&replaced(&word));
        word.clear();
        if letter != '\0' {
            out.push(letter);
        }
    }
    // `2026-11-21 14:30:42 +0000 UTC` is three words.
    for written in ["<date> <clock> +0000 UTC", "<date> <clock> <zone> UTC"] {
        out = out.replace(written, "<time>");
    }
    out
}

fn replaced(word: &str) -> String {
    let is_hex = |text: &str| text.chars().all(|one| one.is_ascii_digit() || ('a'..='f').contains(&one));
    if let Some(rest) = word.strip_prefix("sha256:") {
        return format!("sha256:{}", replaced(rest));
    }
    if let Some(rest) = word.strip_suffix(':') {
        return format!("{}:", replaced(rest));
    }
    if is_hex(word) && (word.len() == 64 || word.len() == 12 && word.chars().any(|one| one.is_ascii_digit())) {
        return format!("<id{}>", word.len());
    }
    let digits = |text: &str| !text.is_empty() && text.chars().all(|one| one.is_ascii_digit());
    let date = |text: &str| text.len() == 10 && text.split('-').count() == 3 && text.split('-').all(digits);
    if word.get(..10).is_some_and(date) {
        return match word.get(10..11) {
            None => "<date>".to_owned(),
            Some("T") => {
                // A prefix of an event or log line is followed by something else.
                "<time>".to_owned()
            }
            Some(_) => word.to_owned(),
        };
    }
    let clock = word.split('.').next().unwrap_or_default();
    if clock.len() == 8 && clock.split(':').count() == 3 && clock.split(':').all(digits) {
        return "<clock>".to_owned();
    }
    let pairs: Vec<&str> = word.split(':').collect();
    if pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2 && is_hex(pair)) {
        return "<mac>".to_owned();
    }
    if let [first, .., last] = word.split('.').collect::<Vec<_>>().as_slice()
        && matches!(*first, "172" | "192" | "10")
        && word.split('.').count() == 4
    {
        let port = last.split_once(':').map(|(_, port)| format!(":{port}")).unwrap_or_default();
        return format!("<ip>{port}");
    }
    word.to_owned()
}

/// Ages: `Less than a second`, `About a minute`, `3 seconds`. Whether there was one.
fn ages(text: &str) -> (String, bool) {
    let mut aged = false;
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| {
            let mut line = line.replace("Less than a second", "1 second").replace("About a minute", "1 minute");
            line = line.replace("About an hour", "1 hour");
            for unit in UNITS {
                for plural in [format!(" {unit}s"), format!(" {unit}")] {
                    while let Some(at) = line.find(&plural) {
                        let start = line[..at].rfind(|one: char| !one.is_ascii_digit()).map_or(0, |before| before + 1);
                        if start == at {
                            break;
                        }
                        aged = true;
                        line.replace_range(start..at + plural.len(), "<age>");
                    }
                }
            }
            line
        })
        .collect();
    (lines.join("\n"), aged)
}

/// Several spaces are as good as two.
fn squeeze(line: &str) -> String {
    let mut out = String::new();
    let mut spaces = 0;
    for letter in line.trim_end().chars() {
        if letter == ' ' {
            spaces += 1;
            if spaces > 2 {
                continue;
            }
        } else {
            spaces = 0;
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_differ_is_taken_out() {
        let id = "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c0000";
        assert_eq!(output(&format!("{id}\nsha256:{id} 4c01db0b339c\n")), "<id64>\nsha256:<id64> <id12>\n");
        assert_eq!(output("a  Up 3 seconds   x\n"), output("a  Up Less than a second  x\n"));
        assert_eq!(output("2026-11-21 14:30:42 +0000 UTC"), "<time>\n");
        assert_eq!(output("2026-11-21T14:30:42.123Z x"), "<time> x\n");
        assert_eq!(output("172.17.0.2:80 02:42:ac:11:00:02"), "<ip>:80 <mac>\n");
        assert_eq!(output("exited (0)\n"), "exited (0)\n");
    }

    #[test]
    fn errors_are_compared_without_their_speaker() {
        let docker = error("Error response from daemon: No such container: x");
        assert_eq!(docker, error("hull: no such container: x"));
        assert_eq!(error("docker: unknown flag: --x"), error("hull: unknown flag: --x; see 'hull run --help'"));
    }
}
