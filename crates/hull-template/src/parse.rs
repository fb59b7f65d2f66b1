//! Tokens to trees, in the order and with the messages of Go's parser.

use std::collections::BTreeMap;

use crate::MAX_DEPTH;
use crate::ast::{Command, Expr, Kind, Node, Pipe};
use crate::functions;
use crate::lex::{Item, Token, lex};
use crate::strings::{number, quote, unquote};

type Parsed<T> = Result<T, String>;

/// What ends a list.
#[derive(Debug, PartialEq, Eq)]
enum End {
    End,
    Else,
}

impl End {
    fn shown(&self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

struct Parser {
    items: Vec<Item>,
    next: usize,
    action_line: usize,
    variables: Vec<String>,
    range_depth: usize,
    depth: usize,
    trees: BTreeMap<String, Vec<Node>>,
}

/// Parses a text into the trees it defines; its own has the empty name.
pub(crate) fn parse(text: &str) -> Parsed<BTreeMap<String, Vec<Node>>> {
    let mut parser = Parser {
        items: lex(text),
        next: 0,
        action_line: 0,
        variables: vec!["$".to_owned()],
        range_depth: 0,
        depth: 0,
        trees: BTreeMap::new(),
    };
    let root = parser.root()?;
    parser.add(String::new(), root)?;
    Ok(parser.trees)
}

fn is_empty(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

/// How messages show a token.
fn shown(item: &Item) -> String {
    match item.token {
        Token::Eof => "EOF".to_owned(),
        Token::Error => item.text.clone(),
        Token::Keyword | Token::Dot | Token::Nil => format!("<{}>", item.text),
        _ if item.text.len() > 10 => {
            let short: String = item.text.chars().take(10).collect();
            format!("{}...", quote(&short))
        }
        _ => quote(&item.text),
    }
}

impl Parser {
    fn peek(&self) -> &Item {
        // The list ends with a token that is never passed.
        &self.items[self.next.min(self.items.len() - 1)]
    }

    fn take(&mut self) -> Item {
        let item = self.peek().clone();
        self.next = (self.next + 1).min(self.items.len() - 1);
        item
    }

    fn peek_word(&mut self) -> &Item {
        while self.peek().token == Token::Space {
            self.next += 1;
        }
        self.peek()
    }

    fn take_word(&mut self) -> Item {
        self.peek_word();
        self.take()
    }

    fn error<T>(&self, message: impl std::fmt::Display) -> Parsed<T> {
        // Go names the line of the token it has read last.
        let last = self.items.get(self.next.saturating_sub(1)).map_or(1, |item| item.line);
        let line = if self.peek().token == Token::Error { self.peek().line } else { last };
        Err(format!("template: :{line}: {message}"))
    }

    fn unexpected<T>(&self, item: &Item, context: &str) -> Parsed<T> {
        if item.token == Token::Error {
            let mut extra = String::new();
            if self.action_line != 0 && self.action_line != item.line {
                extra = format!(" in action started at :{}", self.action_line);
                if item.text.ends_with(" action") {
                    extra = extra.split_off(" in action".len());
                }
            }
            return Err(format!("template: :{}: {}{extra}", item.line, item.text));
        }
        self.error(format_args!("unexpected {} in {context}", shown(item)))
    }

    fn expect(&mut self, token: Token, context: &str) -> Parsed<Item> {
        let item = self.take_word();
        if item.token == token { Ok(item) } else { self.unexpected(&item, context) }
    }

    fn add(&mut self, name: String, tree: Vec<Node>) -> Parsed<()> {
        match self.trees.get(&name) {
            Some(old) if !is_empty(old) => {
                if !is_empty(&tree) {
                    return self.error(format_args!("template: multiple definition of template {}", quote(&name)));
                }
            }
            _ => {
                self.trees.insert(name, tree);
            }
        }
        Ok(())
    }

    fn is_keyword(&self, offset: usize, word: &str) -> bool {
        self.items
            .iter()
            .skip(self.next + offset)
            .find(|item| item.token != Token::Space)
            .is_some_and(|item| item.token == Token::Keyword && item.text == word)
    }

    fn root(&mut self) -> Parsed<Vec<Node>> {
        let mut list = Vec::new();
        while self.peek().token != Token::Eof {
            if self.peek().token == Token::LeftDelim && self.is_keyword(1, "define") {
                self.take();
                self.take_word();
                self.definition()?;
                continue;
            }
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(end) => return self.error(format_args!("unexpected {}", end.shown())),
            }
        }
        Ok(list)
    }

    fn definition(&mut self) -> Parsed<()> {
        let context = "define clause";
        let item = self.take_word();
        let name = self.template_name(&item, context)?;
        self.expect(Token::RightDelim, context)?;
        let (variables, range) = (std::mem::replace(&mut self.variables, vec!["$".to_owned()]), self.range_depth);
        self.range_depth = 0;
        let (list, end) = self.list()?;
        if end != End::End {
            return self.error(format_args!("unexpected {} in {context}", end.shown()));
        }
        (self.variables, self.range_depth) = (variables, range);
        self.add(name, list)
    }

    fn template_name(&self, item: &Item, context: &str) -> Parsed<String> {
        if !matches!(item.token, Token::String | Token::RawString) {
            return self.unexpected(item, context);
        }
        unquote(&item.text).map_or_else(|| self.error("invalid syntax"), Ok)
    }

    fn list(&mut self) -> Parsed<(Vec<Node>, End)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(format_args!("actions are nested deeper than {MAX_DEPTH}"));
        }
        let mut list = Vec::new();
        while self.peek_word().token != Token::Eof {
            match self.text_or_action()? {
                Ok(node) => list.push(node),
                Err(end) => {
                    self.depth -= 1;
                    return Ok((list, end));
                }
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Result<Node, End>> {
        let item = self.take_word();
        match item.token {
            Token::Text => Ok(Ok(Node::Text(item.text))),
            Token::LeftDelim => {
                self.action_line = item.line;
                let node = self.action();
                self.action_line = 0;
                node
            }
            _ => self.unexpected(&item, "input"),
        }
    }

    fn action(&mut self) -> Parsed<Result<Node, End>> {
        let item = self.peek_word().clone();
        if item.token != Token::Keyword {
            let pipe = self.pipeline("command", Token::RightDelim)?;
            return Ok(Ok(Node::Action { pipe }));
        }
        if item.text == "define" {
            return self.pipeline("command", Token::RightDelim).map(|pipe| Ok(Node::Action { pipe }));
        }
        self.take();
        let node = match item.text.as_str() {
            "if" => self.branch("if")?,
            "with" => self.branch("with")?,
            "range" => self.branch("range")?,
            "end" => {
                self.expect(Token::RightDelim, "end")?;
                return Ok(Err(End::End));
            }
            "else" => {
                if !(self.is_keyword(0, "if") || self.is_keyword(0, "with")) {
                    self.expect(Token::RightDelim, "else")?;
                }
                return Ok(Err(End::Else));
            }
            word @ ("break" | "continue") => {
                let shown = format!("{{{{{word}}}}}");
                let end = self.take_word();
                if end.token != Token::RightDelim {
                    return self.unexpected(&end, &shown);
                }
                if self.range_depth == 0 {
                    return self.error(format_args!("{shown} outside {{{{range}}}}"));
                }
                if word == "break" { Node::Break } else { Node::Continue }
            }
            "block" => {
                let context = "block clause";
                let name_item = self.take_word();
                let name = self.template_name(&name_item, context)?;
                let pipe = self.pipeline(context, Token::RightDelim)?;
                let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
                let (list, end) = self.list()?;
                if end != End::End {
                    return self.error(format_args!("unexpected {} in {context}", end.shown()));
                }
                self.variables = variables;
                self.add(name.clone(), list)?;
                Node::Template { pos: name_item.pos, name, pipe: Some(pipe) }
            }
            _ => {
                let context = "template clause";
                let name_item = self.take_word();
                let name = self.template_name(&name_item, context)?;
                let pipe = if self.peek_word().token == Token::RightDelim {
                    self.take();
                    None
                } else {
                    Some(self.pipeline(context, Token::RightDelim)?)
                };
                Node::Template { pos: name_item.pos, name, pipe }
            }
        };
        Ok(Ok(node))
    }

    /// `if`, `with` and `range` after the keyword, up to and with their end.
    fn branch(&mut self, context: &str) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(format_args!("actions are nested deeper than {MAX_DEPTH}"));
        }
        let known = self.variables.len();
        let pipe = self.pipeline(context, Token::RightDelim)?;
        let inside = usize::from(context == "range");
        self.range_depth += inside;
        let (list, end) = self.list()?;
        self.range_depth -= inside;
        let mut otherwise = None;
        if end == End::Else {
            if (context == "if" || context == "with") && self.is_keyword(0, context) {
                self.take_word();
                otherwise = Some(vec![self.branch(context)?]);
            } else {
                let (list, end) = self.list()?;
                if end != End::End {
                    return self.error(format_args!("expected end; found {}", end.shown()));
                }
                otherwise = Some(list);
            }
        }
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match context {
            "if" => Node::If { pipe, list, otherwise },
            "with" => Node::With { pipe, list, otherwise },
            _ => Node::Range { pipe, list, otherwise },
        })
    }

