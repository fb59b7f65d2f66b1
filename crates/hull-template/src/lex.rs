//! Text to tokens, by the rules and with the messages of Go's lexer.

use crate::MAX_DEPTH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Error,
    Bool,
    Char,
    CharConstant,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Keyword,
    Dot,
    Nil,
}

/// A token, where it stands, and its text.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) token: Token,
    pub(crate) pos: usize,
    pub(crate) line: usize,
    pub(crate) text: String,
}

const KEYWORDS: [&str; 10] = ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    line: usize,
    depth: usize,
    items: Vec<Item>,
}

/// All tokens; the last one is the end or an error.
pub(crate) fn lex(input: &str) -> Vec<Item> {
    let mut lexer = Lexer { input, pos: 0, start: 0, line: 1, depth: 0, items: Vec::new() };
    match lexer.text() {
        Ok(()) => lexer.emit(Token::Eof),
        Err(message) => {
            let line = lexer.line + newlines(&input[lexer.start..lexer.pos]);
            lexer.items.push(Item { token: Token::Error, pos: lexer.start, line, text: message });
        }
    }
    lexer.items
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_word(one: char) -> bool {
    one == '_' || one.is_alphanumeric()
}

/// A character in the words of Go's `%#U`.
fn code_point(one: char) -> String {
    if one.is_control() { format!("U+{:04X}", u32::from(one)) } else { format!("U+{:04X} '{one}'", u32::from(one)) }
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let one = self.peek()?;
        self.pos += one.len_utf8();
        Some(one)
    }

    fn emit(&mut self, token: Token) {
        let text = self.input[self.start..self.pos].to_owned();
        let lines = newlines(&text);
        self.items.push(Item { token, pos: self.start, line: self.line, text });
        self.line += lines;
        self.start = self.pos;
    }

    fn ignore(&mut self) {
        self.line += newlines(&self.input[self.start..self.pos]);
        self.start = self.pos;
    }

    /// Text up to an action, the action, and so on.
    fn text(&mut self) -> Result<(), String> {
        while let Some(found) = self.rest().find("{{") {
            let action = self.pos + found;
            let text = &self.input[self.pos..action];
            let after = &self.input.as_bytes()[action + 2..];
            let trim = matches!(after, [b'-', second, ..] if is_space(*second));
            let kept = if trim { text.trim_end_matches([' ', '\t', '\r', '\n']) } else { text };
            self.pos += kept.len();
            if !kept.is_empty() {
                self.emit(Token::Text);
            }
            self.pos = action;
            self.ignore();
            self.pos += 2;
            let marker = if trim { 2 } else { 0 };
            if self.input[self.pos + marker..].starts_with("/*") {
                self.pos += marker;
                self.comment()?;
                continue;
            }
            self.emit(Token::LeftDelim);
            self.pos += marker;
            self.ignore();
            self.depth = 0;
            self.action()?;
        }
        self.pos = self.input.len();
        if self.pos > self.start {
            self.emit(Token::Text);
        }
        Ok(())
    }

    /// Whether the action ends here, and whether it trims.
    fn right_delim(&self) -> Option<bool> {
        let bytes = self.rest().as_bytes();
        match bytes {
            [space, b'-', b'}', b'}', ..] if is_space(*space) => Some(true),
            [b'}', b'}', ..] => Some(false),
            _ => None,
        }
    }

    fn close(&mut self, trim: bool) {
        self.pos += if trim { 2 } else { 0 };
        self.ignore();
        self.pos += 2;
    }

    fn trim_after(&mut self) {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.pos += spaces;
        self.ignore();
    }

    fn comment(&mut self) -> Result<(), String> {
        let Some(end) = self.rest().find("*/") else { return Err("unclosed comment".to_owned()) };
        self.pos += end + 2;
        let Some(trim) = self.right_delim() else {
            return Err("comment ends before closing delimiter".to_owned());
        };
        self.close(trim);
        self.ignore();
        if trim {
            self.trim_after();
        }
        Ok(())
    }

    fn action(&mut self) -> Result<(), String> {
        loop {
            if let Some(trim) = self.right_delim() {
                if self.depth > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                self.close(trim);
                self.emit(Token::RightDelim);
                if trim {
                    self.trim_after();
                }
                return Ok(());
            }
            let Some(one) = self.next() else { return Err("unclosed action".to_owned()) };
            match one {
                ' ' | '\t' | '\r' | '\n' => self.space(),
                '=' => self.emit(Token::Assign),
                ':' => {
                    if self.next() != Some('=') {
                        return Err("expected :=".to_owned());
                    }
                    self.emit(Token::Declare);
                }
                '|' => self.emit(Token::Pipe),
                '"' => self.quoted('"', "unterminated quoted string", Token::String)?,
                '\'' => self.quoted('\'', "unterminated character constant", Token::CharConstant)?,
                '`' => {
                    let Some(end) = self.rest().find('`') else {
                        return Err("unterminated raw quoted string".to_owned());
                    };
                    self.pos += end + 1;
                    self.emit(Token::RawString);
                }
                '$' => self.word(Token::Variable)?,
                '.' if self.peek().is_some_and(|next| !next.is_ascii_digit()) => self.word(Token::Field)?,
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                _ if is_word(one) => self.identifier()?,
                '(' => {
                    self.depth += 1;
                    if self.depth > MAX_DEPTH {
                        return Err(format!("parentheses are nested deeper than {MAX_DEPTH}"));
                    }
                    self.emit(Token::LeftParen);
                }
                ')' => {
                    let Some(depth) = self.depth.checked_sub(1) else {
                        return Err("unexpected right paren".to_owned());
                    };
                    self.depth = depth;
                    self.emit(Token::RightParen);
                }
                _ if one.is_ascii_graphic() => self.emit(Token::Char),
                _ => return Err(format!("unrecognized character in action: {}", code_point(one))),
            }
        }
    }

    fn space(&mut self) {
        while self.rest().bytes().next().is_some_and(is_space) {
            // A trimming end begins with a space of its own.
            if self.right_delim() == Some(true) {
                break;
            }
            self.pos += 1;
        }
        self.emit(Token::Space);
    }

    fn quoted(&mut self, end: char, message: &str, token: Token) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if self.peek().is_some_and(|next| next != '\n') => {
                    self.next();
                }
                None | Some('\n' | '\\') => return Err(message.to_owned()),
                Some(one) if one == end => break,
                Some(_) => {}
            }
        }
        self.emit(token);
        Ok(())
    }

    fn terminated(&self) -> bool {
        let Some(next) = self.peek() else { return true };
        matches!(next, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(') || self.rest().starts_with("}}")
    }

    fn bad_character(&self) -> String {
        format!("bad character {}", code_point(self.peek().unwrap_or_default()))
    }

    /// `.`, `.Field`, `$`, `$variable`: the first character is read.
    fn word(&mut self, token: Token) -> Result<(), String> {
        if self.terminated() {
            self.emit(if token == Token::Field { Token::Dot } else { token });
            return Ok(());
        }
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if !self.terminated() {
            return Err(self.bad_character());
        }
        self.emit(token);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), String> {
        while self.peek().is_some_and(is_word) {
            self.next();
        }
        if !self.terminated() {
            return Err(self.bad_character());
        }
        let word = &self.input[self.start..self.pos];
        let token = match word {
            "true" | "false" => Token::Bool,
            "nil" => Token::Nil,
            _ if KEYWORDS.contains(&word) => Token::Keyword,
            _ => Token::Identifier,
        };
        self.emit(token);
        Ok(())
    }

    /// What looks like a number; whether it is one is the parser's question.
    fn number(&mut self) -> Result<(), String> {
        self.pos = self.start;
        let bytes = &self.input.as_bytes()[self.start..];
        let one_of = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|byte| set.contains(byte));
        let mut at = usize::from(one_of(0, b"+-"));
        let (mut digits, mut exponents): (&[u8], &[u8]) = (b"0123456789_", b"eE");
        if one_of(at, b"0") {
            at += 1;
            let bases: [(&[u8], &[u8], &[u8]); 3] =
                [(b"xX", b"0123456789abcdefABCDEF_", b"pP"), (b"oO", b"01234567_", b""), (b"bB", b"01_", b"")];
            if let Some(base) = bases.iter().find(|base| one_of(at, base.0)) {
                (digits, exponents) = (base.1, base.2);
                at += 1;
            }
        }
        let run = |mut at: usize, set: &[u8]| {
            while one_of(at, set) {
                at += 1;
            }
            at
        };
        at = run(at, digits);
        if one_of(at, b".") {
            at = run(at + 1, digits);
        }
        if one_of(at, exponents) {
            at += 1;
            at += usize::from(one_of(at, b"+-"));
            at = run(at, b"0123456789_");
        }
        self.pos += at;
        if self.peek().is_some_and(is_word) {
            self.next();
            let text = &self.input[self.start..self.pos];
            return Err(format!("bad number syntax: {}", crate::strings::quote(text)));
        }
        self.emit(Token::Number);
        Ok(())
    }
}
