//! Calldata and events of the modules, as fields with names.
//!
//! In:     bytes from strangers, as they stand in blocks.
//! Out:    the function or event with its arguments by name; nothing where the bytes are not what the interface says.
//! Touches: nothing.
//! Holds:  what comes out is bounded, whatever offsets and lengths say; nothing panics; what does not fit is counted, and said
//!         to be left out. Padding that is not zero is refused, as the modules refuse it.
//! Absent: contracts that are no modules: their bytes may mean anything. A general decoder gives the whole value, and calldata can
//!         name the same kilobytes thousands of times: so this reads only what is shown.

use std::sync::LazyLock;

use alloy_json_abi::{EventParam, JsonAbi, Param};
use alloy_primitives::{Address, B256, U256, hex};
use serde::Serialize;
use surety_types::abi::Module;

/// Fields of one call or event.
pub const FIELDS_MAX: usize = 1_024;
/// Items of one list.
pub const ITEMS_MAX: usize = 32;
/// Bytes that are shown of one field.
pub const SHOWN_BYTES_MAX: usize = 512;
/// Bytes of a word.
const WORD: usize = 32;

static INTERFACES: LazyLock<Vec<(Module, JsonAbi)>> =
    LazyLock::new(|| Module::ALL.into_iter().map(|module| (module, module.abi())).collect());

/// A value with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// As the interface names it; of a list's items the number, from 0; of a call within a call its function.
    pub name: String,
    /// Solidity's type; `call` of a call within a call.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is.
    #[serde(flatten)]
    pub value: Value,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number in decimals, an account, a word, a truth value, a text.
    Plain {
        /// It.
        value: String,
    },
    /// Bytes, or a text, of which the beginning is shown.
    Long {
        /// The beginning.
        value: String,
        /// How many bytes it has.
        bytes: u64,
    },
    /// A structure, or a list.
    Fields {
        /// Its parts.
        fields: Vec<Field>,
        /// How many of them are not shown.
        #[serde(skip_serializing_if = "is_zero")]
        left_out: u64,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A call of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Whose.
    pub module: &'static str,
    /// Its name; none if the module has no such function.
    pub function: Option<String>,
    /// By name; none if they are not what the function takes.
    pub arguments: Option<Vec<Field>>,
}

/// An event of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Whose.
    pub module: &'static str,
    /// Its name.
    pub name: String,
    /// By name.
    pub fields: Vec<Field>,
}

/// The call that calldata makes at an address; none if no module is there.
#[must_use]
pub fn call(to: &Address, input: &[u8]) -> Option<Call> {
    let (module, abi) = INTERFACES.iter().find(|(module, _)| module.address() == *to)?;
    let mut budget = FIELDS_MAX;
    let (function, arguments) = call_of(abi, input, &mut budget);
    Some(Call { module: module.name(), function, arguments })
}

/// What a module noted; none if it is no event of a module.
#[must_use]
pub fn event(address: &Address, topics: &[B256], data: &[u8]) -> Option<Event> {
    let (module, abi) = INTERFACES.iter().find(|(module, _)| module.address() == *address)?;
    let (first, indexed) = topics.split_first()?;
    let event = abi.events().find(|event| !event.anonymous && event.selector() == *first)?;
    let mut indexed = indexed.iter();
    let body: Vec<&EventParam> = event.inputs.iter().filter(|param| !param.indexed).collect();
    let mut reader = Reader { data, budget: FIELDS_MAX };
    let types: Vec<Type<'_>> = body.iter().map(|param| Type::of(&param.ty, &param.components)).collect();
    let names = body.iter().map(|param| param.name.as_str());
    let mut values = reader.fields(names.zip(types), 0)?.into_iter();
    let mut fields = Vec::with_capacity(event.inputs.len());
    for param in &event.inputs {
        if !param.indexed {
            fields.push(values.next()?);
            continue;
        }
        let topic = indexed.next()?;
        let of = Type::of(&param.ty, &param.components);
        // Of what is longer than a word the topic is the digest.
        let value = match of.is_word() {
            true => word_value(of.name, topic)?,
            false => topic.to_string(),
        };
        let kind = if of.is_word() { param.ty.clone() } else { "bytes32".to_owned() };
        fields.push(Field { name: param.name.clone(), kind, value: Value::Plain { value } });
    }
    Some(Event { module: module.name(), name: event.name.clone(), fields })
}

