package interop;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.protocol.admin.ConsumeStats;
import org.apache.rocketmq.remoting.protocol.admin.TopicStatsTable;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * The commands of mqadmin, run in this JVM. mqadmin reports success whatever happens, so the printed text is judged.
 */
final class AdminScenarios {
    private static final Pattern LOG_RECORD = Pattern.compile("^\\d\\d:\\d\\d:\\d\\d\\.\\d{3} +[A-Z]+ +\\S+ +\\[([^]]*)]");
    private static final Pattern EXCEPTION_NAME = Pattern.compile("^[\\w.$]+(Exception|Error)(:|$)");

    private AdminScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.addCore("mqadmin-clusterList", AdminScenarios::clusterList);
        registry.add("mqadmin-updateTopic", AdminScenarios::updateTopic);
        registry.add("mqadmin-topicStatus", AdminScenarios::topicStatus);
        registry.add("mqadmin-topicRoute", AdminScenarios::topicRoute);
        registry.add("mqadmin-topicList", AdminScenarios::topicList);
        registry.add("mqadmin-consumerProgress", AdminScenarios::consumerProgress);
        registry.add("mqadmin-getBrokerConfig", AdminScenarios::getBrokerConfig);
        registry.add("mqadmin-brokerStatus", AdminScenarios::brokerStatus);
        registry.add("mqadmin-updateSubGroup", AdminScenarios::updateSubGroup);
        registry.add("mqadmin-queryMsgByKey", AdminScenarios::queryMsgByKey);
        registry.add("mqadmin-queryMsgById", AdminScenarios::queryMsgById);
        registry.add("mqadmin-queryMsgByUniqueKey", AdminScenarios::queryMsgByUniqueKey);
        registry.add("mqadmin-deleteTopic", AdminScenarios::deleteTopic);
    }

    /**
     * The text without what threads of other clients in this JVM logged meanwhile: a consumer that an earlier scenario has
     * shut down may still report its broken connection. Such a record is a line with time, level and thread, then at most
     * one line that names an exception, and the frames and causes behind it.
     */
    static String withoutOtherThreads(String printed) {
        String self = Thread.currentThread().getName();
        StringBuilder kept = new StringBuilder();
        boolean isForeign = false;
        boolean mayName = false;
        for (String line : printed.split("\n", -1)) {
            Matcher record = LOG_RECORD.matcher(line);
            if (record.find()) {
                isForeign = !record.group(1).equals(self);
                mayName = isForeign;
            } else if (isForeign && mayName && EXCEPTION_NAME.matcher(line).find()) {
                mayName = false;
            } else if (!line.startsWith("\tat ") && !line.startsWith("\t... ") && !line.startsWith("Caused by: ")) {
                isForeign = false;
            }
            if (!isForeign) {
                kept.append(line).append('\n');
            }
        }
        return kept.toString();
    }

    /** Runs a command against the suite's name server; returns what it printed to both streams. */
    private static synchronized String mqadmin(Scope scope, String... command) {
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        PrintStream capture = new PrintStream(text, true, StandardCharsets.UTF_8);
        String[] args = new String[command.length + 2];
        System.arraycopy(command, 0, args, 0, command.length);
        args[command.length] = "-n";
        args[command.length + 1] = scope.servers.namesrv;
        try {
            System.setOut(capture);
            System.setErr(capture);
            MQAdminStartup.main(args);
        } finally {
            System.setOut(out);
            System.setErr(err);
            System.clearProperty(MixAll.NAMESRV_ADDR_PROPERTY);
        }
        String printed = withoutOtherThreads(text.toString(StandardCharsets.UTF_8));
        Check.that(!printed.contains("Exception"), String.join(" ", command) + " prints an exception: " + printed.strip());
        return printed;
    }

    private static void clusterList(Scope scope) {
        String text = mqadmin(scope, "clusterList");
        String line = text.lines().filter(l -> l.contains(scope.servers.broker)).findFirst().orElse("");
        String[] columns = line.trim().split("\\s+");
        Check.equal(scope.servers.cluster, columns[0], "cluster in " + text);
        Check.equal(scope.servers.brokerName, columns[1], "broker name in " + text);
        Check.equal("0", columns[2], "broker id in " + text);
        Check.that(columns[4].startsWith("V"), "version <" + columns[4] + "> in " + text);
        Check.that(columns.length >= 9, "columns in " + text);
        // `-m` reads the message counters of the runtime information.
        Check.contains(mqadmin(scope, "clusterList", "-m"), scope.servers.brokerName, "clusterList -m");
    }

    private static void updateTopic(Scope scope) throws Exception {
        String topic = scope.name("topic");
        String text = mqadmin(scope, "updateTopic", "-b", scope.servers.broker, "-t", topic, "-r", "6", "-w", "6");
        Check.contains(text, "create topic to " + scope.servers.broker + " success", "updateTopic");
        scope.awaitRoute(topic, 6);
        String clusterTopic = scope.name("topic");
        text = mqadmin(scope, "updateTopic", "-c", scope.servers.cluster, "-t", clusterTopic, "-r", "2", "-w", "2");
        Check.contains(text, "success", "updateTopic -c");
        scope.awaitRoute(clusterTopic, 2);
    }

    private static void topicStatus(Scope scope) throws Exception {
        String topic = scope.topic(2);
        scope.fill(topic, 2, 7, "s");
        String text = mqadmin(scope, "topicStatus", "-t", topic);
        for (int queueId = 0; queueId < 2; queueId++) {
            String wanted = scope.servers.brokerName + " " + queueId + " 0 7 ";
            Check.that(text.lines().anyMatch(l -> l.replaceAll("\\s+", " ").startsWith(wanted)), "<" + wanted + "> is missing in " + text);
        }
        TopicStatsTable stats = scope.servers.admin.examineTopicStats(topic);
        Check.that(Math.abs(stats.getOffsetTable().get(scope.queue(topic, 0)).getLastUpdateTimestamp() - System.currentTimeMillis()) < 20_000,
            "last update of queue 0");
    }

    private static void topicRoute(Scope scope) throws Exception {
        String topic = scope.topic(3);
        String text = mqadmin(scope, "topicRoute", "-t", topic).replaceAll("\\s", "");
        Check.contains(text, "\"brokerName\":\"" + scope.servers.brokerName + "\"", "topicRoute");
        Check.contains(text, "0:\"" + scope.servers.broker + "\"", "topicRoute");
        Check.contains(text, "\"readQueueNums\":3", "topicRoute");
        Check.contains(text, "\"perm\":6", "topicRoute");
    }

    private static void topicList(Scope scope) throws Exception {
        String topic = scope.topic(1);
        List<String> names = mqadmin(scope, "topicList").lines().map(String::trim).toList();
        Check.that(names.contains(topic), "topicList lacks " + topic);
        for (String system : List.of("TBW102", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest", scope.servers.brokerName, scope.servers.cluster)) {
            Check.that(names.contains(system), "topicList lacks " + system);
        }
    }

    /** Consumes part of a topic and expects the difference in `consumerProgress`, for the group and in the list of all. */
    private static void consumerProgress(Scope scope) throws Exception {
        String topic = scope.topic(1);
        String group = scope.name("group");
        scope.fill(topic, 1, 10, "c");
        DefaultLitePullConsumer consumer = scope.litePullConsumer(group);
        consumer.setAutoCommit(false);
        consumer.setPullBatchSize(4);
        consumer.subscribe(topic, "*");
        consumer.start();
        Check.await("a first message", 13_000, () -> !consumer.poll(200).isEmpty());
        consumer.commit(java.util.Map.of(scope.queue(topic, 0), 4L), true);
        Check.await("committed offset 4", 5_000, () -> OffsetScenarios.committed(scope, group, topic, 0) == 4);
        ConsumeStats stats = scope.servers.admin.examineConsumeStats(group);
        Check.equal(10L, stats.getOffsetTable().get(scope.queue(topic, 0)).getBrokerOffset(), "broker offset");
        Check.equal(4L, stats.getOffsetTable().get(scope.queue(topic, 0)).getConsumerOffset(), "consumer offset");
        String text = mqadmin(scope, "consumerProgress", "-g", group);
        Check.that(text.lines().anyMatch(l -> l.replaceAll("\\s+", " ").matches(".*" + scope.servers.brokerName + " 0 10 4 .*")),
            "offsets 10 and 4 are missing in " + text);
        Check.that(text.lines().anyMatch(l -> l.replace(" ", "").equals("ConsumeDiffTotal:6")), "the total 6 is missing in " + text);
    }

    private static void getBrokerConfig(Scope scope) {
        String text = mqadmin(scope, "getBrokerConfig", "-b", scope.servers.broker);
        for (String key : List.of("brokerName", "brokerClusterName", "brokerId", "listenPort", "flushDiskType", "brokerRole",
            "mappedFileSizeCommitLog", "autoCreateTopicEnable", "brokerPermission")) {
            Check.that(text.lines().anyMatch(l -> l.strip().startsWith(key + " ")), "getBrokerConfig lacks " + key);
        }
        Check.contains(text.replaceAll("\\s+", " "), "brokerName = " + scope.servers.brokerName, "getBrokerConfig");
    }

    private static void brokerStatus(Scope scope) {
        String text = mqadmin(scope, "brokerStatus", "-b", scope.servers.broker);
        for (String key : List.of("bootTimestamp", "brokerVersion", "brokerVersionDesc", "commitLogMaxOffset", "commitLogMinOffset", "putTps",
            "getTransferredTps", "msgPutTotalTodayNow", "msgGetTotalTodayNow", "runtime", "sendThreadPoolQueueSize",
            "pullThreadPoolQueueSize", "dispatchBehindBytes", "commitLogDiskRatio", "earliestMessageTimeStamp",
            "pageCacheLockTimeMills", "remainHowManyDataToFlush", "putMessageTimesTotal")) {
            Check.that(text.lines().anyMatch(l -> l.startsWith(key)), "brokerStatus lacks " + key);
        }
    }

    private static void updateSubGroup(Scope scope) throws Exception {
        String group = scope.name("group");
        String text = mqadmin(scope, "updateSubGroup", "-b", scope.servers.broker, "-g", group, "-r", "5", "-q", "2", "-d", "true");
        Check.contains(text, "create subscription group to " + scope.servers.broker + " success", "updateSubGroup");
        var config = scope.servers.admin.examineSubscriptionGroupConfig(scope.servers.broker, group);
        Check.equal(group, config.getGroupName(), "group name");
        Check.equal(5, config.getRetryMaxTimes(), "retryMaxTimes");
        Check.equal(2, config.getRetryQueueNums(), "retryQueueNums");
        Check.that(config.isConsumeBroadcastEnable() && config.isConsumeEnable(), "consume flags: " + config);
        Check.that(scope.servers.admin.getAllSubscriptionGroup(scope.servers.broker, 5_000).getSubscriptionGroupTable().containsKey(group),
            "the table of all groups lacks it");
        scope.servers.admin.deleteSubscriptionGroup(scope.servers.broker, group);
        Check.that(!scope.servers.admin.getAllSubscriptionGroup(scope.servers.broker, 5_000).getSubscriptionGroupTable().containsKey(group),
            "a deleted group is still in the table");
    }

    private static SendResult sendKeyed(Scope scope, String topic, String key) throws Exception {
        return scope.servers.producer.send(new Message(topic, "TagQ", key, Scope.bytes("query me")), scope.queue(topic, 0));
    }

    private static void queryMsgByKey(Scope scope) throws Exception {
        String topic = scope.topic(1);
        SendResult result = sendKeyed(scope, topic, "order42");
        Check.await("the message by key", 10_000, () -> mqadmin(scope, "queryMsgByKey", "-t", topic, "-k", "order42").contains(result.getMsgId()));
    }

    private static void queryMsgById(Scope scope) throws Exception {
        String topic = scope.topic(1);
        SendResult result = sendKeyed(scope, topic, "order43");
        judgeMessage(mqadmin(scope, "queryMsgById", "-t", topic, "-i", result.getOffsetMsgId()), result);
    }

    private static void queryMsgByUniqueKey(Scope scope) throws Exception {
        String topic = scope.topic(1);
        SendResult result = sendKeyed(scope, topic, "order44");
        Check.await("the message by unique key", 10_000,
            () -> scope.servers.admin.queryMessageByUniqKey(scope.servers.cluster, topic, result.getMsgId(), 32, 0, Long.MAX_VALUE)
                .getMessageList().size() == 1);
        judgeMessage(mqadmin(scope, "queryMsgByUniqueKey", "-t", topic, "-i", result.getMsgId()), result);
    }

    private static void judgeMessage(String text, SendResult result) {
        String flat = text.replaceAll("[ \\t]+", " ");
        Check.contains(flat, "Tags: [TagQ]", "printed message");
        Check.contains(flat, "Queue ID: 0", "printed message");
        Check.contains(flat, "Queue Offset: " + result.getQueueOffset(), "printed message");
        Check.contains(flat, "Reconsume Times: 0", "printed message");
    }

    private static void deleteTopic(Scope scope) throws Exception {
        String topic = scope.topic(1);
        String text = mqadmin(scope, "deleteTopic", "-c", scope.servers.cluster, "-t", topic);
        Check.contains(text, "delete topic [" + topic + "] from cluster [" + scope.servers.cluster + "] success", "deleteTopic");
        Check.contains(text, "delete topic [" + topic + "] from NameServer success", "deleteTopic");
        Check.that(!scope.servers.admin.fetchAllTopicList().getTopicList().contains(topic), "the topic is still listed");
    }
}
