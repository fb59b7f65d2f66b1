//! apt.conf(5): `A::B "value";`, `A { B "value"; };`, comments.

use std::collections::BTreeMap;

/// Options by their full name. Of one that is set twice the last counts; lists are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf(BTreeMap<String, String>);

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

impl Conf {
    /// An option; names are compared without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// An option that is yes or no.
    #[must_use]
    pub fn is(&self, name: &str, default: bool) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            Some("no" | "false" | "without" | "off" | "disable" | "0") => false,
            Some("yes" | "true" | "with" | "on" | "enable" | "1") => true,
            _ => default,
        }
    }

    /// Adds the options of a file.
    pub fn add(&mut self, text: &str) {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for token in tokens(text) {
            match token {
                Token::Word(word) => words.push(word),
                Token::Open => scopes.push(words.drain(..).next().unwrap_or_default()),
                Token::Close => {
                    scopes.pop();
                    words.clear();
                }
                Token::End => {
                    // A value alone is an element of a list.
                    if let [name, value] = &words[..] {
                        let full: Vec<&str> = scopes
                            .iter()
                            .map(String::as_str)
                            .chain([name.as_str()])
                            .filter(|one| !one.is_empty())
                            .collect();
                        if !name.ends_with("::") {
                            self.0.insert(full.join("::").to_ascii_lowercase(), value.clone());
                        }
                    }
                    words.clear();
                }
            }
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = |end: Option<usize>| end.map_or("", |end| &rest[end..]);
        if rest.starts_with("//") || first == '#' {
            rest = skip(rest.find('\n'));
        } else if rest.starts_with("/*") {
            rest = skip(rest.find("*/").map(|end| end + 2));
        } else if first == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 1);
            tokens.push(Token::Word(rest[1..end].to_owned()));
            rest = rest.get(end + 1..).unwrap_or_default();
        } else if let Some(token) = match first {
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ';' => Some(Token::End),
            _ => None,
        } {
            tokens.push(token);
            rest = &rest[1..];
        } else if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else {
            let end = rest.find(|one: char| one.is_whitespace() || "{};\"".contains(one)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_lists_and_comments() {
        let mut conf = Conf::default();
        conf.add(
            "// a comment with \"quotes\"\n# and another\nAcquire::Check-Valid-Until \"false\";\n/* more\n */\n\
             Acquire { http { Proxy \"http://p:3142/\"; Proxy::host.example \"DIRECT\"; }; Retries 3; };\n\
             DPkg::Post-Invoke { \"rm -f x; true\"; };\nA::List:: \"one\";\nunfinished",
        );
        assert_eq!(conf.get("acquire::HTTP::proxy"), Some("http://p:3142/"));
        assert_eq!(conf.get("Acquire::http::Proxy::host.example"), Some("DIRECT"));
        assert_eq!(conf.get("Acquire::Retries"), Some("3"));
        assert!(!conf.is("Acquire::Check-Valid-Until", true) && conf.is("Acquire::Check-Date", true));
        assert_eq!(conf.0.len(), 4);
    }

    #[test]
    fn nonsense_ends() {
        for text in ["}}}};", "\"open", "/* open", "{{{{", "a \"b\" \"c\" d;", ";;;"] {
            Conf::default().add(text);
        }
    }
}
