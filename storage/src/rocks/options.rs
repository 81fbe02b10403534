//! Every option of RocksDB that differs from its default, with the reason.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    LogLevel, Options, SliceTransform,
};

use crate::kv::{KvOptions, Table};

/// Keys of entries and rows begin with the feed's number.
pub(super) const PREFIX_BYTES: usize = 8;

/// Memory for entries before they are written to a table. Large enough that tables are few and batches never wait.
const ENTRIES_MEMTABLE_BYTES: usize = 32 << 20;
/// The same for rows, which are smaller.
const ROWS_MEMTABLE_BYTES: usize = 16 << 20;
/// The same for the rest.
const META_MEMTABLE_BYTES: usize = 16 << 20;
/// Memtables of one kind: one that fills, others that wait for their flush. Writes stall when all are full.
const MEMTABLES_MAX: i32 = 3;
/// When the WAL holds more, everything is flushed: opening after a crash replays at most about this much.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// Finished WAL files kept for reuse. Writing over old blocks needs no new extents and no change of the file's size,
/// so fdatasync commits no journal transaction.
const RECYCLED_WALS: usize = 3;
/// Uncompressed size of a block: what a read of one key decompresses.
const BLOCK_BYTES: usize = 16 << 10;
/// The same for rows, which are small and read one at a time.
const ROWS_BLOCK_BYTES: usize = 8 << 10;
/// Size of one part of a divided index or filter.
const METADATA_BLOCK_BYTES: usize = 4 << 10;
/// About 1 % false positives.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Share of a memtable spent on its own bloom filter, so that most absent keys cost no search.
const MEMTABLE_BLOOM_RATIO: f64 = 0.05;
/// Table files held open: bounds file handles and the memory of their footers.
const OPEN_FILES_MAX: i32 = 512;
/// Threads that flush and compact: one per processor within these bounds.
const BACKGROUND_JOBS: std::ops::RangeInclusive<i32> = 2..=8;
/// Table files are written out in pieces of this size, so that no fdatasync of the WAL queues behind hundreds of
/// megabytes of dirty pages.
const BYTES_PER_SYNC: u64 = 1 << 20;
/// How entries of the last level are compressed. Measured (`pulls` in the tests: 500,000 entries of 291 bytes, 200 of them
/// text; the newest 50 of a random feed, mostly not cached; processor time of the pull, bytes on disk per entry, time
/// to compact all of them):
///
/// | | pull | disk | compaction |
/// |---|---|---|---|
/// | lz4 | 36 µs | 181 | 1.3 s |
/// | lz4, dictionary of 16 KiB | 40 µs | 167 | 2.4 s |
/// | lz4hc level 4 | 33 µs | 157 | 4.9 s |
/// | lz4hc level 9, dictionary | 47 µs | 135 | 13.6 s |
/// | zstd level 3 | 56 µs | 128 | 4 s to 7 s |
/// | zstd level 3, dictionary | 65 µs to 71 µs | 117 | 5 s to 6 s |
///
/// Blocks of 8 KiB save 4 µs to 8 µs with zstd and 1 µs with lz4. A pull may take 40 µs, and a message 240 bytes with its
/// rows (220 with lz4, 162 with zstd and a dictionary), so time is worth more here than size. A dictionary would also
/// hold a whole table in memory while it is written.
const ENTRIES_LAST_LEVEL: DBCompressionType = DBCompressionType::Lz4;
/// RocksDB's "default level": plain lz4. With a level above 0 it would take the slow lz4hc for it.
const LZ4_LEVEL: i32 = 32_767;
/// zstd for rows and the rest at the last level, where little is rewritten.
const ZSTD_LEVEL: i32 = 3;
/// How much larger than a dictionary the sample is that it is trained on.
const ZSTD_TRAIN_FACTOR: i32 = 100;
/// Checksums of the footer too, and mixed with the place of a block, so that a block in a wrong place is damage.
const TABLE_FORMAT: i32 = 6;
/// Size at which the manifest is begun anew.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// RocksDB's own log: small, for people who look after a fault.
const INFO_LOG_BYTES_MAX: usize = 1 << 20;
const INFO_LOGS: usize = 2;
/// Cache of the second opening that checks table files.
pub(super) const EXTRA_CHECK_CACHE_BYTES: usize = 4 << 20;

/// What the column families share.
pub(super) struct Shared {
    cache: Cache,
    pub(super) tuning: Tuning,
}

/// How entries are kept: what a measurement may change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) block_bytes: usize,
    pub(super) last_level: DBCompressionType,
    pub(super) level: i32,
    pub(super) dictionary_bytes: i32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            block_bytes: BLOCK_BYTES,
            last_level: ENTRIES_LAST_LEVEL,
            level: LZ4_LEVEL,
            dictionary_bytes: 0,
        }
    }
}

impl Shared {
    pub(super) fn new(options: &KvOptions) -> Self {
        Self { cache: Cache::new_lru_cache(options.cache_bytes), tuning: Tuning::default() }
    }

