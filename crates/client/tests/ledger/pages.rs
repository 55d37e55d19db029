//! The pages for people, on a real chain: what governance changes, they show.

use std::time::Duration;

use alloy_primitives::U256;
use alloy_sol_types::SolCall;
use surety_chain::Parameter;
use surety_client::ledger::{
    Ledger, TransactionCall,
    powers::{PowerRow, Powers, Risk, Slice, powers},
};
use surety_types::abi::{
    IGovernance::{self, Change},
    IStaking,
    address::{GOVERNANCE, STAKING},
};

use crate::node::{Node, credits, wallet};

fn row<'a>(page: &'a Powers, what: &str) -> &'a PowerRow {
    page.powers.iter().find(|row| row.what == what).unwrap()
}

async fn govern(ledger: &Ledger, call: impl SolCall) {
    let call =
        TransactionCall { to: GOVERNANCE, input: call.abi_encode().into(), ..TransactionCall::default() };
    let landed = ledger.submit(&wallet(0), vec![call]).await.unwrap();
    assert!(landed[0].success, "{landed:?}");
}

/// Waits until the chain's own clock has brought the first proposal into a state.
async fn until(ledger: &Ledger, state: u8) {
    for _ in 0..600 {
        let proposal = IGovernance::proposalCall { id: U256::from(1) };
        if ledger.view(GOVERNANCE, &proposal).await.unwrap().value.state == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the proposal did not come into state {state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_changed_by_governance_changes_the_page() {
    let node = Node::start().await;
    let ledger = node.ledger(&[&node.url]);
    let bond = IStaking::bondCall {}.abi_encode().into();
    let bond = TransactionCall { to: STAKING, value: credits(30_000), input: bond, gas: None };
    assert!(ledger.submit(&wallet(0), vec![bond]).await.unwrap()[0].success);

    let survey = ledger.survey().await.unwrap();
    assert_eq!(survey.bonded_total, credits(40_000));
    assert_eq!(survey.voters[0], (wallet(0).address(), credits(30_000)));
    assert_eq!(survey.validators.len(), 1);
    assert!(survey.operators.is_empty() && survey.proposals.is_empty());
    let spread: U256 = survey.genesis.iter().map(|held| held.balance + held.bonded).sum();
    assert!(spread <= credits(4_000_000) && spread > credits(3_999_999), "all but the fees: {spread}");

    // One key, one account with most of the stake: nothing here is pretty, and the page says so.
    let before = powers(&survey);
    assert_eq!((before.stage, before.minimum), (0, Some(1)));
    assert!(before.alarms.iter().any(|alarm| alarm.contains("whole chain")), "{:?}", before.alarms);
    let whole = format!("{}", wallet(0).address());
    assert!(before.alarms.iter().any(|alarm| alarm.contains(&whole)), "{:?}", before.alarms);
    // Whoever looks can have a lie judged, whoever holds the keys.
    let as_it_is = |slice: &Slice| match slice.name {
        "verification" => slice.risk == Risk::Medium,
        _ => slice.risk == Risk::High,
    };
    assert!(before.slices.iter().all(as_it_is), "{:?}", before.slices);
    assert_eq!(row(&before, "change a parameter").delay, "6 seconds");
    assert_eq!(row(&before, "change a parameter").last_used, "never");

    let change = |name: &str, value: u64| {
        let parameter = surety_chain::PARAMETERS.iter().find(|parameter| parameter.name == name).unwrap();
        Change { name: Parameter::name_word(parameter), value: U256::from(value) }
    };
    let changes = vec![change("timelock_s", 60), change("quorum_bps", 7_501)];
    govern(&ledger, IGovernance::proposeParametersCall { changes, title: "later".into() }).await;
    govern(&ledger, IGovernance::voteCall { id: U256::from(1), support: 1 }).await;
    until(&ledger, 3).await;
    govern(&ledger, IGovernance::queueCall { id: U256::from(1) }).await;
    until(&ledger, 5).await;
    govern(&ledger, IGovernance::executeCall { id: U256::from(1) }).await;

    let after = powers(&ledger.survey().await.unwrap());
    assert_eq!(row(&after, "change a parameter").delay, "1 minute 2 seconds");
    assert_eq!(row(&after, "change a parameter").last_used, "proposal 1");
    assert!(row(&after, "change a parameter").who.contains("75.0% of the stake"));
    // Three quarters of the stake were enough alone; now they just are not.
    assert_eq!(row(&before, "change the binary").takes, Some(1));
    assert_eq!(row(&after, "change the binary").takes, Some(2));
    node.stop().await;
}
