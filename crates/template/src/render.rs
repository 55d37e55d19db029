//! Rendering: walks the statements, holds the variables, keeps account.
//!
//! In:     statements; variables; limits.
//! Out:    text and the steps it took, or why there is none.
//! Touches: nothing.
//! Holds:  J-3, J-8: each statement and expression takes a step, what is made is counted before it is made.
//! Absent: what operators, filters, methods, tests and functions do: in modules of their own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use surety_types::json::{Part, Reader};
use surety_types::{CivilDate, Message, ToolCall};

use crate::syntax::{
    Arguments, CALLER, Comparison, Expression, FilterCall, For, Kind, LOOP, Macro, Statement, Symbol, Target,
};
use crate::value::{Dict, Function, List, Loop, Value};
use crate::{Limit, Limits, Rendered, TemplateError, Variables};

/// Bytes that a text, a list or a mapping counts beside what it holds (J-8.5).
const VALUE_BYTES: u64 = 32;
/// Bytes that an entry of a mapping or of a scope counts.
const ENTRY_BYTES: u64 = 64;
/// Bytes that a scope, a namespace or a macro counts.
const SCOPE_BYTES: u64 = 512;
/// Bytes read or made in one step (J-8.4).
const STEP_BYTES: u64 = 64;

pub(crate) type Result<T> = std::result::Result<T, TemplateError>;

/// Something a value does not allow. The line is filled in on the way out.
pub(crate) fn wrong<T>(reason: impl Into<String>) -> Result<T> {
    Err(TemplateError::Operation { line: 0, reason: reason.into() })
}

/// Arguments of a call, computed.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Arc<str>, Value)>,
}

impl Given {
    /// The arguments in the order of their names; those left out are none.
    pub(crate) fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return wrong(format!("{what} takes at most {N} arguments"));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|known| **known == *name) else {
                return wrong(format!("{what} has no argument {name}"));
            };
            if bound[at].replace(value).is_some() {
                return wrong(format!("{what} is given {name} twice"));
            }
        }
        Ok(bound)
    }
}

/// An object or list of JSON that is being read.
struct Open {
    list: bool,
    values: Vec<Value>,
    /// Of an object's values, in their order.
    names: Vec<Value>,
}

/// Variables of a part of the template.
struct Scope {
    outer: Option<usize>,
    variables: BTreeMap<Symbol, Value>,
    /// A macro made within it may look here again.
    kept: bool,
}

/// What a statement did to the loop it is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(crate) struct Renderer<'t> {
    pub(crate) limits: &'t Limits,
    names: &'t [Arc<str>],
    pub(crate) date: Option<CivilDate>,
    steps: u64,
    bytes: u64,
    /// Bytes read or made that no step has been taken for.
    touched: u64,
    depth: u32,
    scopes: Vec<Scope>,
    /// The innermost scope.
    scope: usize,
    pub(crate) namespaces: Vec<Vec<(Arc<str>, Value)>>,
    /// Macros, each with the scope it was made in.
    macros: Vec<(&'t Macro, usize)>,
    output: String,
}

/// J-1.3.
pub(crate) fn render(
    statements: &[Statement],
    names: &[Arc<str>],
    variables: &Variables<'_>,
    limits: &Limits,
) -> Result<Rendered> {
    let mut renderer = Renderer {
        limits,
        names,
        date: variables.date,
        steps: 0,
        bytes: 0,
        touched: 0,
        depth: 0,
        scopes: vec![Scope { outer: None, variables: BTreeMap::new(), kept: true }],
        scope: 0,
        namespaces: Vec::new(),
        macros: Vec::new(),
        output: String::new(),
    };
    let rendered = renderer.globals(variables).and_then(|()| renderer.statements(statements));
    rendered.map_err(|error| error.at(1))?;
    Ok(Rendered { text: renderer.output, steps: renderer.steps })
}

impl<'t> Renderer<'t> {
    // --- The account (J-8).

    /// Takes steps.
    pub(crate) fn step(&mut self, count: u64) -> Result<()> {
        self.steps = self.steps.saturating_add(count);
        if self.steps > self.limits.steps {
            return Err(TemplateError::Limit { line: 0, limit: Limit::Steps, allowed: self.limits.steps });
        }
        Ok(())
    }