fn call_of(abi: &JsonAbi, input: &[u8], budget: &mut usize) -> (Option<String>, Option<Vec<Field>>) {
    let Some((selector, data)) = input.split_first_chunk::<4>() else { return (None, None) };
    let Some(function) = abi.functions().find(|function| function.selector() == *selector) else {
        return (None, None);
    };
    let mut reader = Reader { data, budget: *budget };
    let types = function.inputs.iter().map(|param| (param.name.as_str(), Type::param(param)));
    let mut fields = reader.fields(types, 0);
    *budget = reader.budget;
    // Several calls in one: each is shown as what it is.
    if function.name == "multicall"
        && let Some(fields) = &mut fields
        && let Some(inner) = inner_calls(abi, data, budget)
    {
        *fields = vec![inner];
    }
    (Some(function.name.clone()), fields)
}

/// The calls within `multicall(bytes[])`; none if one is not what the interface says, or is a `multicall` again.
fn inner_calls(abi: &JsonAbi, data: &[u8], budget: &mut usize) -> Option<Field> {
    let reader = Reader { data, budget: 0 };
    let start = reader.offset(0, 0)?;
    let count = reader.count(start)?;
    let frame = start.checked_add(WORD)?;
    let mut fields = Vec::new();
    for index in 0..count.min(ITEMS_MAX) {
        let at = reader.offset(frame, index.checked_mul(WORD)?.checked_add(frame)?)?;
        let bytes = reader.bytes(at)?;
        let selector = bytes.first_chunk::<4>()?;
        let function = abi.functions().find(|function| function.selector() == *selector)?;
        if function.name == "multicall" || *budget == 0 {
            return None;
        }
        let (_, arguments) = call_of(abi, bytes, budget);
        fields.push(Field {
            name: function.name.clone(),
            kind: "call".to_owned(),
            value: Value::Fields { fields: arguments?, left_out: 0 },
        });
    }
    let left_out = (count - fields.len()) as u64;
    Some(Field {
        name: "data".to_owned(),
        kind: "call[]".to_owned(),
        value: Value::Fields { fields, left_out },
    })
}

/// A type of Solidity.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: &'a str,
    components: &'a [Param],
}

impl<'a> Type<'a> {
    fn of(name: &'a str, components: &'a [Param]) -> Type<'a> {
        Type { name, components }
    }

    fn param(param: &'a Param) -> Type<'a> {
        Type::of(&param.ty, &param.components)
    }

    /// What a list is of, and how many they always are.
    fn items(self) -> Option<(Type<'a>, Option<usize>)> {
        let (name, count) = self.name.strip_suffix(']')?.rsplit_once('[')?;
        let count = if count.is_empty() { None } else { Some(count.parse().ok()?) };
        Some((Type { name, ..self }, count))
    }

    /// Whether it is one word.
    fn is_word(self) -> bool {
        self.items().is_none() && !matches!(self.name, "bytes" | "string" | "tuple")
    }

    /// Whether it stands behind an offset.
    fn is_dynamic(self) -> bool {
        match self.items() {
            Some((_, None)) => true,
            Some((of, Some(_))) => of.is_dynamic(),
            None if self.name == "tuple" => {
                self.components.iter().any(|component| Type::param(component).is_dynamic())
            }
            None => matches!(self.name, "bytes" | "string"),
        }
    }

    /// Bytes of its place among others.
    fn head_bytes(self) -> usize {
        if self.is_dynamic() {
            return WORD;
        }
        match self.items() {
            Some((of, count)) => of.head_bytes().saturating_mul(count.unwrap_or(1)),
            None if self.name == "tuple" => {
                self.components.iter().map(|component| Type::param(component).head_bytes()).sum()
            }
            None => WORD,
        }
    }
}

/// Reads arguments, as long as there is room for what is shown.
struct Reader<'a> {
    data: &'a [u8],
    /// Fields that may still be shown.
    budget: usize,
}

