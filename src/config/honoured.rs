//! The keys that RingMQ uses: one row each, from which both the table and the typed [`Config`] are made.
//!
//! A row reads: what the key is for; field and type; RocketMQ's name (`-` for a key of our own), its configuration
//! object, kind, default, and when a change takes effect.

use std::net::{IpAddr, SocketAddr};

use ringmq_shards::queue::limits::{ENTRY_BYTES, MAXIMUM_SHARDS};

use super::keys::{Change, Key, Origin};
use super::settings::Settings;
use super::values::{FlushDiskType, FromText, Kind, LogLevel, TimeUnit, WritePath};

const I32_MAX: u64 = i32::MAX as u64;
const BOOL: Kind = Kind::Bool;
const PORT: Kind = Kind::Integer { min: 3, max: 65_535 };

const fn int(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn ms(min: u64, max: u64) -> Kind {
    Kind::Duration { unit: TimeUnit::Milliseconds, min, max }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Duration { unit: TimeUnit::Seconds, min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Size { min, max, multiple_of: 1 }
}

const fn blocks(min: u64, max: u64) -> Kind {
    Kind::Size { min, max, multiple_of: 4096 }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn java_name(name: &'static str) -> Option<&'static str> {
    if name.len() > 1 { Some(name) } else { None }
}

macro_rules! honoured_keys {
    ($($section:literal { $(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $java:literal, $origin:ident, $kind:expr, $default:literal, $change:ident;
    )+ })+) => {
        /// All rows, by section.
        pub(super) const KEYS: &[Key] = &[$($(
            Key {
                name: stringify!($field),
                java: java_name($java),
                origin: Origin::$origin,
                section: $section,
                kind: $kind,
                default: $default,
                change: Change::$change,
                doc: concat!($($doc, "\n"),+),
            },
        )+)+];

        /// The settings in use, one field per key, typed. Built once at start; live changes touch the fields of live
        /// keys.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(
                $(#[doc = $doc])+
                pub $field: $type,
            )+)+
            /// Texts and where they came from.
            pub(super) settings: Settings,
        }

        impl Config {
            /// Builds the typed values; `Err` names a key whose text is not of its type.
            pub(super) fn from_settings(settings: Settings) -> Result<Config, &'static str> {
                Ok(Config {
                    $($( $field: FromText::from_text(settings.text(stringify!($field))).ok_or(stringify!($field))?, )+)+
                    settings,
                })
            }

            /// Takes the value of one key from another configuration.
            pub(super) fn take(&mut self, name: &str, other: &Config) {
                match name {
                    $($( stringify!($field) => self.$field = other.$field.clone(), )+)+
                    _ => {}
                }
            }
        }
    };
}

honoured_keys! {
    "Addresses and ports" {
        /// Address on which broker and name server listen. The default keeps a fresh install private to its machine;
        /// `0.0.0.0` opens it to the network, and everyone who can connect can then read, write and administrate.
        listen: IpAddr = "bindAddress", Netty, Kind::Ip, "127.0.0.1", Restart;
        /// Address that clients are told to connect to. A host name is told as it is; for the store host of records, which is
        /// an address, it is resolved once at start. Empty: the address of `listen`, or the machine's own if that is `0.0.0.0`.
        advertise: String = "brokerIP1", Broker, Kind::Name, "", Restart;
        /// Port of the broker.
        broker_port: u16 = "listenPort", Broker, PORT, "10911", Restart;
        /// Whether the broker also listens on its port minus 2, which older clients and Java slaves use.
        fast_port_enable: bool = "-", Ringmq, BOOL, "true", Restart;
        /// Port of the name server.
        namesrv_port: u16 = "-", Ringmq, PORT, "9876", Restart;
        /// Name servers that the broker registers with, besides the one in its own process.
        namesrv_addr: Vec<String> = "namesrvAddr", Broker, Kind::Addresses, "", Live;
        /// Address that other brokers would use for replication. It is announced, nothing listens there yet.
        /// Empty: as `advertise`.
        broker_ip2: String = "brokerIP2", Broker, Kind::Name, "", Restart;
        /// Port that is announced for replication. 0: the broker's port plus 1.
        ha_listen_port: u16 = "haListenPort", Store, int(0, 65_535), "0", Restart;
        /// Where metrics are served over HTTP, apart from the ports of the protocol. `off`: nowhere.
        metrics_listen: Option<SocketAddr> = "-", Ringmq, Kind::OptionalSocket, "127.0.0.1:9874", Restart;
        /// Connections that may wait to be accepted, per listening socket. The system's `net.core.somaxconn` caps it.
        server_socket_backlog: u32 = "serverSocketBacklog", Netty, int(1, 65_535), "1024", Restart;
        /// Size of a connection's send buffer in the kernel. 0: the kernel adapts it, which is nearly always better.
        server_socket_snd_buf_size: u32 = "serverSocketSndBufSize", Netty, bytes(0, GIB), "0", Restart;
        /// Size of a connection's receive buffer in the kernel. 0: the kernel adapts it.
        server_socket_rcv_buf_size: u32 = "serverSocketRcvBufSize", Netty, bytes(0, GIB), "0", Restart;
        /// A connection that neither sends nor receives for this long is closed. Clients send heartbeats every 30 s.
        server_channel_max_idle_time_seconds: u64 = "serverChannelMaxIdleTimeSeconds", Netty,
            seconds(1, 86_400), "120", Restart;
        /// A request that has begun to arrive must be complete after this long, or its connection is closed: a peer that
        /// drips bytes holds memory. While memory is exhausted it is 5 s at most.
        frame_timeout: u64 = "-", Ringmq, ms(100, 3_600_000), "30000", Live;
    }
    "Identity and registration" {
        /// Cluster that the broker says it belongs to.
        broker_cluster_name: String = "brokerClusterName", Broker, Kind::Name, "DefaultCluster", Restart;
        /// Name of the broker. Empty: the host name at the first start, kept from then on in the data directory.
        broker_name: String = "brokerName", Broker, Kind::Name, "", Restart;
        /// 0 is the master of its name. Others are slaves, which are not served yet.
        broker_id: u64 = "brokerId", Broker, int(0, i64::MAX), "0", Restart;
        /// What clients may do here: 4 read, 2 write, 6 both. A change is registered with the name servers at once.
        broker_permission: u32 = "brokerPermission", Broker, int(0, 7), "6", Live;
        /// How often the broker registers with its name servers. They forget a broker after two minutes.
        register_name_server_period: u64 = "registerNameServerPeriod", Broker, ms(10_000, 60_000), "30000", Restart;
        /// How long the broker waits for a name server's answer.
        register_broker_timeout_mills: u64 = "registerBrokerTimeoutMills", Broker, ms(100, 60_000), "24000", Restart;
        /// Region that is written into answers and traces.
        region_id: String = "regionId", Broker, Kind::Name, "DefaultRegion", Restart;
    }
    "Cores and waiting" {
        /// Processors to run on. Empty: those of `ringmq/cpus.toml` in the data directory, which `ringmq tune cpus` writes,
        /// else all that the process may use.
        cores: Vec<usize> = "-", Ringmq, Kind::Cores, "", Restart;
        /// Shards, one pinned thread each. 0: one per processor of `cores`. More shards than processors only adds
        /// switches.
        shards: u32 = "-", Ringmq, int(0, MAXIMUM_SHARDS as i64), "0", Restart;
        /// How long an idle shard looks for work before it sleeps, at most: a sleep costs the next request a wake-up of
        /// 10 to 80 us. The time follows the load (it grows while pauses are shorter than this, and shrinks to nothing
        /// while they are longer), so that an idle broker sleeps. Not used when shards share processors. 0: never.
        spin_before_sleep_us: u64 = "-", Ringmq,
            Kind::Duration { unit: TimeUnit::Microseconds, min: 0, max: 1_000_000 }, "200", Restart;
        /// How long a group of SYNC_FLUSH waits for the senders of the group before it, at most. It waits only while that
        /// is found to pay: where most senders send again as soon as they are answered, one write then carries the
        /// messages of all, and not of half of them. Not where SYNC_FLUSH goes through the page cache. 0: never.
        commit_delay_max_us: u64 = "-", Ringmq,
            Kind::Duration { unit: TimeUnit::Microseconds, min: 0, max: 1_000_000 }, "1000", Restart;
    }
    "Memory and limits" {
        /// Budget for ring, buffers, caches and requests in flight. `auto`: half of what machine and container allow;
        /// the other half is for the page cache.
        memory: Option<u64> = "-", Ringmq, Kind::AutoSize { min: 64 * MIB }, "auto", Restart;
        /// Memory for the newest part of the commit log; consumers that keep up are served from it. It is taken as the
        /// log grows after a start.
        log_ring_bytes: u64 = "-", Ringmq, blocks(16 * MIB, 64 * GIB), "67108864", Restart;
        /// Whether the kernel is asked to keep `log_ring_bytes` on huge pages, once there is traffic: fewer page faults and
        /// walks through page tables for the writer. It does so without any setting for transparent huge pages.
        log_ring_huge_pages: bool = "-", Ringmq, BOOL, "true", Restart;
        /// Memory for reads of messages that are neither in the ring nor in the page cache. More lets a backlog drain
        /// faster and disturb other clients more.
        cold_read_bytes: u64 = "-", Ringmq, bytes(MIB, 64 * GIB), "67108864", Restart;
        /// Connections, all shards together. Each costs a descriptor and a few KiB; mind `ulimit -n`.
        max_connections: u64 = "-", Ringmq, int(1, 1_000_000), "20000", Live;
        /// Largest request. RocketMQ's clients and servers accept 16 MiB.
        max_frame_bytes: u64 = "-", Ringmq, bytes(64 * KIB, 256 * MIB), "16777216", Restart;
        /// Bytes of requests and answers in flight per connection, past which its socket is not read. One request is
        /// always admitted, whatever its size.
        connection_in_flight_bytes: u64 = "-", Ringmq, bytes(64 * KIB, GIB), "8388608", Restart;
        /// Pull requests that wait for messages, all shards together. Past it a pull is answered at once.
        max_held_pulls: u64 = "-", Ringmq, int(1, 100_000_000), "200000", Live;
        /// Topics of this broker. Past it none is created, neither by tools nor by sending.
        max_topics: u64 = "-", Ringmq, int(1, 1_000_000), "50000", Live;
        /// Queues of this broker, all topics together. Each has memory for its tail and a file of its own.
        max_queues: u64 = "-", Ringmq, int(1, 4_000_000), "200000", Live;
        /// Consumer groups of this broker.
        max_groups: u64 = "-", Ringmq, int(1, 1_000_000), "50000", Live;
        /// Longest message body. With topic and properties it must fit into `max_frame_bytes` and a segment.
        max_message_size: u64 = "maxMessageSize", Store, bytes(1, 128 * MIB), "4194304", Live;
    }
    "Logging" {
        /// Least severe level that is logged: error, warn, info, debug or trace.
        log_level: LogLevel = "-", Ringmq, Kind::Choice(&["error", "warn", "info", "debug", "trace"]), "info", Live;
        /// `stderr` or the path of a file, which is appended to. Lines that the target cannot take in time are
        /// dropped and counted, so logging never holds up messages.
        log_target: String = "-", Ringmq, Kind::Text, "stderr", Restart;
    }
    "Durability" {
        /// ASYNC_FLUSH answers a send when its bytes survive the end of the process; SYNC_FLUSH when they also
        /// survive a power cut, one sync for all that has gathered.
        flush_disk_type: FlushDiskType = "flushDiskType", Store,
            Kind::Choice(&["ASYNC_FLUSH", "SYNC_FLUSH"]), "ASYNC_FLUSH", Restart;
        /// How often the log is synced in ASYNC_FLUSH: what a power cut can take. Longer means fewer syncs and a
        /// larger loss.
        flush_interval_commit_log: u64 = "flushIntervalCommitLog", Store, ms(1, 60_000), "500", Live;
        /// How often queue files are synced. They can be made again from the log, so this only shortens recovery.
        flush_interval_consume_queue: u64 = "flushIntervalConsumeQueue", Store, ms(1, 600_000), "1000", Live;
        /// How long a send waits for the disk: for its sync in SYNC_FLUSH, for its write in ASYNC_FLUSH. Past it the answer
        /// is FLUSH_DISK_TIMEOUT: whether the message is kept is unknown. A send for which the log has had no room for so
        /// long is not kept and answered with SYSTEM_BUSY.
        sync_flush_timeout: u64 = "syncFlushTimeout", Store, ms(1, 600_000), "5000", Live;
        /// How the log is written in ASYNC_FLUSH: through the page cache or with O_DIRECT. auto takes the page cache, and
        /// O_DIRECT for large groups while new pages of memory are measured to be dear, and for all while the disk does
        /// not answer: a write to the page cache could hold up everybody then.
        async_write_path: WritePath = "-", Ringmq, Kind::Choice(&["auto", "page_cache", "direct"]), "auto", Restart;
        /// How the log is written in SYNC_FLUSH. auto takes O_DIRECT with O_DSYNC where the file system can.
        sync_write_path: WritePath = "-", Ringmq, Kind::Choice(&["auto", "page_cache", "direct"]), "auto", Restart;
        /// Bytes after which the kernel is asked to start writing back the log. Smaller spreads the work, larger
        /// gathers it into stalls.
        write_back_bytes: u64 = "-", Ringmq, blocks(64 * KIB, GIB), "8388608", Restart;
        /// How far ahead of the log's end a segment is zeroed while the log is written around the page cache, so that
        /// such writes have no blocks to account for. It doubles what the disk is given to write; 0 for disks without
        /// that to spare.
        zero_ahead_bytes: u64 = "-", Ringmq, blocks(0, 4 * GIB), "67108864", Restart;
    }
    "Store" {
        /// Data directory, in RocketMQ's form. RingMQ's own files are in its folder `ringmq`.
        data_dir: String = "storePathRootDir", Store, Kind::Text, "./ringmq-data", Fixed;
        /// Directory of the commit log. Empty: `commitlog` in the data directory.
        store_path_commit_log: String = "storePathCommitLog", Store, Kind::Text, "", Restart;
        /// Size of a commit log file. A store that has files of another size is refused.
        mapped_file_size_commit_log: u64 = "mappedFileSizeCommitLog", Store,
            blocks(64 * KIB, I32_MAX - 4095), "1073741824", Restart;
        /// Size of a queue file, 20 bytes per message.
        mapped_file_size_consume_queue: u64 = "mappedFileSizeConsumeQueue", Store,
            Kind::Size { min: ENTRY_BYTES, max: I32_MAX - 7, multiple_of: ENTRY_BYTES }, "6000000", Restart;
        /// Whether messages are indexed by key and id, so that tools can look them up.
        message_index_enable: bool = "messageIndexEnable", Store, BOOL, "true", Restart;
        /// Hash slots of an index file, 4 bytes each.
        max_hash_slot_num: u64 = "maxHashSlotNum", Store, int(1, 100_000_000), "5000000", Restart;
        /// Entries of an index file, 20 bytes each.
        max_index_num: u64 = "maxIndexNum", Store, int(2, 100_000_000), "20000000", Restart;
    }
    "Retention" {
        /// How long a file of the log is kept after it was last written, in hours.
        file_reserved_time: u64 = "fileReservedTime", Store, int(0, 1_000_000), "72", Live;
        /// Local hours in which expired files go, separated by `;`.
        delete_when: String = "deleteWhen", Store, Kind::Text, "04", Live;
        /// Use of the disk in percent above which expired files go at any hour. Kept between 10 and 95.
        disk_max_used_space_ratio: u32 = "diskMaxUsedSpaceRatio", Store, int(0, 100), "75", Live;
        /// Use of the disk in percent above which the oldest files go whatever their age. Kept between 30 and 85.
        disk_space_clean_forcibly_ratio: u32 = "diskSpaceCleanForciblyRatio", Store, int(0, 100), "85", Live;
        /// Use of the disk in percent above which sends are refused, until it is down to the one before. Kept between 35
        /// and 90.
        disk_space_warning_level_ratio: u32 = "diskSpaceWarningLevelRatio", Store, int(0, 100), "90", Live;
        /// Whether files that are not expired go when the disk is that full.
        clean_file_forcibly_enable: bool = "cleanFileForciblyEnable", Store, BOOL, "true", Live;
        /// How often files are looked at.
        clean_resource_interval: u64 = "cleanResourceInterval", Store, ms(100, 3_600_000), "10000", Live;
        /// Files of the log that one look removes at most.
        delete_file_batch_max: u32 = "deleteFileBatchMax", Store, int(1, 10_000), "10", Live;
        /// Pause between two removed files of the log.
        delete_commit_log_files_interval: u64 = "deleteCommitLogFilesInterval", Store, ms(0, 60_000), "100", Live;
        /// Pause between the queue files of two queues.
        delete_consume_queue_files_interval: u64 = "deleteConsumeQueueFilesInterval", Store, ms(0, 60_000), "100", Live;
        /// How long a removed file that somebody still reads keeps its space.
        destroy_maped_file_interval_forcibly: u64 = "destroyMapedFileIntervalForcibly", Store,
            ms(0, 3_600_000), "120000", Live;
        /// How soon the space of a removed file is asked for again when that failed.
        redelete_hanged_file_interval: u64 = "redeleteHangedFileInterval", Store, ms(1_000, 3_600_000), "120000", Live;
    }
    "Topics and groups" {
        /// Whether sending to an unknown topic creates it. Convenient to begin with; in production a typo makes a
        /// topic.
        auto_create_topic_enable: bool = "autoCreateTopicEnable", Broker, BOOL, "true", Live;
        /// Queues of a topic that was created by sending, if the producer asks for no fewer.
        default_topic_queue_nums: u32 = "defaultTopicQueueNums", Broker, int(1, 1024), "8", Restart;
        /// Whether there is a topic with the cluster's name.
        cluster_topic_enable: bool = "clusterTopicEnable", Broker, BOOL, "true", Restart;
        /// Whether there is a topic with the broker's name.
        broker_topic_enable: bool = "brokerTopicEnable", Broker, BOOL, "true", Restart;
        /// Whether consuming with an unknown group creates it.
        auto_create_subscription_group: bool = "autoCreateSubscriptionGroup", Broker, BOOL, "true", Live;
        /// Whether the topic for message traces exists here.
        trace_topic_enable: bool = "traceTopicEnable", Broker, BOOL, "false", Restart;
        /// Name of the topic for message traces.
        msg_trace_topic_name: String = "msgTraceTopicName", Broker, Kind::Name, "RMQ_SYS_TRACE_TOPIC", Restart;
        /// Whether clients are told that this broker takes traces.
        trace_on: bool = "traceOn", Broker, BOOL, "true", Live;
        /// Whether tools are kept from changing system topics.
        validate_system_topic_when_update_topic: bool = "validateSystemTopicWhenUpdateTopic", Broker,
            BOOL, "true", Live;
        /// Whether deleting a topic also deletes the retry topics that belong to it.
        clear_retry_topic_when_delete_topic: bool = "clearRetryTopicWhenDeleteTopic", Broker, BOOL, "true", Live;
    }
    "Clients and consumption" {
        /// Whether consumers are told at once when their group changes; otherwise they notice within 20 s.
        notify_consumer_ids_changed_enable: bool = "notifyConsumerIdsChangedEnable", Broker, BOOL, "true", Live;
        /// A client that sends no heartbeat for this long is forgotten.
        channel_expired_timeout: u64 = "channelExpiredTimeout", Broker, ms(1_000, 86_400_000), "120000", Restart;
        /// Whether consumers that choose their queues themselves may pull with request 361 (lite pull).
        lite_pull_message_enable: bool = "litePullMessageEnable", Broker, BOOL, "true", Live;
        /// Whether a pull that finds nothing waits as long as its client asks for.
        long_polling_enable: bool = "longPollingEnable", Broker, BOOL, "true", Live;
        /// How long such a pull waits when long polling is off.
        short_polling_time_mills: u64 = "shortPollingTimeMills", Broker, ms(1, 60_000), "1000", Live;
        /// Time in milliseconds since 1970 before which sends are refused.
        start_accept_send_request_time_stamp: u64 = "startAcceptSendRequestTimeStamp", Broker,
            int(0, i64::MAX), "0", Live;
        /// Whether consumers that pull on their own account, without a heartbeat, are refused.
        reject_pull_consumer_enable: bool = "rejectPullConsumerEnable", Broker, BOOL, "false", Live;
        /// Whether tools reset offsets here, or by asking each consumer.
        use_server_side_reset_offset: bool = "useServerSideResetOffset", Broker, BOOL, "true", Live;
        /// How often committed offsets are written to disk: what a crash makes consumers see again.
        flush_consumer_offset_interval: u64 = "flushConsumerOffsetInterval", Broker, ms(100, 600_000), "5000", Restart;
        /// Bytes of one answer to a pull, when they are in memory. At least one message is always sent.
        max_transfer_bytes_on_message_in_memory: u64 = "maxTransferBytesOnMessageInMemory", Store,
            bytes(1, 16 * MIB), "262144", Live;
        /// Messages of one answer to a pull, when they are in memory.
        max_transfer_count_on_message_in_memory: u32 = "maxTransferCountOnMessageInMemory", Store,
            int(1, 65_536), "32", Live;
        /// Bytes of one answer to a pull, when they come from the disk. Fewer, so that a backlog does not crowd out
        /// the rest.
        max_transfer_bytes_on_message_in_disk: u64 = "maxTransferBytesOnMessageInDisk", Store,
            bytes(1, 16 * MIB), "65536", Live;
        /// Messages of one answer to a pull, when they come from the disk.
        max_transfer_count_on_message_in_disk: u32 = "maxTransferCountOnMessageInDisk", Store,
            int(1, 65_536), "8", Live;
        /// Messages of one answer to a pull, whatever the client asks for.
        pull_batch_max_message_count: u32 = "pullBatchMaxMessageCount", Store, int(1, 65_536), "160", Live;
        /// Messages that a look-up by key returns at most.
        default_query_max_num: u32 = "defaultQueryMaxNum", Store, int(1, 65_536), "32", Live;
        /// Messages that a look-up by key may ask for.
        max_msgs_num_batch: u32 = "maxMsgsNumBatch", Store, int(1, 65_536), "64", Live;
        /// Keys that tools may not change while the broker runs, separated by `;`, besides `brokerConfigPath`,
        /// `rocketmqHome` and this one.
        config_black_list: String = "configBlackList", Broker, Kind::Text, "configBlackList;brokerConfigPath", Fixed;
    }
    "Name server" {
        /// File of the name server's key-value pairs. Empty: `namesrv/kvConfig.json` in the data directory.
        kv_config_path: String = "kvConfigPath", Namesrv, Kind::Text, "", Fixed;
        /// Whether routes carry the order configuration of a topic.
        order_message_enable: bool = "orderMessageEnable", Namesrv, BOOL, "false", Live;
        /// Whether brokers are sent the order configuration when they register.
        return_order_topic_config_to_broker: bool = "returnOrderTopicConfigToBroker", Namesrv, BOOL, "true", Live;
        /// How often the name server looks for brokers that have stopped registering.
        scan_not_active_broker_interval: u64 = "scanNotActiveBrokerInterval", Namesrv, ms(10, 600_000), "5000", Restart;
        /// Whether the name server lists all topics when asked (code 206).
        enable_all_topic_list: bool = "enableAllTopicList", Namesrv, BOOL, "true", Live;
        /// Whether the name server lists topics by cluster or kind when asked.
        enable_topic_list: bool = "enableTopicList", Namesrv, BOOL, "true", Live;
        /// Whether a registration removes routes of topics that the broker no longer lists.
        delete_topic_with_broker_registration: bool = "deleteTopicWithBrokerRegistration", Namesrv, BOOL, "false", Live;
        /// Whether the name server answers no routes for a while after its start, until brokers have registered.
        need_wait_for_service: bool = "needWaitForService", Namesrv, BOOL, "false", Restart;
        /// How long it answers none.
        wait_seconds_for_service: u64 = "waitSecondsForService", Namesrv, seconds(0, 3_600), "45", Restart;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_canonical_and_typed() {
        // Goal: kind, default and field type of every row agree. Method: check each default and build the struct.
        for key in KEYS {
            assert_eq!(key.kind.canonical(key.default).as_deref(), Ok(key.default), "{}", key.name);
        }
        let config = Config::from_settings(Settings::default()).expect("all defaults have their type");
        assert_eq!(config.broker_port, 10_911);
        assert_eq!(config.flush_disk_type, FlushDiskType::AsyncFlush);
        assert_eq!(config.memory, None);
    }

    #[test]
    fn bounds_fit_their_types() {
        // Goal: no value inside its bounds fails to become its field. Method: build the struct with each bound.
        for key in KEYS {
            let bounds = match key.kind {
                Kind::Integer { min, max } => vec![min.to_string(), max.to_string()],
                Kind::Duration { min, max, .. } => vec![min.to_string(), max.to_string()],
                Kind::Size { min, max, multiple_of } => {
                    vec![min.next_multiple_of(multiple_of).to_string(), (max / multiple_of * multiple_of).to_string()]
                }
                Kind::Choice(words) => words.iter().map(|word| (*word).to_string()).collect(),
                _ => vec![],
            };
            for text in bounds {
                let mut settings = Settings::default();
                settings.set_used(key, text.clone(), super::super::Source::Set);
                let built = Config::from_settings(settings);
                assert!(built.is_ok(), "{} = {text}", key.name);
            }
        }
    }
}
