use super::*;
use crate::disk::{DIRECT_ALIGNMENT, RealDisk};
use crate::sim::{CrashPattern, Fault, OperationKind, SimDisk};

const SIZE: u64 = 64 * 1024;

fn options(root: &Path, write_path: WritePath, zero_ahead_bytes: u64) -> SegmentOptions {
    SegmentOptions {
        directory: root.join("commitlog"),
        scratch_directory: root.join("ringmq"),
        size: SegmentSize::new(SIZE).unwrap(),
        write_path,
        zero_ahead_bytes,
    }
}

fn open(disk: &SimDisk, write_path: WritePath, zero_ahead_bytes: u64) -> Segments {
    let options = options(Path::new("/store"), write_path, zero_ahead_bytes);
    Segments::open(Arc::new(disk.clone()), options, PhysicalOffset(0)).unwrap().0
}

/// A new segment is whole and durable before it can be seen: create two, read across their border, and cut the power.
#[test]
fn prepared_segments_are_durable_and_readable() {
    let disk = SimDisk::new();
    let segments = open(&disk, WritePath::DirectSync, 0);
    assert_eq!(segments.snapshot().limit(), None);
    segments.prepare_next(PhysicalOffset(SIZE + 5)).unwrap();
    let list = segments.prepare_next(PhysicalOffset(0)).unwrap();
    assert_eq!((list.min(), list.limit()), (Some(PhysicalOffset(SIZE)), Some(PhysicalOffset(3 * SIZE))));
    let (second, position) = list.locate(PhysicalOffset(2 * SIZE + 7)).unwrap();
    assert_eq!((second.start(), position), (PhysicalOffset(2 * SIZE), 7));
    assert!(list.locate(PhysicalOffset(SIZE - 1)).is_none() && list.locate(PhysicalOffset(3 * SIZE)).is_none());
    list.segments()[0].page_cache().write_all_at(b"ab", SIZE - 2).unwrap();
    second.page_cache().write_all_at(b"cd", 0).unwrap();
    let reader = SegmentReader::new(Arc::new(segments));
    let mut buffer = [0; 4];
    assert_eq!(reader.read_at(PhysicalOffset(2 * SIZE - 2), &mut buffer).unwrap(), 4);
    assert_eq!(&buffer, b"abcd");
    assert_eq!(reader.read_at(PhysicalOffset(3 * SIZE - 2), &mut buffer).unwrap(), 2);
    assert_eq!(reader.read_at(PhysicalOffset(0), &mut buffer).unwrap_err().kind(), io::ErrorKind::NotFound);
    let after = open(&disk.crash(0, CrashPattern::KeepNone), WritePath::PageCache, 0);
    assert_eq!(after.snapshot().segments().len(), 2);
}

/// Without room nothing is left behind and a later attempt succeeds; another error is not taken for lack of room.
#[test]
fn no_space_is_retryable_and_leaves_nothing() {
    let disk = SimDisk::new();
    let segments = open(&disk, WritePath::DirectSync, 8192);
    disk.set_capacity(Some(SIZE / 2));
    assert!(matches!(segments.prepare_next(PhysicalOffset(0)), Err(SegmentError::NoSpace { .. })));
    assert_eq!(disk.paths().len(), 3, "{:?}", disk.paths());
    disk.set_capacity(None);
    disk.inject(Fault::once(OperationKind::Write, 0, libc::EDQUOT));
    assert!(matches!(segments.prepare_next(PhysicalOffset(0)), Err(SegmentError::NoSpace { .. })));
    disk.inject(Fault::once(OperationKind::Sync, 0, libc::EIO));
    assert!(matches!(segments.prepare_next(PhysicalOffset(0)), Err(SegmentError::Io { .. })));
    assert_eq!(disk.paths().len(), 3, "{:?}", disk.paths());
    assert_eq!(segments.prepare_next(PhysicalOffset(0)).unwrap().segments().len(), 1);
}

/// A power cut anywhere while a segment is made leaves a log that loads: cut before every operation, in each pattern.
#[test]
fn a_power_cut_while_preparing_is_harmless() {
    for pattern in CrashPattern::ALL {
        for cut in 0..14 {
            let disk = SimDisk::new();
            let segments = open(&disk, WritePath::DirectSync, 8192);
            segments.prepare_next(PhysicalOffset(0)).unwrap();
            disk.halt_after(cut);
            let finished = segments.prepare_next(PhysicalOffset(0)).is_ok();
            let disk = disk.crash(cut, pattern);
            let after = open(&disk, WritePath::Direct, 0).snapshot().segments().len();
            assert!(after == 2 || (!finished && after == 1), "cut {cut} {pattern:?}: {after}");
            assert!(!disk.paths().iter().any(|path| path.to_string_lossy().ends_with(PREPARING_SUFFIX)));
        }
    }
}

/// Only what is needed for the mode is opened: read-only segments have no direct descriptor.
#[test]
fn finished_segments_are_opened_for_reading() {
    let disk = SimDisk::new();
    let segments = open(&disk, WritePath::Direct, 0);
    segments.prepare_next(PhysicalOffset(0)).unwrap();
    segments.prepare_next(PhysicalOffset(0)).unwrap();
    let options = options(Path::new("/store"), WritePath::Direct, 0);
    let reopened = Segments::open(Arc::new(disk), options, PhysicalOffset(SIZE + 1)).unwrap().0.snapshot();
    let [first, second] = reopened.segments() else { panic!("two segments") };
    assert!(first.file(WritePath::Direct).is_none() && first.file(WritePath::PageCache).is_some());
    assert!(second.file(WritePath::Direct).is_some() && second.file(WritePath::DirectSync).is_none());
    assert_eq!(second.frontier().position(), DIRECT_ALIGNMENT);
}

