package interop;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.RequestCode;
import org.apache.rocketmq.remoting.protocol.ResponseCode;
import org.apache.rocketmq.remoting.protocol.body.LockBatchRequestBody;
import org.apache.rocketmq.remoting.protocol.body.LockBatchResponseBody;
import org.apache.rocketmq.remoting.protocol.body.UnlockBatchRequestBody;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** Scenarios of consumers: push (cluster, broadcast, orderly, tags), lite pull, where they start and continue. */
final class ConsumeScenarios {
    private ConsumeScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.addCore("push-cluster", ConsumeScenarios::pushCluster);
        registry.addCore("push-rebalance-on-leave", ConsumeScenarios::pushRebalance);
        registry.addCore("push-broadcast", ConsumeScenarios::pushBroadcast);
        registry.addCore("push-tags", ConsumeScenarios::pushTags);
        registry.addCore("push-orderly", ConsumeScenarios::pushOrderly);
        registry.add("lock-batch", ConsumeScenarios::lockBatch);
        registry.addCore("lite-pull-subscribe", ConsumeScenarios::litePullSubscribe);
        registry.addCore("lite-pull-assign-seek", ConsumeScenarios::litePullAssignSeek);
        registry.add("consumer-restart", ConsumeScenarios::consumerRestart);
        registry.add("consume-from-where", ConsumeScenarios::consumeFromWhere);
        registry.add("consumer-connections", ConsumeScenarios::consumerConnections);
    }

    /** Collects bodies; remembers which queues they came from and that nothing came twice. */
    private static final class Collector implements MessageListenerConcurrently {
        final Collection<String> bodies = new ConcurrentLinkedQueue<>();
        final Set<Integer> queues = ConcurrentHashMap.newKeySet();

        @Override
        public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> messages,
            org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) {
            for (MessageExt message : messages) {
                queues.add(message.getQueueId());
                bodies.add(Scope.text(message.getBody()));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        }
    }

    private static DefaultMQPushConsumer start(Scope scope, String group, String topic, String tags, Collector collector) throws Exception {
        DefaultMQPushConsumer consumer = scope.pushConsumer(group);
        consumer.subscribe(topic, tags);
        consumer.registerMessageListener(collector);
        consumer.start();
        return consumer;
    }

    @SuppressWarnings("deprecation")
    private static Set<Integer> assigned(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(q -> q.getTopic().equals(topic)).map(MessageQueue::getQueueId).collect(Collectors.toCollection(TreeSet::new));
    }

    /** Until the broker has forgotten the members of a group: a successor then gets all queues in its first rebalance. */
    private static void awaitOffline(Scope scope, String group) throws Exception {
        Check.await("the group to go offline", 5_000, () -> {
            try {
                scope.servers.admin.examineConsumerConnectionInfo(group, scope.servers.broker);
                return false;
            } catch (org.apache.rocketmq.client.exception.MQBrokerException offline) {
                Check.equal(ResponseCode.CONSUMER_NOT_ONLINE, offline.getResponseCode(), "code when offline");
                return true;
            }
        });
    }

    private static void awaitAssigned(DefaultMQPushConsumer consumer, String topic, int count) throws Exception {
        Check.await(count + " assigned queues", 10_000, () -> assigned(consumer, topic).size() == count);
    }

    private static void sameBodies(Collection<String> expected, Collection<String> actual, String what) {
        List<String> sortedActual = actual.stream().sorted().toList();
        List<String> sortedExpected = expected.stream().sorted().toList();
        Check.equal(sortedExpected.size(), sortedActual.size(), what + ": number of messages");
        Check.equal(sortedExpected, sortedActual, what);
    }

    /** Two members of a group share 8 queues 4 to 4 and see each message exactly once, also those sent before they came. */
    private static void pushCluster(Scope scope) throws Exception {
        String topic = scope.topic(8);
        String group = scope.name("group");
        Collector first = new Collector();
        Collector second = new Collector();
        DefaultMQPushConsumer one = start(scope, group, topic, "*", first);
        DefaultMQPushConsumer two = start(scope, group, topic, "*", second);
        awaitAssigned(one, topic, 4);
        awaitAssigned(two, topic, 4);
        List<String> sent = scope.fill(topic, 8, 50, "c");
        Check.await("400 messages", 15_000, () -> first.bodies.size() + second.bodies.size() >= sent.size());
        List<String> all = new ArrayList<>(first.bodies);
        all.addAll(second.bodies);
        sameBodies(sent, all, "messages of both members");
        Check.equal(assigned(one, topic), new TreeSet<>(first.queues), "queues of the first member");
        Check.equal(assigned(two, topic), new TreeSet<>(second.queues), "queues of the second member");
    }

    /** When a member leaves, request 40 makes the other take its queues long before its own 10 s period. */
    private static void pushRebalance(Scope scope) throws Exception {
        String topic = scope.topic(4);
        String group = scope.name("group");
        Collector first = new Collector();
        Collector second = new Collector();
        DefaultMQPushConsumer one = start(scope, group, topic, "*", first);
        awaitAssigned(one, topic, 4);
        DefaultMQPushConsumer two = start(scope, group, topic, "*", second);
        awaitAssigned(one, topic, 2);
        awaitAssigned(two, topic, 2);
        two.shutdown();
        long left = System.nanoTime();
        awaitAssigned(one, topic, 4);
        long millis = (System.nanoTime() - left) / 1_000_000;
        Check.that(millis < 9_000, "took the queues over after " + millis + " ms");
        List<String> sent = scope.fill(topic, 4, 10, "r");
        Check.await("all messages at the remaining member", 10_000, () -> first.bodies.size() >= sent.size());
        sameBodies(sent, first.bodies, "messages of the remaining member");
    }

    /** Each member of a broadcasting group gets everything; no offset reaches the broker. */
    private static void pushBroadcast(Scope scope) throws Exception {
        String topic = scope.topic(4);
        String group = scope.name("group");
        List<Collector> collectors = new ArrayList<>();
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Collector collector = new Collector();
            collectors.add(collector);
            DefaultMQPushConsumer consumer = scope.pushConsumer(group);
            consumer.setMessageModel(MessageModel.BROADCASTING);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(collector);
            consumer.start();
            consumers.add(consumer);
            awaitAssigned(consumer, topic, 4);
        }
        List<String> sent = scope.fill(topic, 4, 20, "b");
        for (Collector collector : collectors) {
            Check.await("all messages at each member", 10_000, () -> collector.bodies.size() >= sent.size());
            sameBodies(sent, collector.bodies, "messages of a member");
        }
        // A consumer that stops persists its offsets: here in a local file, not at the broker.
        consumers.forEach(DefaultMQPushConsumer::shutdown);
        for (int queueId = 0; queueId < 4; queueId++) {
            Check.equal(-1L, OffsetScenarios.committed(scope, group, topic, queueId), "committed offset of a broadcasting group");
        }
    }

    /**
     * Tags select; of two tags with equal Java hashes only the wanted one arrives (the client drops the other); a pull with
     * an inline subscription shows that the broker filters by hash.
     */
    private static void pushTags(Scope scope) throws Exception {
        Check.equal("Aa".hashCode(), "BB".hashCode(), "hash of the colliding tags");
        String topic = scope.topic(1);
        Collector wanted = new Collector();
        Collector both = new Collector();
        DefaultMQPushConsumer one = start(scope, scope.name("group"), topic, "Aa || TagX", wanted);
        DefaultMQPushConsumer two = start(scope, scope.name("group"), topic, "Aa||BB", both);
        awaitAssigned(one, topic, 1);
        awaitAssigned(two, topic, 1);
        List<String> expected = new ArrayList<>();
        List<String> expectedBoth = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            String tag = List.of("Aa", "BB", "TagX", "TagY").get(i % 4);
            scope.send(topic, 0, tag, tag + i);
            if (i % 4 != 1 && i % 4 != 3) {
                expected.add(tag + i);
            }
            if (i % 4 < 2) {
                expectedBoth.add(tag + i);
            }
        }
        scope.send(topic, 0, null, "untagged");
        scope.send(topic, 0, "Aa", "end");
        expected.add("end");
        expectedBoth.add("end");
        // Several threads of a consumer hand over messages, so the newest may come before an older one.
        Check.await("filtered messages", 10_000, () -> wanted.bodies.contains("end") && both.bodies.contains("end")
            && wanted.bodies.size() >= expected.size() && both.bodies.size() >= expectedBoth.size());
        sameBodies(expected, wanted.bodies, "Aa || TagX");
        sameBodies(expectedBoth, both.bodies, "Aa||BB");

        Wire.Pulled pulled = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, 0, 0, 32, "Aa", 0);
        Check.equal(ResponseCode.SUCCESS, pulled.code(), "pull code");
        Check.equal(Set.of("Aa", "BB"), pulled.messages().stream().map(MessageExt::getTags).collect(Collectors.toSet()),
            "tags that pass the broker's hash filter");
        Wire.Pulled none = scope.servers.wire.pull(scope.servers.broker, "interop_wire", topic, 0, 0, 32, "NoSuchTag", 0);
        Check.equal(ResponseCode.PULL_RETRY_IMMEDIATELY, none.code(), "code when the filter rejects all");
        Check.equal(42L, none.header().getNextBeginOffset(), "next offset when the filter rejects all");
    }

    /** Orderly consumers see each queue in order and never two messages of it at once, also across a change of owner. */
    private static void pushOrderly(Scope scope) throws Exception {
        String topic = scope.topic(4);
        String group = scope.name("group");
        Map<Integer, List<Long>> seen = new ConcurrentHashMap<>();
        Set<Integer> busy = ConcurrentHashMap.newKeySet();
        Collection<String> errors = new ConcurrentLinkedQueue<>();
        Collection<String> bodies = new ConcurrentLinkedQueue<>();
        MessageListenerOrderly listener = (messages, context) -> {
            for (MessageExt message : messages) {
                int queueId = message.getQueueId();
                if (!busy.add(queueId)) {
                    errors.add("two at once in queue " + queueId);
                }
                seen.computeIfAbsent(queueId, key -> new ArrayList<>()).add(message.getQueueOffset());
                bodies.add(Scope.text(message.getBody()));
                busy.remove(queueId);
            }
            return ConsumeOrderlyStatus.SUCCESS;
        };
        List<DefaultMQPushConsumer> members = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = scope.pushConsumer(group);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(listener);
            consumer.start();
            members.add(consumer);
        }
        awaitAssigned(members.get(0), topic, 2);
        awaitAssigned(members.get(1), topic, 2);
        List<String> sent = new ArrayList<>(scope.fill(topic, 4, 50, "o"));
        Check.await("200 messages", 10_000, () -> bodies.size() >= 200);
        members.get(1).shutdown();
        awaitAssigned(members.get(0), topic, 4);
        sent.addAll(scope.fill(topic, 4, 50, "p"));
        Check.await("400 messages", 10_000, () -> bodies.size() >= 400);
        Check.that(errors.isEmpty(), "errors: " + errors);
        sameBodies(sent, bodies, "messages");
        for (int queueId = 0; queueId < 4; queueId++) {
            List<Long> offsets = seen.get(queueId);
            for (int i = 0; i < 100; i++) {
                Check.equal((long) i, offsets.get(i), "offset at position " + i + " of queue " + queueId);
            }
        }
    }

    /** A lock belongs to one client until it unlocks; asking again renews; other groups are independent. */
    private static void lockBatch(Scope scope) throws Exception {
        String topic = scope.topic(2);
        String group = scope.name("group");
        Set<MessageQueue> both = Set.of(scope.queue(topic, 0), scope.queue(topic, 1));
        Check.equal(both, lock(scope, group, "client1", both), "first lock");
        Check.equal(both, lock(scope, group, "client1", both), "renewed lock");
        Check.equal(Set.of(), lock(scope, group, "client2", both), "lock of another client");
        Check.equal(both, lock(scope, group + "x", "client2", both), "lock in another group");
        unlock(scope, group, "client2", both);
        Check.equal(Set.of(), lock(scope, group, "client2", both), "lock after a foreign unlock");
        unlock(scope, group, "client1", Set.of(scope.queue(topic, 0)));
        Check.equal(Set.of(scope.queue(topic, 0)), lock(scope, group, "client2", both), "lock after the owner's unlock");
    }

    private static Set<MessageQueue> lock(Scope scope, String group, String client, Set<MessageQueue> queues) throws Exception {
        LockBatchRequestBody body = new LockBatchRequestBody();
        body.setConsumerGroup(group);
        body.setClientId(client);
        body.setMqSet(new HashSet<>(queues));
        RemotingCommand answer = scope.servers.wire.call(scope.servers.broker, RequestCode.LOCK_BATCH_MQ, null, body.encode());
        Check.equal(ResponseCode.SUCCESS, answer.getCode(), "lock code");
        return LockBatchResponseBody.decode(answer.getBody(), LockBatchResponseBody.class).getLockOKMQSet();
    }

    private static void unlock(Scope scope, String group, String client, Set<MessageQueue> queues) throws Exception {
        UnlockBatchRequestBody body = new UnlockBatchRequestBody();
        body.setConsumerGroup(group);
        body.setClientId(client);
        body.setMqSet(new HashSet<>(queues));
        RemotingCommand answer = scope.servers.wire.call(scope.servers.broker, RequestCode.UNLOCK_BATCH_MQ, null, body.encode());
        Check.equal(ResponseCode.SUCCESS, answer.getCode(), "unlock code");
    }

    /** A subscribed lite pull consumer gets everything, and a second one of its group continues at the committed offsets. */
    private static void litePullSubscribe(Scope scope) throws Exception {
        String topic = scope.topic(4);
        String group = scope.name("group");
        List<String> sent = scope.fill(topic, 4, 25, "l");
        DefaultLitePullConsumer consumer = scope.litePullConsumer(group);
        consumer.setAutoCommit(false);
        consumer.subscribe(topic, "*");
        consumer.start();
        List<String> got = poll(consumer, sent.size());
        sameBodies(sent, got, "first consumer");
        // Repeated, because the Java broker may lose all but one of the first commits of a group that arrive at once.
        Check.await("committed offsets", 5_000, () -> {
            consumer.commit(consumer.assignment(), true);
            for (int queueId = 0; queueId < 4; queueId++) {
                if (OffsetScenarios.committed(scope, group, topic, queueId) != 25) {
                    return false;
                }
            }
            return true;
        });
        consumer.shutdown();
        awaitOffline(scope, group);
        List<String> later = scope.fill(topic, 4, 5, "later");
        DefaultLitePullConsumer next = scope.litePullConsumer(group);
        next.subscribe(topic, "*");
        next.start();
        sameBodies(later, poll(next, later.size()), "second consumer");
    }

    /**
     * An assigned lite pull consumer seeks to the begin, the end and a position, and commits where it is. Client 5.3.3 forgets
     * a seek that meets its own pull task between two pulls (the cancelled task takes the new offset away, and its successor
     * goes on where the old one was), so each seek here comes before the first pull or while a pull is held.
     */
    private static void litePullAssignSeek(Scope scope) throws Exception {
        String topic = scope.topic(2);
        String group = scope.name("group");
        List<String> sent = scope.fill(topic, 1, 40, "s");
        DefaultLitePullConsumer consumer = scope.litePullConsumer(group);
        consumer.setAutoCommit(false);
        MessageQueue queue = scope.queue(topic, 0);
        consumer.assign(List.of(queue));
        consumer.pause(List.of(queue));
        consumer.start();
        Check.equal(Set.of(queue, scope.queue(topic, 1)), new HashSet<>(consumer.fetchMessageQueues(topic)), "queues");
        consumer.seekToBegin(queue);
        consumer.resume(List.of(queue));
        sameBodies(sent, poll(consumer, 40), "after seekToBegin");
        awaitHeldPull(group);
        consumer.seek(queue, 30);
        sameBodies(sent.subList(30, 40), poll(consumer, 10), "after seek to 30");
        awaitHeldPull(group);
        consumer.seekToEnd(queue);
        scope.send(topic, 0, null, "fresh");
        sameBodies(List.of("fresh"), poll(consumer, 1), "after seekToEnd and a send");
        consumer.commit(Set.of(queue), true);
        Check.await("committed offset 41", 5_000, () -> OffsetScenarios.committed(scope, group, topic, 0) == 41);
        Check.equal(41L, consumer.committed(queue), "committed() of the client");
    }

    /** Waits until the group's pull thread waits for the broker. Meant for when it has delivered all there is. */
    private static void awaitHeldPull(String group) throws Exception {
        Check.await("a held pull of " + group, 10_000, () -> Thread.getAllStackTraces().entrySet().stream().anyMatch(
            thread -> thread.getKey().getName().startsWith("PullMsgThread-" + group)
                && Set.of(Thread.State.WAITING, Thread.State.TIMED_WAITING).contains(thread.getKey().getState())
                && Arrays.stream(thread.getValue()).anyMatch(frame -> frame.getMethodName().equals("pullMessageSync"))));
    }

    private static List<String> poll(DefaultLitePullConsumer consumer, int count) throws Exception {
        List<String> bodies = new ArrayList<>();
        Check.await(count + " polled messages", 13_000, () -> {
            consumer.poll(200).forEach(message -> bodies.add(Scope.text(message.getBody())));
            return bodies.size() >= count;
        });
        consumer.poll(100).forEach(message -> bodies.add(Scope.text(message.getBody())));
        return bodies;
    }

    /** A push consumer that stops commits its offsets; its successor gets only what came later. */
    private static void consumerRestart(Scope scope) throws Exception {
        String topic = scope.topic(1);
        String group = scope.name("group");
        Collector first = new Collector();
        DefaultMQPushConsumer one = start(scope, group, topic, "*", first);
        List<String> before = scope.fill(topic, 1, 30, "before");
        Check.await("messages of the first run", 10_000, () -> first.bodies.size() >= before.size());
        one.shutdown();
        awaitOffline(scope, group);
        Check.await("offset 30", 5_000, () -> OffsetScenarios.committed(scope, group, topic, 0) == 30);
        List<String> between = scope.fill(topic, 1, 10, "between");
        Collector second = new Collector();
        start(scope, group, topic, "*", second);
        Check.await("messages of the second run", 10_000, () -> second.bodies.size() >= between.size());
        sameBodies(between, second.bodies, "messages of the second run");
    }

    /**
     * Where new groups start. Broadcasting groups decide themselves: first, last, or by time. A new cluster group is told
     * offset 0 on a young topic (one whose first message is still in memory), whatever it asked for.
     */
    private static void consumeFromWhere(Scope scope) throws Exception {
        String topic = scope.topic(1);
        scope.fill(topic, 1, 5, "old");
        // A consume timestamp has a resolution of one second.
        Thread.sleep(2_100);
        long middle = System.currentTimeMillis();
        Thread.sleep(1_100);
        scope.fill(topic, 1, 5, "mid");
        Map<String, Collector> broadcasting = new HashMap<>();
        Map<String, Collector> clustering = new HashMap<>();
        for (ConsumeFromWhere where : List.of(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET,
            ConsumeFromWhere.CONSUME_FROM_TIMESTAMP)) {
            for (MessageModel model : MessageModel.values()) {
                DefaultMQPushConsumer consumer = scope.pushConsumer(scope.name("group"));
                consumer.setConsumeFromWhere(where);
                consumer.setConsumeTimestamp(UtilAll.timeMillisToHumanString3(middle));
                consumer.setMessageModel(model);
                consumer.subscribe(topic, "*");
                Collector collector = new Collector();
                consumer.registerMessageListener(collector);
                consumer.start();
                awaitAssigned(consumer, topic, 1);
                (model == MessageModel.BROADCASTING ? broadcasting : clustering).put(where.name(), collector);
            }
        }
        scope.fill(topic, 1, 5, "new");
        List<String> all = names("old", "mid", "new");
        Map<String, List<String>> expected = Map.of("CONSUME_FROM_FIRST_OFFSET", all, "CONSUME_FROM_LAST_OFFSET", names("new"),
            "CONSUME_FROM_TIMESTAMP", names("mid", "new"));
        for (var entry : broadcasting.entrySet()) {
            Collection<String> bodies = entry.getValue().bodies;
            List<String> wanted = expected.get(entry.getKey());
            // Several threads of a consumer hand over messages, so the newest may come before an older one.
            Check.await("new messages for " + entry.getKey(), 10_000,
                () -> bodies.contains("new-0-4") && bodies.size() >= wanted.size());
            sameBodies(wanted, bodies, "broadcasting " + entry.getKey());
        }
        for (var entry : clustering.entrySet()) {
            Collection<String> bodies = entry.getValue().bodies;
            Check.await("messages for " + entry.getKey(), 10_000, () -> bodies.size() >= 15);
            sameBodies(all, bodies, "clustering " + entry.getKey());
        }
    }

    private static List<String> names(String... prefixes) {
        List<String> names = new ArrayList<>();
        for (String prefix : prefixes) {
            for (int i = 0; i < 5; i++) {
                names.add(prefix + "-0-" + i);
            }
        }
        return names;
    }

    @SuppressWarnings("deprecation")
    private static String clientId(DefaultMQPushConsumer consumer) {
        return consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
    }

    /** The broker lists a live consumer with its subscription, forgets it when it leaves, and made its retry topic. */
    private static void consumerConnections(Scope scope) throws Exception {
        String topic = scope.topic(2);
        String group = scope.name("group");
        Collector collector = new Collector();
        DefaultMQPushConsumer consumer = start(scope, group, topic, "TagA || TagB", collector);
        awaitAssigned(consumer, topic, 2);
        scope.send(topic, 0, "TagA", "one");
        Check.await("the message", 10_000, () -> collector.bodies.size() == 1);
        var connections = scope.servers.admin.examineConsumerConnectionInfo(group, scope.servers.broker);
        Check.equal(1, connections.getConnectionSet().size(), "connections");
        Check.equal(clientId(consumer), connections.getConnectionSet().iterator().next().getClientId(), "clientId");
        Check.equal(MessageModel.CLUSTERING, connections.getMessageModel(), "message model");
        Check.equal(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET, connections.getConsumeFromWhere(), "consumeFromWhere");
        Check.equal(Set.of(topic, MixAll.getRetryTopic(group)), connections.getSubscriptionTable().keySet(), "subscribed topics");
        Check.equal("TagA || TagB", connections.getSubscriptionTable().get(topic).getSubString(), "expression");
        Check.equal(Set.of("TagA", "TagB"), connections.getSubscriptionTable().get(topic).getTagsSet(), "tags");
        Check.equal(1, scope.servers.admin.examineTopicConfig(scope.servers.broker, MixAll.getRetryTopic(group)).getReadQueueNums(),
            "queues of the retry topic");
        consumer.shutdown();
        awaitOffline(scope, group);
        // Request 300 lists a group that has offsets. (While it is only online, 5.3.3 lists the topic's own name instead.)
        Check.await("the group among those of the topic", 5_000,
            () -> scope.servers.admin.queryTopicConsumeByWho(topic).getGroupList().contains(group));
    }
}
