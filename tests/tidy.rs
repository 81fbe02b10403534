//! Rules about the repository itself that no compiler checks: which crate may know which, where a library may be
//! used, and that what the documents name exists.

#![allow(clippy::unwrap_used)] // helpers of tests may panic as well

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may use of ours, all of it; `docs/ARCHITECTURE.md` has the reasons.
const EDGES: [(&str, &[&str]); 7] = [
    ("feedlog-core", &[]),
    ("feedlog-storage", &["feedlog-core"]),
    ("feedlog-migrations", &["feedlog-storage", "feedlog-core"]),
    ("feedlog-service", &["feedlog-migrations", "feedlog-storage", "feedlog-core"]),
    // No line for storage or migrations: a front end cannot bypass the core even by mistake.
    ("feedlog-api", &["feedlog-service", "feedlog-core"]),
    // A client like every other: it sees of feedlog what MQTT shows.
    ("feedlog-egress", &[]),
    ("feedlog", &["feedlog-api", "feedlog-service", "feedlog-migrations", "feedlog-storage", "feedlog-core"]),
];

/// All that the pure core may use of others': no runtime, no serialization, no clock.
const CORE_MAY_USE: [&str; 2] = ["bytes", "thiserror"];

/// A library, the only crate that may depend on it, and the only places that may name it.
const CONFINED: [(&str, &str, &[&str]); 4] = [
    ("bincode", "feedlog-storage", &["storage/src/format"]),
    ("sled", "feedlog-storage", &["storage/src/sled.rs", "storage/src/sled/"]),
    ("rocksdb", "feedlog-storage", &["storage/src/rocks.rs", "storage/src/rocks/"]),
    ("rumqttd", "feedlog-egress", &["egress/"]),
];

/// What proves a stage of a message's way, and the files that may make it: `Type { …` or a call.
const MADE_IN: [(&str, &[&str]); 4] = [
    ("Ok(Authorized {", &["core/src/policy.rs"]),
    ("Committed { entries", &["storage/src/log/commit.rs"]),
    ("Receipt { done", &["service/src/append.rs"]),
    // The importer of exports works on an empty store that no server has open, and appends what was durable elsewhere.
    ("engine.commit(", &["storage/src/commit_queue.rs", "src/cli/import/feedlog.rs"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every file of the repository that is text and ours, with its path relative to the root.
fn files() -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() {
                if !hidden && name != "target" && name != "node_modules" {
                    walk(&path, out);
                }
            } else if !hidden {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(root(), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(fs::read(&path).unwrap()).ok()?;
            let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            Some((relative, text))
        })
        .collect()
}

fn rust_files() -> Vec<(String, String)> {
    files().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// The code of a line: without a comment that fills it or ends it. Good enough for the searches here.
fn code(line: &str) -> &str {
    let line = line.trim_start();
    line.split_once("//").map_or(line, |(before, _)| before)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `line` as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn crates_depend_only_as_the_architecture_allows() {
    let metadata = metadata();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("{name}: a crate that tests/tidy.rs does not know"));
            continue;
        };
        seen.insert(name);
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            let ours = on == "feedlog" || on.starts_with("feedlog-");
            // A crate's tests may use another's test support, which is a feature that nothing else turns on.
            let for_tests = kind == "dev"
                && dependency["features"].as_array().unwrap().iter().any(|feature| feature == "testing");
            if ours && !allowed.contains(&on) && !for_tests {
                problems.push(format!("{name} may not depend on {on} ({kind})"));
            }
            if ours && kind != "dev" && on != "feedlog-core" {
                let features = dependency["features"].as_array().unwrap();
                if features.iter().any(|feature| feature == "testing") {
                    problems.push(format!("{name} turns on test support of {on} outside its tests"));
                }
            }
            if name == "feedlog-core" && kind == "normal" && !CORE_MAY_USE.contains(&on) {
                problems.push(format!("feedlog-core is pure and may not depend on {on}"));
            }
            if on == "anyhow" && name != "feedlog" {
                problems.push(format!("{name}: errors are typed below src/, no anyhow"));
            }
            for (library, home, _) in CONFINED {
                if on == library && name != home {
                    problems.push(format!("{name} may not depend on {library}, only {home} may"));
                }
            }
        }
    }
    for (name, _) in EDGES {
        if !seen.contains(name) {
            problems.push(format!("{name}: no such crate any more"));
        }
    }
    report(problems);
}