    pub(super) fn cache_bytes_used(&self) -> usize {
        self.cache.get_usage()
    }

    /// Options of the database.
    pub(super) fn db(&self) -> Options {
        let mut db = Options::default();
        db.create_if_missing(true);
        db.create_missing_column_families(true);
        db.set_paranoid_checks(true);
        // Recovery ends at the first record that is not whole, as a crash leaves one. Other modes, and time or size
        // limits on old WALs, silently switch recycling off (`SanitizeOptions`), so there are none.
        db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        db.set_recycle_log_file_num(RECYCLED_WALS);
        db.set_max_total_wal_size(WAL_BYTES_MAX);
        // All tables become files together. Else a manifest cut short could lose the entries of a batch and keep its
        // change row, and the tail guard, which looks at the change row, would not see it.
        db.set_atomic_flush(true);
        db.set_max_open_files(OPEN_FILES_MAX);
        db.set_skip_stats_update_on_db_open(true); // opening reads no table files
        let processors = std::thread::available_parallelism().map_or(2, |count| count.get() as i32);
        db.set_max_background_jobs(processors.clamp(*BACKGROUND_JOBS.start(), *BACKGROUND_JOBS.end()));
        db.set_bytes_per_sync(BYTES_PER_SYNC);
        db.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
        db.set_log_level(LogLevel::Warn);
        db.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        db.set_keep_log_file_num(INFO_LOGS);
        db.set_stats_dump_period_sec(0);
        db.set_stats_persist_period_sec(0);
        db
    }

    /// The column families in the order of their creation. `meta` is last: a manifest that lost its end lost `meta`
    /// first, and with it the newest change row, which the tail guard misses.
    pub(super) fn families(&self) -> Vec<ColumnFamilyDescriptor> {
        let mut families =
            vec![ColumnFamilyDescriptor::new(rocksdb::DEFAULT_COLUMN_FAMILY_NAME, self.plain())];
        for table in Table::ALL {
            let options = match table {
                Table::Entries => self.entries(),
                Table::Rows => self.rows(),
                Table::Meta => self.meta(),
            };
            families.push(ColumnFamilyDescriptor::new(table.name(), options));
        }
        families
    }

    fn blocks(&self, block_bytes: usize) -> BlockBasedOptions {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_block_size(block_bytes);
        blocks.set_format_version(TABLE_FORMAT);
        // Index and filters live in the bounded cache, in parts: memory does not grow with data, and a cold read loads
        // 4 KiB of them instead of hundreds.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(METADATA_BLOCK_BYTES);
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        blocks.set_optimize_filters_for_memory(true);
        blocks
    }

    fn plain(&self) -> Options {
        let mut family = Options::default();
        family.set_block_based_table_factory(&self.blocks(BLOCK_BYTES));
        family
    }

    fn common(memtable_bytes: usize) -> Options {
        let mut family = Options::default();
        family.set_write_buffer_size(memtable_bytes);
        family.set_max_write_buffer_number(MEMTABLES_MAX);
        family.set_compression_type(DBCompressionType::Lz4);
        family.set_bottommost_compression_type(DBCompressionType::Zstd);
        // -14: zlib's window, which zstd ignores.
        family.set_bottommost_compression_options(-14, ZSTD_LEVEL, 0, 0, true);
        family
    }

    /// Read by range within one feed; never by an absent key.
    fn entries(&self) -> Options {
        // No filter on the memtable: whoever reads a feed knows that it is there.
        let mut family = Self::common(ENTRIES_MEMTABLE_BYTES);
        let Tuning { block_bytes, last_level, level, dictionary_bytes } = self.tuning;
        family.set_bottommost_compression_type(last_level);
        family.set_bottommost_compression_options(-14, level, 0, dictionary_bytes, true);
        family.set_bottommost_zstd_max_train_bytes(ZSTD_TRAIN_FACTOR * dictionary_bytes, true);
        let mut blocks = self.blocks(block_bytes);
        blocks.set_whole_key_filtering(false);
        family.set_block_based_table_factory(&blocks);
        family.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
        family
    }

    /// Read by key, mostly absent ones (a message id never used before), and by range within one feed.
    fn rows(&self) -> Options {
        let mut family = Self::common(ROWS_MEMTABLE_BYTES);
        let mut blocks = self.blocks(ROWS_BLOCK_BYTES);
        blocks.set_whole_key_filtering(true);
        family.set_block_based_table_factory(&blocks);
        family.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
        family.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        family.set_memtable_whole_key_filtering(true);
        family
    }

    /// Read by key and by range, without a common prefix.
    fn meta(&self) -> Options {
        let mut family = Self::common(META_MEMTABLE_BYTES);
        let mut blocks = self.blocks(ROWS_BLOCK_BYTES);
        blocks.set_whole_key_filtering(true);
        family.set_block_based_table_factory(&blocks);
        family
    }
}
