//! Blocks, transactions and accounts of a real chain, as the explorer tells them.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall;
use surety_client::ledger::{
    Landed, Ledger, TransactionCall,
    explorer::{
        TransactionView,
        decode::{Field, Value},
    },
};
use surety_types::abi::{
    IAudits, IChannels, IClaims, ICredit, IDisputes, IGovernance, IHosting, IModels, IOperators, IReceipts,
    IStaking, Module,
};

use crate::node::{EPOCH_BLOCKS, Node, credits, wallet};

/// What every call is sent with, so that one that is refused lands, too.
const GAS: u64 = 3_000_000;

async fn send(ledger: &Ledger, calls: Vec<(Address, U256, Vec<u8>)>) -> Vec<Landed> {
    let calls = calls.into_iter().map(|(to, value, input)| TransactionCall {
        to,
        value,
        input: input.into(),
        gas: Some(GAS),
    });
    ledger.submit(&wallet(0), calls.collect()).await.expect("landed")
}

fn plain<'a>(fields: &'a [Field], name: &str) -> &'a str {
    let found = fields.iter().find(|field| field.name == name);
    match &found.unwrap_or_else(|| panic!("no {name} in {fields:?}")).value {
        Value::Plain { value } | Value::Long { value, .. } => value,
        other => panic!("{name} is {other:?}"),
    }
}

/// A call of a module, with one of its arguments, and an event if it succeeds.
type Case = (Module, u64, Vec<u8>, &'static str, Option<(&'static str, String)>, Option<&'static str>);

fn cases() -> Vec<Case> {
    let word = B256::repeat_byte(5);
    let stranger = Address::repeat_byte(0x77);
    let named = |name, value: &str| Some((name, value.to_owned()));
    let register = IOperators::registerCall { name: "<i>Ä</i>".into(), url: "https://example.org".into() };
    let vote = IGovernance::voteCall { id: U256::from(9), support: 1 };
    let transfer = ICredit::transferCall { to: stranger, value: credits(2) };
    let pin = IHosting::pinCall { model: word, worker: B256::repeat_byte(6) };
    let commit = IDisputes::commitCall { commitment: word };
    vec![
        (Module::Staking, 30_000, IStaking::bondCall {}.abi_encode(), "bond", None, Some("Bonded")),
        (
            Module::Operators,
            0,
            register.abi_encode(),
            "register",
            named("name", "<i>Ä</i>"),
            Some("OperatorRegistered"),
        ),
        (
            Module::Models,
            0,
            IModels::publishCall { manifest: vec![1, 2, 3].into() }.abi_encode(),
            "publish",
            named("manifest", "0x010203"),
            None,
        ),
        (
            Module::Channels,
            0,
            IChannels::claimCall { voucherClaims: Vec::new() }.abi_encode(),
            "claim",
            None,
            None,
        ),
        (
            Module::Receipts,
            0,
            IReceipts::postCall { epoch: 1 << 40, size: 1, root: word }.abi_encode(),
            "post",
            named("epoch", "1099511627776"),
            None,
        ),
        (Module::Governance, 0, vote.abi_encode(), "vote", named("support", "1"), None),
        (Module::Hosting, 0, pin.abi_encode(), "pin", named("model", &word.to_string()), None),
        (
            Module::Disputes,
            0,
            commit.abi_encode(),
            "commit",
            named("commitment", &word.to_string()),
            Some("Committed"),
        ),
        (
            Module::Claims,
            0,
            IClaims::settleCall { id: u64::MAX }.abi_encode(),
            "settle",
            named("id", &u64::MAX.to_string()),
            None,
        ),
        (
            Module::Audits,
            0,
            IAudits::accountCall { operator: stranger }.abi_encode(),
            "account",
            named("operator", &stranger.to_string()),
            None,
        ),
        (
            Module::Credit,
            0,
            transfer.abi_encode(),
            "transfer",
            named("to", &stranger.to_string()),
            Some("Transfer"),
        ),
    ]
}

