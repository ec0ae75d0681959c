package interop;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs the scenarios of the real RocketMQ 5.3.3 client against a name server and a broker, one after the other in one JVM.
 * Each is bounded by 30 s. Prints {@code PASS name ms} or {@code FAIL name: reason}, then {@code N passed, N failed}; exits
 * with 1 if any failed and with 2 if the command line is wrong.
 */
public final class InteropSuite {
    private static final long SCENARIO_TIMEOUT_SECONDS = 120;

    /** One scenario; failures are exceptions. */
    interface Scenario {
        void run(Scope scope) throws Exception;
    }

    /** Scenarios by name, in running order. */
    static final class Registry {
        private final Map<String, Scenario> all = new LinkedHashMap<>();
        private final Set<String> core = new TreeSet<>();

        void add(String name, Scenario scenario) {
            if (all.put(name, scenario) != null) {
                throw new IllegalArgumentException("two scenarios are named " + name);
            }
        }

        /** Adds a scenario that also belongs to the subset `core`, which runs with both header codings. */
        void addCore(String name, Scenario scenario) {
            add(name, scenario);
            core.add(name);
        }
    }

    private InteropSuite() {
    }

    public static void main(String[] args) throws Exception {
        Arguments arguments = new Arguments(args, List.of("expect-unsupported", "list"),
            List.of("namesrv", "broker", "only", "header"));
        String coding = arguments.get("header", "json");
        if (!Set.of("json", "rocketmq").contains(coding)) {
            System.err.println("--header takes json or rocketmq");
            System.exit(2);
        }
        // Half of the default. A lite pull consumer gets its first queues through request 40, and now and then misses it.
        System.setProperty("rocketmq.client.rebalance.waitInterval", "10000");
        // Read once, when the class RemotingCommand is loaded.
        System.setProperty("rocketmq.serialize.type", coding.equals("json") ? "JSON" : "ROCKETMQ");

        Registry registry = new Registry();
        SendScenarios.register(registry);
        ConsumeScenarios.register(registry);
        OffsetScenarios.register(registry);
        TopicScenarios.register(registry);
        AdminScenarios.register(registry);
        UnsupportedScenarios.register(registry);
        if (arguments.has("list")) {
            registry.all.keySet().forEach(name -> System.out.println(name + (registry.core.contains(name) ? " (core)" : "")));
            return;
        }

        List<String> chosen = choose(registry, arguments.get("only", null));
        PrintStream report = System.out;
        int failed = 0;
        try (Scope.Servers servers = new Scope.Servers(arguments.need("namesrv"), arguments.need("broker"),
            arguments.has("expect-unsupported"))) {
            for (String name : chosen) {
                long start = System.nanoTime();
                String reason = attempt(servers, name, registry.all.get(name));
                long millis = (System.nanoTime() - start) / 1_000_000;
                report.println(reason == null ? "PASS " + name + " " + millis + " ms" : "FAIL " + name + ": " + reason);
                report.flush();
                failed += reason == null ? 0 : 1;
            }
        }
        report.println((chosen.size() - failed) + " passed, " + failed + " failed");
        report.flush();
        // Client threads that are not daemons must not keep the process.
        System.exit(failed == 0 ? 0 : 1);
    }

    private static List<String> choose(Registry registry, String only) {
        if (only == null) {
            return new ArrayList<>(registry.all.keySet());
        }
        Set<String> wanted = new TreeSet<>();
        for (String name : only.split(",")) {
            if (name.equals("core")) {
                wanted.addAll(registry.core);
            } else if (registry.all.containsKey(name)) {
                wanted.add(name);
            } else {
                System.err.println("no scenario is named " + name + "; --list shows them");
                System.exit(2);
            }
        }
        return registry.all.keySet().stream().filter(wanted::contains).toList();
    }

    /** Runs one scenario in its own thread; returns null or the reason of its failure. */
    private static String attempt(Scope.Servers servers, String name, Scenario scenario) throws InterruptedException {
        CompletableFuture<Void> done = new CompletableFuture<>();
        Scope scope = new Scope(servers, name);
        Thread thread = new Thread(() -> {
            try {
                scenario.run(scope);
                done.complete(null);
            } catch (Throwable failure) {
                done.completeExceptionally(failure);
            }
        }, "scenario-" + name);
        thread.setDaemon(true);
        thread.start();
        try {
            done.get(SCENARIO_TIMEOUT_SECONDS, TimeUnit.SECONDS);
            return null;
        } catch (ExecutionException failure) {
            Throwable cause = failure.getCause();
            if (!(cause instanceof Check.Failure)) {
                cause.printStackTrace();
            }
            return cause instanceof Check.Failure ? cause.getMessage() : cause.toString().replace('\n', ' ');
        } catch (TimeoutException timeout) {
            String where = Arrays.stream(thread.getStackTrace()).filter(frame -> frame.getClassName().startsWith("interop."))
                .findFirst().map(StackTraceElement::toString).orElse("?");
            thread.interrupt();
            return "not done after " + SCENARIO_TIMEOUT_SECONDS + " s, at " + where;
        } finally {
            scope.close();
        }
    }
}
