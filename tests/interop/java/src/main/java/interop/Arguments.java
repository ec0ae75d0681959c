package interop;

import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Command line of all programs here: {@code --name value} pairs, and {@code --name} alone for the listed flags. Reading it
 * also bounds the program: it ends with 1 when its main thread dies, although client threads live on, and after 5 minutes.
 */
final class Arguments {
    private static final long PROGRAM_TIMEOUT_MILLIS = 300_000;

    private final Map<String, String> values = new HashMap<>();

    Arguments(String[] args, List<String> flags, List<String> options) {
        Thread.currentThread().setUncaughtExceptionHandler((thread, failure) -> {
            failure.printStackTrace();
            Runtime.getRuntime().halt(1);
        });
        Thread watchdog = new Thread(() -> {
            try {
                Thread.sleep(PROGRAM_TIMEOUT_MILLIS);
            } catch (InterruptedException e) {
                return;
            }
            System.err.println("not done after " + PROGRAM_TIMEOUT_MILLIS + " ms");
            Runtime.getRuntime().halt(1);
        }, "watchdog");
        watchdog.setDaemon(true);
        watchdog.start();
        for (int i = 0; i < args.length; i++) {
            String name = args[i].startsWith("--") ? args[i].substring(2) : "";
            if (flags.contains(name)) {
                values.put(name, "true");
            } else if (options.contains(name) && i + 1 < args.length) {
                values.put(name, args[++i]);
            } else {
                System.err.println("unknown or incomplete argument: " + args[i] + "; flags " + flags + ", options " + options);
                System.exit(2);
            }
        }
    }

    boolean has(String flag) {
        return values.containsKey(flag);
    }

    String get(String option, String fallback) {
        return values.getOrDefault(option, fallback);
    }

    String need(String option) {
        String value = values.get(option);
        if (value == null) {
            System.err.println("--" + option + " is required");
            System.exit(2);
        }
        return value;
    }
}
