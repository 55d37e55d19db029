//! From lexemes to statements and expressions.
//!
//! In:     a template's source; limits.
//! Out:    its statements and the names it uses, or the line that is not in the language.
//! Touches: nothing.
//! Holds:  J-3 and J-4; nothing nests deeper than the limits allow, so that no walk over the result is deeper either.
//! Absent: `include`, `import`, `extends`, `block`, `trans`, `do`: refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lexer::{Kind as Lexed, Lexeme, lexemes};
use crate::syntax::{
    Arguments, Comparison, Expression, FilterCall, For, Kind, Macro, NAMES, Operator, Statement, Symbol,
    Target,
};
use crate::{Limit, Limits, TemplateError};

/// Words that are no variables (J-4.1).
const KEYWORDS: [&str; 8] = ["and", "or", "not", "in", "is", "if", "else", "elif"];
/// Words that no statement may set.
const CONSTANTS: [&str; 6] = ["true", "True", "false", "False", "none", "None"];

/// Arguments of a call, or parameters of a macro, at most (J-8.2).
const ARGUMENTS_MAX: usize = 255;

/// How tightly operators bind (J-4.4).
const OR: u8 = 0;
const AND: u8 = 1;
const NOT: u8 = 2;
const COMPARE: u8 = 3;
const SUM: u8 = 4;
const JOIN: u8 = 5;
const PRODUCT: u8 = 6;
const POWER: u8 = 7;

/// An operator between two operands.
#[derive(Clone, Copy)]
enum Infix {
    Or,
    And,
    Compare(Comparison),
    Operator(Operator),
}

type Parsed<T> = Result<T, TemplateError>;

/// Statements and names of a normalised source.
pub(crate) fn parse(source: &str, limits: &Limits) -> Parsed<(Vec<Statement>, Vec<Arc<str>>)> {
    let mut parser = Parser {
        lexemes: lexemes(source, limits.lexemes)?,
        at: 0,
        symbols: BTreeMap::new(),
        names: Vec::new(),
        depth: 0,
        most_depth: limits.depth,
        in_loop: false,
    };
    for name in NAMES {
        parser.symbol(name);
    }
    let (statements, _) = parser.statements(&[])?;
    Ok((statements, parser.names))
}

struct Parser<'s> {
    lexemes: Vec<Lexeme<'s>>,
    at: usize,
    symbols: BTreeMap<&'s str, Symbol>,
    names: Vec<Arc<str>>,
    depth: u32,
    most_depth: u32,
    in_loop: bool,
}

impl<'s> Parser<'s> {
    fn symbol(&mut self, name: &'s str) -> Symbol {
        if let Some(symbol) = self.symbols.get(name) {
            return *symbol;
        }
        let symbol = Symbol(self.names.len() as u32);
        self.names.push(name.into());
        self.symbols.insert(name, symbol);
        symbol
    }

    /// The lexeme to read next; `End` again and again at the end.
    fn peek(&self) -> &Lexed<'s> {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> &Lexed<'s> {
        self.lexemes.get(self.at + count).map_or(&Lexed::End, |lexeme| &lexeme.kind)
    }

    fn line(&self) -> u32 {
        self.lexemes.get(self.at).or(self.lexemes.last()).map_or(1, |lexeme| lexeme.line)
    }

