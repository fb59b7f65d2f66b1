//! The tree of a template. Every node prints as Go prints it, since messages quote nodes.

use std::fmt::{self, Display};

use crate::strings::quote;

/// What a list consists of.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(String),
    Action { pipe: Pipe },
    If { pipe: Pipe, list: Vec<Node>, otherwise: Option<Vec<Node>> },
    With { pipe: Pipe, list: Vec<Node>, otherwise: Option<Vec<Node>> },
    Range { pipe: Pipe, list: Vec<Node>, otherwise: Option<Vec<Node>> },
    Template { pos: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

/// Commands, each given the result of the one before, and the variables that the last result goes to.
#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub(crate) pos: usize,
    /// `=` instead of `:=`.
    pub(crate) assign: bool,
    pub(crate) variables: Vec<String>,
    pub(crate) commands: Vec<Command>,
}

/// An operand, or a function or method and its arguments. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) args: Vec<Expr>,
}

/// An operand and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) pos: usize,
    pub(crate) kind: Kind,
}

/// The operands.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A function.
    Identifier(String),
    /// `.A.B`.
    Field(Vec<String>),
    /// `(...).A.B`.
    Chain(Box<Expr>, Vec<String>),
    /// `$x.A.B`: the variable and the fields.
    Variable(String, Vec<String>),
    Dot,
    Nil,
    Bool(bool),
    /// Value and spelling.
    Integer(i128, String),
    Float(f64, String),
    /// Value and spelling.
    String(String, String),
    Pipe(Box<Pipe>),
}

fn fields(f: &mut fmt::Formatter<'_>, fields: &[String]) -> fmt::Result {
    fields.iter().try_for_each(|field| write!(f, ".{field}"))
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Identifier(name) => f.write_str(name),
            Kind::Field(list) => fields(f, list),
            Kind::Chain(base, list) => {
                match base.kind {
                    Kind::Pipe(_) => write!(f, "({base})")?,
                    _ => write!(f, "{base}")?,
                }
                fields(f, list)
            }
            Kind::Variable(name, list) => {
                f.write_str(name)?;
                fields(f, list)
            }
            Kind::Dot => f.write_str("."),
            Kind::Nil => f.write_str("nil"),
            Kind::Bool(value) => write!(f, "{value}"),
            Kind::Integer(_, text) | Kind::Float(_, text) | Kind::String(_, text) => f.write_str(text),
            Kind::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}

impl Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arg) in self.args.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            match arg.kind {
                Kind::Pipe(_) => write!(f, "({arg})")?,
                _ => write!(f, "{arg}")?,
            }
        }
        Ok(())
    }
}

impl Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            write!(f, "{} {} ", self.variables.join(", "), if self.assign { "=" } else { ":=" })?;
        }
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{command}")?;
        }
        Ok(())
    }
}

/// How Go prints a `{{template}}` action.
pub(crate) fn template_action(name: &str, pipe: Option<&Pipe>) -> String {
    match pipe {
        Some(pipe) => format!("{{{{template {} {pipe}}}}}", quote(name)),
        None => format!("{{{{template {}}}}}", quote(name)),
    }
}
