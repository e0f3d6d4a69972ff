//! Whole organisations as processes: two administrators, two servers or one, real mail, and those who mean ill.
//!
//! The binary under test is `REHOME_BIN`, else `target/debug/rehome`; `make test` builds it with `fault-injection`.

mod administrator;
mod attacks;
mod by_hand;
mod cuts;
mod deployment;
mod direct;
mod https;
mod imap;
mod interceptor;
mod interleavings;
mod isolation;
mod jose;
mod kills;
mod mail;
mod moves;
mod pair;
mod partners;
mod receipts;
mod refusals;
mod rogue;
mod round_trips;
mod rows;
mod way_back;