async fn told(ledger: &Ledger, hash: B256) -> TransactionView {
    ledger.transaction(hash).await.expect("an answer").expect("a transaction")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_block_is_told_by_name_and_proven() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let calls = cases()
        .into_iter()
        .map(|(module, value, input, ..)| (module.address(), credits(value), input))
        .collect();
    let landed = send(&ledger, calls).await;
    for (landed, (module, value, input, function, argument, event)) in landed.iter().zip(cases()) {
        let found = told(&ledger, landed.hash).await;
        let at = format!("{} {function}: {found:?}", module.name());
        assert!(found.proven && !found.waits && found.block == Some(landed.number), "{at}");
        assert_eq!((found.row.module, found.row.kind), (Some(module.name()), "module"), "{at}");
        assert_eq!(
            (found.row.function.as_deref(), found.row.success),
            (Some(function), landed.success),
            "{at}"
        );
        assert_eq!(
            (&*found.row.from, &found.row.value),
            (&*wallet(0).address().to_string(), &credits(value).to_string())
        );
        assert_eq!((found.row.gas_used, found.fee), (landed.gas_used, Some(landed.fee.to_string())), "{at}");
        assert_eq!(found.input_bytes, input.len() as u64);
        let arguments = found.arguments.as_ref().unwrap_or_else(|| panic!("{at}"));
        if let Some((name, value)) = argument {
            assert_eq!(plain(arguments, name), value, "{at}");
        }
        match event {
            Some(event) => {
                assert!(landed.success, "{at}");
                let noted = found.events.iter().any(|noted| noted.name.as_deref() == Some(event));
                assert!(noted && found.events.iter().all(|noted| noted.module.is_some()), "{at}");
            }
            // No block says why; the module says it again.
            None => assert!(landed.success || found.refused_now.is_some(), "{at}"),
        }
    }

    // The block holds them, and is what its header says.
    let last = landed.last().expect("one");
    let block = ledger.block(last.number).await.expect("an answer").expect("a block");
    assert!(block.row.proven && block.entries.iter().any(|entry| entry.hash == last.hash.to_string()));
    assert_eq!(block.row.transactions, block.entries.len() as u64);
    assert_eq!(block.row.gas_used, block.entries.iter().map(|entry| entry.gas_used).sum::<u64>());
    let hash: B256 = block.row.hash.parse().expect("a hash");
    assert_eq!(ledger.block_number(hash).await.expect("an answer"), Some(last.number));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_modules_is_not_guessed() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let stranger = Address::repeat_byte(0x77);
    let unknown = vec![0xde, 0xad, 0xbe, 0xef, 1];
    let landed = send(
        &ledger,
        vec![
            (stranger, credits(3), Vec::new()),
            (stranger, U256::ZERO, unknown.clone()),
            (Module::Staking.address(), U256::ZERO, unknown),
        ],
    )
    .await;
    let [transfer, contract, module] = &landed[..] else { panic!("three of {landed:?}") };
    let transfer = told(&ledger, transfer.hash).await;
    assert_eq!((transfer.row.kind, &*transfer.row.value), ("transfer", &*credits(3).to_string()));
    for (landed, kind, function) in [(contract, "contract", None), (module, "module", None::<String>)] {
        let found = told(&ledger, landed.hash).await;
        assert_eq!((found.row.kind, found.row.function, found.arguments), (kind, function, None));
        assert_eq!((&*found.input, found.input_bytes), ("0xdeadbeef01", 5));
    }

    let account = ledger.account_view(stranger).await.expect("an account");
    assert_eq!((account.balance, account.nonce, account.module), (credits(3).to_string(), 0, None));
    assert!(account.operator.is_none() && account.validator.is_none() && account.given.is_none());
    let module = ledger.account_view(Module::Staking.address()).await.expect("an account");
    assert_eq!(module.module, Some("staking"));
    let validator = ledger.account_view(Address::repeat_byte(0x99)).await.expect("an account");
    assert!(validator.validator.is_some_and(|validator| validator.key.is_some() && !validator.slashed));
    let given = ledger.account_view(wallet(0).address()).await.expect("an account");
    assert_eq!((given.given_why.as_deref(), given.nonce), (Some("for tests"), 3));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_listed_back_to_the_first_each_proven_by_the_one_after() {
    let node = Node::start().await;
    node.reach(2 * EPOCH_BLOCKS + 3).await;
    let ledger = node.ledger(&[&node.url]);
    let mut page = ledger.blocks(None, 5).await.expect("blocks");
    assert!(page.tip >= 2 * EPOCH_BLOCKS + 3 && page.gas_limit > 0);
    assert_eq!(page.blocks.first().map(|row| row.number), Some(page.tip));
    let mut next = page.tip;
    loop {
        for row in &page.blocks {
            assert_eq!((row.number, row.proven), (next, true));
            assert_eq!(row.proposer.as_deref(), Some(&*Address::repeat_byte(0x99).to_string()));
            next -= 1;
        }
        if !page.more {
            break;
        }
        page = ledger.blocks(Some(next + 1), 5).await.expect("blocks");
    }
    assert_eq!(next, 0, "down to the first after the genesis");
    let first = ledger.block(1).await.expect("an answer").expect("a block");
    assert!(first.follows_genesis && ledger.block(0).await.expect("an answer").is_none());
    // What is not there is none, however large.
    let none = ledger.blocks(Some(0), 5).await.expect("an answer");
    assert!(none.blocks.is_empty() && !none.more);
    for number in [u64::MAX, u64::MAX - 1, 1 << 40] {
        assert!(ledger.block(number).await.expect("an answer").is_none());
    }
    let many = ledger.blocks(Some(u64::MAX), u64::MAX).await.expect("blocks");
    assert!(!many.blocks.is_empty() && many.blocks.len() as u64 <= many.tip + 1);
    let unknown = B256::repeat_byte(1);
    assert!(ledger.transaction(unknown).await.expect("an answer").is_none());
    assert_eq!(ledger.block_number(unknown).await.expect("an answer"), None);
    assert!(ledger.dispute_story(1).await.expect("an answer").is_none());
    assert_eq!(ledger.dispute_page().await.expect("an answer").count, 0);
    node.stop().await;
}
