#!/usr/bin/env bash
# Foundry's cast against a running ledger: transfer, view, module transaction, events, revert reason.
# Usage: cast.sh RPC_URL PRIVATE_KEY
set -euo pipefail
cd "$(dirname "$0")"
export ETH_RPC_URL=$1
secret=$2
# Nothing of the caller's own set-up, and nothing asked of the internet.
export FOUNDRY_OFFLINE=true HOME=$(mktemp -d)
trap 'rm -rf "$HOME"' EXIT
cast=node_modules/.bin/cast
staking=0x0000000000000000000000000000000000000801
passed() { echo "passed: cast $1"; }
equal() {
  if [ "$1" != "$2" ]; then
    echo "cast $3: $1 is not $2" >&2
    exit 1
  fi
}
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
# Numbers as cast prints them may be followed by a shorter form in brackets.
number() { "$cast" call "$@" | cut -d' ' -f1; }

equal "$("$cast" chain-id)" 88888 "reads the chain's id"
account=$("$cast" wallet address --private-key "$secret")
height=$("$cast" block-number)
[ "$height" -ge 2 ]
equal "$("$cast" block "$height" --json | field number | python3 -c 'print(int(input(), 0))')" "$height" "reads a block"
"$cast" block finalized --field hash | grep -Eq '^0x[0-9a-f]{64}$'
passed "reads the chain's id and blocks"

friend=$("$cast" wallet new --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["address"])')
hash=$("$cast" send "$friend" --value 3ether --private-key "$secret" --json | field transactionHash)
equal "$("$cast" balance "$friend" --ether)" 3.000000000000000000 "transfers"
equal "$("$cast" receipt "$hash" --json | field status)" 0x1 "reads a receipt"
equal "$("$cast" receipt "$hash" gasUsed)" 21000 "reads a receipt"
equal "$("$cast" tx "$hash" value)" 3000000000000000000 "reads a transaction"
passed "transfers"

before=$(number "$staking" 'bondedOf(address,address)(uint256)' "$account" "$account")
mined=$("$cast" send "$staking" 'bond()' --value 5ether --private-key "$secret" --json)
after=$(number "$staking" 'bondedOf(address,address)(uint256)' "$account" "$account")
equal "$(python3 -c 'import sys; print(int(sys.argv[1]) - int(sys.argv[2]))' "$after" "$before")" 5000000000000000000 "stakes"
passed "calls a view and stakes"

event='Bonded(address indexed,address indexed,uint256,uint256)'
at=$(echo "$mined" | field blockNumber)
logs=$("$cast" logs --address "$staking" --from-block "$at" --to-block "$at" "$event" --json)
data=$(echo "$logs" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["data"])')
decoded=$("$cast" decode-event --sig 'Bonded(uint256,uint256)' "$data" | head -n 1 | cut -d' ' -f1)
equal "$decoded" 5000000000000000000 "decodes an event"
passed "finds and decodes an event"

refused=$("$cast" call "$staking" 'unjail()' --from "$account" 2>&1 || true)
echo "$refused" | grep -q 'staking: the caller is not in jail'
refused=$("$cast" send "$friend" --value 1ether --nonce 0 --private-key "$secret" 2>&1 || true)
echo "$refused" | grep -qi 'nonce too low'
passed "sees reasons of refusals"