    /// The steps of going through so many bytes. What is left of them counts the next time.
    pub(crate) fn read(&mut self, bytes: usize) -> Result<()> {
        self.touched(bytes as u64)
    }

    fn touched(&mut self, bytes: u64) -> Result<()> {
        let touched = self.touched.saturating_add(bytes);
        self.touched = touched % STEP_BYTES;
        self.step(touched / STEP_BYTES)
    }

    /// Counts bytes that are about to be made.
    pub(crate) fn count(&mut self, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(TemplateError::Limit { line: 0, limit: Limit::Bytes, allowed: self.limits.bytes });
        }
        self.touched(bytes)
    }

    fn check_depth(&self, depth: u32) -> Result<()> {
        if depth > self.limits.depth {
            let allowed = self.limits.depth.into();
            return Err(TemplateError::Limit { line: 0, limit: Limit::Depth, allowed });
        }
        Ok(())
    }

    /// One level further in (J-8.3).
    #[inline(never)]
    pub(crate) fn deeper<T>(&mut self, compute: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        self.check_depth(self.depth)?;
        let computed = compute(self)?;
        self.depth -= 1;
        Ok(computed)
    }

    /// A text, counted.
    pub(crate) fn text(&mut self, text: &str) -> Result<Value> {
        self.count(VALUE_BYTES + text.len() as u64)?;
        Ok(Value::Text(text.into()))
    }

    /// A text whose bytes `push` has counted.
    pub(crate) fn pushed(&mut self, text: String) -> Result<Value> {
        self.count(VALUE_BYTES)?;
        Ok(Value::Text(text.into()))
    }

    /// Adds to a text that is being made.
    pub(crate) fn push(&mut self, text: &mut String, more: &str) -> Result<()> {
        self.count(more.len() as u64)?;
        text.push_str(more);
        Ok(())
    }

    /// Counts a list of so many items before it is made.
    pub(crate) fn count_list(&mut self, items: usize) -> Result<()> {
        self.count(VALUE_BYTES.saturating_mul((items as u64).saturating_add(1)))
    }

    /// A list that `count_list` has counted.
    pub(crate) fn counted_list(&mut self, items: Vec<Value>) -> Result<Rc<List>> {
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        self.check_depth(depth)?;
        Ok(Rc::new(List { items, depth }))
    }

    pub(crate) fn list(&mut self, items: Vec<Value>) -> Result<Value> {
        self.count_list(items.len())?;
        Ok(Value::List(self.counted_list(items)?))
    }

    /// A mapping; of equal keys the first keeps its place and the last its value.
    pub(crate) fn dict(&mut self, pairs: Vec<(Value, Value)>) -> Result<Value> {
        self.count(VALUE_BYTES + ENTRY_BYTES * pairs.len() as u64)?;
        let mut entries: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            if !matches!(key, Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_))
            {
                return wrong(format!("{} cannot be a key", key.kind()));
            }
            match self.find(&entries, &key)? {
                Some(at) => entries[at].1 = value,
                None => entries.push((key, value)),
            }
        }
        let depth = 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0);
        self.check_depth(depth)?;
        Ok(Value::Dict(Rc::new(Dict { entries, depth })))
    }

    /// Where a key is among entries.
    fn find(&mut self, entries: &[(Value, Value)], key: &Value) -> Result<Option<usize>> {
        for (at, (other, _)) in entries.iter().enumerate() {
            if self.equal(other, key)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    pub(crate) fn entry(&mut self, dict: &Dict, key: &Value) -> Result<Option<Value>> {
        Ok(self.find(&dict.entries, key)?.map(|at| dict.entries[at].1.clone()))
    }

    /// `entry` of a text.
    fn entry_named(&mut self, dict: &Dict, name: &str) -> Result<Option<Value>> {
        for (key, value) in &dict.entries {
            self.step(1)?;
            let Some(key) = key.text().filter(|key| key.len() == name.len()) else { continue };
            self.read(name.len())?;
            if key == name {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    // --- Variables (J-3.4).

    fn globals(&mut self, variables: &Variables<'_>) -> Result<()> {
        let mut messages = Vec::with_capacity(variables.messages.len());
        for message in variables.messages {
            messages.push(self.message(message)?);
        }
        let tools = match variables.tools {
            [] => Value::None,
            tools => {
                let tools = tools.iter().map(|tool| self.parsed(tool)).collect::<Result<_>>()?;
                self.list(tools)?
            }
        };
        let mut globals = vec![
            self.list(messages)?,
            tools,
            Value::None,
            Value::Bool(variables.add_generation_prompt),
            self.text(variables.bos_token)?,
            self.text(variables.eos_token)?,
            Value::Function(Function::Range),
            Value::Function(Function::Namespace),
            Value::Function(Function::Dict),
            Value::Function(Function::RaiseException),
        ];
        if variables.date.is_some() {
            globals.push(Value::Function(Function::StrftimeNow));
        }
        for (symbol, value) in globals.into_iter().enumerate() {
            self.set(Symbol(symbol as u32), value)?;
        }
        Ok(())
    }

    fn message(&mut self, message: &Message) -> Result<Value> {
        let mut pairs = vec![
            (self.text("role")?, self.text(&message.role)?),
            (self.text("content")?, self.text(&message.content)?),
        ];
        if let Some(name) = &message.name {
            pairs.push((self.text("name")?, self.text(name)?));
        }
        if !message.tool_calls.is_empty() {
            let calls = message.tool_calls.iter().map(|call| self.tool_call(call)).collect::<Result<_>>()?;
            pairs.push((self.text("tool_calls")?, self.list(calls)?));
        }
        if let Some(id) = &message.tool_call_id {
            pairs.push((self.text("tool_call_id")?, self.text(id)?));
        }
        self.dict(pairs)
    }

    fn tool_call(&mut self, call: &ToolCall) -> Result<Value> {
        let function = vec![
            (self.text("name")?, self.text(&call.name)?),
            (self.text("arguments")?, self.parsed(&call.arguments)?),
        ];
        let pairs = vec![
            (self.text("id")?, self.text(&call.id)?),
            (self.text("type")?, self.text("function")?),
            (self.text("function")?, self.dict(function)?),
        ];
        self.dict(pairs)
    }

    /// What a JSON text of the request stands for (J-1.5).
    fn parsed(&mut self, json: &str) -> Result<Value> {
        self.read(json.len())?;
        let mut reader = Reader::new(json);
        // What is open: its items or entries, and the name that the next value belongs to.
        let mut open: Vec<Open> = Vec::new();
        let mut whole = Value::None;
        while let Some(part) = reader.next_part().or_else(|error| wrong(format!("a tool {error}")))? {
            self.step(1)?;
            let value = match part {
                Part::ObjectBegins => {
                    open.push(Open { list: false, values: Vec::new(), names: Vec::new() });
                    continue;
                }
                Part::ListBegins => {
                    open.push(Open { list: true, values: Vec::new(), names: Vec::new() });
                    continue;
                }
                Part::Name(name) => {
                    let name = self.text(&name)?;
                    open.last_mut().expect("a name is within an object").names.push(name);
                    continue;
                }
                Part::ObjectEnds | Part::ListEnds => {
                    let Open { list, values, names } = open.pop().expect("what ends has begun");
                    if list {
                        self.list(values)?
                    } else {
                        self.dict(names.into_iter().zip(values).collect())?
                    }
                }
                Part::Text(text) => self.text(&text)?,
                Part::Integer(value) => Value::Int(value),
                Part::Float(value) => Value::Float(value),
                Part::Truth(value) => Value::Bool(value),
                Part::Null => Value::None,
            };
            match open.last_mut() {
                Some(open) => open.values.push(value),
                None => whole = value,
            }
        }
        Ok(whole)
    }

    fn enter(&mut self, outer: usize) -> Result<usize> {
        self.count(SCOPE_BYTES)?;
        self.scopes.push(Scope { outer: Some(outer), variables: BTreeMap::new(), kept: false });
        Ok(std::mem::replace(&mut self.scope, self.scopes.len() - 1))
    }

    /// Goes back to the scope that was the innermost before.
    fn leave(&mut self, before: usize) {
        let left = std::mem::replace(&mut self.scope, before);
        if self.scopes[left].kept {
            return;
        }
        if left + 1 == self.scopes.len() {
            self.scopes.pop();
        } else {
            self.scopes[left].variables = BTreeMap::new();
        }
    }

    fn set(&mut self, symbol: Symbol, value: Value) -> Result<()> {
        if let Some(place) = self.scopes[self.scope].variables.get_mut(&symbol) {
            *place = value;
            return Ok(());
        }
        self.count(ENTRY_BYTES)?;
        self.scopes[self.scope].variables.insert(symbol, value);
        Ok(())
    }

    /// A variable's value. Each scope that does not have it is a step.
    fn get(&mut self, symbol: Symbol) -> Result<Value> {
        let mut at = self.scope;
        loop {
            let scope = &self.scopes[at];
            if let Some(value) = scope.variables.get(&symbol) {
                return Ok(value.clone());
            }
            let Some(outer) = scope.outer else { return Ok(Value::Undefined) };
            at = outer;
            self.step(1)?;
        }
    }

    fn assign(&mut self, target: &'t Target, value: Value) -> Result<()> {
        match target {
            Target::Name(symbol) => self.set(*symbol, value),
            Target::Attribute(line, symbol, attribute) => {
                let Value::Namespace(at) = self.get(*symbol)? else {
                    let name = &self.names[symbol.0 as usize];
                    return wrong(format!("{name} is no namespace, so that nothing in it can be set"))
                        .map_err(|error: TemplateError| error.at(*line));
                };
                self.set_attribute(at, attribute.clone(), value)
            }
            Target::Parts(line, parts) => {
                let items = self.items(&value)?;
                if items.items.len() != parts.len() {
                    let reason = format!("{} values are to be {} variables", items.items.len(), parts.len());
                    return Err(TemplateError::Operation { line: *line, reason });
                }
                for (part, item) in parts.iter().zip(&items.items) {
                    self.assign(part, item.clone())?;
                }
                Ok(())
            }
        }
    }

    pub(crate) fn new_namespace(&mut self) -> Result<usize> {
        self.count(SCOPE_BYTES)?;
        self.namespaces.push(Vec::new());
        Ok(self.namespaces.len() - 1)
    }

    pub(crate) fn set_attribute(&mut self, namespace: usize, name: Arc<str>, value: Value) -> Result<()> {
        match self.attribute_place(namespace, &name)? {
            Some(at) => self.namespaces[namespace][at].1 = value,
            None => {
                self.count(ENTRY_BYTES)?;
                self.namespaces[namespace].push((name, value));
            }
        }
        Ok(())
    }

    fn attribute_place(&mut self, namespace: usize, name: &str) -> Result<Option<usize>> {
        for at in 0..self.namespaces[namespace].len() {
            self.step(1)?;
            if self.namespaces[namespace][at].0.len() != name.len() {
                continue;
            }
            self.read(name.len())?;
            if *self.namespaces[namespace][at].0 == *name {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    // --- Statements (J-3).

    fn statements(&mut self, statements: &'t [Statement]) -> Result<()> {
        self.run(statements).map(|_| ())
    }

    fn run(&mut self, statements: &'t [Statement]) -> Result<Flow> {
        self.deeper(|renderer| {
            for statement in statements {
                renderer.step(1)?;
                let flow = renderer.statement(statement)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
            }
            Ok(Flow::On)
        })
    }

    /// Runs statements, and gives what they print.
    fn captured(&mut self, statements: &'t [Statement]) -> Result<(Value, Flow)> {
        let before = std::mem::take(&mut self.output);
        let flow = self.run(statements)?;
        let text = std::mem::replace(&mut self.output, before);
        Ok((self.pushed(text)?, flow))
    }

    fn print(&mut self, text: &str) -> Result<()> {
        self.count(text.len() as u64)?;
        self.output.push_str(text);
        Ok(())
    }

    fn statement(&mut self, statement: &'t Statement) -> Result<Flow> {
        match statement {
            Statement::Data(text) => self.print(text)?,
            Statement::Print(expression) => {
                let value = self.value(expression)?;
                self.print_value(&value).map_err(|error| error.at(expression.line))?;
            }
            Statement::Set { target, value } => {
                let line = value.line;
                let value = self.value(value)?;
                self.assign(target, value).map_err(|error| error.at(line))?;
            }
            Statement::SetBlock { target, filters, body } => {
                let (text, flow) = self.scoped_text(body)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.filters(text, filters)?;
                self.assign(target, value)?;
            }
            Statement::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.value(condition)?.is_true() {
                        return self.run(body);
                    }
                }
                return self.run(otherwise);
            }
            Statement::For(each) => return self.each(each),
            Statement::Macro(made) => {
                let value = self.make_macro(made)?;
                self.set(made.name, value)?;
            }
            Statement::CallBlock { call, body } => self.call_block(call, body)?,
            Statement::FilterBlock { filters, body } => {
                let (text, flow) = self.scoped_text(body)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.filters(text, filters)?;
                self.print_value(&value)?;
            }
            Statement::With { variables, body } => {
                let mut values = Vec::with_capacity(variables.len());
                for (_, value) in variables {
                    values.push(self.value(value)?);
                }
                let before = self.enter(self.scope)?;
                for ((target, _), value) in variables.iter().zip(values) {
                    self.assign(target, value)?;
                }
                let flow = self.run(body)?;
                self.leave(before);
                return Ok(flow);
            }
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn print_value(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Text(text) => self.print(text),
            other => {
                let mut output = std::mem::take(&mut self.output);
                self.write_text(&mut output, other)?;
                self.output = output;
                Ok(())
            }
        }
    }

    fn scoped_text(&mut self, body: &'t [Statement]) -> Result<(Value, Flow)> {
        let before = self.enter(self.scope)?;
        let captured = self.captured(body)?;
        self.leave(before);
        Ok(captured)
    }

    fn filters(&mut self, mut value: Value, filters: &'t [FilterCall]) -> Result<Value> {
        for filter in filters {
            let given = self.arguments(&filter.arguments)?;
            value = self.filter(&filter.name, value, given).map_err(|error| error.at(filter.line))?;
        }
        Ok(value)
    }

    /// A loop (J-3.6).
    fn each(&mut self, each: &'t For) -> Result<Flow> {
        let items = self.value(&each.items)?;
        let mut items = self.items(&items).map_err(|error| error.at(each.line))?;
        if let Some(filter) = &each.filter {
            let mut kept = Vec::new();
            for item in &items.items {
                self.step(1)?;
                let before = self.enter(self.scope)?;
                self.assign(&each.target, item.clone()).map_err(|error| error.at(each.line))?;
                if self.value(filter)?.is_true() {
                    kept.push(item.clone());
                }
                self.leave(before);
            }
            self.count_list(kept.len())?;
            items = self.counted_list(kept)?;
        }
        if items.items.is_empty() {
            return self.run(&each.otherwise);
        }
        self.check_depth(items.depth + 1)?;
        self.count(VALUE_BYTES)?;
        let state = Rc::new(Loop { items: items.clone(), index: Cell::new(0) });
        for (index, item) in items.items.iter().enumerate() {
            self.step(1)?;
            state.index.set(index);
            let before = self.enter(self.scope)?;
            self.set(LOOP, Value::Loop(state.clone()))?;
            self.assign(&each.target, item.clone()).map_err(|error| error.at(each.line))?;
            let flow = self.run(&each.body)?;
            self.leave(before);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    // --- Macros (J-3.7).

    fn make_macro(&mut self, made: &'t Macro) -> Result<Value> {
        self.count(SCOPE_BYTES)?;
        let mut at = Some(self.scope);
        while let Some(scope) = at.filter(|scope| !self.scopes[*scope].kept) {
            self.scopes[scope].kept = true;
            at = self.scopes[scope].outer;
        }
        self.macros.push((made, self.scope));
        Ok(Value::Macro(self.macros.len() - 1))
    }

    fn call_macro(&mut self, at: usize, given: Given, caller: Option<Value>) -> Result<Value> {
        let (called, outer) = self.macros[at];
        let name = &self.names[called.name.0 as usize];
        if given.positional.len() > called.parameters.len() {
            return wrong(format!("{name} takes at most {} arguments", called.parameters.len()));
        }
        let mut values: Vec<Option<Value>> = given.positional.into_iter().map(Some).collect();
        values.resize(called.parameters.len(), None);
        for (argument, value) in given.named {
            let place =
                called.parameters.iter().position(|(name, _)| self.names[name.0 as usize] == argument);
            let Some(place) = place else { return wrong(format!("{name} has no argument {argument}")) };
            if values[place].replace(value).is_some() {
                return wrong(format!("{name} is given {argument} twice"));
            }
        }
        let before = self.enter(outer)?;
        if let Some(caller) = caller {
            self.set(CALLER, caller)?;
        }
        for ((parameter, default), value) in called.parameters.iter().zip(values) {
            let value = match (value, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.value(default)?,
                (None, None) => Value::Undefined,
            };
            self.set(*parameter, value)?;
        }
        let (text, _) = self.captured(&called.body)?;
        self.leave(before);
        Ok(text)
    }

    fn call_block(&mut self, call: &'t Expression, body: &'t Macro) -> Result<()> {
        let Kind::Call(callee, arguments) = &call.kind else {
            return wrong("call wants the call of a macro");
        };
        let callee = self.value(callee)?;
        let given = self.arguments(arguments)?;
        let Value::Macro(at) = callee else {
            return wrong(format!("{} is no macro", callee.kind()))
                .map_err(|error: TemplateError| error.at(call.line));
        };
        let caller = self.make_macro(body)?;
        let text = self.call_macro(at, given, Some(caller)).map_err(|error| error.at(call.line))?;
        self.print_value(&text)
    }

    // --- Expressions (J-4).

    fn arguments(&mut self, arguments: &'t Arguments) -> Result<Given> {
        let mut given = Given::default();
        for argument in &arguments.positional {
            given.positional.push(self.value(argument)?);
        }
        for (name, argument) in &arguments.named {
            given.named.push((name.clone(), self.value(argument)?));
        }
        Ok(given)
    }

    fn value(&mut self, expression: &'t Expression) -> Result<Value> {
        let value = self.deeper(|renderer| {
            renderer.step(1)?;
            renderer.compute(expression)
        });
        value.map_err(|error| error.at(expression.line))
    }

    fn compute(&mut self, expression: &'t Expression) -> Result<Value> {
        Ok(match &expression.kind {
            Kind::None => Value::None,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::Int(*value),
            Kind::Float(value) => Value::Float(*value),
            Kind::Text(text) => Value::Text(text.clone()),
            Kind::Name(symbol) => self.get(*symbol)?,
            Kind::List(items) => {
                let items = items.iter().map(|item| self.value(item)).collect::<Result<Vec<Value>>>()?;
                self.list(items)?
            }
            Kind::Dict(entries) => {
                let mut pairs = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    pairs.push((self.value(key)?, self.value(value)?));
                }
                self.dict(pairs)?
            }
            Kind::Attribute(of, name) => {
                let value = self.value(of)?;
                if matches!(value, Value::Undefined) {
                    return wrong(format!("{} is undefined, so that it has no {name}", self.described(of)));
                }
                self.attribute(&value, name)?
            }
            Kind::Item(of, key) => {
                let value = self.value(of)?;
                let key = self.value(key)?;
                if matches!(value, Value::Undefined) {
                    return wrong(format!("{} is undefined, so that nothing is in it", self.described(of)));
                }
                self.item(&value, &key)?
            }
            Kind::Slice(of, parts) => self.compute_slice(of, parts)?,
            Kind::Call(callee, arguments) => self.call(callee, arguments)?,
            Kind::Filter(subject, call) => {
                let subject = self.value(subject)?;
                let given = self.arguments(&call.arguments)?;
                self.filter(&call.name, subject, given)?
            }
            Kind::Test(subject, call) => {
                let subject = self.value(subject)?;
                let given = self.arguments(&call.arguments)?;
                Value::Bool(self.test(&call.name, &subject, given)?)
            }
            Kind::Not(inner) => Value::Bool(!self.value(inner)?.is_true()),
            Kind::Negative(inner) => {
                let value = self.value(inner)?;
                self.negative(&value)?
            }
            Kind::Positive(inner) => {
                let value = self.value(inner)?;
                self.positive(&value)?
            }
            Kind::Binary(left, operator, right) => {
                let left = self.value(left)?;
                let right = self.value(right)?;
                self.binary(&left, *operator, &right)?
            }
            Kind::Compare(first, others) => self.compare(first, others)?,
            Kind::And(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { self.value(right)? } else { left }
            }
            Kind::Or(left, right) => {
                let left = self.value(left)?;
                if left.is_true() { left } else { self.value(right)? }
            }
            Kind::Choice(parts, otherwise) => {
                let [value, condition] = &**parts;
                if self.value(condition)?.is_true() {
                    self.value(value)?
                } else if let Some(otherwise) = otherwise {
                    self.value(otherwise)?
                } else {
                    Value::Undefined
                }
            }
        })
    }

    fn described(&self, expression: &Expression) -> String {
        match &expression.kind {
            Kind::Name(symbol) => self.names[symbol.0 as usize].to_string(),
            Kind::Attribute(_, name) => name.to_string(),
            _ => "a value".into(),
        }
    }

    fn compare(&mut self, first: &'t Expression, others: &'t [(Comparison, Expression)]) -> Result<Value> {
        let mut left = self.value(first)?;
        for (comparison, other) in others {
            let right = self.value(other)?;
            if !self.holds(&left, *comparison, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn compute_slice(&mut self, of: &'t Expression, parts: &'t [Option<Expression>; 3]) -> Result<Value> {
        let value = self.value(of)?;
        let mut bounds = [const { Value::None }; 3];
        for (bound, part) in bounds.iter_mut().zip(parts) {
            if let Some(part) = part {
                *bound = self.value(part)?;
            }
        }
        self.slice(&value, &bounds)
    }

    /// A method, a macro or a function (J-4.8).
    fn call(&mut self, callee: &'t Expression, arguments: &'t Arguments) -> Result<Value> {
        if let Kind::Attribute(of, name) = &callee.kind {
            let of_value = self.value(of)?;
            let given = self.arguments(arguments)?;
            let called = match &of_value {
                Value::Undefined => {
                    return wrong(format!("{} is undefined, so that it has no {name}", self.described(of)));
                }
                Value::Namespace(_) => self.attribute(&of_value, name)?,
                _ => return self.method(&of_value, name, given),
            };
            return self.call_value(called, name, given);
        }
        let called = self.value(callee)?;
        let given = self.arguments(arguments)?;
        if let Value::Macro(_) | Value::Function(_) = called {
            return self.call_value(called, "", given);
        }
        let name = self.described(callee);
        self.call_value(called, &name, given)
    }

    pub(crate) fn call_value(&mut self, called: Value, name: &str, given: Given) -> Result<Value> {
        match called {
            Value::Macro(at) => self.call_macro(at, given, None),
            Value::Function(function) => self.function(function, given),
            Value::Undefined => wrong(format!("{name} is undefined, so that it cannot be called")),
            other => wrong(format!("{name} is {}, which cannot be called", other.kind())),
        }
    }

    pub(crate) fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        Ok(match value {
            Value::Dict(dict) => self.entry_named(dict, name)?.unwrap_or(Value::Undefined),
            Value::Namespace(at) => match self.attribute_place(*at, name)? {
                Some(place) => self.namespaces[*at][place].1.clone(),
                None => Value::Undefined,
            },
            Value::Loop(state) => loop_attribute(state, name),
            _ => Value::Undefined,
        })
    }
}

/// J-6.9.
fn loop_attribute(state: &Loop, name: &str) -> Value {
    let index = state.index.get();
    let count = state.items.items.len();
    let int = |value: usize| Value::Int(value as i64);
    let item =
        |at: Option<usize>| at.and_then(|at| state.items.items.get(at)).cloned().unwrap_or(Value::Undefined);
    match name {
        "index" => int(index + 1),
        "index0" => int(index),
        "revindex" => int(count - index),
        "revindex0" => int(count - index - 1),
        "first" => Value::Bool(index == 0),
        "last" => Value::Bool(index + 1 == count),
        "length" => int(count),
        "previtem" => item(index.checked_sub(1)),
        "nextitem" => item(index.checked_add(1)),
        "depth" => int(1),
        "depth0" => int(0),
        _ => Value::Undefined,
    }
}
