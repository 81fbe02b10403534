//! The feedlog binary.

/// Returns memory to the system, and does not grow with the number of threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    feedlog::cli::main()
}