#[test]
fn confined_libraries_are_named_only_where_they_live() {
    let mut problems = Vec::new();
    for (path, text) in rust_files() {
        for (library, _, homes) in CONFINED {
            if homes.iter().any(|home| path.starts_with(home)) || path == "tests/tidy.rs" {
                continue;
            }
            // `mod sled;` makes `sled::` ours in that file.
            if text.lines().any(|line| has_word(code(line), &format!("mod {library}"))) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                let line = code(line);
                // A path beginning with the library's name; our own modules of that name follow `crate::` or `self::`.
                let used = line.match_indices(&format!("{library}::")).any(|(at, _)| {
                    let before = &line[..at];
                    // `crate::sled::` is ours, `::sled::` is not.
                    let of_ours = before.strip_suffix("::").is_some_and(|path| path.ends_with(is_word));
                    !before.ends_with(is_word) && !of_ours
                }) || has_word(line, &format!("extern crate {library}"))
                    || line.trim_end() == format!("use {library};");
                if used {
                    problems.push(format!("{path}:{}: {library} belongs to {homes:?}", number + 1));
                }
            }
        }
    }
    report(problems);
}

/// Within a crate privacy does not help; what must not compile from outside is in `tests/must_not_compile.md`.
#[test]
fn proofs_are_made_in_one_place() {
    let mut problems = Vec::new();
    for (making, homes) in MADE_IN {
        for (path, text) in rust_files() {
            let shown = text.len() - tests_of(&path, &text).len();
            let found = text[..shown].lines().any(|line| code(line).contains(making));
            let is_home = homes.contains(&path.as_str());
            if found && !is_home {
                problems.push(format!("{path}: `{making}` belongs to {homes:?} alone"));
            }
            if !found && is_home {
                problems
                    .push(format!("{path}: no `{making}` any more; tests/tidy.rs looks in the wrong place"));
            }
        }
    }
    report(problems);
}

#[test]
fn no_crate_is_unsafe_or_without_the_shared_lints() {
    let mut problems = Vec::new();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for member in ["", "core", "storage", "migrations", "service", "api", "egress"] {
        let text = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            problems.push(format!("{member}/Cargo.toml: the shared lints are not inherited"));
        }
    }
    for (path, text) in rust_files() {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|what| code(line).contains(what))
            {
                problems.push(format!("{path}:{}: unsafe", number + 1));
            }
            for left in ["todo!", "unimplemented!", "dbg!"] {
                if code(line).contains(left) {
                    problems.push(format!("{path}:{}: {left}", number + 1));
                }
            }
        }
    }
    report(problems);
}

/// Relative links and quoted paths of the documents that people start from.
#[test]
fn what_the_documents_name_exists() {
    let mut problems = Vec::new();
    for (path, text) in files() {
        if !path.ends_with(".md") {
            continue;
        }
        let dir = Path::new(&path).parent().unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ']).next().unwrap();
            if target.starts_with("http") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let file = target.split('#').next().unwrap();
            if !root().join(dir).join(file).exists() {
                problems.push(format!("{path}: links to {target}, which does not exist"));
            }
        }
        for quoted in text.split('`').skip(1).step_by(2) {
            let file = quoted.split("::").next().unwrap().split(' ').next().unwrap();
            let ours = [
                "core/",
                "storage/",
                "migrations/",
                "service/",
                "api/",
                "egress/",
                "src/",
                "tests/",
                "docs/",
                "scripts/",
            ]
            .iter()
            .any(|top| file.starts_with(top));
            let exact = !file.contains(['*', '{', '<', '…', '$']);
            if ours && exact && !root().join(file).exists() {
                problems.push(format!("{path}: names {file}, which does not exist"));
            }
        }
    }
    report(problems);
}

