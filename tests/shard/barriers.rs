//! What recoveries make of the barriers of deleted topics.

use ringmq_shards::sim::{CrashPattern, SimDisk, SimRandom};

use super::crash::{Life, Past, TOPICS, open, power_on, promised};
use super::world::Mode;

/// Goal: a barrier that a start believed does not give way to the one before it, not even if the process before died while it
/// wrote it: what is acknowledged afterwards would count as deleted. Method: a kill at each operation of a deletion, a message
/// to the topic made again, and a power cut that takes whatever is not synced.
#[test]
fn a_barrier_outlives_a_kill_and_a_power_cut() {
    let mode = Mode::SyncDurable;
    let send = |life: &mut Life, past: &mut Past| {
        let before = past.records.len();
        while past.records.len() == before {
            life.append_to(past, TOPICS[1]);
        }
        life.write_all(past);
    };
    for cut in 0.. {
        let (disk, mut random, mut past) = (SimDisk::new(), SimRandom::new(cut), Past::default());
        power_on(&disk, &mut random);
        let mut life = open(&disk, mode, 1).expect("an empty store opens");
        send(&mut life, &mut past);
        life.flush_durably();
        disk.halt_after(cut);
        let is_last = life.delete(&mut past, TOPICS[1]).is_ok();
        drop(life);
        let killed = disk.kill();
        let mut life = open(&killed, mode, 2).expect("a killed store opens");
        let at_kill = promised(mode, &past, true);
        life.check(&mut past, at_kill).unwrap_or_else(|broken| panic!("kill at {cut}: {broken}"));
        send(&mut life, &mut past);
        drop(life);
        let crashed = killed.crash(cut, CrashPattern::KeepNone);
        power_on(&crashed, &mut random);
        let life = open(&crashed, mode, 3).expect("a crashed store opens");
        let at_crash = promised(mode, &past, false);
        life.check(&mut past, at_crash).unwrap_or_else(|broken| panic!("power cut after a kill at {cut}: {broken}"));
        if is_last {
            return;
        }
    }
}
