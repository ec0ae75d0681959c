//! GET_BROKER_RUNTIME_INFO (28): a table of texts that mqadmin, the dashboard and the exporter parse, some of them by
//! position and without checks. Every key that they read is always there; what has no counterpart here is a neutral
//! number. Source: AdminBrokerProcessor.prepareRuntimeInfo, StoreStatsService.getRuntimeInfo.

use std::collections::BTreeMap;

use ringmq_protocol::bodies::{JsonBody, KvTable};
use ringmq_protocol::version;

use super::store_reader::{DiskUsage, PUT_TIME_BUCKETS, Rates, StoreTotals};
use super::{Answer, Control, Handled, Request, java_millis, success};

const PUT_TIME_NAMES: [&str; PUT_TIME_BUCKETS] = [
    "[<=0ms]",
    "[0~10ms]",
    "[10~50ms]",
    "[50~100ms]",
    "[100~200ms]",
    "[200~500ms]",
    "[500ms~1s]",
    "[1~2s]",
    "[2~3s]",
    "[3~4s]",
    "[4~5s]",
    "[5~10s]",
    "[10s~]",
];

/// Keys whose subject does not exist here: thread pools have no queues, timers and transient buffers are not used.
const NEUTRAL: [(&str, &str); 22] = [
    ("dispatchMaxBuffer", "0"),
    ("timerReadBehind", "0"),
    ("timerOffsetBehind", "0"),
    ("timerCongestNum", "0"),
    ("timerEnqueueTps", "0.0"),
    ("timerDequeueTps", "0.0"),
    ("remainTransientStoreBufferNumbs", "0"),
    ("sendThreadPoolQueueCapacity", "10000"),
    ("pullThreadPoolQueueCapacity", "100000"),
    ("litePullThreadPoolQueueSize", "0"),
    ("litePullThreadPoolQueueCapacity", "100000"),
    ("queryThreadPoolQueueSize", "0"),
    ("queryThreadPoolQueueCapacity", "20000"),
    ("ackThreadPoolQueueSize", "0"),
    ("ackThreadPoolQueueCapacity", "100000"),
    ("sendThreadPoolQueueHeadWaitTimeMills", "0"),
    ("pullThreadPoolQueueHeadWaitTimeMills", "0"),
    ("queryThreadPoolQueueHeadWaitTimeMills", "0"),
    ("litePullThreadPoolQueueHeadWaitTimeMills", "0"),
    ("ackThreadPoolQueueHeadWaitTimeMills", "0"),
    ("EndTransactionQueueSize", "0"),
    ("EndTransactionThreadPoolQueueCapacity", "100000"),
];

/// What the control plane adds to the store's numbers.
struct Facts {
    wall_ms: u64,
    totals: StoreTotals,
    log_bounds: (i64, i64),
    accept_sends_from_ms: i64,
}

/// GET_BROKER_RUNTIME_INFO (28).
pub(crate) fn get(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let facts = Facts {
        wall_ms: request.now.wall_ms,
        totals: request.store.totals(),
        log_bounds: request.store.log_bounds(),
        accept_sends_from_ms: control.config.accept_sends_from_ms,
    };
    Ok(Answer::LookUp(Box::new(move |store| {
        let table = table(&facts, &store.disk_usage(), store.earliest_log_time());
        success().with_body(KvTable { table }.encode())
    })))
}

