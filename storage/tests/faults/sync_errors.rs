//! fdatasync that fails with EIO, and the order of syncs and acknowledgements, both seen from outside with strace.

use std::path::Path;
use std::process::{Command, Stdio};

use feedlog_storage::EngineKind;
use feedlog_storage::conformance::Random;

use crate::kit::{self, Acked, Job, Said};

/// Whether this machine can trace; prints why not.
fn can_trace() -> bool {
    let output = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!(
                "skipped: strace does not work here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            false
        }
        Err(error) => {
            println!("skipped: there is no strace: {error}");
            false
        }
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn a_failed_sync_is_never_acknowledged() {
    if !can_trace() {
        return;
    }
    let mut random = Random(kit::seed("EIO"));
    for engine in kit::engines() {
        let (mut met, mut unmet) = (0, 0);
        for _ in 0..kit::setting("FEEDLOG_EIO_CYCLES", 12) {
            let dir = tempfile::tempdir().unwrap();
            let job = Job { dir: dir.path().join("store"), engine, seed: random.number(), large_bytes: 300 };
            // strace counts per thread, and the writer's thread does all the syncs that matter.
            let inject = format!("inject=fdatasync:error=EIO:when={}", 1 + random.below(40));
            let tracer =
                words(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject]);
            let mut writer = job.start(Some(&tracer));
            let mut acked = Acked::new();
            let mut acks = 0;
            while let Some(said) = writer.next() {
                match said {
                    Said::Open(_) => {}
                    Said::NotOpen(_) => break, // met while the store was made
                    Said::Ack(feed, seq) => {
                        acked.insert(feed, seq);
                        acks += 1;
                        if acks > 2000 {
                            unmet += 1; // another thread met it: the tail guard's
                            break;
                        }
                    }
                    Said::Failed(error) => {
                        assert!(error.starts_with("Unknown("), "{job:?}: {error}");
                        assert_eq!(writer.next(), Some(Said::StillReads), "{job:?}");
                        met += 1;
                        break;
                    }
                    other => panic!("{job:?}: the writer said {other:?}"),
                }
            }
            // A restart.
            writer.kill(&mut acked);
            kit::check_store(&job, &mut acked).engine().close().unwrap();
        }
        println!("EIO {}: {met} commits met it, {unmet} runs went on", engine.name());
        assert!(met > 0, "no commit met a failing sync");
    }
}

/// I-2: between the last write to a file of the tables and an acknowledgement lies a successful fdatasync of that file.
#[test]
fn every_acknowledgement_follows_a_sync() {
    if !can_trace() {
        return;
    }
    let seed = kit::seed("order of syncs");
    for engine in kit::engines() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        let job = Job { dir: dir.path().join("store"), engine, seed, large_bytes: 300 };
        let mut tracer = words(&["strace", "-f", "-y", "-qq", "-s", "16"]);
        tracer.extend(words(&["-e", "trace=write,pwrite64,fdatasync,fsync", "-o"]));
        tracer.push(trace.display().to_string());
        let mut writer = job.start(Some(&tracer));
        let mut acks = 0;
        while acks < 800 {
            match writer.next() {
                Some(Said::Ack(_, _)) => acks += 1,
                Some(Said::Open(_)) => {}
                other => panic!("{job:?}: the writer said {other:?}"),
            }
        }
        writer.kill(&mut Acked::new());
        check_trace(engine, &trace, &job.dir.join("tables"));
    }
}

fn check_trace(engine: EngineKind, trace: &Path, tables: &Path) {
    let text = std::fs::read_to_string(trace).unwrap();
    let tables = tables.display().to_string();
    // Files of the log that hold what is not synced yet. RocksDB's own journal `LOG` is no data.
    let mut dirty: Vec<String> = Vec::new();
    let (mut acks, mut writes, mut syncs) = (0, 0, 0);
    let mut unfinished = std::collections::HashMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        // A call that another thread interrupts is told in two lines; it counts when it is over, a write when it begins.
        let call = if let Some(rest) = call.strip_prefix("<... ") {
            let Some(begun) = unfinished.remove(thread) else { continue };
            format!("{begun} {rest}")
        } else if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread.to_owned(), begun.to_owned());
            if begun.starts_with("fdatasync") || begun.starts_with("fsync") {
                continue;
            }
            begun.to_owned()
        } else {
            call.to_owned()
        };
        let file =
            call.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(file, _)| file.to_owned());
        let Some(file) = file else { continue };
        let is_log = file.starts_with(&tables) && (file.ends_with(".log") || file.ends_with("/db"));
        if call.starts_with("write(1<") && call.contains("\"say ack") {
            acks += 1;
            assert!(dirty.is_empty(), "{}: acknowledged while {dirty:?} was not synced", engine.name());
        } else if !is_log {
        } else if call.starts_with("write") || call.starts_with("pwrite64") {
            writes += 1;
            if !dirty.contains(&file) {
                dirty.push(file);
            }
        } else if call.ends_with("= 0") {
            syncs += 1;
            dirty.retain(|other| *other != file);
        }
    }
    println!("order of syncs {}: {acks} acknowledgements, {writes} writes, {syncs} syncs", engine.name());
    assert!(acks > 0 && writes > 0 && syncs > 0);
}
