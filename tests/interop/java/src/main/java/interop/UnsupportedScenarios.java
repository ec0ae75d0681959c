package interop;

import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageConst;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.ResponseCode;

/**
 * Features that a broker either serves completely or refuses with code 13 and stores nothing ({@code
 * --expect-unsupported}). Stored as ordinary messages they would be delivered at the wrong time.
 */
final class UnsupportedScenarios {
    private UnsupportedScenarios() {
    }

    static void register(InteropSuite.Registry registry) {
        registry.add("delay-level", UnsupportedScenarios::delayLevel);
        registry.add("timer-message", UnsupportedScenarios::timerMessage);
        registry.add("transaction", UnsupportedScenarios::transaction);
    }

    /** Asserts that the raw send of a message with these properties is refused with 13 and leaves no trace. */
    private static void refused(Scope scope, String topic, Map<String, String> properties, String what) throws Exception {
        var answer = scope.servers.wire.send(scope.servers.broker, topic, 0, Scope.properties(properties), Scope.bytes("refused"));
        Check.equal(ResponseCode.MESSAGE_ILLEGAL, answer.getCode(), what + ": code");
        Check.that(answer.getRemark() != null && !answer.getRemark().isBlank(), what + ": no remark says why");
        Check.equal(0L, scope.servers.admin.maxOffset(scope.queue(topic, 0)), what + ": stored messages");
    }

    private static List<MessageExt> awaitMessages(Scope scope, String topic, int count) throws Exception {
        Check.await(count + " delivered messages", 15_000, () -> scope.servers.admin.maxOffset(scope.queue(topic, 0)) >= count);
        return SendScenarios.pullAll(scope, topic, 0);
    }

    /** Level 1 is delivered after a second; a broker without delays refuses every level above 0. */
    private static void delayLevel(Scope scope) throws Exception {
        String topic = scope.topic(1);
        if (scope.servers.expectUnsupported) {
            refused(scope, topic, Map.of(MessageConst.PROPERTY_DELAY_TIME_LEVEL, "1"), "DELAY 1");
            refused(scope, topic, Map.of(MessageConst.PROPERTY_DELAY_TIME_LEVEL, "18"), "DELAY 18");
            Message message = new Message(topic, Scope.bytes("refused"));
            message.setDelayTimeLevel(3);
            try {
                scope.servers.producer.send(message);
                throw new Check.Failure("a delayed message is accepted");
            } catch (MQBrokerException e) {
                Check.equal(ResponseCode.MESSAGE_ILLEGAL, e.getResponseCode(), "code of the client's send");
            }
            return;
        }
        Message message = new Message(topic, Scope.bytes("delayed"));
        message.setDelayTimeLevel(1);
        SendResult result = scope.servers.producer.send(message);
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.equal(0L, scope.servers.admin.maxOffset(scope.queue(topic, 0)), "messages before the delay");
        MessageExt delivered = awaitMessages(scope, topic, 1).get(0);
        Check.equal("delayed", Scope.text(delivered.getBody()), "body");
        Check.that(delivered.getStoreTimestamp() - delivered.getBornTimestamp() >= 950,
            "delivered after " + (delivered.getStoreTimestamp() - delivered.getBornTimestamp()) + " ms");
    }

    /** The three timer properties, likewise. */
    private static void timerMessage(Scope scope) throws Exception {
        String topic = scope.topic(1);
        if (scope.servers.expectUnsupported) {
            refused(scope, topic, Map.of(MessageConst.PROPERTY_TIMER_DELAY_SEC, "5"), "TIMER_DELAY_SEC");
            refused(scope, topic, Map.of(MessageConst.PROPERTY_TIMER_DELAY_MS, "5000"), "TIMER_DELAY_MS");
            refused(scope, topic, Map.of(MessageConst.PROPERTY_TIMER_DELIVER_MS, Long.toString(System.currentTimeMillis() + 5_000)),
                "TIMER_DELIVER_MS");
            return;
        }
        Message message = new Message(topic, Scope.bytes("timed"));
        message.setDelayTimeMs(3_000);
        SendResult result = scope.servers.producer.send(message);
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "status");
        Check.that(result.getRecallHandle() != null, "no recall handle");
        MessageExt delivered = awaitMessages(scope, topic, 1).get(0);
        Check.equal("timed", Scope.text(delivered.getBody()), "body");
        Check.that(delivered.getStoreTimestamp() - delivered.getBornTimestamp() >= 1_500,
            "delivered after " + (delivered.getStoreTimestamp() - delivered.getBornTimestamp()) + " ms");
    }

    /** A committed half message is delivered, a rolled back one never; a broker without transactions refuses both. */
    private static void transaction(Scope scope) throws Exception {
        String topic = scope.topic(1);
        if (scope.servers.expectUnsupported) {
            refused(scope, topic, Map.of(MessageConst.PROPERTY_TRANSACTION_PREPARED, "true", MessageConst.PROPERTY_PRODUCER_GROUP, "g"),
                "TRAN_MSG");
            return;
        }
        TransactionMQProducer producer = new TransactionMQProducer(scope.name("group"));
        Scope.configure(producer, scope.servers.namesrv);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                return (LocalTransactionState) argument;
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                return LocalTransactionState.UNKNOW;
            }
        });
        producer.start();
        scope.onClose(producer::shutdown);
        producer.sendMessageInTransaction(new Message(topic, Scope.bytes("rolled back")), LocalTransactionState.ROLLBACK_MESSAGE);
        producer.sendMessageInTransaction(new Message(topic, Scope.bytes("committed")), LocalTransactionState.COMMIT_MESSAGE);
        List<MessageExt> delivered = awaitMessages(scope, topic, 1);
        Check.equal(1, delivered.size(), "delivered messages");
        Check.equal("committed", Scope.text(delivered.get(0).getBody()), "body");
        Check.equal(0x8, delivered.get(0).getSysFlag() & 0xC, "transaction bits");
    }
}
