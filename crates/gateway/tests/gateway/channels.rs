//! Requests that are paid for on channels: x402's `batch-settlement` over real sockets, on the real ledger's rules.

use alloy_primitives::{Address, B256, U256, aliases::U40};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use surety_client::channel::ModuleCall;
use surety_gateway::{KeyTerms, Micro};
use surety_types::{
    ChannelDigests,
    abi::{
        IChannels::{self, ChannelConfig},
        ICredit, Module,
        address::{CREDIT, DEPOSIT_COLLECTOR, ESCROW},
    },
    channel::deposit_nonce,
    credit::{receive_digest, signed::ReceiveWithAuthorization},
};

use crate::{
    http::{Answer, Site},
    keys::{key, number},
    memory::{MemoryLedger, wallet},
    pays::charged,
    x402::{
        CHAIN_ID, CHAT, GATEWAY, PAYER, again, chat, decoded, orders, required, selling, text, until_open,
        wei,
    },
};

const STRANGER: u64 = 6;
/// Micro-credits of a deposit.
const DEPOSIT: u128 = 2_000;
/// Unix seconds.
const FAR_S: u64 = 4_000_000_000;

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// What a payer's client knows of its channel, and how it pays; every part can be made wrong.
#[derive(Clone)]
struct Book {
    accepted: Value,
    config: ChannelConfig,
    /// Who signs.
    signer: u64,
    chain_id: u64,
    /// The channel that vouchers are signed for and name.
    id: B256,
    /// Wei that were charged, as the client knows.
    charged: u128,
    /// Wei of the request.
    amount: u128,
    /// Wei to pay in, the authorization's end, and its salt.
    deposit: Option<(u128, u64, u8)>,
    kind: &'static str,
    refund: Option<u128>,
}

impl Book {
    fn of(required: &Value, payer: u64, salt: u8) -> Book {
        let accepted = required["accepts"][1].clone();
        assert_eq!(
            (text(&accepted["scheme"]), text(&accepted["network"])),
            ("batch-settlement", "eip155:88888")
        );
        let address = |value: &Value| text(value).parse::<Address>().expect("an address");
        assert_eq!(address(&accepted["asset"]), CREDIT);
        let config = ChannelConfig {
            payer: wallet(payer).address(),
            payerAuthorizer: wallet(payer).address(),
            receiver: address(&accepted["payTo"]),
            receiverAuthorizer: address(&accepted["extra"]["receiverAuthorizer"]),
            token: CREDIT,
            withdrawDelay: U40::from(accepted["extra"]["withdrawDelay"].as_u64().expect("seconds")),
            salt: B256::repeat_byte(salt),
        };
        let id = ChannelDigests::of_escrow(CHAIN_ID).channel_id(&config);
        let amount = text(&accepted["amount"]).parse().expect("a number");
        Book {
            accepted,
            config,
            signer: payer,
            chain_id: CHAIN_ID,
            id,
            charged: 0,
            amount,
            deposit: None,
            kind: "voucher",
            refund: None,
        }
    }

    fn depositing(&self, micro: u128, salt: u8) -> Book {
        Book { deposit: Some((wei(micro).to(), FAR_S, salt)), kind: "deposit", ..self.clone() }
    }

    /// For what a request may cost.
    async fn asking(&self, site: &Site, body: &Value) -> Book {
        let asked = required(&site.chat(body.clone()).await);
        self.with(|book| book.amount = text(&asked["accepts"][1]["amount"]).parse().expect("wei"))
    }

    fn with(&self, change: impl FnOnce(&mut Book)) -> Book {
        let mut book = self.clone();
        change(&mut book);
        book
    }

    /// The channel is another.
    fn renamed(mut self) -> Book {
        self.id = ChannelDigests::of_escrow(self.chain_id).channel_id(&self.config);
        self
    }

    fn ceiling(&self) -> u128 {
        if self.kind == "refund" { self.charged } else { self.charged + self.amount }
    }