fn table(facts: &Facts, disk: &DiskUsage, earliest_ms: Option<i64>) -> BTreeMap<String, String> {
    let totals = &facts.totals;
    // RocketMQ counts at least one, so that tools can divide.
    let puts = totals.put_messages.max(1);
    let mut table: BTreeMap<String, String> = BTreeMap::new();
    let mut put = |key: &str, value: String| table.insert(key.to_owned(), value);
    for (key, value) in NEUTRAL {
        put(key, value.to_owned());
    }
    put("bootTimestamp", totals.boot_ms.to_string());
    put("runtime", run_time(facts.wall_ms.saturating_sub(totals.boot_ms)));
    put("putMessageEntireTimeMax", totals.put_max_ms.to_string());
    put("putMessageTimesTotal", puts.to_string());
    put("putMessageFailedTimes", totals.put_failures.to_string());
    put("putMessageSizeTotal", totals.put_bytes.to_string());
    put("putMessageDistributeTime", distribution(&totals.put_times));
    put("putMessageAverageSize", decimal(ratio(totals.put_bytes, puts)));
    put("putLatency99", format!("{:.2}", totals.put_p99_ms));
    put("putLatency999", format!("{:.2}", totals.put_p999_ms));
    put("getMessageEntireTimeMax", totals.get_max_ms.to_string());
    put("putTps", rates(&totals.put_rates));
    put("getFoundTps", rates(&totals.get_found_rates));
    put("getMissTps", rates(&totals.get_miss_rates));
    let total: Rates = std::array::from_fn(|window| totals.get_found_rates[window] + totals.get_miss_rates[window]);
    put("getTotalTps", rates(&total));
    put("getTransferredTps", rates(&totals.transferred_rates));
    put("msgPutTotalTodayNow", totals.put_messages.to_string());
    put("msgPutTotalTodayMorning", totals.put_before_today.to_string());
    put("msgPutTotalYesterdayMorning", totals.put_before_yesterday.to_string());
    put("msgGetTotalTodayNow", totals.get_messages.to_string());
    put("msgGetTotalTodayMorning", totals.get_before_today.to_string());
    put("msgGetTotalYesterdayMorning", totals.get_before_yesterday.to_string());
    put("commitLogMinOffset", facts.log_bounds.0.to_string());
    put("commitLogMaxOffset", facts.log_bounds.1.to_string());
    put("commitLogDiskRatio", decimal(disk.log_ratio));
    put(&format!("commitLogDiskRatio_{}", disk.log_path), decimal(disk.log_ratio));
    put("consumeQueueDiskRatio", decimal(disk.queue_ratio));
    let capacity = format!("Total : {}, Free : {}.", bytes(disk.total_bytes), bytes(disk.free_bytes));
    put("commitLogDirCapacity", capacity);
    put("dispatchBehindBytes", totals.dispatch_behind_bytes.to_string());
    put("remainHowManyDataToFlush", bytes(totals.unflushed_bytes));
    put("pageCacheLockTimeMills", totals.write_in_flight_ms.to_string());
    put("earliestMessageTimeStamp", earliest_ms.unwrap_or(-1).to_string());
    put("startAcceptSendRequestTimeStamp", facts.accept_sends_from_ms.to_string());
    put("sendThreadPoolQueueSize", totals.waiting_sends.to_string());
    put("pullThreadPoolQueueSize", totals.waiting_pulls.to_string());
    put("brokerActive", "true".to_owned());
    put("brokerVersion", version::CURRENT.to_string());
    put("brokerVersionDesc", format!("V5_3_3 (RingMQ {})", env!("CARGO_PKG_VERSION")));
    put("currentTimeMillis", java_millis(facts.wall_ms).to_string());
    table
}

fn ratio(numerator: u64, denominator: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let quotient = numerator as f64 / denominator as f64;
    quotient
}

/// A number as `String.valueOf(double)` writes it in the range that occurs here.
fn decimal(value: f64) -> String {
    format!("{value:?}")
}

fn rates(rates: &Rates) -> String {
    let [ten_seconds, minute, ten_minutes] = rates.map(decimal);
    format!("{ten_seconds} {minute} {ten_minutes}")
}

fn distribution(times: &[u64; PUT_TIME_BUCKETS]) -> String {
    PUT_TIME_NAMES.iter().zip(times).map(|(name, count)| format!("{name}:{count} ")).collect()
}

fn run_time(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]", seconds % 60)
}

