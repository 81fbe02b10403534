use super::*;

#[test]
fn rocksdb_is_a_kv() {
    crate::kv_suite::suite(Rocks::open);
}