impl<'a> Reader<'a> {
    fn word(&self, at: usize) -> Option<&'a [u8; WORD]> {
        self.data.get(at..)?.first_chunk()
    }

    fn number(&self, at: usize) -> Option<usize> {
        usize::try_from(U256::from_be_bytes(*self.word(at)?)).ok()
    }

    /// Where what the word at `at` points to begins: it counts from `frame`.
    fn offset(&self, frame: usize, at: usize) -> Option<usize> {
        frame.checked_add(self.number(at)?).filter(|at| *at <= self.data.len())
    }

    /// How many items a list has; each takes a word at least.
    fn count(&self, at: usize) -> Option<usize> {
        self.number(at).filter(|count| *count <= self.data.len() / WORD)
    }

    fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        let length = self.number(at)?;
        self.data.get(at.checked_add(WORD)?..)?.get(..length)
    }

    /// Fields one after the other, the first at `frame`.
    fn fields<'b>(
        &mut self,
        of: impl Iterator<Item = (&'b str, Type<'b>)>,
        frame: usize,
    ) -> Option<Vec<Field>> {
        let mut at = frame;
        let mut fields = Vec::new();
        for (name, of) in of {
            let value = self.value(of, frame, at)?;
            fields.push(Field { name: name.to_owned(), kind: of.name.to_owned(), value });
            at = at.checked_add(of.head_bytes())?;
        }
        Some(fields)
    }

    /// The value whose place is `at`.
    fn value(&mut self, of: Type<'_>, frame: usize, at: usize) -> Option<Value> {
        self.budget = self.budget.saturating_sub(1);
        let start = if of.is_dynamic() { self.offset(frame, at)? } else { at };
        if let Some((item, count)) = of.items() {
            let (count, first) = match count {
                Some(count) => (count, start),
                None => (self.count(start)?, start.checked_add(WORD)?),
            };
            let shown = count.min(ITEMS_MAX).min(self.budget);
            let names: Vec<String> = (0..shown).map(|index| index.to_string()).collect();
            let fields = self.fields(names.iter().map(|name| (name.as_str(), item)), first)?;
            return Some(Value::Fields { fields, left_out: (count - shown) as u64 });
        }
        match of.name {
            "tuple" => {
                let parts = of.components.iter().map(|part| (part.name.as_str(), Type::param(part)));
                Some(Value::Fields { fields: self.fields(parts, start)?, left_out: 0 })
            }
            "bytes" => {
                let bytes = self.bytes(start)?;
                let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
                Some(Value::Long { value: hex::encode_prefixed(shown), bytes: bytes.len() as u64 })
            }
            "string" => {
                let text = std::str::from_utf8(self.bytes(start)?).ok()?;
                let shown = &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)];
                Some(match shown.len() == text.len() {
                    true => Value::Plain { value: text.to_owned() },
                    false => Value::Long { value: shown.to_owned(), bytes: text.len() as u64 },
                })
            }
            name => Some(Value::Plain { value: word_value(name, self.word(start)?)? }),
        }
    }
}

