//! Speed of the state transition on one core, named `op/key=value`.
//!
//! `cargo bench -p surety-chain -- [WORD…]` runs the lines that contain every word. Times are medians (and the best) of
//! processor time over several runs, so that a busy machine disturbs them little; one line per case on standard output.
//! The ceiling is one secp256k1 recovery a transfer and one a voucher: `recover` measures it.

#![allow(unsafe_code)]

use std::hint::black_box;

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, aliases::U40, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall as _;
use surety_chain::{
    Balance, BlockInput, CallRequest, Executed, Execution, Genesis, GenesisValidator, Header, MemoryState,
    Params, Recovered, execute, genesis_writes, simulate,
};
use surety_types::{
    SecretKey,
    abi::{
        IChannels::{self, ChannelConfig, Voucher, VoucherClaim},
        address::CHANNELS,
    },
};

const CHAIN_ID: u64 = 88_888;
const RUNS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.iter().all(|word| name.contains(word.as_str()));
    for count in [100, 1_000, 5_000] {
        if wanted(&format!("transfers/count={count}")) {
            transfers(count);
        }
    }
    for batch in [1, 25, 60] {
        if wanted(&format!("claims/batch={batch}")) {
            claims(batch, 3_000 / batch);
        }
    }
}

/// Seconds of processor time this process has used.
#[cfg(target_os = "linux")]
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn processor_seconds() -> f64 {
    use std::time::SystemTime;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Times several runs, after one that warms the caches: `what: … per second (best …)`.
fn time(name: &str, what: &str, amount: usize, mut run: impl FnMut()) {
    run();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = processor_seconds();
            run();
            processor_seconds() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let rate = |seconds: f64| amount as f64 / seconds;
    println!("{name} {what}: {:.0}/s (best {:.0}/s)", rate(times[RUNS / 2]), rate(times[0]));
}

fn signer(number: usize) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256((number as u64).to_be_bytes())).expect("a key")
}

/// A chain where accounts `0..count` own enough.
fn chain(count: usize) -> (Genesis, MemoryState) {
    let credit = U256::from(1_000_000_000_000_000_000u64);
    let genesis = Genesis {
        chain_id: CHAIN_ID,
        timestamp_ms: 0,
        epoch_blocks: 1_000,
        balances: (0..count)
            .map(|number| Balance {
                address: signer(number).address(),
                amount: credit * U256::from(1_000),
                why: "bench".into(),
            })
            .collect(),
        validators: vec![GenesisValidator {
            key: SecretKey::from_bytes(&[1; 32]).public(),
            operator: Address::repeat_byte(0xaa),
            stake: credit * U256::from(1_000),
        }],
        origin: None,
        params: Params { block_gas_max: 5_000_000_000, channel_delay_min_s: 1, ..Params::default() },
    };
    let state = MemoryState(genesis_writes(&genesis).expect("sound").into_iter().collect());
    (genesis, state)
}

fn header(number: u64) -> Header {
    Header {
        number,
        timestamp_ms: 1_000 * number,
        epoch: 0,
        view: number,
        parent_hash: B256::ZERO,
        beacon: B256::ZERO,
        proposer: 0,
        missed: Vec::new(),
    }
}

fn sign(
    signer: &PrivateKeySigner,
    nonce: u64,
    to: Address,
    value: U256,
    input: Bytes,
    gas_limit: u64,
) -> Vec<u8> {
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(to),
        value,
        access_list: Default::default(),
        input,
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash()).expect("signs");
    TxEnvelope::from(transaction.into_signed(signature)).encoded_2718()
}

fn recover(transactions: &[Vec<u8>]) -> Vec<Recovered> {
    transactions.iter().map(|bytes| Recovered::decode(bytes).expect("a transaction")).collect()
}

fn run(genesis: &Genesis, state: &MemoryState, number: u64, transactions: &[Recovered]) -> Executed {
    let header = header(number);
    match execute(&genesis.spec(), state, &BlockInput { header: &header, transactions }).expect("valid") {
        Execution::Done(executed) => *executed,
        Execution::Needs(_) => panic!("the state is whole"),
    }
}

