//! `ringmq-bench`: measures the latency of RocketMQ brokers.

fn main() -> std::process::ExitCode {
    ringmq_bench::cli::main()
}
