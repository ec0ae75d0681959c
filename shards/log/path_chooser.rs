//! Which way a group of ASYNC_FLUSH is written: through the page cache, or around it.
//!
//! A write to the page cache is one system call and the cheapest way for small groups. For large ones its cost is that of
//! copying into memory, usually 0.2 to 0.4 us per KiB; but where the memory behind new pages has to be made first (a virtual
//! machine whose host took free pages back, a machine short of memory) it is several times that, and all of it stalls the
//! shard. `O_DIRECT` costs a device round trip, during which the next group gathers, and hardly any processor time.
//!
//! So the chooser measures: when the last large writes were all dear, large groups go around the page cache, and now and then
//! one goes through it to find out whether that still holds. A group of one request stays with the page cache: where nobody
//! else sends, nothing gathers during the device's round trip, and the only sender waits for it.
//!
//! While the disk does not answer, and for a while after it did not, everything goes around the page cache: what then waits for
//! the disk is a write in the ring, and not the shard. Pure: durations come from the caller.

/// Groups below this always take the page cache: a device round trip would cost them more than any copy.
const LARGE_BYTES: usize = 64 << 10;

/// A page-cache write above this is dear: two to four times the usual cost of copying.
const DEAR_NS_PER_KIB: u64 = 800;

/// Samples that must all be dear; a single one may just have been interrupted.
const SAMPLES: usize = 4;

/// While large groups go around the page cache, one in so many goes through it.
const PROBE_GROUPS: u32 = 512;

/// What a page-cache write may take besides, for the system call, before it counts as dear.
const CALL_NS: u64 = 3_000;

/// Memory is dear when nearly all of so many writes were: a cheap one takes back three dear ones.
const DEAR_WRITES: u32 = 256;
const CHEAP_TAKES_BACK: u32 = 3;

/// A large write counts as several of this size, up to a quarter of what is needed: hundreds of them would be too many new pages.
const WEIGHT_BYTES: usize = 16 << 10;
const WEIGHT_MAX: usize = 64;

/// A disk that has not answered for so long is not to be waited for. Early write-back keeps syncs far below this on a disk that
/// can take what is sent, and ext4 begins to hold up writes with its next journal commit, up to 5 s later.
const SILENT_MS: u64 = 500;

/// How long such a disk is mistrusted after its last long silence: the next one may come with the next sync.
const MISTRUST_MS: u64 = 5_000;

/// Where a group goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the page cache, inline.
    PageCache,
    /// With `O_DIRECT`, through the ring.
    Direct,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct PathChooser {
    /// Cost of the last large page-cache writes.
    samples_ns_per_kib: [u64; SAMPLES],
    next_sample: usize,
    direct_groups: u32,
    dear_writes: u32,
    is_memory_dear: bool,
    /// The disk is mistrusted until then, by the steady clock.
    mistrusted_until_ms: u64,
    is_mistrusted: bool,
}

impl Default for PathChooser {
    fn default() -> Self {
        Self {
            samples_ns_per_kib: [0; SAMPLES],
            next_sample: 0,
            direct_groups: 0,
            dear_writes: 0,
            is_memory_dear: false,
            mistrusted_until_ms: 0,
            is_mistrusted: false,
        }
    }
}

impl PathChooser {
    /// The disk has not answered for `silent_ms`, at `now_ms` by the steady clock. To be told before each group.
    pub fn note_silence(&mut self, silent_ms: u64, now_ms: u64) {
        if silent_ms >= SILENT_MS {
            self.mistrusted_until_ms = now_ms + MISTRUST_MS;
        }
        self.is_mistrusted = now_ms < self.mistrusted_until_ms;
    }

    /// The way for a group of `length` bytes that `requests` requests have gathered in.
    pub fn choose(&mut self, length: usize, requests: u32) -> Way {
        if self.is_mistrusted {
            return Way::Direct;
        }
        let is_dear = self.samples_ns_per_kib.iter().all(|sample| *sample > DEAR_NS_PER_KIB);
        if length < LARGE_BYTES || requests < 2 || !is_dear {
            return Way::PageCache;
        }
        self.direct_groups += 1;
        if self.direct_groups >= PROBE_GROUPS {
            self.direct_groups = 0;
            return Way::PageCache;
        }
        Way::Direct
    }

