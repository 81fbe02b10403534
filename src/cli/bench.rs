//! `feedlog bench`.

use clap::Args;

use super::fail::{Exit, Fail};
use super::out::Out;
use crate::bench::{self, Bench};

/// Measure the store on this machine, beside the limit of its disk.
///
/// Everything runs in this process, in a data directory of its own that is removed afterwards. Close other programs
/// first, and quote the medians: single rounds are noisy.
///
/// Example:
///
///   feedlog bench append --writers 64 --rounds 5
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

/// Runs it.
pub(super) fn bench(args: &BenchArgs, out: Out) -> Result<(), Fail> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fail::new(Exit::Failed, "bench", error))?;
    runtime
        .block_on(bench::run(&args.bench, out.json))
        .map_err(|error| Fail::new(Exit::Failed, "bench", error))
}