    /// `$x :=`, `$x =` and, in a range, `$i, $x :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parsed<()> {
        loop {
            if self.peek_word().token != Token::Variable {
                return Ok(());
            }
            let before = self.next;
            let variable = self.take();
            let next = self.peek_word().clone();
            match next.token {
                Token::Assign | Token::Declare => {
                    pipe.assign = next.token == Token::Assign;
                    self.take();
                    pipe.variables.push(variable.text.clone());
                    self.variables.push(variable.text);
                    return Ok(());
                }
                Token::Char if next.text == "," => {
                    self.take();
                    pipe.variables.push(variable.text.clone());
                    self.variables.push(variable.text);
                    if context != "range" || pipe.variables.len() >= 2 {
                        return self.error(format_args!("too many declarations in {context}"));
                    }
                    if !matches!(self.peek_word().token, Token::Variable | Token::RightDelim | Token::RightParen) {
                        return self.error("range can only initialize variables");
                    }
                }
                _ => {
                    self.next = before;
                    return Ok(());
                }
            }
        }
    }

    fn pipeline(&mut self, context: &str, end: Token) -> Parsed<Pipe> {
        let pos = self.peek_word().pos;
        let mut pipe = Pipe { pos, assign: false, variables: Vec::new(), commands: Vec::new() };
        self.declarations(&mut pipe, context)?;
        loop {
            let item = self.peek_word().clone();
            match item.token {
                token if token == end => {
                    self.take();
                    break;
                }
                Token::Bool
                | Token::CharConstant
                | Token::Dot
                | Token::Field
                | Token::Identifier
                | Token::Number
                | Token::Nil
                | Token::RawString
                | Token::String
                | Token::Variable
                | Token::LeftParen => pipe.commands.push(self.command()?),
                _ => {
                    self.take();
                    return self.unexpected(&item, context);
                }
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format_args!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            if matches!(
                command.args[0].kind,
                Kind::Bool(_) | Kind::Dot | Kind::Nil | Kind::Integer(..) | Kind::Float(..) | Kind::String(..)
            ) {
                return self.error(format_args!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(pipe)
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut args = Vec::new();
        loop {
            self.peek_word();
            if let Some(operand) = self.operand()? {
                args.push(operand);
            }
            match self.peek().token {
                Token::Space => {
                    self.take();
                }
                Token::RightDelim | Token::RightParen => break,
                Token::Pipe => {
                    self.take();
                    break;
                }
                _ => {
                    let item = self.take();
                    return self.unexpected(&item, "operand");
                }
            }
        }
        if args.is_empty() { self.error("empty command") } else { Ok(Command { args }) }
    }

    fn operand(&mut self) -> Parsed<Option<Expr>> {
        let Some(mut term) = self.term()? else { return Ok(None) };
        let pos = self.peek().pos;
        let mut fields = Vec::new();
        while self.peek().token == Token::Field {
            fields.push(self.take().text.split_off(1));
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        match &mut term.kind {
            Kind::Field(list) | Kind::Variable(_, list) => {
                list.append(&mut fields);
                term.pos = pos;
            }
            Kind::Bool(_) | Kind::String(..) | Kind::Integer(..) | Kind::Float(..) | Kind::Nil | Kind::Dot => {
                return self.error(format_args!("unexpected . after term {}", quote(&term.to_string())));
            }
            _ => term = Expr { pos, kind: Kind::Chain(Box::new(term), fields) },
        }
        Ok(Some(term))
    }

    fn term(&mut self) -> Parsed<Option<Expr>> {
        let item = self.peek_word().clone();
        let (pos, text) = (item.pos, item.text.as_str());
        let kind = match item.token {
            Token::Identifier => {
                if !functions::exists(text) {
                    self.take();
                    return self.error(format_args!("function {} not defined", quote(text)));
                }
                Kind::Identifier(text.to_owned())
            }
            Token::Dot => Kind::Dot,
            Token::Nil => Kind::Nil,
            Token::Bool => Kind::Bool(text == "true"),
            Token::Variable => {
                if !self.variables.iter().any(|known| known == text) {
                    self.take();
                    return self.error(format_args!("undefined variable {}", quote(text)));
                }
                Kind::Variable(text.to_owned(), Vec::new())
            }
            Token::Field => Kind::Field(vec![text.get(1..).unwrap_or_default().to_owned()]),
            Token::Number | Token::CharConstant => match number(text) {
                Some(kind) => kind,
                None if item.token == Token::CharConstant => {
                    return self.error(format_args!("malformed character constant: {text}"));
                }
                None => return self.error(format_args!("illegal number syntax: {}", quote(text))),
            },
            Token::LeftParen => {
                self.take();
                let pipe = self.pipeline("parenthesized pipeline", Token::RightParen)?;
                return Ok(Some(Expr { pos: pipe.pos, kind: Kind::Pipe(Box::new(pipe)) }));
            }
            Token::String | Token::RawString => match unquote(text) {
                Some(value) => Kind::String(value, text.to_owned()),
                None => return self.error("invalid syntax"),
            },
            _ => return Ok(None),
        };
        self.take();
        Ok(Some(Expr { pos, kind }))
    }
}