    /// A page-cache write of `length` bytes took `elapsed_ns`. True once, when it is certain that new pages are dear here:
    /// then old pages of the log had better be given back for reuse, so that new ones need not be made.
    pub fn page_cache_took(&mut self, length: usize, elapsed_ns: u64) -> bool {
        let weight = (length / WEIGHT_BYTES).clamp(1, WEIGHT_MAX) as u32;
        if elapsed_ns > CALL_NS + DEAR_NS_PER_KIB * (length as u64 >> 10) {
            self.dear_writes = self.dear_writes.saturating_add(weight);
        } else {
            self.dear_writes = self.dear_writes.saturating_sub(CHEAP_TAKES_BACK * weight);
        }
        if length >= LARGE_BYTES {
            self.samples_ns_per_kib[self.next_sample] = elapsed_ns / (length as u64 >> 10);
            self.next_sample = (self.next_sample + 1) % SAMPLES;
        }
        let is_news = !self.is_memory_dear && self.dear_writes >= DEAR_WRITES;
        self.is_memory_dear |= is_news;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: usize = 256 << 10;
    const CHEAP_NS: u64 = 256 * 300;
    const DEAR_NS: u64 = 256 * 2_200;

    /// Small groups never leave the page cache, large ones only after several dear writes in a row, and one cheap write
    /// brings them back: play each case.
    #[test]
    fn goes_around_the_page_cache_only_while_it_is_dear() {
        let mut chooser = PathChooser::default();
        for _ in 0..SAMPLES {
            assert_eq!(chooser.choose(GROUP, 9), Way::PageCache);
            chooser.page_cache_took(GROUP, DEAR_NS);
        }
        assert_eq!(chooser.choose(GROUP, 9), Way::Direct);
        assert_eq!(chooser.choose(8 << 10, 9), Way::PageCache);
        assert_eq!(chooser.choose(GROUP, 1), Way::PageCache, "nothing would gather meanwhile");
        chooser.page_cache_took(8 << 10, 1);
        assert_eq!(chooser.choose(GROUP, 9), Way::Direct, "small writes say nothing about large ones");
        chooser.page_cache_took(GROUP, CHEAP_NS);
        assert_eq!(chooser.choose(GROUP, 9), Way::PageCache);
    }

    /// One interrupted write must not change the way: mix dear and cheap ones.
    #[test]
    fn ignores_a_single_dear_write() {
        let mut chooser = PathChooser::default();
        for round in 0..100 {
            assert_eq!(chooser.choose(GROUP, 9), Way::PageCache);
            chooser.page_cache_took(GROUP, if round % 3 == 0 { CHEAP_NS } else { DEAR_NS });
        }
    }

    /// That memory is dear is said once, and only when nearly every write was: mix them, then let all be dear.
    #[test]
    fn tells_once_that_memory_is_dear() {
        let mut chooser = PathChooser::default();
        assert!(
            (0..10_000).all(|round| !chooser.page_cache_took(8 << 10, if round % 3 == 0 { 4_000 } else { 40_000 }))
        );
        let told = (0..1_000).filter(|_| chooser.page_cache_took(8 << 10, 40_000)).count();
        assert_eq!(told, 1);
        let mut chooser = PathChooser::default();
        let mebibyte = 1 << 20;
        assert_eq!((0..9).position(|_| chooser.page_cache_took(mebibyte, 1_024 * 2_200)), Some(3));
    }

    /// On a disk that does not answer nothing goes through the page cache, nor soon after: silences, and every kind of group.
    #[test]
    fn mistrusts_a_silent_disk() {
        let mut chooser = PathChooser::default();
        let mut ways = |silent_ms, now_ms| {
            chooser.note_silence(silent_ms, now_ms);
            [(4 << 10, 1), (8 << 10, 9), (GROUP, 1), (GROUP, 9)]
                .map(|(length, requests)| chooser.choose(length, requests))
        };
        assert_eq!(ways(SILENT_MS - 1, 1_000_000), [Way::PageCache; 4]);
        assert_eq!(ways(SILENT_MS, 1_000_001), [Way::Direct; 4]);
        assert_eq!(ways(30_000, 1_030_000), [Way::Direct; 4]);
        assert_eq!(ways(0, 1_030_000 + MISTRUST_MS - 1), [Way::Direct; 4], "it has just begun to answer");
        assert_eq!(ways(0, 1_030_000 + MISTRUST_MS), [Way::PageCache; 4]);
    }

    /// The page cache is tried again in the long run: count the groups until then.
    #[test]
    fn probes_the_page_cache_again() {
        let mut chooser = PathChooser::default();
        (0..SAMPLES).for_each(|_| assert!(!chooser.page_cache_took(GROUP, DEAR_NS)));
        let direct = (0..PROBE_GROUPS).take_while(|_| chooser.choose(GROUP, 9) == Way::Direct).count();
        assert_eq!(direct, PROBE_GROUPS as usize - 1);
    }
}
