//! Rules that call each other, and what is made of them: automata that take one way for one byte.
//!
//! In:     nodes with ways between them: by a byte, by nothing, by all that another rule takes.
//! Out:    the states of all rules (G-6), by the construction of subsets.
//! Holds:  nodes, states and steps are bounded.
//! Absent: what rules mean (`schema`), how an automaton is run (`automaton`).

use std::collections::{BTreeMap, BTreeSet};

use crate::GrammarError;

/// Nodes of all rules, at most.
const NODES_MAX: usize = 1 << 14;
/// States of all rules, at most.
pub(crate) const STATES_MAX: usize = 1 << 13;
/// Steps of the construction, at most.
const STEPS_MAX: usize = 1 << 20;

/// Where a rule begins.
pub(crate) const START: usize = 0;
/// Where it ends.
pub(crate) const END: usize = 1;

/// A rule by its number.
pub(crate) type RuleId = usize;

/// A place in a rule, and the ways from it.
#[derive(Default)]
struct Node {
    bytes: Vec<(u8, u8, usize)>,
    empty: Vec<usize>,
    calls: Vec<(RuleId, usize)>,
}

/// Rules in the making.
#[derive(Default)]
pub(crate) struct Rules {
    rules: Vec<Vec<Node>>,
    nodes: usize,
}

/// A state of an automaton, and the ways from it.
#[derive(Default)]
pub(crate) struct Way {
    /// By a byte of a range.
    pub(crate) bytes: Vec<(u8, u8, usize)>,
    /// By all that the rule which begins in the first state takes, on to the second.
    pub(crate) calls: Vec<(usize, usize)>,
    /// The rule may end here.
    pub(crate) end: bool,
}

impl Rules {
    /// A new rule that takes nothing yet.
    pub(crate) fn rule(&mut self) -> RuleId {
        self.rules.push(vec![Node::default(), Node::default()]);
        self.nodes += 2;
        self.rules.len() - 1
    }

    /// A new node of a rule.
    pub(crate) fn node(&mut self, rule: RuleId) -> Result<usize, GrammarError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(GrammarError::TooLarge { what: "nodes", most: NODES_MAX });
        }
        self.rules[rule].push(Node::default());
        Ok(self.rules[rule].len() - 1)
    }

    /// A way by any byte of a range.
    pub(crate) fn bytes(&mut self, rule: RuleId, from: usize, low: u8, high: u8, to: usize) {
        self.rules[rule][from].bytes.push((low, high, to));
    }

    /// A way by nothing.
    pub(crate) fn empty(&mut self, rule: RuleId, from: usize, to: usize) {
        self.rules[rule][from].empty.push(to);
    }

    /// A way by all that another rule takes.
    pub(crate) fn call(&mut self, rule: RuleId, from: usize, callee: RuleId, to: usize) {
        self.rules[rule][from].calls.push((callee, to));
    }

    /// A way by some bytes, to a new node.
    pub(crate) fn literal(&mut self, rule: RuleId, from: usize, bytes: &[u8]) -> Result<usize, GrammarError> {
        let mut at = from;
        for byte in bytes {
            let next = self.node(rule)?;
            self.bytes(rule, at, *byte, *byte, next);
            at = next;
        }
        Ok(at)
    }

    /// The states of all rules; those of rule 0 come first, and of each rule its start.
    pub(crate) fn determine(&self) -> Result<Vec<Way>, GrammarError> {
        let mut ways = Vec::new();
        let mut starts = Vec::with_capacity(self.rules.len());
        let mut steps = 0;
        for rule in &self.rules {
            starts.push(ways.len());
            determine(rule, &mut ways, &mut steps)?;
        }
        for way in &mut ways {
            way.calls.iter_mut().for_each(|(callee, _)| *callee = starts[*callee]);
        }
        Ok(ways)
    }
}

/// The states of one rule; calls are still of rules.
fn determine(rule: &[Node], ways: &mut Vec<Way>, steps: &mut usize) -> Result<(), GrammarError> {
    let first = ways.len();
    let mut known: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    let mut queue: Vec<Vec<usize>> = Vec::new();
    let mut state_of = |nodes: BTreeSet<usize>, queue: &mut Vec<Vec<usize>>, steps: &mut usize| {
        let nodes = closure(rule, nodes, steps)?;
        if let Some(state) = known.get(&nodes) {
            return Ok(*state);
        }
        let state = first + known.len();
        if state >= STATES_MAX {
            return Err(GrammarError::TooLarge { what: "states", most: STATES_MAX });
        }
        known.insert(nodes.clone(), state);
        queue.push(nodes);
        Ok(state)
    };
    state_of(BTreeSet::from([START]), &mut queue, steps)?;
    let mut at = 0;
    while at < queue.len() {
        let nodes = queue[at].clone();
        at += 1;
        let mut way = Way { end: nodes.contains(&END), ..Way::default() };
        let ranges: Vec<(u8, u8, usize)> =
            nodes.iter().flat_map(|node| rule[*node].bytes.iter().copied()).collect();
        // Where the set of ways may change from one byte to the next.
        let cuts: BTreeSet<u16> =
            ranges.iter().flat_map(|(low, high, _)| [u16::from(*low), u16::from(*high) + 1]).collect();
        let cuts: Vec<u16> = cuts.into_iter().collect();
        for cut in cuts.windows(2) {
            let (low, high) = (cut[0] as u8, (cut[1] - 1) as u8);
            *steps += ranges.len();
            let to: BTreeSet<usize> = ranges
                .iter()
                .filter(|range| range.0 <= low && high <= range.1)
                .map(|range| range.2)
                .collect();
            if !to.is_empty() {
                way.bytes.push((low, high, state_of(to, &mut queue, steps)?));
            }
        }
        let mut calls: BTreeMap<RuleId, BTreeSet<usize>> = BTreeMap::new();
        for (callee, to) in nodes.iter().flat_map(|node| &rule[*node].calls) {
            *steps += 1;
            calls.entry(*callee).or_default().insert(*to);
        }
        for (callee, to) in calls {
            way.calls.push((callee, state_of(to, &mut queue, steps)?));
        }
        ways.push(way);
    }
    Ok(())
}

/// Nodes with all that can be reached from them by nothing.
fn closure(rule: &[Node], mut nodes: BTreeSet<usize>, steps: &mut usize) -> Result<Vec<usize>, GrammarError> {
    let mut queue: Vec<usize> = nodes.iter().copied().collect();
    while let Some(node) = queue.pop() {
        *steps += 1 + rule[node].empty.len();
        if *steps > STEPS_MAX {
            return Err(GrammarError::TooLarge { what: "steps of its making", most: STEPS_MAX });
        }
        queue.extend(rule[node].empty.iter().filter(|to| nodes.insert(**to)));
    }
    Ok(nodes.into_iter().collect())
}
