//! Transcripts over loopback: a small client of our own against real listeners, one or two deployments.

mod groups;
mod hop;
mod local;
mod relaying;
mod service;
mod world;
