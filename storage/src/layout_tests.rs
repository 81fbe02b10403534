//! Steps run once, in order, again after an interruption, and never on a newer store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::conformance::{created, group};
use crate::{
    EngineError, EngineKind, LayoutStep, OpenError, OpenOptions, RawTables, Store, Table, Upcasters,
    open_migrating,
};

/// Copies every name of a feed to a key of its own, and notes that it ran.
struct Step {
    number: u32,
    runs: Arc<AtomicU32>,
    fails: bool,
}

impl LayoutStep for Step {
    fn number(&self) -> u32 {
        self.number
    }

    fn what(&self) -> &'static str {
        "a step of a test"
    }

    fn run(&self, tables: &dyn RawTables) -> Result<(), EngineError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let mut from = vec![33];
        loop {
            let page = tables.page(Table::Meta, &from, 1)?;
            let Some((key, value)) = page.into_iter().next().filter(|(key, _)| key[0] == 33) else { break };
            from = [&key[..], &[0]].concat();
            let mut copy = key;
            copy[0] = 200;
            tables.write(vec![(Table::Meta, copy.clone(), Some(value.clone()))])?;
            assert_eq!(tables.get(Table::Meta, &copy)?, Some(value));
            if self.fails {
                return Err(EngineError::Read("interrupted".into()));
            }
        }
        tables.write(vec![(Table::Meta, vec![201], Some(Bytes::new())), (Table::Meta, vec![201], None)])
    }
}

fn open(dir: &Path, steps: Vec<(u32, &Arc<AtomicU32>, bool)>) -> Result<Store, OpenError> {
    let options =
        OpenOptions { dir: Some(dir.to_owned()), engine: EngineKind::Memory, ..OpenOptions::default() };
    let steps: Vec<Box<dyn LayoutStep>> = steps
        .into_iter()
        .map(|(number, runs, fails)| {
            Box::new(Step { number, runs: runs.clone(), fails }) as Box<dyn LayoutStep>
        })
        .collect();
    open_migrating(&options, Upcasters::default(), &steps)
}

#[test]
fn steps_run_once_in_order_and_again_after_an_interruption() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let store = open(&at("live"), vec![]).unwrap();
    let feed = feedlog_core::ids::FeedId::parse("a").unwrap();
    store.engine().commit(vec![group(vec![created(&feed)])]).pop().unwrap().unwrap();
    store.engine().backup(&at("old")).unwrap();
    let (two, three) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
    let runs = || (two.load(Ordering::Relaxed), three.load(Ordering::Relaxed));
    // Listed in any order; the second is interrupted.
    assert!(matches!(open(&at("old"), vec![(3, &three, true), (2, &two, false)]), Err(OpenError::Engine(_))));
    assert_eq!(runs(), (1, 1));
    drop(open(&at("old"), vec![(3, &three, false), (2, &two, false)]).unwrap());
    assert_eq!(runs(), (1, 2));
    drop(open(&at("old"), vec![(3, &three, false), (2, &two, false)]).unwrap());
    assert_eq!(runs(), (1, 2));
    // An older build refuses, a build without the step too; a new store needs none.
    assert!(matches!(
        open(&at("old"), vec![(2, &two, false)]),
        Err(OpenError::NewerLayout { found: 3, known: 2 })
    ));
    assert!(matches!(open(&at("old"), vec![(4, &two, false), (6, &two, false)]), Err(OpenError::NoStep(5))));
    open(&at("new"), vec![(2, &two, false)]).unwrap();
    assert_eq!(runs().0, 2, "only the step to layout 4");
}
