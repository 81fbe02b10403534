use super::*;

#[test]
fn sled_is_a_kv() {
    crate::kv_suite::suite(Sled::open);
}