/// `docs/PROTOCOLS.md` and `docs/GUARANTEES.md`: in tables, a code cell like `` `path::name` `` names an item of that
/// file, so that no rule is left without its code and its test.
#[test]
fn every_rule_names_code_and_a_test_that_exist() {
    let sources: BTreeMap<String, String> = files().into_iter().collect();
    let mut problems = Vec::new();
    for document in ["docs/PROTOCOLS.md", "docs/GUARANTEES.md"] {
        let text = sources.get(document).unwrap_or_else(|| panic!("{document} is missing"));
        let mut rules = 0;
        for (number, line) in text.lines().enumerate() {
            let place = format!("{document}:{}", number + 1);
            for quoted in line.split('`').skip(1).step_by(2) {
                let Some((path, item)) = quoted.split_once("::") else { continue };
                if !path.contains('/') {
                    continue;
                }
                let Some(source) = sources.get(path) else {
                    problems.push(format!("{place}: no file {path}"));
                    continue;
                };
                let name = item.rsplit("::").next().unwrap().trim_end_matches("()");
                if !source.lines().any(|line| has_word(line, name)) {
                    problems.push(format!("{place}: {path} has no {name}"));
                }
            }
            // | rule | code | test |
            let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            if document == "docs/PROTOCOLS.md"
                && line.starts_with("| ")
                && cells.len() == 3
                && cells[0] != "rule"
            {
                rules += 1;
                for (cell, what) in [(cells[1], "code"), (cells[2], "test")] {
                    if !cell.contains('`') {
                        problems.push(format!("{place}: names no {what}"));
                    }
                }
                for quoted in cells[2].split('`').skip(1).step_by(2) {
                    let is_test = quoted.split_once("::").is_some_and(|(path, name)| {
                        sources.get(path).is_some_and(|source| {
                            let head = format!("fn {name}");
                            source.lines().any(|line| has_word(code(line), &head))
                        })
                    }) || (quoted.ends_with(".sh") && sources.contains_key(quoted));
                    if !is_test {
                        problems.push(format!("{place}: {quoted} is not a test"));
                    }
                }
            }
        }
        if document == "docs/PROTOCOLS.md" {
            assert!(rules >= 20, "{document} has only {rules} rules; was its table reshaped?");
        }
    }
    report(problems);
}

/// The part of a file that is tests.
fn tests_of<'a>(path: &str, text: &'a str) -> &'a str {
    let all = path.contains("/tests/")
        || path.starts_with("tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.contains("conformance");
    if all { text } else { text.find("#[cfg(test)]").map_or("", |at| &text[at..]) }
}

#[test]
fn every_invariant_is_named_in_the_code_and_in_a_test() {
    let sources: Vec<_> = rust_files().into_iter().filter(|(path, _)| path != "tests/tidy.rs").collect();
    let mut problems = Vec::new();
    for number in 1..=8 {
        let name = format!("I-{number}");
        let in_code = sources.iter().any(|(path, text)| {
            let tests = tests_of(path, text);
            text[..text.len() - tests.len()].lines().any(|line| has_word(line, &name))
        });
        // In a comment or a message, or in the test's own name: `fn i5_a_retry_…`.
        let short = format!("i{number}_");
        let in_test = sources.iter().any(|(path, text)| {
            tests_of(path, text)
                .lines()
                .any(|line| has_word(line, &name) || code(line).contains(&format!("fn {short}")))
        });
        if !in_code {
            problems.push(format!("{name}: no code says that it keeps this invariant"));
        }
        if !in_test {
            problems.push(format!("{name}: no test carries the number"));
        }
    }
    report(problems);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Put together here, so that this file does not contain what it looks for.
    let roots = ["work", "farm", "root", "home", "Users"].map(|dir| format!("/{dir}/"));
    let mut problems = Vec::new();
    for (path, text) in files() {
        if path.ends_with(".lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for start in &roots {
                let absolute = line.match_indices(start.as_str()).any(|(at, _)| {
                    !line[..at].chars().next_back().is_some_and(|c| is_word(c) || "./}$~".contains(c))
                });
                if absolute {
                    problems.push(format!("{path}:{}: a path of one machine ({start}…)", number + 1));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn the_commands_of_the_readme_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut named = 0;
    for quoted in readme.split(['`', '\n']) {
        let Some(target) = quoted.trim().strip_prefix("make ") else { continue };
        let target = target.split_whitespace().next().unwrap();
        if target.chars().all(|c| c.is_ascii_lowercase()) {
            named += 1;
            assert!(makefile.contains(&format!("\n{target}:")), "the README says `make {target}`");
        }
    }
    assert!(named >= 2, "the README no longer names its two commands");
    assert!(fs::read_to_string(root().join(".ci/run")).unwrap().contains("make test"));
}