fn transfers(count: usize) {
    let (genesis, state) = chain(count);
    let transactions: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let to = Address::from_word(keccak256([7, (number % 251) as u8, (number / 251) as u8]));
            sign(&signer(number), 0, to, U256::ONE, Bytes::new(), 21_000)
        })
        .collect();
    let name = format!("transfers/count={count}");
    time(&name, "recover", count, || {
        black_box(recover(&transactions));
    });
    let recovered = recover(&transactions);
    time(&name, "execute", count, || {
        let executed = run(&genesis, &state, 1, &recovered);
        assert_eq!(executed.gas_used, 21_000 * count as u64);
        black_box(executed);
    });
    let executed = run(&genesis, &state, 1, &recovered);
    let bytes: usize = executed.writes.iter().map(|(_, value)| 32 + value.as_ref().map_or(0, Vec::len)).sum();
    println!("{name} writes: {} of {} bytes a transfer", executed.writes.len() / count, bytes / count);
}

fn claims(batch: usize, batches: usize) {
    let count = batch * batches;
    let (genesis, mut state) = chain(count + 1);
    let receiver = signer(count);
    let config = |number: usize| ChannelConfig {
        payer: signer(number).address(),
        payerAuthorizer: signer(number).address(),
        receiver: receiver.address(),
        receiverAuthorizer: receiver.address(),
        token: Address::ZERO,
        withdrawDelay: U40::from(900u64),
        salt: B256::ZERO,
    };
    let deposits: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let call = IChannels::depositCall {
                config: config(number),
                amount: 1_000,
                collector: Address::ZERO,
                collectorData: Bytes::new(),
            };
            sign(&signer(number), 0, CHANNELS, U256::from(1_000), call.abi_encode().into(), 200_000)
        })
        .collect();
    let deposited = run(&genesis, &state, 1, &recover(&deposits));
    assert!(deposited.receipts.iter().all(|receipt| receipt.envelope.status()));
    state.apply(deposited.writes);
    let view = |input: Vec<u8>| {
        let call = CallRequest { to: Some(CHANNELS), input: input.into(), ..CallRequest::default() };
        match simulate(&genesis.spec(), &state, &header(2), &call).expect("sound") {
            Execution::Done(outcome) => B256::from_slice(&outcome.output),
            Execution::Needs(_) => panic!("the state is whole"),
        }
    };
    let claims: Vec<VoucherClaim> = (0..count)
        .map(|number| {
            let id = view(IChannels::getChannelIdCall { config: config(number) }.abi_encode());
            let digest =
                view(IChannels::getVoucherDigestCall { channelId: id, maxClaimableAmount: 700 }.abi_encode());
            let signature = signer(number).sign_hash_sync(&digest).expect("signs");
            VoucherClaim {
                voucher: Voucher { channel: config(number), maxClaimableAmount: 700 },
                signature: signature.as_bytes().to_vec().into(),
                totalClaimed: 700,
            }
        })
        .collect();
    let transactions: Vec<Vec<u8>> = claims
        .chunks(batch)
        .enumerate()
        .map(|(nonce, claims)| {
            let call = IChannels::claimCall { voucherClaims: claims.to_vec() };
            let gas = 300_000 + 80_000 * claims.len() as u64;
            sign(&receiver, nonce as u64, CHANNELS, U256::ZERO, call.abi_encode().into(), gas)
        })
        .collect();
    let name = format!("claims/batch={batch}");
    time(&name, "recover", count, || {
        black_box(recover(&transactions));
    });
    let recovered = recover(&transactions);
    time(&name, "execute", count, || {
        let executed = run(&genesis, &state, 2, &recovered);
        assert!(executed.receipts.iter().all(|receipt| receipt.envelope.status()));
        black_box(executed);
    });
    let executed = run(&genesis, &state, 2, &recovered);
    let calldata: usize = transactions.iter().map(Vec::len).sum();
    println!("{name} gas: {} a claim, {} bytes a claim", executed.gas_used / count as u64, calldata / count);
}
