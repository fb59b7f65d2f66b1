//! Trees and data to text, by the rules and with the messages of Go's executor.

use std::fmt::Display;
use std::rc::Rc;

use crate::ast::{Command, Expr, Kind, Node, Pipe, template_action};
use crate::functions::{self, Function, FunctionSet, Param};
use crate::strings::quote;
use crate::value::{Object, Value};
use crate::{MAX_OUTPUT, MAX_STEPS, MissingKey, Template};

/// Deepest nesting of lists, pipelines and templates while executing.
const MAX_NESTING: usize = 300;

type Eval<T = Value> = Result<T, String>;

/// What a message quotes: the node that was looked at last.
#[derive(Clone, Copy)]
enum At<'a> {
    Start,
    Expr(&'a Expr),
    Pipe(&'a Pipe),
    Call(&'a Command),
    Template(usize, &'a str, Option<&'a Pipe>),
}

/// What a list of nodes ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    template: &'a Template,
    missing: MissingKey,
    functions: FunctionSet,
    name: &'a str,
    at: At<'a>,
    variables: Vec<(&'a str, Value)>,
    steps: u64,
    nesting: usize,
    out: String,
}

pub(crate) fn execute(template: &Template, data: &Value, missing: MissingKey, functions: FunctionSet) -> Eval<String> {
    let mut state = State {
        template,
        missing,
        functions,
        name: "",
        at: At::Start,
        variables: vec![("$", data.clone())],
        steps: 0,
        nesting: 0,
        out: String::new(),
    };
    if let Some(root) = template.trees.get("") {
        state.list(data, root)?;
    }
    Ok(state.out)
}

impl<'a> State<'a> {
    fn error<T>(&self, message: impl Display) -> Eval<T> {
        let (pos, shown) = match self.at {
            At::Start => return Err(format!("template: {}: {message}", self.name)),
            At::Expr(expr) => (expr.pos, expr.to_string()),
            At::Pipe(pipe) => (pipe.pos, pipe.to_string()),
            At::Call(command) => (command.args[0].pos, command.to_string()),
            At::Template(pos, name, pipe) => (pos, template_action(name, pipe)),
        };
        let before = self.template.text.get(..pos).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        let column = before.rfind('\n').map_or(pos, |newline| pos - newline - 1);
        Err(format!("template: :{line}:{column}: executing {} at <{shown}>: {message}", quote(self.name)))
    }

    fn step(&mut self, weight: usize) -> Eval<()> {
        self.steps += 1 + weight as u64 / 64;
        if self.steps > MAX_STEPS { self.error(format_args!("takes more than {MAX_STEPS} steps")) } else { Ok(()) }
    }

    fn deeper(&mut self) -> Eval<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.error(format_args!("exceeded maximum template depth ({MAX_NESTING})"));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Eval<()> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return self.error(format_args!("writes more than {MAX_OUTPUT} bytes"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, list: &'a [Node]) -> Eval<Flow> {
        self.deeper()?;
        let mut flow = Flow::Next;
        for node in list {
            self.step(0)?;
            flow = self.node(dot, node)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.nesting -= 1;
        Ok(flow)
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Eval<Flow> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action { pipe } => {
                let value = self.pipeline(dot, pipe)?;
                if pipe.variables.is_empty() {
                    let text = match value {
                        Value::NoValue | Value::Nil => "<no value>".to_owned(),
                        value => value.to_string(),
                    };
                    self.write(&text)?;
                }
            }
            Node::If { pipe, list, otherwise } => return self.branch(dot, pipe, list, otherwise.as_deref(), false),
            Node::With { pipe, list, otherwise } => return self.branch(dot, pipe, list, otherwise.as_deref(), true),
            Node::Range { pipe, list, otherwise } => return self.range(dot, pipe, list, otherwise.as_deref()),
            Node::Template { pos, name, pipe } => self.call_template(dot, *pos, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(
        &mut self,
        dot: &Value,
        pipe: &'a Pipe,
        list: &'a [Node],
        otherwise: Option<&'a [Node]>,
        with: bool,
    ) -> Eval<Flow> {
        let known = self.variables.len();
        let value = self.pipeline(dot, pipe)?;
        let flow = if value.truth() {
            self.list(if with { &value } else { dot }, list)?
        } else {
            otherwise.map_or(Ok(Flow::Next), |list| self.list(dot, list))?
        };
        self.variables.truncate(known);
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, pipe: &'a Pipe, list: &'a [Node], otherwise: Option<&'a [Node]>) -> Eval<Flow> {
        let known = self.variables.len();
        let value = self.pipeline(dot, pipe)?;
        let inside = self.variables.len();
        let mut ran = false;
        let mut each = |state: &mut Self, index: Value, element: Value| -> Eval<bool> {
            ran = true;
            state.step(0)?;
            match (pipe.assign, pipe.variables.as_slice()) {
                (_, []) => {}
                (true, [one]) => state.assign(one, &element),
                (true, [first, second, ..]) => {
                    state.assign(first, &index);
                    state.assign(second, &element);
                }
                (false, [_]) => state.variables[inside - 1].1 = element.clone(),
                (false, [_, _, ..]) => {
                    state.variables[inside - 1].1 = element.clone();
                    state.variables[inside - 2].1 = index;
                }
            }
            let flow = state.list(&element, list)?;
            state.variables.truncate(inside);
            Ok(flow != Flow::Break)
        };
        match &value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if !each(self, Value::Int(index as i128), item.clone())? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, item) in &map.entries {
                    if !each(self, Value::from(key.as_str()), item.clone())? {
                        break;
                    }
                }
            }
            Value::Int(count) => {
                if pipe.variables.len() > 1 {
                    return self.error(format_args!("can't use {count} to iterate over more than one variable"));
                }
                let mut number = 0;
                while number < *count && each(self, Value::Int(number), Value::Int(number))? {
                    number += 1;
                }
            }
            Value::NoValue | Value::Nil | Value::Unmade(_) => {}
            other => return self.error(format_args!("range can't iterate over {other}")),
        }
        let flow = match otherwise {
            Some(list) if !ran => self.list(dot, list)?,
            _ => Flow::Next,
        };
        self.variables.truncate(known);
        Ok(flow)
    }

    fn call_template(&mut self, dot: &Value, pos: usize, name: &'a str, pipe: Option<&'a Pipe>) -> Eval<()> {
        self.at = At::Template(pos, name, pipe);
        let Some((name, tree)) = self.template.trees.get_key_value(name) else {
            return self.error(format_args!("template {} not defined", quote(name)));
        };
        let dot = pipe.map_or(Ok(Value::NoValue), |pipe| self.pipeline(dot, pipe))?;
        let variables = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let caller = std::mem::replace(&mut self.name, name);
        self.list(&dot, tree)?;
        self.variables = variables;
        self.name = caller;
        Ok(())
    }

    /// Sets the innermost variable of this name.
    fn assign(&mut self, name: &str, value: &Value) {
        if let Some(found) = self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            found.1 = value.clone();
        }
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'a Pipe) -> Eval {
        self.deeper()?;
        self.at = At::Pipe(pipe);
        let mut value = None;
        for command in &pipe.commands {
            self.step(0)?;
            // A nil that went through a pipeline has lost its type.
            value = Some(match self.command(dot, command, value)? {
                Value::Nil => Value::NoValue,
                value => value,
            });
        }
        let value = value.unwrap_or_default();
        for variable in &pipe.variables {
            if pipe.assign {
                self.assign(variable, &value);
            } else {
                self.variables.push((variable, value.clone()));
            }
        }
        self.nesting -= 1;
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Eval {
        let first = &command.args[0];
        match &first.kind {
            Kind::Identifier(name) => {
                return self.function(dot, name, first, At::Call(command), &command.args[1..], last);
            }
            Kind::Field(fields) => {
                self.at = At::Expr(first);
                return self.fields(dot, dot.clone(), fields, &command.args[1..], last);
            }
            Kind::Chain(base, fields) => return self.chain(dot, first, base, fields, &command.args[1..], last),
            Kind::Variable(name, fields) => return self.variable(dot, first, name, fields, &command.args[1..], last),
            _ => {}
        }
        self.at = At::Expr(first);
        if command.args.len() > 1 || last.is_some() {
            return self.error(format_args!("can't give argument to non-function {first}"));
        }
        match &first.kind {
            Kind::Nil => self.error("nil is not a command"),
            Kind::Pipe(pipe) => self.pipeline(dot, pipe),
            _ => self.constant(dot, first),
        }
    }

    fn constant(&self, dot: &Value, expr: &Expr) -> Eval {
        Ok(match &expr.kind {
            Kind::Dot => dot.clone(),
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Integer(value, text) => {
                if i64::try_from(*value).is_err() {
                    return self.error(format_args!("{text} overflows int"));
                }
                Value::Int(*value)
            }
            Kind::Float(value, _) => Value::Float(*value),
            Kind::String(value, _) => Value::from(value.as_str()),
            _ => Value::Nil,
        })
    }

    fn variable(
        &mut self,
        dot: &Value,
        expr: &'a Expr,
        name: &str,
        fields: &'a [String],
        args: &'a [Expr],
        last: Option<Value>,
    ) -> Eval {
        self.at = At::Expr(expr);
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        let value = found.map(|(_, value)| value.clone()).unwrap_or_default();
        if fields.is_empty() {
            if !args.is_empty() || last.is_some() {
                return self.error(format_args!("can't give argument to non-function {expr}"));
            }
            return Ok(value);
        }
        self.fields(dot, value, fields, args, last)
    }

    fn chain(
        &mut self,
        dot: &Value,
        expr: &'a Expr,
        base: &'a Expr,
        fields: &'a [String],
        args: &'a [Expr],
        last: Option<Value>,
    ) -> Eval {
        self.at = At::Expr(expr);
        if matches!(base.kind, Kind::Nil) {
            return self.error(format_args!("indirection through explicit nil in {expr}"));
        }
        let value = self.argument(dot, base, Param::Any)?;
        self.fields(dot, value, fields, args, last)
    }

    /// `.A.B ARGS`: the last name may be a method.
    fn fields(
        &mut self,
        dot: &Value,
        receiver: Value,
        fields: &'a [String],
        args: &'a [Expr],
        last: Option<Value>,
    ) -> Eval {
        let Some((end, path)) = fields.split_last() else { return Ok(receiver) };
        let mut value = receiver;
        let mut untyped = false;
        for name in path {
            let next = self.field(dot, &value, name, &[], None, untyped)?;
            untyped = matches!(value, Value::Map(_) | Value::Struct(_));
            value = next;
        }
        self.field(dot, &value, end, args, last, untyped)
    }

    fn field(
        &mut self,
        dot: &Value,
        receiver: &Value,
        name: &str,
        args: &'a [Expr],
        last: Option<Value>,
        untyped: bool,
    ) -> Eval {
        let given = args.len() + usize::from(last.is_some());
        match receiver {
            Value::Map(_) if given > 0 => {
                return self.error(format_args!("{name} is not a method but has arguments"));
            }
            Value::Map(map) => {
                if let Some(value) = map.entries.get(name) {
                    return Ok(value.clone());
                }
                if self.missing == MissingKey::Error {
                    return self.error(format_args!("map has no entry for key {}", quote(name)));
                }
                return Ok(Value::NoValue);
            }
            Value::Struct(one) => {
                if let Some((_, value)) = one.fields.iter().chain(&one.absent).find(|(known, _)| known == name) {
                    if given > 0 {
                        return self.error(format_args!("{name} has arguments but cannot be invoked as function"));
                    }
                    return Ok(value.clone());
                }
            }
            Value::Object(object) => {
                if let Some(arity) = object.arity(name) {
                    return self.method(dot, object.as_ref(), name, arity, args, last);
                }
                if let Some(value) = object.field(name) {
                    if given > 0 {
                        return self.error(format_args!("wrong number of args for {name}: want 0 got {given}"));
                    }
                    return Ok(value);
                }
            }
            Value::NoValue => {
                if self.missing == MissingKey::Error {
                    return self.error(format_args!("nil data; no entry for key {}", quote(name)));
                }
                return Ok(Value::NoValue);
            }
            Value::Unmade(text) if text.starts_with("map") => return Ok(Value::NoValue),
            Value::Nil | Value::NilPointer => {
                return self.error(format_args!("nil pointer evaluating interface {{}}.{name}"));
            }
            _ => {}
        }
        let shown = if untyped { "interface {}".to_owned() } else { receiver.type_name() };
        self.error(format_args!("can't evaluate field {name} in type {shown}"))
    }

    fn method(
        &mut self,
        dot: &Value,
        object: &dyn Object,
        name: &str,
        arity: usize,
        args: &'a [Expr],
        last: Option<Value>,
    ) -> Eval {
        let given = args.len() + usize::from(last.is_some());
        if given != arity {
            return self.error(format_args!("wrong number of args for {name}: want {arity} got {given}"));
        }
        let mut texts: Vec<Rc<str>> = Vec::new();
        for arg in args {
            if let Value::String(text) = self.argument(dot, arg, Param::String)? {
                texts.push(text);
            }
        }
        if let Some(last) = last
            && let Value::String(text) = self.typed(last, Param::String)?
        {
            texts.push(text);
        }
        Ok(object.call(name, &texts))
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        expr: &'a Expr,
        call: At<'a>,
        args: &'a [Expr],
        last: Option<Value>,
    ) -> Eval {
        self.at = At::Expr(expr);
        let Some(function) = functions::find(name, self.functions) else {
            return self.error(format_args!("{} is not a defined function", quote(name)));
        };
        let given = args.len() + usize::from(last.is_some());
        let fixed = function.params.len();
        if function.rest.is_some() && given < fixed {
            return self.error(format_args!("wrong number of args for {name}: want at least {fixed} got {given}"));
        }
        if function.rest.is_none() && given != fixed {
            return self.error(format_args!("wrong number of args for {name}: want {fixed} got {given}"));
        }
        if name == "and" || name == "or" {
            return self.logic(dot, name == "or", args, last);
        }
        let param = |index: usize| function.params.get(index).copied().or(function.rest).unwrap_or(Param::Any);
        let mut values = Vec::with_capacity(given);
        for (index, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, arg, param(index))?);
        }
        if let Some(last) = last {
            values.push(self.typed(last, param(args.len()))?);
        }
        if name == "call" {
            let shown = args.first().map_or_else(String::new, ToString::to_string);
            self.at = call;
            return match &values[0] {
                Value::NoValue | Value::Nil => self.error("error calling call: call of nil"),
                value => {
                    let kind = value.type_name();
                    self.error(format_args!("error calling call: non-function {shown} of type {kind}"))
                }
            };
        }
        self.call(function, name, &values, call)
    }

    fn call(&mut self, function: &Function, name: &str, values: &[Value], call: At<'a>) -> Eval {
        match (function.call)(values) {
            Ok(value) => {
                let weight = if let Value::String(text) = &value { text.len() } else { 0 };
                self.step(weight)?;
                Ok(value)
            }
            Err(message) => {
                self.at = call;
                self.error(format_args!("error calling {name}: {message}"))
            }
        }
    }

    /// `and` and `or` look at no more arguments than they need.
    fn logic(&mut self, dot: &Value, or: bool, args: &'a [Expr], last: Option<Value>) -> Eval {
        let mut value = Value::NoValue;
        for arg in args {
            value = self.argument(dot, arg, Param::Any)?;
            if value.truth() == or {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn argument(&mut self, dot: &Value, expr: &'a Expr, param: Param) -> Eval {
        self.at = At::Expr(expr);
        let value = match &expr.kind {
            Kind::Nil if matches!(param, Param::Any | Param::List) => return Ok(Value::Nil),
            Kind::Nil => return self.error(format_args!("cannot assign nil to {}", param.name())),
            Kind::Dot => dot.clone(),
            Kind::Field(fields) => self.fields(dot, dot.clone(), fields, &[], None)?,
            Kind::Variable(name, fields) => self.variable(dot, expr, name, fields, &[], None)?,
            Kind::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Kind::Identifier(name) => self.function(dot, name, expr, At::Expr(expr), &[], None)?,
            Kind::Chain(base, fields) => self.chain(dot, expr, base, fields, &[], None)?,
            Kind::String(..) | Kind::Integer(..) | Kind::Float(..) | Kind::Bool(_) => {
                return match (param, self.constant(dot, expr)?) {
                    (Param::Any, value)
                    | (Param::String, value @ Value::String(_))
                    | (Param::Int, value @ Value::Int(_)) => Ok(value),
                    (Param::String, _) => self.error(format_args!("expected string; found {expr}")),
                    (Param::Int, _) => self.error(format_args!("expected integer; found {expr}")),
                    (Param::List, _) => self.error(format_args!("can't handle {expr} for arg of type []string")),
                };
            }
        };
        self.typed(value, param)
    }

    /// Whether a value can be a parameter.
    fn typed(&self, value: Value, param: Param) -> Eval {
        match (param, &value) {
            (Param::List, Value::Unmade(_)) => Ok(Value::List(Rc::from([]))),
            (Param::Any, _)
            | (Param::String, Value::String(_))
            | (Param::Int, Value::Int(_))
            | (Param::List, Value::List(_) | Value::NoValue | Value::Nil | Value::NilPointer) => Ok(value),
            (_, Value::NoValue | Value::Nil) => self.error(format_args!("invalid value; expected {}", param.name())),
            _ => self.error(format_args!("wrong type for value; expected {}; got {}", param.name(), value.type_name())),
        }
    }
}