    fn next(&mut self) -> Lexed<'s> {
        let Some(lexeme) = self.lexemes.get_mut(self.at) else { return Lexed::End };
        self.at += 1;
        std::mem::replace(&mut lexeme.kind, Lexed::End)
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        Err(TemplateError::Syntax { line: self.line(), reason: reason.into() })
    }

    fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        self.fail(format!("{} stands where {wanted} is expected", described(self.peek())))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Lexed::Sign(found) if *found == sign)
    }

    fn skip_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.skip_sign(sign) { Ok(()) } else { self.unexpected(&format!("'{sign}'")) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Lexed::Name(found) if *found == word)
    }

    fn skip_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Parsed<&'s str> {
        let Lexed::Name(name) = *self.peek() else { return self.unexpected("a name") };
        self.at += 1;
        Ok(name)
    }

    fn block_end(&mut self) -> Parsed<()> {
        if *self.peek() != Lexed::BlockEnd {
            return self.unexpected("'%}'");
        }
        self.at += 1;
        Ok(())
    }

    /// One level further in (J-8.3).
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        self.check_depth(self.depth)?;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn check_depth(&self, depth: u32) -> Parsed<()> {
        if depth > self.most_depth {
            let (limit, allowed) = (Limit::Depth, self.most_depth.into());
            return Err(TemplateError::Limit { line: self.line(), limit, allowed });
        }
        Ok(())
    }

    /// Statements up to a block that begins with one of `ends`, or to the end of the template if there are none.
    /// That word is passed and returned.
    fn statements(&mut self, ends: &[&str]) -> Parsed<(Vec<Statement>, &'s str)> {
        let mut statements = Vec::new();
        loop {
            match self.next() {
                Lexed::Data(text) => statements.push(Statement::Data(text.into())),
                Lexed::PrintBegin => {
                    statements.push(Statement::Print(self.expression()?));
                    if *self.peek() != Lexed::PrintEnd {
                        return self.unexpected("'}}'");
                    }
                    self.at += 1;
                }
                Lexed::BlockBegin => {
                    let name = self.name()?;
                    if ends.contains(&name) {
                        return Ok((statements, name));
                    }
                    let statement = self.deeper(|parser| parser.statement(name))?;
                    statements.extend(statement);
                }
                _ => {
                    return match ends.last() {
                        Some(end) => self.fail(format!("{end} is missing")),
                        None => Ok((statements, "")),
                    };
                }
            }
        }
    }

    /// Statements up to the block `end`, which is passed.
    fn body(&mut self, end: &str) -> Parsed<Vec<Statement>> {
        self.block_end()?;
        let (body, _) = self.statements(&[end])?;
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str) -> Parsed<Option<Statement>> {
        Ok(Some(match name {
            "set" => self.set()?,
            "if" => self.branches()?,
            "for" => self.each()?,
            "macro" => {
                let line = self.line();
                let name = self.name()?;
                check_settable(name, line)?;
                let name = self.symbol(name);
                Statement::Macro(Box::new(self.macro_body(name, "endmacro")?))
            }
            "call" => {
                let caller = self.symbol("caller");
                let parameters = if self.is_sign("(") { self.parameters()? } else { Vec::new() };
                let call = self.expression()?;
                if !matches!(call.kind, Kind::Call(..)) {
                    return self.fail("call wants the call of a macro");
                }
                let in_loop = std::mem::replace(&mut self.in_loop, false);
                let body = self.body("endcall")?;
                self.in_loop = in_loop;
                Statement::CallBlock { call, body: Box::new(Macro { name: caller, parameters, body }) }
            }
            "filter" => {
                let filters = self.filters()?;
                Statement::FilterBlock { filters, body: self.body("endfilter")? }
            }
            "with" => {
                let mut variables = Vec::new();
                while *self.peek() != Lexed::BlockEnd {
                    if !variables.is_empty() {
                        self.expect_sign(",")?;
                    }
                    let target = self.target(false)?;
                    self.expect_sign("=")?;
                    variables.push((target, self.expression()?));
                }
                Statement::With { variables, body: self.body("endwith")? }
            }
            // Marks what a model says, for those who train it; the text is the body's (J-3.9).
            "generation" => Statement::With { variables: Vec::new(), body: self.body("endgeneration")? },
            "break" | "continue" => {
                if !self.in_loop {
                    return self.fail(format!("{name} stands outside a loop"));
                }
                self.block_end()?;
                if name == "break" { Statement::Break } else { Statement::Continue }
            }
            _ => return self.fail(format!("{name} is no statement here")),
        }))
    }

    fn set(&mut self) -> Parsed<Statement> {
        let target = self.target(true)?;
        if self.skip_sign("=") {
            let line = self.line();
            let mut value = self.expression()?;
            if self.is_sign(",") {
                let mut items = vec![value];
                while self.skip_sign(",") && *self.peek() != Lexed::BlockEnd {
                    items.push(self.expression()?);
                }
                value = self.node(line, deepest(&items), Kind::List(items))?;
            }
            self.block_end()?;
            return Ok(Statement::Set { target, value });
        }
        let filters = if self.skip_sign("|") { self.filters()? } else { Vec::new() };
        Ok(Statement::SetBlock { target, filters, body: self.body("endset")? })
    }

    fn branches(&mut self) -> Parsed<Statement> {
        let mut branches = Vec::new();
        loop {
            let condition = self.either()?;
            self.block_end()?;
            let (body, end) = self.statements(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end {
                "elif" => {}
                "else" => {
                    let otherwise = self.body("endif")?;
                    return Ok(Statement::If { branches, otherwise });
                }
                _ => {
                    self.block_end()?;
                    return Ok(Statement::If { branches, otherwise: Vec::new() });
                }
            }
        }
    }

    fn each(&mut self) -> Parsed<Statement> {
        let line = self.line();
        let target = self.target(false)?;
        if !self.skip_word("in") {
            return self.unexpected("'in'");
        }
        let items = self.either()?;
        let filter = if self.skip_word("if") { Some(self.expression()?) } else { None };
        if self.is_word("recursive") {
            return self.fail("recursive loops are not in the language");
        }
        self.block_end()?;
        let in_loop = std::mem::replace(&mut self.in_loop, true);
        let (body, end) = self.statements(&["else", "endfor"])?;
        self.in_loop = in_loop;
        let otherwise = if end == "else" {
            self.body("endfor")?
        } else {
            self.block_end()?;
            Vec::new()
        };
        Ok(Statement::For(Box::new(For { line, target, items, filter, body, otherwise })))
    }

    fn macro_body(&mut self, name: Symbol, end: &str) -> Parsed<Macro> {
        let parameters = self.parameters()?;
        let in_loop = std::mem::replace(&mut self.in_loop, false);
        let body = self.body(end)?;
        self.in_loop = in_loop;
        Ok(Macro { name, parameters, body })
    }

    fn parameters(&mut self) -> Parsed<Vec<(Symbol, Option<Expression>)>> {
        let mut parameters: Vec<(Symbol, Option<Expression>)> = Vec::new();
        self.expect_sign("(")?;
        while !self.skip_sign(")") {
            if !parameters.is_empty() {
                self.expect_sign(",")?;
                if self.skip_sign(")") {
                    break;
                }
            }
            if parameters.len() == ARGUMENTS_MAX {
                return self.fail(format!("a macro has more than {ARGUMENTS_MAX} parameters"));
            }
            let line = self.line();
            let name = self.name()?;
            check_settable(name, line)?;
            let name = self.symbol(name);
            if parameters.iter().any(|(other, _)| *other == name) {
                return self.fail("two parameters have one name");
            }
            let default = if self.skip_sign("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("a parameter without a default follows one that has it");
            }
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    /// What a value is given to: a name, an attribute of a namespace, or several of these.
    fn target(&mut self, attributes: bool) -> Parsed<Target> {
        let line = self.line();
        let first = self.single_target(attributes)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_sign(",") {
            if self.is_sign("=") || self.is_sign(")") || self.is_word("in") {
                break;
            }
            parts.push(self.single_target(attributes)?);
        }
        Ok(Target::Parts(line, parts))
    }

    fn single_target(&mut self, attributes: bool) -> Parsed<Target> {
        if self.skip_sign("(") {
            let target = self.deeper(|parser| parser.target(attributes))?;
            self.expect_sign(")")?;
            return Ok(target);
        }
        let line = self.line();
        let name = self.name()?;
        check_settable(name, line)?;
        let symbol = self.symbol(name);
        if attributes && self.skip_sign(".") {
            let attribute = self.name()?;
            return Ok(Target::Attribute(line, symbol, attribute.into()));
        }
        Ok(Target::Name(symbol))
    }

    fn filters(&mut self) -> Parsed<Vec<FilterCall>> {
        let mut filters = vec![self.filter_call()?];
        while self.skip_sign("|") {
            filters.push(self.filter_call()?);
        }
        Ok(filters)
    }

    fn filter_call(&mut self) -> Parsed<FilterCall> {
        let line = self.line();
        let name = self.name()?.into();
        let arguments = if self.is_sign("(") { self.arguments()? } else { Arguments::default() };
        Ok(FilterCall { line, name, arguments })
    }

    fn arguments(&mut self) -> Parsed<Arguments> {
        let mut arguments = Arguments::default();
        self.expect_sign("(")?;
        while !self.skip_sign(")") {
            if !(arguments.positional.is_empty() && arguments.named.is_empty()) {
                self.expect_sign(",")?;
                if self.skip_sign(")") {
                    break;
                }
            }
            if arguments.positional.len() + arguments.named.len() == ARGUMENTS_MAX {
                return self.fail(format!("a call has more than {ARGUMENTS_MAX} arguments"));
            }
            if self.is_sign("*") || self.is_sign("**") {
                return self.fail("arguments from a list or mapping are not in the language");
            }
            let name = match (self.peek(), self.ahead(1)) {
                (Lexed::Name(name), Lexed::Sign("=")) => Some(*name),
                _ => None,
            };
            let Some(name) = name else {
                if !arguments.named.is_empty() {
                    return self.fail("an argument without a name follows one with a name");
                }
                arguments.positional.push(self.expression()?);
                continue;
            };
            self.at += 2;
            if arguments.named.iter().any(|(other, _)| **other == *name) {
                return self.fail(format!("{name} is given twice"));
            }
            arguments.named.push((name.into(), self.expression()?));
        }
        Ok(arguments)
    }

    fn node(&self, line: u32, below: u32, kind: Kind) -> Parsed<Expression> {
        let depth = below + 1;
        self.check_depth(depth)?;
        Ok(Expression { line, depth, kind })
    }

    fn expression(&mut self) -> Parsed<Expression> {
        self.deeper(Self::choice)
    }

    /// `a if b else c` (J-4.3).
    fn choice(&mut self) -> Parsed<Expression> {
        let line = self.line();
        let mut value = self.either()?;
        while self.skip_word("if") {
            let condition = self.either()?;
            let otherwise = if self.skip_word("else") { Some(Box::new(self.expression()?)) } else { None };
            let depth =
                value.depth.max(condition.depth).max(otherwise.as_ref().map_or(0, |other| other.depth));
            value = self.node(line, depth, Kind::Choice(Box::new([value, condition]), otherwise))?;
        }
        Ok(value)
    }

    fn either(&mut self) -> Parsed<Expression> {
        self.operation(OR)
    }

    /// Operands and the operators between them that bind as tightly as `least`, or more (J-4.4).
    fn operation(&mut self, least: u8) -> Parsed<Expression> {
        let line = self.line();
        let mut left = if least <= NOT && self.skip_word("not") {
            let inner = self.deeper(|parser| parser.operation(NOT))?;
            self.node(line, inner.depth, Kind::Not(inner.into()))?
        } else {
            self.unary(true)?
        };
        while let Some((level, infix, lexemes)) = self.infix().filter(|(level, ..)| *level >= least) {
            if let Infix::Compare(_) = infix {
                left = self.comparison(line, left)?;
                continue;
            }
            self.at += lexemes;
            let right = self.operation(level + 1)?;
            let depth = left.depth.max(right.depth);
            let kind = match infix {
                Infix::Or => Kind::Or(left.into(), right.into()),
                Infix::And => Kind::And(left.into(), right.into()),
                Infix::Operator(operator) => Kind::Binary(left.into(), operator, right.into()),
                Infix::Compare(_) => return self.unexpected("an operator"),
            };
            left = self.node(line, depth, kind)?;
        }
        Ok(left)
    }

    fn comparison(&mut self, line: u32, first: Expression) -> Parsed<Expression> {
        let mut others = Vec::new();
        let mut depth = first.depth;
        while let Some((_, Infix::Compare(comparison), lexemes)) = self.infix() {
            self.at += lexemes;
            let other = self.operation(COMPARE + 1)?;
            depth = depth.max(other.depth);
            others.push((comparison, other));
        }
        self.node(line, depth, Kind::Compare(first.into(), others))
    }

    /// The operator that comes next, how tightly it binds, and how many lexemes it is.
    fn infix(&self) -> Option<(u8, Infix, usize)> {
        let (level, infix) = match self.peek() {
            Lexed::Name("or") => (OR, Infix::Or),
            Lexed::Name("and") => (AND, Infix::And),
            Lexed::Name("in") => (COMPARE, Infix::Compare(Comparison::In)),
            Lexed::Name("not") if *self.ahead(1) == Lexed::Name("in") => {
                return Some((COMPARE, Infix::Compare(Comparison::NotIn), 2));
            }
            Lexed::Sign(sign) => match *sign {
                "==" => (COMPARE, Infix::Compare(Comparison::Equal)),
                "!=" => (COMPARE, Infix::Compare(Comparison::NotEqual)),
                "<" => (COMPARE, Infix::Compare(Comparison::Less)),
                "<=" => (COMPARE, Infix::Compare(Comparison::LessOrEqual)),
                ">" => (COMPARE, Infix::Compare(Comparison::Greater)),
                ">=" => (COMPARE, Infix::Compare(Comparison::GreaterOrEqual)),
                "+" => (SUM, Infix::Operator(Operator::Add)),
                "-" => (SUM, Infix::Operator(Operator::Subtract)),
                "~" => (JOIN, Infix::Operator(Operator::Join)),
                "*" => (PRODUCT, Infix::Operator(Operator::Multiply)),
                "/" => (PRODUCT, Infix::Operator(Operator::Divide)),
                "//" => (PRODUCT, Infix::Operator(Operator::FloorDivide)),
                "%" => (PRODUCT, Infix::Operator(Operator::Remainder)),
                "**" => (POWER, Infix::Operator(Operator::Power)),
                _ => return None,
            },
            _ => return None,
        };
        Some((level, infix, 1))
    }

    fn unary(&mut self, filters: bool) -> Parsed<Expression> {
        let line = self.line();
        let value = if self.skip_sign("-") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.node(line, inner.depth, Kind::Negative(inner.into()))?
        } else if self.skip_sign("+") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.node(line, inner.depth, Kind::Positive(inner.into()))?
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if filters { self.filtered(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let line = self.line();
        let (kind, depth) = match self.peek() {
            Lexed::Name(name) if KEYWORDS.contains(name) => return self.unexpected("a value"),
            Lexed::Name(name) => {
                let name: &'s str = name;
                self.at += 1;
                let kind = match name {
                    "true" | "True" => Kind::Bool(true),
                    "false" | "False" => Kind::Bool(false),
                    "none" | "None" => Kind::None,
                    _ => Kind::Name(self.symbol(name)),
                };
                (kind, 0)
            }
            Lexed::Text(_) => {
                let mut text = String::new();
                while let Lexed::Text(part) = self.peek() {
                    text.push_str(part);
                    self.at += 1;
                }
                (Kind::Text(text.into()), 0)
            }
            Lexed::Int(value) => (Kind::Int(*value), 0),
            Lexed::Float(value) => (Kind::Float(*value), 0),
            Lexed::Sign("(") => {
                self.at += 1;
                return self.parenthesis(line);
            }
            Lexed::Sign("[") => {
                self.at += 1;
                let items = self.items("]", Vec::new())?;
                let depth = deepest(&items);
                (Kind::List(items), depth)
            }
            Lexed::Sign("{") => {
                self.at += 1;
                let entries = self.entries()?;
                let depth = entries.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0);
                (Kind::Dict(entries), depth)
            }
            _ => return self.unexpected("a value"),
        };
        if matches!(kind, Kind::Int(_) | Kind::Float(_)) {
            self.at += 1;
        }
        self.node(line, depth, kind)
    }

    fn parenthesis(&mut self, line: u32) -> Parsed<Expression> {
        if self.skip_sign(")") {
            return self.node(line, 0, Kind::List(Vec::new()));
        }
        let first = self.expression()?;
        if self.skip_sign(")") {
            return Ok(first);
        }
        let items = self.items(")", vec![first])?;
        self.node(line, deepest(&items), Kind::List(items))
    }

    /// Expressions with commas between them, and perhaps one at the end.
    fn items(&mut self, end: &str, mut items: Vec<Expression>) -> Parsed<Vec<Expression>> {
        while !self.skip_sign(end) {
            if !items.is_empty() {
                self.expect_sign(",")?;
                if self.skip_sign(end) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn entries(&mut self) -> Parsed<Vec<(Expression, Expression)>> {
        let mut entries = Vec::new();
        while !self.skip_sign("}") {
            if !entries.is_empty() {
                self.expect_sign(",")?;
                if self.skip_sign("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_sign(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(entries)
    }

    fn postfix(&mut self, mut value: Expression) -> Parsed<Expression> {
        loop {
            let line = self.line();
            if self.skip_sign(".") {
                if let Lexed::Int(index) = *self.peek() {
                    self.at += 1;
                    let index = self.node(line, 0, Kind::Int(index))?;
                    value = self.node(line, value.depth, Kind::Item(value.into(), index.into()))?;
                } else {
                    let name = self.name()?.into();
                    value = self.node(line, value.depth, Kind::Attribute(value.into(), name))?;
                }
            } else if self.skip_sign("[") {
                value = self.subscript(line, value)?;
            } else if self.is_sign("(") {
                value = self.call(line, value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn call(&mut self, line: u32, value: Expression) -> Parsed<Expression> {
        let arguments = self.arguments()?;
        self.node(line, value.depth.max(arguments.depth()), Kind::Call(value.into(), arguments.into()))
    }

    fn subscript(&mut self, line: u32, value: Expression) -> Parsed<Expression> {
        let mut parts = [None, None, None];
        let mut part = 0;
        while !self.skip_sign("]") {
            if self.skip_sign(":") {
                part += 1;
                if part > 2 {
                    return self.unexpected("']'");
                }
            } else if parts[part].is_none() {
                parts[part] = Some(self.expression()?);
            } else {
                return self.unexpected("']'");
            }
        }
        let below = parts.iter().flatten().map(|part| part.depth).fold(value.depth, u32::max);
        if part > 0 {
            return self.node(line, below, Kind::Slice(value.into(), parts.into()));
        }
        let [Some(index), _, _] = parts else { return self.fail("a subscript is empty") };
        self.node(line, below, Kind::Item(value.into(), index.into()))
    }

    /// Filters, tests, and calls of what they give (J-4.9).
    fn filtered(&mut self, mut value: Expression) -> Parsed<Expression> {
        loop {
            let line = self.line();
            if self.skip_sign("|") {
                let call = self.filter_call()?;
                let depth = value.depth.max(call.arguments.depth());
                value = self.node(line, depth, Kind::Filter(value.into(), call.into()))?;
            } else if self.skip_word("is") {
                let negated = self.skip_word("not");
                let call = self.test_call()?;
                let depth = value.depth.max(call.arguments.depth());
                value = self.node(line, depth, Kind::Test(value.into(), call.into()))?;
                if negated {
                    value = self.node(line, value.depth, Kind::Not(value.into()))?;
                }
            } else if self.is_sign("(") {
                value = self.call(line, value)?;
            } else {
                return Ok(value);
            }
        }
    }

    /// A test, its argument in brackets or without (J-4.10).
    fn test_call(&mut self) -> Parsed<FilterCall> {
        let line = self.line();
        let name = self.name()?.into();
        let mut arguments = Arguments::default();
        match self.peek() {
            Lexed::Sign("(") => arguments = self.arguments()?,
            Lexed::Name(word) if KEYWORDS.contains(word) => {}
            Lexed::Name(_) | Lexed::Text(_) | Lexed::Int(_) | Lexed::Float(_) | Lexed::Sign("[" | "{") => {
                let argument = self.deeper(|parser| {
                    let value = parser.primary()?;
                    parser.postfix(value)
                })?;
                arguments.positional.push(argument);
            }
            _ => {}
        }
        Ok(FilterCall { line, name, arguments })
    }
}

impl Arguments {
    fn depth(&self) -> u32 {
        let named = self.named.iter().map(|(_, value)| value.depth);
        self.positional.iter().map(|value| value.depth).chain(named).max().unwrap_or(0)
    }
}

fn deepest(items: &[Expression]) -> u32 {
    items.iter().map(|item| item.depth).max().unwrap_or(0)
}

fn check_settable(name: &str, line: u32) -> Parsed<()> {
    if KEYWORDS.contains(&name) || CONSTANTS.contains(&name) {
        return Err(TemplateError::Syntax { line, reason: format!("{name} cannot be set") });
    }
    Ok(())
}

fn described(lexeme: &Lexed<'_>) -> String {
    match lexeme {
        Lexed::Data(_) => "text".into(),
        Lexed::PrintBegin => "'{{'".into(),
        Lexed::PrintEnd => "'}}'".into(),
        Lexed::BlockBegin => "'{%'".into(),
        Lexed::BlockEnd => "'%}'".into(),
        Lexed::Name(name) => (*name).into(),
        Lexed::Text(_) => "a text".into(),
        Lexed::Int(value) => value.to_string(),
        Lexed::Float(_) => "a number".into(),
        Lexed::Sign(sign) => format!("'{sign}'"),
        Lexed::End => "the end".into(),
    }
}