    fn header(&self) -> String {
        let digests = ChannelDigests::of_escrow(self.chain_id);
        let voucher = wallet(self.signer).sign_digest(&digests.voucher(self.id, self.ceiling()));
        let config = &self.config;
        let mut accepted = self.accepted.clone();
        accepted["amount"] = Value::from(self.amount.to_string());
        let mut payload = json!({
            "type": self.kind,
            "channelConfig": {
                "payer": config.payer.to_string(), "payerAuthorizer": config.payerAuthorizer.to_string(),
                "receiver": config.receiver.to_string(),
                "receiverAuthorizer": config.receiverAuthorizer.to_string(),
                "token": config.token.to_string(), "withdrawDelay": config.withdrawDelay.to::<u64>(),
                "salt": config.salt.to_string(),
            },
            "voucher": {
                "channelId": self.id.to_string(), "maxClaimableAmount": self.ceiling().to_string(),
                "signature": hex(&voucher),
            },
        });
        if let Some((amount, before, salt)) = self.deposit {
            let salt = B256::repeat_byte(salt);
            let authorization = ReceiveWithAuthorization {
                from: config.payer,
                to: DEPOSIT_COLLECTOR,
                value: U256::from(amount),
                validAfter: U256::ZERO,
                validBefore: U256::from(before),
                nonce: deposit_nonce(&self.id, U256::from_be_bytes(salt.0)),
            };
            let signature = wallet(self.signer).sign_digest(&receive_digest(self.chain_id, &authorization));
            payload["deposit"] = json!({
                "amount": amount.to_string(),
                "authorization": { "erc3009Authorization": {
                    "validAfter": "0", "validBefore": before.to_string(), "salt": salt.to_string(),
                    "signature": hex(&signature),
                } },
            });
        }
        if let Some(amount) = self.refund {
            payload["amount"] = Value::from(amount.to_string());
        }
        let document = json!({ "x402Version": 2, "accepted": accepted, "payload": payload });
        format!("PAYMENT-SIGNATURE: {}\r\n", BASE64_STANDARD.encode(document.to_string()))
    }

    /// Pays, and notes what was charged.
    async fn pay(&mut self, site: &Site, body: &Value) -> Answer {
        self.amount = self.asking(site, body).await.amount;
        let answer = site.post_with(CHAT, &self.header(), &body.to_string()).await;
        if answer.status == 200 {
            let response = decoded(answer.header("payment-response"));
            let charged = response["extra"]["chargedAmount"].as_str().map(|text| text.parse().expect("wei"));
            self.charged += charged.unwrap_or(0u128);
            let state = &response["extra"]["channelState"];
            assert_eq!(text(&state["chargedCumulativeAmount"]), self.charged.to_string(), "{response}");
            assert_eq!(text(&state["channelId"]), self.id.to_string());
        }
        answer
    }
}

async fn book(site: &Site, body: &Value, payer: u64, salt: u8) -> Book {
    Book::of(&required(&site.chat(body.clone()).await), payer, salt)
}

