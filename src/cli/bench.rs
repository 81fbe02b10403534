//! `feedlog bench`.

use clap::Args;

use super::fail::{Exit, Fail};
use super::out::Out;
use crate::bench::{self, Bench};

/// Measure the store on this machine, beside the limit of its disk; and MQTT brokers, beside each other.
///
/// `append`, `pull` and `cost` run in this process, in a data directory of its own that is removed afterwards; `mqtt`
/// drives running servers. Close other programs first, and quote the medians: single rounds are noisy.
///
/// Example:
///
///   feedlog bench append --writers 64 --rounds 5
///   feedlog bench mqtt publish --broker feedlog=127.0.0.1:1883 --echo
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

/// Runs it.
pub(super) fn bench(args: &BenchArgs, out: Out) -> Result<(), Fail> {
    bench::run(&args.bench, out.json).map_err(|error| Fail::new(Exit::Failed, "bench", error))
}
