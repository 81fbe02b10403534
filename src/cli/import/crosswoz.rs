//! CrossWOZ: Chinese two-party task dialogues, a JSON object by dialogue id.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;

use super::{Body, Job, Plan, Skipped, Step, file_name};
use crate::cli::fail::Fail;

/// Largest unpacked file that is read, in bytes: a zip can claim anything.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Deserialize)]
struct Dialogue {
    messages: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    content: String,
}

/// One job per dialogue of a `.json` file or of the `.json` files in a `.zip`.
///
/// # Errors
/// When the file cannot be read or is not CrossWOZ.
pub(super) fn jobs(path: &Path) -> Result<Vec<Job>, Fail> {
    let file = std::fs::File::open(path).map_err(|err| Fail::file(path, err))?;
    if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("zip")) {
        return plans(&file_name(path)?, BufReader::new(file), path);
    }
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|err| Fail::file(path, err))?;
    let mut jobs = Vec::new();
    for i in 0..archive.len() {
        let member = archive.by_index(i).map_err(|err| Fail::file(path, err))?;
        let name = member.name().map_err(|err| Fail::file(path, err))?;
        let inner = name.rsplit('/').next().unwrap_or_default().to_owned();
        if inner.ends_with(".json") {
            jobs.extend(plans(&inner, BufReader::new(member), path)?);
        }
    }
    if jobs.is_empty() {
        return Err(Fail::file(path, "has no .json file inside"));
    }
    Ok(jobs)
}

fn plans(name: &str, reader: impl Read, path: &Path) -> Result<Vec<Job>, Fail> {
    let dialogues: BTreeMap<String, Dialogue> = serde_json::from_reader(reader.take(FILE_BYTES_MAX))
        .map_err(|err| Fail::file(path, format!("not CrossWOZ: {err}")))?;
    let name = name.to_owned();
    Ok(dialogues
        .into_iter()
        .map(|(id, dialogue)| {
            let name = name.clone();
            Box::new(move || Ok(plan(&name, &id, dialogue))) as Job
        })
        .collect())
}

fn plan(file: &str, id: &str, dialogue: Dialogue) -> Plan {
    let feed_id = format!("crosswoz/{id}");
    let mut steps = Vec::new();
    let mut seen = Vec::new();
    for (i, said) in dialogue.messages.into_iter().enumerate() {
        let sender = format!("{feed_id}/{}", said.role);
        if !seen.contains(&sender) {
            seen.push(sender.clone());
            steps.push(Step::Join(sender.clone()));
        }
        let body = Body::default()
            .with("kind", "text")
            .with("payload", said.content)
            .with("client_msg_id", format!("{file}:{id}:{}", i + 1));
        steps.push(Step::Message { sender, body });
    }
    Plan { title: format!("CrossWOZ {id}"), feed_id, steps, skipped: Skipped::new() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &str = r#"{"11290": {"goal": [], "messages": [
        {"role": "usr", "content": "你好", "dialog_act": []},
        {"role": "sys", "content": "您好"},
        {"role": "usr", "content": "再见"}]}}"#;

    fn check(path: &Path) {
        let plans: Vec<_> = jobs(path).unwrap().into_iter().map(|job| job().unwrap()).collect();
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].feed_id, "crosswoz/11290");
        assert_eq!(plans[0].steps.len(), 5);
        assert_eq!(plans[0].steps[0], Step::Join("crosswoz/11290/usr".into()));
        let body = Body::default()
            .with("kind", "text")
            .with("payload", "您好")
            .with("client_msg_id", "val.json:11290:2");
        assert_eq!(plans[0].steps[3], Step::Message { sender: "crosswoz/11290/sys".into(), body });
    }

    #[test]
    fn a_dialogue_is_a_group_of_two_plain_or_zipped() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("val.json");
        std::fs::write(&plain, TEXT).unwrap();
        check(&plain);
        let zipped = dir.path().join("x.zip");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&zipped).unwrap());
        zip.start_file("val.json", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(TEXT.as_bytes()).unwrap();
        zip.finish().unwrap();
        check(&zipped);
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        std::fs::write(&path, "[1]").unwrap();
        assert!(jobs(&path).is_err());
        std::fs::rename(&path, dir.path().join("x.zip")).unwrap();
        assert!(jobs(&dir.path().join("x.zip")).is_err());
    }
}
