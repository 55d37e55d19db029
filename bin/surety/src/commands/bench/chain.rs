//! `surety bench chain`: four validators on this machine, measured as their users see them.
//!
//! In:     how long to measure.
//! Out:    finality, transfers and claims a second, processor time, memory, disk, and how fast a follower catches up.
//! Touches: a temporary folder, loopback sockets, five child processes; `/proc`, where the system has it.
//! Holds:  what is counted is final and succeeded; everything is signed before the clock runs.
//! Absent: a network between the validators.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, aliases::U40, hex, keccak256};
use alloy_signer::SignerSync as _;
use alloy_signer_local::PrivateKeySigner;
use alloy_sol_types::SolCall as _;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};
use surety_types::{
    ChannelDigests,
    abi::{
        IChannels::{self, ChannelConfig, VoucherClaim},
        address::CHANNELS,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    child::{self, Running},
    commands::{Outcome, validator::Ready},
    output,
};

/// Validators.
const COUNT: usize = 4;
const CHAIN_ID: u64 = 88_888;
/// Every account owns so many wei.
const WEALTH: u128 = 1_000_000_000_000_000_000_000;
/// Requests in one batch; the RPC allows as many.
const BATCH: usize = 100;
/// Connections that send, to each validator.
const SENDERS_EACH: usize = 2;
/// Transfers that may be sent and not yet final.
const IN_FLIGHT_MAX: u64 = 12_000;
/// Vouchers in one claim.
const CLAIM_VOUCHERS: usize = 60;
/// Receivers that claim side by side; each has as many channels as a claim has vouchers.
const RECEIVERS: usize = 16;
/// Claims that may be sent and not yet final.
const CLAIMS_IN_FLIGHT_MAX: u64 = 128;
/// Single transfers whose way to finality is timed.
const PROBES: usize = 60;
/// How long nothing is asked of the validators while their processor time is measured.
const IDLE: Duration = Duration::from_secs(15);
/// What is not counted of a load: until it is steady.
const WARM_UP: Duration = Duration::from_secs(4);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Arguments of `bench chain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds of steady load to measure, for transfers and for claims.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Accounts that send transfers.
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u64).range(100..=50_000))]
    accounts: u64,
    /// Transfers a second to prepare for; more cannot be shown.
    #[arg(long, value_name = "N", default_value_t = 7_000, value_parser = clap::value_parser!(u64).range(100..=50_000))]
    transfers: u64,
    /// Claims a second to prepare for; more cannot be shown.
    #[arg(long, value_name = "N", default_value_t = 7_000, value_parser = clap::value_parser!(u64).range(100..=50_000))]
    claims: u64,
}

#[derive(Debug, Serialize)]
struct Figures {
    validators: usize,
    /// From sending a transfer until a subscriber hears of its block.
    submit_to_final_ms: Quantiles,
    /// From a block's own time until a subscriber hears of it.
    proposal_to_final_ms: Quantiles,
    block_interval_ms: Quantiles,
    /// Of one processor, all validators together, with nothing to do.
    idle_processor_share: Option<f64>,
    idle_resident_bytes: Option<Vec<u64>>,
    transfers_per_second: f64,
    transfers_processor_share: Option<f64>,
    claims_per_second: f64,
    claims_processor_share: Option<f64>,
    loaded_resident_bytes: Option<Vec<u64>>,
    /// Of one validator.
    disk_bytes_per_million_transfers: f64,
    disk_parts: BTreeMap<String, u64>,
    follower_blocks_per_second: f64,
    /// How many times faster than blocks are made.
    follower_times_real: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
    count: usize,
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> anyhow::Result<Self> {
        anyhow::ensure!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Ok(Self { p50: at(0.5), p95: at(0.95), count: values.len() })
    }
}

/// Measures.
pub fn run(json: bool, args: &Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(measure(args))?;
    runtime.shutdown_background();
    if json {
        output::json(&figures)?;
        return Ok(Outcome::Done);
    }
    let quantiles = |what: &str, of: &Quantiles| {
        output::line(format_args!(
            "{what:<26}{:>9.0} ms median, {:.0} ms p95, of {}",
            of.p50, of.p95, of.count
        ))
    };
    quantiles("submitted to final", &figures.submit_to_final_ms)?;
    quantiles("proposed to final", &figures.proposal_to_final_ms)?;
    quantiles("block to block", &figures.block_interval_ms)?;
    let share = |of: Option<f64>| {
        of.map_or_else(String::new, |share| format!(", {:.0} % of one processor", share * 100.0))
    };
    let loads = [
        ("transfers", figures.transfers_per_second, figures.transfers_processor_share),
        ("channel claims", figures.claims_per_second, figures.claims_processor_share),
    ];
    for (what, rate, processor) in loads {
        output::line(format_args!("{what:<26}{rate:>9.0} a second{}", share(processor)))?;
    }
    if let Some(idle) = figures.idle_processor_share {
        output::line(format_args!(
            "{:<26}{:>9.1} % of one processor, all {COUNT} together",
            "idle",
            idle * 100.0
        ))?;
    }
    for (what, resident) in
        [("memory, idle", &figures.idle_resident_bytes), ("memory, loaded", &figures.loaded_resident_bytes)]
    {
        let Some(resident) = resident else { continue };
        let each: Vec<String> = resident.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
        output::line(format_args!("{what:<26}{:>9} MiB resident", each.join(" ")))?;
    }
    output::line(format_args!(
        "{:<26}{:>9.0} MB a million transfers, each validator",
        "disk",
        figures.disk_bytes_per_million_transfers / 1e6
    ))?;
    output::line(format_args!(
        "{:<26}{:>9.1} blocks a second, {:.1} times as fast as they are made",
        "a follower catches up", figures.follower_blocks_per_second, figures.follower_times_real
    ))?;
    Ok(Outcome::Done)
}

async fn measure(args: &Args) -> anyhow::Result<Figures> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    eprintln!("signing");
    let load = Load::sign(args)?;
    eprintln!("starting {COUNT} validators in {}", folder.path().display());
    let network = Network::prepare(folder.path(), &load)?;
    let mut running = Vec::new();
    for seat in 0..COUNT {
        running.push(network.start(seat, false));
    }
    let mut started = Vec::new();
    for starting in running {
        started.push(starting.await?);
    }
    let (children, urls): (Vec<Running>, Vec<String>) = started.into_iter().unzip();
    let pids: Vec<u32> = children.iter().map(|child| child.pid).collect();
    let watch = Watch::start(&urls[0]).await?;
    watch.wait(8).await?;

    eprintln!("idle");
    let before = processor(&pids);
    sleep(IDLE).await;
    let idle_processor_share = rate(before, processor(&pids), IDLE);
    let idle_resident_bytes = resident(&pids);

    eprintln!("finality");
    let from = watch.latest();
    let submit_to_final_ms = probes(&urls[0], &watch, &load.probes).await?;
    let heads = watch.since(from);
    let proposal_to_final_ms =
        Quantiles::of(heads.iter().map(|head| head.seen_ms - head.proposed_ms).collect())?;
    let block_interval_ms =
        Quantiles::of(heads.windows(2).map(|pair| pair[1].proposed_ms - pair[0].proposed_ms).collect())?;

    eprintln!("transfers");
    let disk_before = network.disk(0);
    let window = Duration::from_secs(args.seconds);
    let transfers = drive(&urls, &watch, &load.transfers, 1, IN_FLIGHT_MAX, window, &pids).await?;
    let disk_after = network.disk(0);
    let grown: BTreeMap<String, u64> = disk_after
        .iter()
        .map(|(part, bytes)| {
            (part.clone(), bytes.saturating_sub(disk_before.get(part).copied().unwrap_or(0)))
        })
        .collect();
    let disk_bytes_per_million_transfers = grown.values().sum::<u64>() as f64 / transfers.total as f64 * 1e6;

    eprintln!("claims");
    let deposited = drive(&urls, &watch, &load.deposits, 1, IN_FLIGHT_MAX, window, &pids).await?;
    anyhow::ensure!(deposited.total as usize == RECEIVERS * CLAIM_VOUCHERS, "some channels were not opened");
    let vouchers = CLAIM_VOUCHERS as u64;
    let claims = drive(&urls, &watch, &load.claims, vouchers, CLAIMS_IN_FLIGHT_MAX, window, &pids).await?;
    let loaded_resident_bytes = resident(&pids);

    eprintln!("a follower");
    let goal = watch.latest();
    let begun = Instant::now();
    let (follower, follower_url) = network.start(COUNT, true).await?;
    let client = Client::new(&follower_url)?;
    while client.height().await? < goal {
        anyhow::ensure!(begun.elapsed() < 2 * PATIENCE, "the follower does not catch up");
        sleep(Duration::from_millis(50)).await;
    }
    let follower_blocks_per_second = goal as f64 / begun.elapsed().as_secs_f64();
    let follower_times_real = follower_blocks_per_second * block_interval_ms.p50 / 1_000.0;
    follower.stop(STOP_GRACE).await;
    for child in children {
        child.stop(STOP_GRACE).await;
    }
    Ok(Figures {
        validators: COUNT,
        submit_to_final_ms,
        proposal_to_final_ms,
        block_interval_ms,
        idle_processor_share,
        idle_resident_bytes,
        transfers_per_second: transfers.per_second,
        transfers_processor_share: transfers.processor_share,
        claims_per_second: claims.per_second,
        claims_processor_share: claims.processor_share,
        loaded_resident_bytes,
        disk_bytes_per_million_transfers,
        disk_parts: grown,
        follower_blocks_per_second,
        follower_times_real,
    })
}

/// Everything that will be sent, signed and written down as requests.
struct Load {
    addresses: Vec<Address>,
    probes: Vec<Bytes>,
    /// Per sender, batches of requests in the order in which they can run, and how many each holds.
    transfers: Vec<Vec<Arc<Requests>>>,
    deposits: Vec<Vec<Arc<Requests>>>,
    claims: Vec<Vec<Arc<Requests>>>,
}

/// One body for the RPC.
struct Requests {
    body: String,
    count: u64,
}

impl Requests {
    fn of(transactions: &[Bytes]) -> Arc<Self> {
        let one = |(id, bytes): (usize, &Bytes)| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_sendRawTransaction","params":["0x{}"]}}"#,
                hex::encode(bytes)
            )
        };
        let each: Vec<String> = transactions.iter().enumerate().map(one).collect();
        Arc::new(Self { body: format!("[{}]", each.join(",")), count: transactions.len() as u64 })
    }
}

fn signer(number: u64) -> anyhow::Result<PrivateKeySigner> {
    Ok(PrivateKeySigner::from_bytes(&keccak256(number.to_be_bytes()))?)
}

fn sign(
    signer: &PrivateKeySigner,
    nonce: u64,
    to: Address,
    value: u128,
    input: Vec<u8>,
    gas_limit: u64,
) -> anyhow::Result<Bytes> {
    let transaction = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(to),
        value: U256::from(value),
        access_list: Default::default(),
        input: input.into(),
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash())?;
    Ok(TxEnvelope::from(transaction.into_signed(signature)).encoded_2718().into())
}

impl Load {
    fn sign(args: &Args) -> anyhow::Result<Self> {
        let senders = COUNT * SENDERS_EACH;
        let seconds = args.seconds + 2 * WARM_UP.as_secs();
        let accounts = (0..args.accounts).map(signer).collect::<anyhow::Result<Vec<_>>>()?;
        let mut addresses: Vec<Address> = accounts.iter().map(PrivateKeySigner::address).collect();
        let rounds = (args.transfers * seconds).div_ceil(args.accounts);
        let mut transfers = vec![Vec::new(); senders];
        for nonce in 0..rounds {
            for (sender, batches) in transfers.iter_mut().enumerate() {
                let own: Vec<(usize, &PrivateKeySigner)> =
                    accounts.iter().enumerate().skip(sender).step_by(senders).collect();
                for some in own.chunks(BATCH) {
                    let signed = some.iter().map(|(index, account)| {
                        let to = addresses[(index * 31 + nonce as usize * 7 + 1) % addresses.len()];
                        sign(account, nonce, to, 1, Vec::new(), 21_000)
                    });
                    batches.push(Requests::of(&signed.collect::<anyhow::Result<Vec<_>>>()?));
                }
            }
        }
        let prober = signer(u64::MAX)?;
        addresses.push(prober.address());
        let probes = (0..PROBES as u64)
            .map(|nonce| sign(&prober, nonce, addresses[0], 1, Vec::new(), 21_000))
            .collect::<anyhow::Result<_>>()?;

        let receivers = (0..RECEIVERS as u64)
            .map(|number| signer(u64::MAX / 2 + number))
            .collect::<anyhow::Result<Vec<_>>>()?;
        addresses.extend(receivers.iter().map(PrivateKeySigner::address));
        let mut deposits = vec![Vec::new(); senders];
        let mut claims = vec![Vec::new(); senders];
        let digests = ChannelDigests::new(CHAIN_ID);
        let claim_rounds = (args.claims * seconds).div_ceil((RECEIVERS * CLAIM_VOUCHERS) as u64);
        for (number, receiver) in receivers.iter().enumerate() {
            let payers = (0..CLAIM_VOUCHERS)
                .map(|payer| signer(u64::MAX / 4 + (number * CLAIM_VOUCHERS + payer) as u64))
                .collect::<anyhow::Result<Vec<_>>>()?;
            addresses.extend(payers.iter().map(PrivateKeySigner::address));
            let channels: Vec<Channel> =
                payers.into_iter().map(|payer| Channel::new(payer, receiver.address(), &digests)).collect();
            let opened =
                channels.iter().map(|channel| channel.deposit()).collect::<anyhow::Result<Vec<_>>>()?;
            deposits[number % senders].push(Requests::of(&opened));
            for round in 0..claim_rounds {
                let vouchers = channels
                    .iter()
                    .map(|channel| channel.claim(u128::from(round) + 1, &digests))
                    .collect::<anyhow::Result<_>>()?;
                let call = IChannels::claimCall { voucherClaims: vouchers };
                let gas = 300_000 + 80_000 * CLAIM_VOUCHERS as u64;
                let signed = sign(receiver, round, CHANNELS, 0, call.abi_encode(), gas)?;
                claims[number % senders].push((round, Requests::of(&[signed])));
            }
        }
        // Each sender's receivers take turns.
        let claims = claims.into_iter().map(|mut batches| {
            batches.sort_by_key(|(round, _)| *round);
            batches.into_iter().map(|(_, requests)| requests).collect()
        });
        Ok(Self { addresses, probes, transfers, deposits, claims: claims.collect() })
    }
}

/// A payer's channel to a receiver.
struct Channel {
    payer: PrivateKeySigner,
    config: ChannelConfig,
    id: B256,
}

impl Channel {
    fn new(payer: PrivateKeySigner, receiver: Address, digests: &ChannelDigests) -> Self {
        let config = ChannelConfig {
            payer: payer.address(),
            payerAuthorizer: payer.address(),
            receiver,
            receiverAuthorizer: receiver,
            token: Address::ZERO,
            withdrawDelay: U40::from(86_400_u64),
            salt: B256::ZERO,
        };
        let id = digests.channel_id(&config);
        Self { payer, config, id }
    }

    fn deposit(&self) -> anyhow::Result<Bytes> {
        let amount = 1_000_000_000;
        let call = IChannels::depositCall {
            config: self.config.clone(),
            amount,
            collector: Address::ZERO,
            collectorData: Bytes::new(),
        };
        sign(&self.payer, 0, CHANNELS, amount, call.abi_encode(), 300_000)
    }

    fn claim(&self, amount: u128, digests: &ChannelDigests) -> anyhow::Result<VoucherClaim> {
        let signature = self.payer.sign_hash_sync(&digests.voucher(self.id, amount))?;
        Ok(VoucherClaim {
            voucher: IChannels::Voucher { channel: self.config.clone(), maxClaimableAmount: amount },
            signature: signature.as_bytes().to_vec().into(),
            totalClaimed: amount,
        })
    }
}

/// Four validators and a follower, prepared.
struct Network {
    seats: Vec<Seat>,
}

struct Seat {
    dir: PathBuf,
    key: String,
    address: SocketAddr,
}

impl Network {
    fn prepare(root: &Path, load: &Load) -> anyhow::Result<Self> {
        // Free now; nobody else is likely to take them within the next second.
        let taken =
            (0..=COUNT).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let mut seats = Vec::new();
        for (index, listener) in taken.iter().enumerate() {
            let dir = root.join(index.to_string());
            let made = surety(&dir, &["key", "new", "validator", "--no-passphrase"])?;
            let key = made["public"].as_str().context("a key has a public part")?.to_owned();
            seats.push(Seat { dir, key, address: listener.local_addr()? });
        }
        drop(taken);
        let validators: Vec<Value> = seats[..COUNT]
            .iter()
            .enumerate()
            .map(|(index, seat)| {
                let operator = Address::from_word(keccak256([index as u8]));
                json!({ "key": seat.key, "operator": operator, "stake": "10000000000000000000000" })
            })
            .collect();
        let balances: Vec<Value> = load
            .addresses
            .iter()
            .map(|address| json!({ "address": address, "amount": WEALTH.to_string(), "why": "load" }))
            .collect();
        let genesis = json!({
            "chain_id": CHAIN_ID, "timestamp_ms": now_ms() as u64, "epoch_blocks": 1_000,
            "balances": balances, "validators": validators,
        });
        let path = root.join("genesis.json");
        fs::write(&path, genesis.to_string())?;
        let path = path.to_str().context("the temporary folder's name is text")?;
        for seat in &seats {
            surety(&seat.dir, &["validator", "init", "--genesis", path])?;
        }
        Ok(Self { seats })
    }

    /// Starts one; what it logs goes to a file beside its data.
    async fn start(&self, index: usize, follow: bool) -> anyhow::Result<(Running, String)> {
        let seat = &self.seats[index];
        let mut args: Vec<OsString> = vec!["--data-dir".into(), seat.dir.clone().into()];
        let listen = seat.address.to_string();
        args.extend(["validator", "run", "--rpc", "127.0.0.1:0", "--listen", &listen].map(OsString::from));
        for (other, peer) in self.seats.iter().enumerate() {
            let how = if other < COUNT { "--peer" } else { "--follower" };
            args.extend([how.into(), format!("{}@{}", peer.key, peer.address).into()]);
        }
        if follow {
            args.push("--follow".into());
        }
        let (child, ready) = child::start::<Ready>(&args).await?;
        Ok((child, ready.rpc_url))
    }

    /// Bytes on the disk of one validator, by part.
    fn disk(&self, index: usize) -> BTreeMap<String, u64> {
        let mut parts = BTreeMap::new();
        let Ok(entries) = fs::read_dir(self.seats[index].dir.join("validator")) else { return parts };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            parts.insert(name, occupied(&entry.path()));
        }
        parts
    }
}

/// Bytes that a file or folder takes.
fn occupied(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        #[cfg(unix)]
        return std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        #[cfg(not(unix))]
        return metadata.len();
    }
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| occupied(&entry.path())).sum()
}

/// Runs a command of this program to its end.
fn surety(dir: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let output = Command::new(program)
        .arg("--data-dir")
        .arg(dir)
        .args(args)
        .arg("--json")
        .stdin(Stdio::null())
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1_000.0)
}

/// JSON-RPC over one kept connection.
struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    fn new(url: &str) -> anyhow::Result<Self> {
        let http = surety_client::https::client_builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { http, url: url.to_owned() })
    }

    async fn send(&self, body: String) -> anyhow::Result<Value> {
        let request = self.http.post(&self.url).header("content-type", "application/json").body(body);
        let bytes = request.send().await?.bytes().await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer = self.send(body.to_string()).await?;
        anyhow::ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    async fn height(&self) -> anyhow::Result<u64> {
        number(&self.ask("eth_blockNumber", json!([])).await?)
    }
}

fn number(value: &Value) -> anyhow::Result<u64> {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x")).context("not a number")?;
    Ok(u64::from_str_radix(text, 16)?)
}

/// A block as a subscriber saw it.
#[derive(Debug, Clone, Copy)]
struct Head {
    number: u64,
    proposed_ms: f64,
    seen_ms: f64,
    gas_used: u64,
}

/// A subscriber to heads.
struct Watch {
    heads: Arc<Mutex<Vec<Head>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    async fn start(url: &str) -> anyhow::Result<Self> {
        let mut socket = Subscription::open(url, "newHeads").await?;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok(message) = socket.next().await {
                let head = &message["params"]["result"];
                let (Ok(number_), Ok(proposed), Ok(gas_used)) =
                    (number(&head["number"]), number(&head["timestampMs"]), number(&head["gasUsed"]))
                else {
                    continue;
                };
                let head =
                    Head { number: number_, proposed_ms: proposed as f64, seen_ms: now_ms(), gas_used };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(head);
            }
        });
        Ok(Self { heads, task })
    }

    fn since(&self, number: u64) -> Vec<Head> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.iter().filter(|head| head.number > number).copied().collect()
    }

    fn latest(&self) -> u64 {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).last().map_or(0, |head| head.number)
    }

    async fn wait(&self, height: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.latest() < height {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "the validators make no blocks");
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A WebSocket that listens to one subscription (RFC 6455, as much of it as that takes).
struct Subscription {
    stream: TcpStream,
}

impl Subscription {
    async fn open(url: &str, what: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").context("the RPC is on this machine")?;
        let mut stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let hello = format!(
            "GET / HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(hello.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            anyhow::ensure!(answer.len() < 4_096, "the RPC does not speak WebSocket");
            answer.push(stream.read_u8().await?);
        }
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 101"), "the RPC refuses a WebSocket");
        let mut subscription = Self { stream };
        let ask = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": [what] });
        subscription.write(0x1, ask.to_string().as_bytes()).await?;
        timeout(PATIENCE, subscription.next()).await??;
        Ok(subscription)
    }

    /// A frame, masked with zeros.
    async fn write(&mut self, opcode: u8, payload: &[u8]) -> anyhow::Result<()> {
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126);
        let length = length.context("only short messages are sent")?;
        let mut frame = vec![0x80 | opcode, 0x80 | length, 0, 0, 0, 0];
        frame.extend(payload);
        Ok(self.stream.write_all(&frame).await?)
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let (first, second) = (self.stream.read_u8().await?, self.stream.read_u8().await?);
            let length = match second & 0x7f {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                length => u64::from(length),
            };
            anyhow::ensure!(length <= 1 << 20, "a message of {length} bytes");
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await?;
            match first & 0x0f {
                0x1 => return Ok(serde_json::from_slice(&payload)?),
                0x9 => self.write(0xa, &payload).await?,
                0x8 => anyhow::bail!("the subscription was closed"),
                _ => {}
            }
        }
    }
}

/// Times single transfers from their submission to the head that has them, at changing moments of the pace.
async fn probes(url: &str, watch: &Watch, probes: &[Bytes]) -> anyhow::Result<Quantiles> {
    let client = Client::new(url)?;
    let mut taken = Vec::new();
    for (index, probe) in probes.iter().enumerate() {
        sleep(Duration::from_millis(37 * (index as u64 % 7))).await;
        let (sent_ms, mut from) = (now_ms(), watch.latest());
        let hash = client.ask("eth_sendRawTransaction", json!([probe])).await?;
        let begun = Instant::now();
        'found: loop {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "a transfer does not become final");
            for head in watch.since(from) {
                from = head.number;
                let block =
                    client.ask("eth_getBlockByNumber", json!([format!("{:#x}", head.number), false])).await?;
                let has = block["transactions"].as_array().is_some_and(|hashes| hashes.contains(&hash));
                if has {
                    taken.push(head.seen_ms - sent_ms);
                    break 'found;
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
    Quantiles::of(taken)
}

/// What became of a load.
struct Driven {
    /// Units that were final and succeeded, in all.
    total: u64,
    per_second: f64,
    processor_share: Option<f64>,
}

/// Sends requests from all senders at once, no more of them at a time than `in_flight_max`, and counts what is final.
async fn drive(
    urls: &[String],
    watch: &Watch,
    load: &[Vec<Arc<Requests>>],
    unit: u64,
    in_flight_max: u64,
    window: Duration,
    pids: &[u32],
) -> anyhow::Result<Driven> {
    let (sent, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let from = watch.latest();
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for (index, batches) in load.iter().enumerate() {
        let client = Client::new(&urls[index % urls.len()])?;
        let (sent, done, over) = (Arc::clone(&sent), Arc::clone(&done), Arc::clone(&over));
        let batches = batches.clone();
        senders.spawn(async move {
            for requests in batches {
                while sent.load(Relaxed).saturating_sub(done.load(Relaxed)) > in_flight_max {
                    sleep(Duration::from_millis(2)).await;
                }
                if over.load(Relaxed) {
                    break;
                }
                sent.fetch_add(requests.count, Relaxed);
                let answers = client.send(requests.body.clone()).await?;
                let refused =
                    answers.as_array().and_then(|all| all.iter().find(|one| !one["error"].is_null()));
                anyhow::ensure!(answers.is_array() && refused.is_none(), "refused: {refused:?} {answers}");
            }
            anyhow::Ok(())
        });
    }
    let counter = Client::new(&urls[0])?;
    let (mut counted, mut at) = (Vec::new(), from);
    let mut processor_at = None;
    let mut quiet = 0;
    while quiet < 8 {
        let elapsed = begun.elapsed();
        anyhow::ensure!(elapsed < WARM_UP + window + 2 * PATIENCE, "the load does not end");
        if processor_at.is_none() && elapsed >= WARM_UP {
            processor_at = Some((Instant::now(), processor(pids), None));
        }
        if let Some((since, _, ended @ None)) = &mut processor_at
            && elapsed >= WARM_UP + window
        {
            *ended = Some((processor(pids), since.elapsed()));
        }
        if elapsed >= WARM_UP + window {
            over.store(true, Relaxed);
        }
        while let Some(ended) = senders.try_join_next() {
            ended??;
        }
        for head in watch.since(at) {
            at = head.number;
            let count =
                if head.gas_used == 0 { 0 } else { succeeded(&counter, head.number, unit > 1).await? };
            done.fetch_add(count, Relaxed);
            counted.push((head, count));
            quiet = if count == 0 && senders.is_empty() { quiet + 1 } else { 0 };
        }
        sleep(Duration::from_millis(5)).await;
    }
    anyhow::ensure!(
        done.load(Relaxed) == sent.load(Relaxed),
        "{} of {} transactions are final and succeeded",
        done.load(Relaxed),
        sent.load(Relaxed)
    );
    // From the first block after the warm-up to the last that the load filled, by the blocks' own times.
    let first_ms = counted.iter().find(|(_, count)| *count > 0).map_or(0.0, |(head, _)| head.proposed_ms);
    let steady: Vec<_> = counted
        .iter()
        .filter(|(head, _)| {
            let since = head.proposed_ms - first_ms;
            since >= WARM_UP.as_secs_f64() * 1e3 && since <= (WARM_UP + window).as_secs_f64() * 1e3
        })
        .collect();
    let per_second = match (steady.first(), steady.last()) {
        (Some((first, count)), Some((last, _))) if last.proposed_ms > first.proposed_ms => {
            let all: u64 = steady.iter().map(|(_, count)| count).sum();
            (all - count) as f64 * unit as f64 / ((last.proposed_ms - first.proposed_ms) / 1e3)
        }
        _ => 0.0,
    };
    let processor_share = processor_at
        .and_then(|(_, before, ended)| ended.and_then(|(after, elapsed)| rate(before, after, elapsed)));
    Ok(Driven { total: done.load(Relaxed), per_second, processor_share })
}

/// How many transactions of a block succeeded. Transfers cannot fail once they are in a block: they are only counted.
async fn succeeded(client: &Client, number_: u64, look: bool) -> anyhow::Result<u64> {
    let at = json!([format!("{number_:#x}")]);
    if !look {
        return number(&client.ask("eth_getBlockTransactionCountByNumber", at).await?);
    }
    let receipts = client.ask("eth_getBlockReceipts", at).await?;
    let receipts = receipts.as_array().context("a block has receipts")?;
    Ok(receipts.iter().filter(|receipt| receipt["status"] == "0x1").count() as u64)
}

/// Seconds of processor time that these processes have used together.
fn processor(pids: &[u32]) -> Option<f64> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut seconds = 0.0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in brackets, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks_used: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        seconds += ticks_used / ticks;
    }
    Some(seconds)
}

fn rate(before: Option<f64>, after: Option<f64>, elapsed: Duration) -> Option<f64> {
    Some((after? - before?) / elapsed.as_secs_f64())
}

/// Bytes that each process has in memory.
fn resident(pids: &[u32]) -> Option<Vec<u64>> {
    let of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
    };
    pids.iter().map(of).collect()
}