/// A channel that a first request has paid into.
async fn opened(site: &Site, salt: u8) -> Book {
    let body = chat("one two");
    let mut book = book(site, &body, PAYER, salt).await.depositing(DEPOSIT, salt);
    let answer = book.pay(site, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    book.with(|book| (book.kind, book.deposit) = ("voucher", None))
}

/// What the ledger holds in a channel, and what is claimed of it.
fn totals(ledger: &MemoryLedger, book: &Book) -> (u128, u128) {
    let channel = ledger.view(Module::Escrow, &IChannels::channelsCall { channelId: book.id });
    (channel.balance, channel.totalClaimed)
}

/// What was claimed for the gateway and paid to it.
fn earned(ledger: &MemoryLedger) -> (u128, u128) {
    let receivers = IChannels::receiversCall { receiver: wallet(GATEWAY).address(), token: CREDIT };
    let totals = ledger.view(Module::Escrow, &receivers);
    (totals.totalClaimed, totals.totalSettled)
}

/// Waits until so much of a channel is claimed.
async fn until_claimed(ledger: &MemoryLedger, book: &Book) {
    for _ in 0..500 {
        if totals(ledger, book).1 == book.charged && earned(ledger).0 == earned(ledger).1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} should be claimed, not {:?}", book.charged, totals(ledger, book));
}

async fn send(ledger: &MemoryLedger, who: u64, module: Module, call: &impl alloy_sol_types::SolCall) {
    ledger.account(who).send(vec![ModuleCall::new(module, call)]).await.expect("landed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_receipts_charge_is_charged_to_the_channel_and_claimed_at_once() {
    let (ledger, worker, site) = selling().await;
    let (together, before) = (ledger.together(), ledger.balance(wallet(PAYER).address()));
    let body = chat("one two three");
    let mut book = book(&site, &body, PAYER, 1).await;
    assert_eq!(text(&book.accepted["extra"]["assetTransferMethod"]), "eip3009");
    let first = book.depositing(DEPOSIT, 1).pay(&site, &body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let response = decoded(first.header("payment-response"));
    assert_eq!(text(&response["amount"]), wei(DEPOSIT).to_string());
    assert!(text(&response["transaction"]).parse::<B256>().is_ok_and(|hash| !hash.is_zero()));
    assert_eq!(text(&response["payer"]), wallet(PAYER).address().to_string());
    let cost: u128 = first.header("x-surety-cost").expect("a cost").parse().expect("a number");
    assert!(cost > 0 && wei(cost).to::<u128>() < book.amount && cost == charged(&worker));
    assert_eq!(text(&response["extra"]["chargedAmount"]), wei(cost).to_string());
    book.charged = wei(cost).to();
    assert_eq!(ledger.balance(wallet(PAYER).address()), before - wei(DEPOSIT));
    assert_eq!(totals(&ledger, &book), (wei(DEPOSIT).to(), 0));
    // Vouchers alone, from now on: nothing of them is on the ledger.
    for _ in 0..3 {
        let answer = book.pay(&site, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response = decoded(answer.header("payment-response"));
        assert_eq!((text(&response["transaction"]), text(&response["amount"])), ("", ""));
    }
    assert_eq!(U256::from(book.charged), wei(charged(&worker)));
    assert_eq!(totals(&ledger, &book), (wei(DEPOSIT).to(), 0));
    // A gateway that begins claims what is charged, once.
    let (site, sold) = (again(site, &ledger).await, book.charged);
    until_claimed(&ledger, &book).await;
    assert_eq!((totals(&ledger, &book), earned(&ledger)), ((wei(DEPOSIT).to(), sold), (sold, sold)));
    until_open(&site).await;
    let answer = book.pay(&site, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let _site = again(site, &ledger).await;
    until_claimed(&ledger, &book).await;
    assert_eq!(U256::from(earned(&ledger).1), wei(charged(&worker)));
    assert_eq!(ledger.balance(ESCROW), wei(DEPOSIT) - U256::from(book.charged));
    assert_eq!(ledger.together(), together, "nothing was made or lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pay_is_refused_by_its_name_and_nothing_is_ordered() {
    let (ledger, worker, site) = selling().await;
    let body = chat("one two");
    let fresh = book(&site, &body, PAYER, 9).await;
    let check = async |book: Book, reason: &str, word: &str| {
        let answer = site.post_with(CHAT, &book.header(), &body.to_string()).await;
        let (required, error) = (required(&answer), answer.error());
        assert_eq!((text(&error["code"]), text(&required["error"])), ("payment_refused", reason), "{error}");
        assert!(text(&error["message"]).contains(word), "{error} lacks {word}");
    };
    let deposit = fresh.depositing(DEPOSIT, 1);
    let receiver = "invalid_batch_settlement_evm_receiver_mismatch";
    let stranger = wallet(STRANGER).address();
    check(fresh.with(|book| book.config.receiver = stranger).renamed(), receiver, "another account").await;
    let elsewhere = fresh.with(|book| book.accepted["payTo"] = Value::from(stranger.to_string()));
    check(elsewhere, receiver, "another account").await;
    let authorizer = "invalid_batch_settlement_evm_receiver_authorizer_mismatch";
    let other = fresh.with(|book| book.config.receiverAuthorizer = stranger).renamed();
    check(other, authorizer, "authorizer is another").await;
    let token = "invalid_batch_settlement_evm_token_mismatch";
    check(fresh.with(|book| book.config.token = Address::ZERO).renamed(), token, "another token").await;
    let gold = fresh.with(|book| book.accepted["asset"] = Value::from(stranger.to_string()));
    check(gold, token, "another asset").await;
    let network = "invalid_batch_settlement_evm_network_mismatch";
    let foreign = fresh.with(|book| book.accepted["network"] = Value::from("eip155:1"));
    check(foreign, network, "eip155:88888").await;
    let delay = "invalid_batch_settlement_evm_withdraw_delay_out_of_range";
    let hasty = fresh.with(|book| book.config.withdrawDelay = U40::from(60)).renamed();
    check(hasty, delay, "60 s").await;
    let id = "invalid_batch_settlement_evm_channel_id_mismatch";
    check(fresh.with(|book| book.chain_id = 1).renamed(), id, "on chain 88888").await;
    check(fresh.with(|book| book.id = B256::ZERO), id, "another channel").await;
    let signature = "invalid_batch_settlement_evm_voucher_signature";
    check(fresh.with(|book| book.signer = STRANGER), signature, "is not signed by").await;
    check(fresh.with(|book| book.chain_id = 1), signature, "is not signed by").await;
    let poor = fresh.with(|book| book.amount = wei(1).to());
    check(poor, "invalid_payment_requirements", "0.000001 credits").await;
    check(fresh.with(|book| book.kind = "upto"), "invalid_batch_settlement_evm_payload_type", "`type`").await;
    check(fresh.with(|book| book.kind = "refund"), "invalid_batch_settlement_evm_payload_type", "GET").await;
    check(fresh.with(|book| book.kind = "deposit"), "invalid_payload", "no `deposit`").await;
    let unfunded = "invalid_batch_settlement_evm_channel_not_found";
    check(fresh.clone(), unfunded, "holds nothing").await;
    // Deposits.
    let late = deposit.with(|book| book.deposit = Some((wei(DEPOSIT).to(), ledger.now_s() + 5, 1)));
    check(late, "invalid_batch_settlement_evm_payload_authorization_valid_before", "is good until").await;
    let rich = fresh.depositing(2_000_000_000, 1);
    check(rich, "invalid_batch_settlement_evm_insufficient_balance", "Send credits").await;
    let small = fresh.depositing(1, 1);
    check(small, "invalid_batch_settlement_evm_cumulative_exceeds_balance", "Deposit more").await;
    let hot = fresh.with(|book| {
        // A voucher of the session key's, and a deposit of nobody's.
        (book.config.payerAuthorizer, book.signer) = (stranger, STRANGER);
    });
    let hot = hot.renamed().depositing(DEPOSIT, 1);
    let unsigned = "invalid_batch_settlement_evm_receive_authorization_signature";
    check(hot, unsigned, "deposit is not signed").await;
    assert_eq!(orders(&worker), 0);
    assert_eq!(ledger.balance(ESCROW), U256::ZERO, "no refused request has paid in");

    // On a channel that is there: what is stale, what was used, what is more than it holds.
    let good = opened(&site, 9).await;
    let stale = "invalid_batch_settlement_evm_cumulative_amount_mismatch";
    check(good.with(|book| book.charged = 0), stale, "were charged on its channel").await;
    check(good.with(|book| book.charged += 1), stale, "is behind").await;
    // The ceiling of the first voucher again, for a smaller request.
    let smaller = json!({"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "one"}]});
    let used = good.with(|book| book.amount -= good.charged).header();
    let used = site.post_with(CHAT, &used, &smaller.to_string()).await;
    assert_eq!(required(&used)["error"], "invalid_batch_settlement_evm_voucher_already_used");
    let more = good.with(|book| book.amount = wei(DEPOSIT).to());
    check(more, "invalid_batch_settlement_evm_cumulative_exceeds_balance", "Deposit more").await;
    // A deposit that was taken is not taken again, and its nonce is good for nothing else.
    let mut twice = good.depositing(DEPOSIT, 9);
    let canceled = good.depositing(DEPOSIT, 3);
    let nonce = deposit_nonce(&good.id, U256::from_be_bytes([3; 32]));
    let digest = surety_types::credit::cancel_digest(CHAIN_ID, wallet(PAYER).address(), nonce);
    let signature = wallet(PAYER).sign_digest(&digest).to_vec().into();
    let cancel = ICredit::cancelAuthorization_0Call { authorizer: wallet(PAYER).address(), nonce, signature };
    send(&ledger, STRANGER, Module::Credit, &cancel).await;
    check(canceled, "invalid_batch_settlement_evm_deposit_payload", "was canceled").await;
    assert_eq!(orders(&worker), 1);
    let before = totals(&ledger, &good).0;
    assert_eq!(twice.pay(&site, &body).await.status, 200);
    assert_eq!(totals(&ledger, &good).0, before);
    // Credits are not bought on channels.
    let key = key(&site, KeyTerms { budget: Some(Micro(0)), ..KeyTerms::named("mine") }).await;
    let header = format!("{key}{}", twice.header());
    let buying = site.post_with("/v1/credits", &header, r#"{"amount":"5"}"#).await;
    let asked = required(&buying);
    assert_eq!(
        (text(&asked["error"]), asked["accepts"].as_array().map(Vec::len)),
        ("unsupported_scheme", Some(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_pays_for_one_request_at_a_time() {
    let (ledger, worker, site) = selling().await;
    let body = chat("one PAUSE two");
    let header = opened(&site, 1).await.asking(&site, &body).await.header();
    let body = body.to_string();
    let all = futures::future::join_all((0..12).map(|_| site.post_with(CHAT, &header, &body))).await;
    let served: Vec<&Answer> = all.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!((served.len(), orders(&worker)), (1, 2));
    for answer in all.iter().filter(|answer| answer.status != 200) {
        let error = required(answer)["error"].clone();
        let known = ["channel_busy", "cumulative_amount_mismatch"];
        assert!(known.iter().any(|known| text(&error).ends_with(known)), "{error}");
    }
    // Deposits at once come in once; and channels do not wait for each other.
    let fresh = book(&site, &chat("one PAUSE two"), PAYER, 2).await;
    let header = fresh.depositing(DEPOSIT, 2).header();
    let others: Vec<String> = (3..7)
        .map(|salt| {
            let other = fresh.with(|book| book.config.salt = B256::repeat_byte(salt)).renamed();
            other.depositing(DEPOSIT, salt).header()
        })
        .collect();
    let same = futures::future::join_all((0..6).map(|_| site.post_with(CHAT, &header, &body)));
    let apart = futures::future::join_all(others.iter().map(|header| site.post_with(CHAT, header, &body)));
    let (same, apart) = tokio::join!(same, apart);
    assert_eq!(same.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(totals(&ledger, &fresh).0, wei(DEPOSIT).to::<u128>());
    for answer in apart {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stream_the_payers_book_is_set_right() {
    let (ledger, worker, site) = selling().await;
    let mut book = opened(&site, 1).await;
    let mut body = chat("one two three");
    body["stream"] = json!(true);
    let answer = book.pay(&site, &body).await;
    let response = decoded(answer.header("payment-response"));
    assert_eq!(response["extra"].get("chargedAmount"), None, "it is not known yet");
    let cost = number(&answer.chunks().last().expect("a chunk")["surety"]["cost"]);
    assert!(cost > 0);
    // The client is behind by what the stream came to; the ledger says what it is told.
    let plain = chat("four");
    let answer = site.post_with(CHAT, &book.header(), &plain.to_string()).await;
    let corrective = required(&answer);
    assert_eq!(corrective["error"], "invalid_batch_settlement_evm_cumulative_amount_mismatch");
    let extra = &corrective["accepts"][1]["extra"];
    let charged_now: u128 = text(&extra["channelState"]["chargedCumulativeAmount"]).parse().expect("wei");
    assert_eq!(charged_now, book.charged + wei(cost).to::<u128>());
    assert_eq!(text(&extra["channelState"]["balance"]), wei(DEPOSIT).to_string());
    let signed: u128 = text(&extra["voucherState"]["signedMaxClaimable"]).parse().expect("wei");
    let digest = ChannelDigests::of_escrow(CHAIN_ID).voucher(book.id, signed);
    assert_eq!(text(&extra["voucherState"]["signature"]), hex(&wallet(PAYER).sign_digest(&digest)));
    assert!(charged_now <= signed);
    book.charged = charged_now;
    assert_eq!(book.pay(&site, &plain).await.status, 200);
    assert_eq!(U256::from(book.charged), wei(charged(&worker)));

    // A stream that is told when the gateway dies is charged by its receipt, once.
    let paid = book.asking(&site, &body).await;
    let mut wire = site.open_with(CHAT, &paid.header(), &body.to_string()).await;
    wire.until("[DONE]").await;
    drop(wire);
    let site = again(site, &ledger).await;
    book.charged = wei(charged(&worker)).to();
    until_claimed(&ledger, &book).await;
    until_open(&site).await;
    assert_eq!(book.pay(&site, &plain).await.status, 200);
    assert_eq!(U256::from(book.charged), wei(charged(&worker)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_charges_nothing_and_its_deposit_is_told() {
    let (ledger, worker, site) = selling().await;
    let body = chat("one two FAIL");
    let mut book = book(&site, &body, PAYER, 1).await;
    let answer = site.post_with(CHAT, &book.depositing(DEPOSIT, 1).header(), &body.to_string()).await;
    assert!(answer.status >= 500, "{}", answer.text());
    let response = decoded(answer.header("payment-response"));
    assert_eq!(text(&response["extra"]["chargedAmount"]), "0");
    assert_eq!(text(&response["amount"]), wei(DEPOSIT).to_string());
    // The same voucher is good again.
    for _ in 0..2 {
        let answer = site.post_with(CHAT, &book.header(), &body.to_string()).await;
        assert!(answer.status >= 500 && answer.header("payment-response").is_none(), "{}", answer.text());
    }
    let answer = book.pay(&site, &chat("one two")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(U256::from(book.charged), wei(charged(&worker)));
    // While the ledger is away nothing is promised.
    ledger.set_away(true);
    let answer = site.post_with(CHAT, &book.header(), &chat("one two").to_string()).await;
    assert_eq!(answer.error()["code"], "ledger_unavailable");
    ledger.set_away(false);
    assert_eq!(book.pay(&site, &chat("one two")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_on_its_way_out_pays_what_it_owes_and_gets_the_rest() {
    let (ledger, worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let book = opened(&site, 1).await;
    let initiate = IChannels::initiateWithdrawCall { config: book.config.clone(), amount: u128::MAX };
    send(&ledger, PAYER, Module::Escrow, &initiate).await;
    let answer = site.post_with(CHAT, &book.header(), &chat("one").to_string()).await;
    assert_eq!(required(&answer)["error"], "invalid_batch_settlement_evm_channel_not_found");
    assert!(answer.text().contains("on its way out"), "{}", answer.text());
    let _site = again(site, &ledger).await;
    until_claimed(&ledger, &book).await;
    ledger.wait(book.config.withdrawDelay.to());
    send(&ledger, PAYER, Module::Escrow, &IChannels::finalizeWithdrawCall { config: book.config.clone() })
        .await;
    assert_eq!(totals(&ledger, &book), (book.charged, book.charged));
    assert_eq!(U256::from(earned(&ledger).1), wei(charged(&worker)));
    assert_eq!(ledger.balance(ESCROW), U256::ZERO);
    // But for the fees of its two transactions, the payer has paid what the answer cost.
    let paid = before - ledger.balance(wallet(PAYER).address());
    assert!(paid >= wei(charged(&worker)) && paid < wei(DEPOSIT), "{paid}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_given_back_for_the_asking() {
    let (ledger, worker, site) = selling().await;
    let before = ledger.balance(wallet(PAYER).address());
    let mut book = opened(&site, 1).await;
    assert_eq!(book.pay(&site, &chat("one two")).await.status, 200);
    // A client asks what is to be signed, without asking for an answer.
    let asked = required(&site.get(CHAT).await);
    assert_eq!(text(&asked["accepts"][1]["scheme"]), "batch-settlement");
    let refund = book.with(|book| (book.kind, book.refund) = ("refund", Some(wei(100).to())));
    let check = async |book: &Book, reason: &str| {
        let answer = site.get_with(CHAT, &book.header()).await;
        assert_eq!(required(&answer)["error"], reason, "{}", answer.text());
    };
    let names = "invalid_batch_settlement_evm_";
    check(&book, &format!("{names}payload_type")).await;
    let stale = refund.with(|book| book.charged -= 1);
    check(&stale, &format!("{names}cumulative_amount_mismatch")).await;
    check(&refund.with(|book| book.signer = STRANGER), &format!("{names}voucher_signature")).await;
    check(&refund.with(|book| book.refund = Some(0)), &format!("{names}refund_amount_invalid")).await;
    let more = refund.with(|book| book.refund = Some(wei(DEPOSIT).to()));
    check(&more, &format!("{names}refund_no_balance")).await;

    let answer = site.get_with(CHAT, &refund.header()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response = decoded(answer.header("payment-response"));
    assert_eq!(text(&response["amount"]), wei(100).to_string());
    assert_eq!(totals(&ledger, &book), (wei(DEPOSIT - 100).to(), book.charged));
    // It pays on, until it takes the rest.
    assert_eq!(book.pay(&site, &chat("one two")).await.status, 200);
    let rest = book.with(|book| book.kind = "refund");
    assert_eq!(site.get_with(CHAT, &rest.header()).await.status, 200);
    assert_eq!(totals(&ledger, &book), (book.charged, book.charged));
    check(&rest, &format!("{names}refund_no_balance")).await;
    let paid = before - ledger.balance(wallet(PAYER).address());
    assert_eq!(paid, wei(charged(&worker)), "the gateway pays for the transactions");
    let _site = again(site, &ledger).await;
    until_claimed(&ledger, &book).await;
    assert_eq!(ledger.balance(ESCROW), U256::ZERO);
}
