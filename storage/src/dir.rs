//! The data directory: who holds it, and what is in it.
//!
//! | name | what |
//! |---|---|
//! | `FORMAT` | version of the format, number of the layout, engine; text |
//! | `LOCK` | locked while a process has the store open |
//! | `TAIL` | the tail guard |
//! | `tables/` | the engine's own files |

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{EngineKind, OpenError};

/// The newest format that this code reads and the one it writes.
pub const FORMAT_VERSION: u32 = 1;
/// The directory of the engine's own files.
pub(crate) const TABLES: &str = "tables";
const FORMAT: &str = "FORMAT";
const LOCK: &str = "LOCK";

/// A data directory that this process holds.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Mutex<Option<File>>,
    layout: u32,
}

impl DataDir {
    /// Takes the lock and compares `FORMAT`; a layout above `newest_layout` is refused. A directory that is missing or empty becomes a new store.
    pub(crate) fn open(path: &Path, engine: EngineKind, newest_layout: u32) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let format = match std::fs::read_to_string(path.join(FORMAT)) {
            Ok(text) => {
                Format::parse(&text, newest_layout).ok_or_else(|| OpenError::NotAStore(path.to_owned()))??
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.join(TABLES).exists() {
                    return Err(OpenError::NotAStore(path.to_owned()));
                }
                let format = Format { layout: newest_layout, engine: engine.name().to_owned() };
                write_atomically(path, FORMAT, format.text().as_bytes()).map_err(failed)?;
                format
            }
            Err(source) => return Err(failed(source)),
        };
        if format.engine != engine.name() {
            return Err(OpenError::OtherEngine { found: format.engine, asked: engine.name() });
        }
        let tables = path.join(TABLES);
        if !tables.exists() {
            std::fs::create_dir(&tables).map_err(failed)?;
            sync_dir(path).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)), layout: format.layout })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tables(&self) -> PathBuf {
        self.path.join(TABLES)
    }

    /// The layout that the tables had when the directory was opened.
    pub(crate) fn layout(&self) -> u32 {
        self.layout
    }

    /// Notes that a layout step is done.
    pub(crate) fn set_layout(&mut self, engine: EngineKind, layout: u32) -> Result<(), OpenError> {
        let format = Format { layout, engine: engine.name().to_owned() };
        write_atomically(&self.path, FORMAT, format.text().as_bytes())
            .map_err(|source| OpenError::Io { path: self.path.clone(), source })?;
        self.layout = layout;
        Ok(())
    }

    /// Copies `FORMAT` to a backup.
    pub(crate) fn copy_format(&self, to: &Path) -> io::Result<()> {
        let text = std::fs::read(self.path.join(FORMAT))?;
        write_atomically(to, FORMAT, &text)
    }

    /// Lets others open the directory.
    pub(crate) fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The first layout; later ones are numbered by the steps that lead to them.
pub const LAYOUT_VERSION: u32 = 1;

/// The engine of an existing store, `None` when there is no store in this directory.
pub fn engine_of(path: &Path) -> Result<Option<EngineKind>, OpenError> {
    match std::fs::read_to_string(path.join(FORMAT)) {
        Ok(text) => {
            let format =
                Format::parse(&text, u32::MAX).ok_or_else(|| OpenError::NotAStore(path.to_owned()))??;
            let kind = EngineKind::ALL.into_iter().find(|kind| kind.name() == format.engine);
            kind.map(Some).ok_or_else(|| OpenError::NotAStore(path.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

struct Format {
    layout: u32,
    engine: String,
}

impl Format {
    fn text(&self) -> String {
        format!(
            "feedlog store\nformat {FORMAT_VERSION}\nlayout {}\nengine {}\nhash blake3\n",
            self.layout, self.engine
        )
    }

    /// `None` when this is no such file.
    fn parse(text: &str, newest_layout: u32) -> Option<Result<Self, OpenError>> {
        let mut lines = text.lines();
        if lines.next() != Some("feedlog store") {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let version: u32 = field("format")?.parse().ok()?;
        if version > FORMAT_VERSION {
            // What follows may mean anything.
            return Some(Err(OpenError::NewerFormat { found: version, known: FORMAT_VERSION }));
        }
        let layout: u32 = field("layout")?.parse().ok()?;
        if layout > newest_layout {
            return Some(Err(OpenError::NewerLayout { found: layout, known: newest_layout }));
        }
        let engine = field("engine")?.to_owned();
        (field("hash")? == "blake3").then_some(Ok(Self { layout, engine }))
    }
}

/// Replaces a file: whole or not at all after a crash, durable on return.
pub(crate) fn write_atomically(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), EngineKind::Memory, LAYOUT_VERSION).unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), EngineKind::Memory, LAYOUT_VERSION),
            Err(OpenError::Locked(_))
        ));
        first.unlock();
        DataDir::open(dir.path(), EngineKind::Memory, LAYOUT_VERSION).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let open = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(FORMAT), text).unwrap();
            DataDir::open(dir.path(), EngineKind::Memory, LAYOUT_VERSION).map(|dir| dir.layout())
        };
        assert_eq!(open("feedlog store\nformat 1\nlayout 1\nengine memory\nhash blake3\n").unwrap(), 1);
        assert!(matches!(
            open("feedlog store\nformat 2\nwhatever"),
            Err(OpenError::NewerFormat { found: 2, known: 1 })
        ));
        assert!(matches!(
            open("feedlog store\nformat 1\nlayout 9\nengine memory\nhash blake3\n"),
            Err(OpenError::NewerLayout { found: 9, known: 1 })
        ));
        assert!(matches!(
            open("feedlog store\nformat 1\nlayout 1\nengine sled\nhash blake3\n"),
            Err(OpenError::OtherEngine { .. })
        ));
        for bad in [
            "",
            "something",
            "feedlog store\nformat x\n",
            "feedlog store\nformat 1\nlayout 1\nengine memory\n",
        ] {
            assert!(matches!(open(bad), Err(OpenError::NotAStore(_))), "{bad:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(TABLES)).unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), EngineKind::Memory, LAYOUT_VERSION),
            Err(OpenError::NotAStore(_))
        ));
        assert_eq!(engine_of(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }
}
