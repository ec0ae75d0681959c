package interop;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Writes a representative set of messages by the client: many sizes up to 4 MiB, compressed and not, tags, several keys,
 * batches, unicode, flags, one and many queues, and an untidy end in the middle of a page. The choice is fixed by a seed.
 * Options: {@code --namesrv HOST:PORT --broker HOST:PORT}.
 */
public final class StoreFill {
    private static final int[] SIZES = {1, 2, 31, 100, 255, 256, 1_000, 4_095, 4_096, 4_097, 10_000, 65_535, 65_536, 100_000, 262_144,
        1_000_000, 4 * 1024 * 1024};

    private StoreFill() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of(), List.of("namesrv", "broker"));
        Random random = new Random(20260101);
        int count = 0;
        try (Scope.Servers servers = new Scope.Servers(arguments.need("namesrv"), arguments.need("broker"), false);
            Scope scope = new Scope(servers, "fill")) {
            DefaultMQProducer raw = scope.producer();
            raw.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
            String sizes = "fill_sizes";
            scope.createTopic(sizes, 4);
            for (int size : SIZES) {
                byte[] noise = new byte[size];
                random.nextBytes(noise);
                count += sent(raw.send(new Message(sizes, "noise", "size" + size, noise), scope.queue(sizes, count % 4)));
                byte[] text = "compressible text ".repeat(size / 18 + 1).substring(0, size).getBytes();
                count += sent(servers.producer.send(new Message(sizes, "text", "size" + size, text), scope.queue(sizes, count % 4)));
            }

            String words = "fill_words";
            scope.createTopic(words, 8);
            List<String> tags = new ArrayList<>(List.of("TagA", "标签", "Aa", "BB", "тег", "🏷"));
            tags.add(null);
            for (int i = 0; i < 300; i++) {
                Message message = new Message(words, tags.get(i % tags.size()), i % 3 == 0 ? "k" + i : "k" + i + " 键" + i + " shared",
                    Scope.bytes("слово " + i + " 💧"));
                message.setFlag(i - 150);
                message.putUserProperty("colour", List.of("red", "grün", "蓝", "jaune clair").get(i % 4));
                message.putUserProperty("filler", "x".repeat(random.nextInt(300)));
                count += sent(raw.send(message, scope.queue(words, i % 8)));
            }

            String batches = "fill_batches";
            scope.createTopic(batches, 2);
            for (int size : new int[] {1, 2, 7, 100, 1_000}) {
                List<Message> batch = new ArrayList<>();
                for (int i = 0; i < size; i++) {
                    byte[] body = new byte[1 + random.nextInt(300)];
                    random.nextBytes(body);
                    batch.add(new Message(batches, "batch" + size, "b" + size + "-" + i, body));
                }
                MessageQueue queue = scope.queue(batches, size % 2);
                Check.equal(SendStatus.SEND_OK, servers.producer.send(batch, queue).getSendStatus(), "batch status");
                count += size;
            }

            String created = "fill_created_by_send";
            count += sent(servers.producer.send(new Message(created, Scope.bytes("auto-created"))));
        } catch (Check.Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
        System.out.println("filled messages=" + count);
        System.exit(0);
    }

    private static int sent(SendResult result) {
        Check.equal(SendStatus.SEND_OK, result.getSendStatus(), "send status");
        return 1;
    }
}
