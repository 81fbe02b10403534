//! Scripts of other languages, each with an end.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A script takes half a minute on a machine that does nothing else.
const SCRIPT: Duration = Duration::from_secs(240);
/// The first time on a machine, clients are fetched.
const SETUP: Duration = Duration::from_secs(600);

/// Where the clients are: `paho1/`, `paho2/` and `node_modules/`.
pub(crate) fn clients() -> &'static Path {
    static CLIENTS: OnceLock<PathBuf> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        let (ended_well, output) = bounded("bash", &["scripts/interop_setup.sh"], &[], SETUP);
        assert!(ended_well, "scripts/interop_setup.sh failed:\n{output}");
        PathBuf::from(output.lines().last().expect("it prints where they are"))
    })
}

/// Where `wstest` of the Autobahn test suite is; `None` where no Python 2.7 is.
pub(crate) fn autobahn() -> Option<PathBuf> {
    let (ended_well, output) = bounded("bash", &["scripts/autobahn_setup.sh"], &[], SETUP);
    assert!(ended_well, "scripts/autobahn_setup.sh failed:\n{output}");
    let last = output.lines().last().expect("it prints where it is");
    if last == "none" {
        eprintln!("{output}");
        return None;
    }
    Some(PathBuf::from(last))
}

/// Runs a script to its end; fails with everything it printed unless it ended well.
pub(crate) fn run(program: &str, arguments: &[&str], environment: &[(&str, &OsStr)]) {
    let (ended_well, output) = bounded(program, arguments, environment, SCRIPT);
    assert!(ended_well, "{program} {}:\n{output}", arguments.join(" "));
    eprintln!("{output}");
}

fn bounded(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &OsStr)],
    patience: Duration,
) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; see scripts/setup.sh --test"));
    let output = [read(child.stderr.take()), read(child.stdout.take())];
    let deadline = Instant::now() + patience;
    let ended_well = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status.success();
        }
        if Instant::now() > deadline {
            kill_group(&child);
            let _ = child.wait();
            break false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let mut text: String = output.into_iter().map(|thread| thread.join().unwrap_or_default()).collect();
    if Instant::now() > deadline {
        text = format!("not done within {patience:?}; so far:\n{text}");
    }
    (ended_well, text)
}

/// Reads to the end beside the child, so that it never blocks on a full pipe.
fn read(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    let mut pipe = pipe.expect("a pipe was asked for");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn kill_group(child: &Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}
