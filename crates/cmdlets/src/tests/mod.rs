//! Every cmdlet over a real store in a temporary folder; the partner is played.

mod declarations;
mod direct;
mod discover;
mod isolation;
mod migration;
mod partners;
mod recipients;
mod world;
