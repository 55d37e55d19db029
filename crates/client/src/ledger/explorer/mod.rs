//! The explorer: blocks, transactions, accounts and disputes, in names and words that people read.
//!
//! In:     heights, hashes, accounts, numbers of disputes, from anyone.
//! Out:    what there is of each, with whose word it is: proven to whoever asks, or a node's.
//! Touches: the network, through the ledger.
//! Holds:  a block is proven where the validators of its epoch are still known, and its transactions and receipts are always compared
//!         with the header; what is not a module's is shown as bytes, and never guessed; everything shown is bounded.
//! Absent: which transactions an account made: nobody indexes that.

mod accounts;
mod blocks;
pub mod decode;
mod story;
mod words;

pub use accounts::AccountView;
pub use blocks::{BLOCKS_MAX, BlockPage, BlockRow, BlockView, EventView, TransactionRow, TransactionView};
pub use story::{DisputePage, DisputeRow, LeafView, Money, OperandView, Step, Story};