/// Zeroing moves ahead of the writer and never over what it wrote: append over the frontier, zero, and read back.
#[test]
fn zeroing_stays_ahead_of_the_writer() {
    let disk = SimDisk::new();
    let segments = open(&disk, WritePath::DirectSync, 8192);
    let list = segments.prepare_next(PhysicalOffset(0)).unwrap();
    let segment = &list.segments()[0];
    assert_eq!(segment.frontier().position(), 8192);
    let mut block = AlignedBuffer::zeroed(16384);
    block.fill(7);
    assert!(segment.frontier().admit(16384));
    segment.file(WritePath::DirectSync).unwrap().write_all_at(&block, 0).unwrap();
    assert_eq!(segments.zero_ahead(PhysicalOffset(16384)).unwrap(), SIZE - 16384);
    assert_eq!(segments.zero_ahead(PhysicalOffset(16384)).unwrap(), 0);
    let mut byte = [0; 16385];
    list.read_at(PhysicalOffset(0), &mut byte).unwrap();
    assert!(byte[..16384].iter().all(|byte| *byte == 7) && byte[16384] == 0);
}

/// Goal: a segment of a log that is not synced with each write costs no zeros until such writes come. Method: make one in each way
/// of writing, look how far it is zeroed, and have it zeroed.
#[test]
fn only_synchronous_writes_find_a_new_segment_zeroed() {
    for (way, at_once, later) in [(WritePath::DirectSync, 8192, 0), (WritePath::Direct, 0, 8192)] {
        let disk = SimDisk::new();
        let segments = open(&disk, way, 8192);
        let list = segments.prepare_next(PhysicalOffset(0)).unwrap();
        assert_eq!(list.segments()[0].frontier().position(), at_once);
        // Zeroing takes whole chunks, and a segment is smaller than one.
        assert_eq!(segments.zero_ahead(PhysicalOffset(0)).unwrap() > 0, later > 0);
        assert!(list.segments()[0].frontier().position() >= 8192);
    }
}

/// Retention removes the oldest segment durably, keeps the last, and old snapshots can still read.
#[test]
fn the_oldest_goes_and_the_last_stays() {
    let disk = SimDisk::new();
    let segments = open(&disk, WritePath::PageCache, 0);
    segments.prepare_next(PhysicalOffset(0)).unwrap();
    let before = segments.prepare_next(PhysicalOffset(0)).unwrap();
    let _taken = segments.take_oldest().unwrap().unwrap();
    let after = segments.snapshot();
    assert_eq!(after.min(), Some(PhysicalOffset(SIZE)));
    assert!(segments.take_oldest().unwrap().is_none());
    assert_eq!(before.read_at(PhysicalOffset(0), &mut [0; 8]).unwrap(), 8);
    assert_eq!(open(&disk.crash(0, CrashPattern::KeepNone), WritePath::PageCache, 0).snapshot().segments().len(), 1);
}

/// A segment that has left the log is never lost sight of: when its new name cannot be synced it is given out all the same, its
/// file goes as a whole, and after a power cut the log has all of it or nothing; a removal that fails can be tried again.
#[test]
fn a_segment_that_left_the_log_can_always_be_freed() {
    for after in [0, 1] {
        let disk = SimDisk::new();
        let segments = open(&disk, WritePath::PageCache, 0);
        segments.prepare_next(PhysicalOffset(0)).unwrap();
        segments.prepare_next(PhysicalOffset(0)).unwrap();
        disk.inject(Fault::once(OperationKind::SyncDirectory, after, libc::EIO));
        let mut taken = segments.take_oldest().unwrap().unwrap();
        assert!(taken.unsynced().is_some(), "{after}");
        assert_eq!(segments.snapshot().min(), Some(PhysicalOffset(SIZE)));
        assert!(!taken.shrink(SIZE / 2).unwrap());
        disk.inject(Fault::once(OperationKind::Remove, 0, libc::EIO));
        assert!(taken.remove().is_err());
        for pattern in CrashPattern::ALL {
            let left = open(&disk.crash(1, pattern), WritePath::PageCache, 0).snapshot();
            let lengths: Vec<u64> =
                left.segments().iter().map(|segment| segment.page_cache().length().unwrap()).collect();
            assert!(lengths == [SIZE] || lengths == [SIZE, SIZE], "{after} {pattern:?}: {lengths:?}");
        }
        taken.remove().unwrap();
        assert!(!disk.paths().iter().any(|path| path.to_string_lossy().ends_with(REMOVED_SUFFIX)));
    }
}

/// The same steps on the file system of the host: allocation, direct zeroing, direct writes and holes.
#[test]
fn works_on_the_host() {
    // A folder of a real disk that every user may write to: memory file systems know no direct access.
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = options(directory.path(), WritePath::DirectSync, 8192);
    let (segments, warnings) = Segments::open(Arc::new(RealDisk), options, PhysicalOffset(0)).unwrap();
    assert!(warnings.is_empty());
    let list = segments.prepare_next(PhysicalOffset(0)).unwrap();
    let mut block = AlignedBuffer::zeroed(4096);
    block.fill(5);
    let segment = &list.segments()[0];
    segment.file(WritePath::DirectSync).unwrap().write_all_at(&block, 4096).unwrap();
    let mut read = [0; 8192];
    assert_eq!(list.read_at(PhysicalOffset(0), &mut read).unwrap(), 8192);
    assert_eq!((read[4095], read[4096], read[8191]), (0, 5, 5));
    assert_eq!(segment.page_cache().length().unwrap(), SIZE);
    assert!(segment.raw_fd(WritePath::DirectSync).is_some());
    assert!(segment.page_cache().data_from(0).unwrap().is_some());
}