/// A word in the terms of its type.
fn word_value(name: &str, word: &[u8; WORD]) -> Option<String> {
    let number = U256::from_be_bytes(*word);
    let size = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
    if name == "address" {
        return (word[..12] == [0; 12]).then(|| Address::from_slice(&word[12..]).to_string());
    }
    if name == "bool" {
        return match number.try_into() {
            Ok(0u8) => Some("false".to_owned()),
            Ok(1) => Some("true".to_owned()),
            _ => None,
        };
    }
    if let Some(bits) = size("uint") {
        return (number.bit_len() <= bits).then(|| number.to_string());
    }
    let bytes = size("bytes").filter(|bytes| (1..=WORD).contains(bytes))?;
    let (shown, padding) = word.split_at(bytes);
    padding.iter().all(|byte| *byte == 0).then(|| hex::encode_prefixed(shown))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Bytes;
    use alloy_sol_types::{SolCall as _, SolEvent as _};
    use proptest::prelude::*;
    use surety_types::abi::{
        IChannels::{self, ChannelConfig, Voucher, VoucherClaim},
        IDisputes, IOperators, IStaking,
        address::{CHANNELS, DISPUTES, OPERATORS, STAKING},
    };

    use super::*;

    fn at<'a>(fields: &'a [Field], path: &[&str]) -> &'a Value {
        let (first, rest) = path.split_first().expect("a path");
        let field = fields.iter().find(|field| field.name == *first).unwrap_or_else(|| panic!("no {first}"));
        match (&field.value, rest) {
            (value, []) => value,
            (Value::Fields { fields, .. }, rest) => at(fields, rest),
            (value, _) => panic!("{value:?} has no parts"),
        }
    }

    fn plain(value: &str) -> Value {
        Value::Plain { value: value.to_owned() }
    }

    fn claim(amount: u128) -> VoucherClaim {
        VoucherClaim {
            voucher: Voucher {
                channel: ChannelConfig { payer: Address::repeat_byte(7), ..config() },
                maxClaimableAmount: amount,
            },
            signature: vec![1; 65].into(),
            totalClaimed: amount,
        }
    }

    fn config() -> ChannelConfig {
        ChannelConfig {
            payer: Address::ZERO,
            payerAuthorizer: Address::repeat_byte(2),
            receiver: Address::repeat_byte(3),
            receiverAuthorizer: Address::ZERO,
            token: Address::ZERO,
            withdrawDelay: alloy_primitives::aliases::U40::from(900),
            salt: B256::repeat_byte(9),
        }
    }

    #[test]
    fn a_call_is_named_with_its_arguments() {
        let offer = IOperators::offerCall {
            model: B256::repeat_byte(0xab),
            promptPrice: 3,
            cachedPrice: 1,
            outputPrice: u128::MAX,
        };
        let found = call(&OPERATORS, &offer.abi_encode()).expect("a module");
        assert_eq!((found.module, found.function.as_deref()), ("operators", Some("offer")));
        let arguments = found.arguments.expect("arguments");
        assert_eq!(at(&arguments, &["outputPrice"]), &plain(&u128::MAX.to_string()));
        assert_eq!(at(&arguments, &["model"]), &plain(&format!("0x{}", "ab".repeat(32))));

        let register = IOperators::registerCall { name: "Ä & <b>".into(), url: "é".repeat(400) };
        let arguments =
            call(&OPERATORS, &register.abi_encode()).and_then(|call| call.arguments).expect("arguments");
        assert_eq!(at(&arguments, &["name"]), &plain("Ä & <b>"));
        assert_eq!(at(&arguments, &["url"]), &Value::Long { value: "é".repeat(256), bytes: 800 });
        // No argument, and no such function.
        let bond = call(&STAKING, &IStaking::bondCall {}.abi_encode()).expect("a module");
        assert_eq!((bond.function.as_deref(), bond.arguments), (Some("bond"), Some(Vec::new())));
        let unknown = call(&STAKING, &[1, 2, 3, 4, 5]).expect("a module");
        assert_eq!((unknown.function, unknown.arguments), (None, None));
        assert_eq!(call(&Address::repeat_byte(1), &[1, 2, 3, 4]), None);
    }

    #[test]
    fn calls_within_a_call_are_named_and_long_lists_cut() {
        let claims = IChannels::claimCall { voucherClaims: (0..40).map(claim).collect() };
        let found = call(&CHANNELS, &claims.abi_encode()).and_then(|call| call.arguments).expect("arguments");
        let Value::Fields { fields, left_out } = at(&found, &["voucherClaims"]) else { panic!("a list") };
        assert_eq!((fields.len(), *left_out), (ITEMS_MAX, 8));
        let payer = at(fields, &["31", "voucher", "channel", "payer"]);
        assert_eq!(payer, &plain(&Address::repeat_byte(7).to_string()));
        assert_eq!(at(fields, &["5", "totalClaimed"]), &plain("5"));

        let one = IChannels::claimCall { voucherClaims: vec![claim(4)] }.abi_encode();
        let several = IChannels::multicallCall { data: vec![one.into()] };
        let found =
            call(&CHANNELS, &several.abi_encode()).and_then(|call| call.arguments).expect("arguments");
        assert_eq!(at(&found, &["data", "claim", "voucherClaims", "0", "totalClaimed"]), &plain("4"));
        // What is no call stays bytes.
        let several = IChannels::multicallCall { data: vec![Bytes::from(vec![1; 9])] };
        let found =
            call(&CHANNELS, &several.abi_encode()).and_then(|call| call.arguments).expect("arguments");
        assert_eq!(
            at(&found, &["data", "0"]),
            &Value::Long { value: format!("0x{}", "01".repeat(9)), bytes: 9 }
        );
    }

    #[test]
    fn an_event_is_named_with_what_it_notes() {
        let moved = IDisputes::Moved { id: 7, turn: 2, moveUntil: 99 }.encode_log_data();
        let found = event(&DISPUTES, moved.topics(), &moved.data).expect("an event");
        assert_eq!((found.module, found.name.as_str()), ("disputes", "Moved"));
        let values: Vec<&Value> = found.fields.iter().map(|field| &field.value).collect();
        assert_eq!(values, [&plain("7"), &plain("2"), &plain("99")]);
        assert_eq!(event(&CHANNELS, moved.topics(), &moved.data), None);
        assert_eq!(event(&DISPUTES, &moved.topics()[..1], &moved.data), None);
        assert_eq!(event(&DISPUTES, moved.topics(), &moved.data[1..]), None);
    }

    /// Fields of a decoded call, all of them.
    fn counted(fields: &[Field]) -> usize {
        let within = |field: &Field| match &field.value {
            Value::Fields { fields, .. } => counted(fields),
            _ => 0,
        };
        fields.iter().map(|field| 1 + within(field)).sum()
    }

    #[test]
    fn lists_that_are_the_same_kilobytes_again_and_again_stay_small() {
        // Every one of 4,000 items is the same long bytes.
        let mut data = IChannels::multicallCall::SELECTOR.to_vec();
        let word = |number: usize| U256::from(number).to_be_bytes::<32>();
        data.extend(word(32));
        data.extend(word(3_000));
        data.extend((0..3_000).flat_map(|_| word(3_000 * 32)));
        data.extend(word(1_000));
        data.extend(vec![7; 1_024]);
        let found = call(&CHANNELS, &data).and_then(|call| call.arguments).expect("arguments");
        assert!(serde_json::to_vec(&found).expect("JSON").len() < 64 << 10);
    }

    proptest! {
        /// Whatever stands in a block, it is read or not, within bounds.
        #[test]
        fn foreign_bytes_are_read_within_bounds(
            module in 0..Module::ALL.len(),
            function in 0usize..64,
            words in prop::collection::vec(prop_oneof![0u64..400, Just(u64::MAX), any::<u64>()], 0..80),
            tail in prop::collection::vec(any::<u8>(), 0..70),
        ) {
            let (module, abi) = &INTERFACES[module];
            let functions: Vec<_> = abi.functions().collect();
            let mut input = functions[function % functions.len()].selector().to_vec();
            input.extend(words.iter().flat_map(|word| U256::from(*word).to_be_bytes::<32>()));
            input.extend(&tail);
            let found = call(&module.address(), &input).expect("a module");
            prop_assert!(found.function.is_some());
            if let Some(arguments) = &found.arguments {
                prop_assert!(counted(arguments) <= 4 * FIELDS_MAX);
                prop_assert!(serde_json::to_vec(arguments).expect("JSON").len() < 2 << 20);
            }
            let events: Vec<_> = abi.events().collect();
            if let Some(event_of) = events.get(function % events.len().max(1)) {
                let topics: Vec<B256> = words.iter().take(3).map(|word| B256::from(U256::from(*word))).collect();
                let topics = [vec![event_of.selector()], topics].concat();
                let _ = event(&module.address(), &topics, &input);
            }
        }

        /// What was encoded by the interface's own types is read as that.
        #[test]
        fn what_was_encoded_is_read_again(amount in any::<u128>(), index in any::<u32>(), data in prop::collection::vec(any::<u8>(), 0..900), words in prop::collection::vec(any::<[u8; 32]>(), 0..30)) {
            let divide = IDisputes::divideCall { id: u64::from(index), nodes: words.iter().map(B256::from).collect(), data: data.clone().into() };
            let found = call(&DISPUTES, &divide.abi_encode()).and_then(|call| call.arguments).expect("arguments");
            let shown = hex::encode_prefixed(&data[..data.len().min(SHOWN_BYTES_MAX)]);
            prop_assert_eq!(at(&found, &["data"]), &Value::Long { value: shown, bytes: data.len() as u64 });
            let Value::Fields { fields, .. } = at(&found, &["nodes"]) else { panic!("a list") };
            prop_assert_eq!(fields.len(), words.len());
            let claims = IChannels::claimCall { voucherClaims: vec![claim(amount)] };
            let found = call(&CHANNELS, &claims.abi_encode()).and_then(|call| call.arguments).expect("arguments");
            let read = at(&found, &["voucherClaims", "0", "voucher", "maxClaimableAmount"]);
            prop_assert_eq!(read, &plain(&amount.to_string()));
        }
    }
}
