//! Builds logs on the simulated disk, breaks them, and checks what recovery makes of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_protocol::record::{RecordFields, RecordView, bind_record, encode_record, record_length, write_blank};

use super::durable_point::{DurablePoint, DurablePointFile, LastRecord, StoredPoint};
use super::*;
use crate::disk::{Disk, OpenOptions, create_directories_durably, read_file, write_file};
use crate::log::segment_table::{SegmentSize, file_name};
use crate::sim::{SimDisk, SimRandom};
use crate::types::PhysicalOffset;

mod crashes;
mod decisions;

const SIZE: u64 = 8192;
const WRITE: OpenOptions = OpenOptions { write: true, create: true, direct: false, data_sync: false };

fn size() -> SegmentSize {
    SegmentSize::new(SIZE).unwrap()
}

fn options() -> RecoveryOptions {
    RecoveryOptions {
        segment_size: size(),
        salvage: false,
        max_unsynced_bytes: None,
        index_is_safe: false,
        verify_property_crc: false,
        kernel: KernelRun::Restarted,
    }
}

/// Records by their offsets, in log order.
type Records = Vec<(u64, Vec<u8>)>;

/// Notes every record that it is given.
#[derive(Default)]
struct Notes {
    from: Option<PhysicalOffset>,
    records: Records,
}

impl DispatchSink for Notes {
    fn dispatch_from(&self) -> Option<PhysicalOffset> {
        self.from
    }

    fn record(&mut self, view: &RecordView<'_>, physical_offset: PhysicalOffset) -> io::Result<()> {
        self.records.push((physical_offset.0, view.bytes().to_vec()));
        Ok(())
    }
}

/// A log under construction, as the writer would make it.
struct TestLog {
    disk: SimDisk,
    paths: StorePaths,
    end: u64,
    /// Every record by its offset; what is overwritten later is forgotten.
    records: BTreeMap<u64, Vec<u8>>,
    time_ms: i64,
    property_crc: bool,
}

impl TestLog {
    fn new() -> Self {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        for directory in [paths.commit_log.clone(), paths.own()] {
            create_directories_durably(&disk, &directory).unwrap();
        }
        write_file(&disk, &paths.abort(), b"1").unwrap();
        disk.sync_directory(&paths.root).unwrap();
        Self { disk, paths, end: 0, records: BTreeMap::new(), time_ms: 1_000_000, property_crc: false }
    }

    fn path(&self, offset: u64) -> PathBuf {
        self.paths.commit_log.join(file_name(size().start_of(PhysicalOffset(offset))))
    }

    /// Makes the segment of an offset, whole and durable, if it is missing.
    fn segment(&self, offset: u64) -> Box<dyn crate::disk::DiskFile> {
        let path = self.path(offset);
        if !self.disk.exists(&path).unwrap() {
            let file = self.disk.open(&path, WRITE).unwrap();
            file.allocate(SIZE).unwrap();
            file.sync_data().unwrap();
            self.disk.sync_directory(&self.paths.commit_log).unwrap();
        }
        self.disk.open(&path, WRITE).unwrap()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.segment(offset).write_all_at(bytes, offset % SIZE)
    }

    fn encode(&mut self, body: &[u8], properties: &[u8], offset: u64) -> Vec<u8> {
        let mut properties = properties.to_vec();
        if self.property_crc {
            properties.extend_from_slice(b"__CRC32#\x010000000000\x02");
        }
        let fields = RecordFields {
            born_timestamp: 1_700_000_000_000,
            ..RecordFields::plain("TopicTest", 1, body, &properties)
        };
        let mut record = vec![0; record_length(&fields)];
        encode_record(&fields, &mut record);
        self.time_ms += 10;
        bind_record(&mut record, self.records.len() as i64, offset as i64, self.time_ms);
        if self.property_crc {
            let covered = record.len() - 20;
            let mut crc = crc32fast::hash(&record[..covered]) & 0x7FFF_FFFF;
            for digit in &mut record[covered + 9..covered + 19] {
                *digit = b'0' + (crc % 10) as u8;
                crc /= 10;
            }
        }
        record
    }

    /// Appends one record, behind a blank if it does not fit. Returns its offset; an error is the disk's.
    fn try_append(&mut self, body: &[u8], properties: &[u8]) -> io::Result<u64> {
        let record = self.encode(body, properties, self.end);
        let left = SIZE - self.end % SIZE;
        if record.len() as u64 + 8 > left {
            let mut blank = [0; 8];
            write_blank(&mut blank, left as u32);
            self.write(self.end, &blank)?;
            self.end += left;
            return self.try_append(body, properties);
        }
        let start = self.end;
        self.records.split_off(&start);
        self.records.insert(start, record.clone());
        self.write(start, &record)?;
        self.end = start + record.len() as u64;
        Ok(start)
    }

    fn append(&mut self, body_bytes: usize) -> u64 {
        let body: Vec<u8> = (0..body_bytes).map(|index| (index as u64 + self.end) as u8).collect();
        self.try_append(&body, b"KEYS\x01k1\x02TAGS\x01TagA\x02").unwrap()
    }

    /// Appends until the log has reached an offset.
    fn append_to(&mut self, offset: u64) {
        while self.end < offset {
            self.append(700);
        }
    }

    fn sync(&self) -> io::Result<()> {
        for entry in self.disk.list(&self.paths.commit_log)? {
            self.disk.open(&self.paths.commit_log.join(entry.name), WRITE)?.sync_data()?;
        }
        Ok(())
    }

    fn point_at(&self, offset: u64) -> DurablePoint {
        let last = self.records.range(..offset).next_back();
        let last_record = last.map(|(start, bytes)| LastRecord::of(PhysicalOffset(*start), bytes));
        DurablePoint { offset: PhysicalOffset(offset), last_record }
    }

    /// Syncs everything and says so.
    fn sync_and_point(&self) -> io::Result<()> {
        self.sync()?;
        DurablePointFile::open(&self.disk, &self.paths)?.replace(self.point_at(self.end))
    }

    fn stop_cleanly(&self) {
        self.sync_and_point().unwrap();
        self.disk.remove_file(&self.paths.abort()).unwrap();
        self.disk.sync_directory(&self.paths.root).unwrap();
    }

    fn recover_with(&self, options: &RecoveryOptions) -> Result<(Recovered, Records), RecoveryError> {
        recover_on(&self.disk, options)
    }

    fn recover(&self) -> Result<(Recovered, Records), RecoveryError> {
        self.recover_with(&options())
    }

    /// The records that start at or behind an offset, as a sink would note them.
    fn records_from(&self, offset: u64) -> Records {
        self.records.range(offset..).map(|(start, bytes)| (*start, bytes.clone())).collect()
    }
}

fn recover_on(disk: &SimDisk, options: &RecoveryOptions) -> Result<(Recovered, Records), RecoveryError> {
    let mut notes = Notes::default();
    let recovered = recover(disk, &StorePaths::new("/store"), options, &mut notes)?;
    Ok((recovered, notes.records))
}

/// All segments' bytes by path.
fn log_files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let log = Path::new("/store/commitlog");
    let entries = disk.list(log).unwrap();
    let read = |path: PathBuf| (path.clone(), read_file(disk, &path).unwrap().unwrap());
    entries.into_iter().map(|entry| read(log.join(entry.name))).collect()
}

/// A log over three segments, synced with its point in the middle of the second, and unsynced records behind.
fn three_segments() -> TestLog {
    let mut log = TestLog::new();
    log.append_to(SIZE + 3000);
    log.sync_and_point().unwrap();
    log.append_to(2 * SIZE + 3000);
    log.sync().unwrap();
    log
}