/// Source: MixAll.humanReadableByteCount with powers of 1024.
fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let exponent = count.ilog2() / 10;
    let unit = ["K", "M", "G", "T", "P", "E"][exponent as usize - 1];
    format!("{:.1} {unit}iB", ratio(count, 1 << (10 * exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, String> {
        let totals = StoreTotals { boot_ms: 1_000, put_messages: 4, put_bytes: 10, ..StoreTotals::default() };
        let facts = Facts { wall_ms: 90_061_000 + 1_000, totals, log_bounds: (0, 4096), accept_sends_from_ms: 0 };
        let disk = DiskUsage {
            log_path: "/data/commitlog".to_owned(),
            total_bytes: 270_474_438_247,
            free_bytes: 1023,
            log_ratio: 0.25,
            queue_ratio: 0.5,
        };
        table(&facts, &disk, Some(77))
    }

    /// Goal: no key that tools read without a check is missing. Method: the exporter's and mqadmin's lists.
    #[test]
    fn every_key() {
        let table = sample();
        let required = "msgPutTotalTodayNow msgPutTotalTodayMorning msgPutTotalYesterdayMorning msgGetTotalTodayNow \
            msgGetTotalTodayMorning msgGetTotalYesterdayMorning putMessageDistributeTime putTps getMissTps getFoundTps \
            getTotalTps getTransferredTps commitLogDirCapacity sendThreadPoolQueueSize sendThreadPoolQueueCapacity \
            sendThreadPoolQueueHeadWaitTimeMills pullThreadPoolQueueSize pullThreadPoolQueueCapacity \
            pullThreadPoolQueueHeadWaitTimeMills queryThreadPoolQueueSize queryThreadPoolQueueCapacity \
            queryThreadPoolQueueHeadWaitTimeMills litePullThreadPoolQueueSize litePullThreadPoolQueueCapacity \
            litePullThreadPoolQueueHeadWaitTimeMills ackThreadPoolQueueSize ackThreadPoolQueueCapacity \
            ackThreadPoolQueueHeadWaitTimeMills EndTransactionQueueSize EndTransactionThreadPoolQueueCapacity \
            remainHowManyDataToFlush bootTimestamp runtime dispatchMaxBuffer brokerVersion brokerVersionDesc \
            consumeQueueDiskRatio commitLogDiskRatio commitLogMinOffset commitLogMaxOffset pageCacheLockTimeMills \
            getMessageEntireTimeMax putMessageEntireTimeMax putMessageTimesTotal putMessageSizeTotal \
            putMessageFailedTimes putMessageAverageSize startAcceptSendRequestTimeStamp earliestMessageTimeStamp \
            remainTransientStoreBufferNumbs dispatchBehindBytes putLatency99 putLatency999 brokerActive \
            timerReadBehind timerOffsetBehind timerCongestNum timerEnqueueTps timerDequeueTps";
        for key in required.split_whitespace() {
            assert!(table.contains_key(key), "{key}");
        }
    }

    /// Goal: texts that are parsed by position have their form. Method: each against the published form.
    #[test]
    fn forms() {
        let table = sample();
        assert_eq!(table["putTps"], "0.0 0.0 0.0");
        assert_eq!(table["commitLogDirCapacity"], "Total : 251.9 GiB, Free : 1023 B.");
        assert_eq!(table["runtime"], "[ 1 days, 1 hours, 1 minutes, 1 seconds ]");
        assert_eq!(table["remainHowManyDataToFlush"], "0 B");
        assert_eq!(table["putMessageAverageSize"], "2.5");
        assert_eq!(table["brokerVersion"], "479");
        assert_eq!(table["commitLogDiskRatio_/data/commitlog"], "0.25");
        assert_eq!(table["putMessageDistributeTime"].split_whitespace().count(), PUT_TIME_BUCKETS);
        assert!(table["putMessageDistributeTime"].starts_with("[<=0ms]:0 [0~10ms]:0 "));
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
