//! The metrics endpoint: one thread, Prometheus text over HTTP, on a port of its own.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ringmq_shards::probe::Registry;

use super::metrics::ShardProbe;

/// Serves `/metrics` until the process ends.
pub fn start(address: SocketAddr, registry: Arc<Registry>, shards: Vec<Arc<ShardProbe>>) -> io::Result<()> {
    let server = tiny_http::Server::http(address).map_err(io::Error::other)?;
    std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        for request in server.incoming_requests() {
            let response = if request.url() == "/metrics" || request.url().starts_with("/metrics?") {
                let page = registry.render() + &render_shards(&shards);
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                match tiny_http::Header::from_bytes("Content-Type", kind) {
                    Ok(header) => tiny_http::Response::from_string(page).with_header(header),
                    Err(()) => tiny_http::Response::from_string(page),
                }
            } else {
                tiny_http::Response::from_string("the metrics are at /metrics\n").with_status_code(404)
            };
            if let Err(error) = request.respond(response) {
                tracing::debug!(%error, "a reader of the metrics went away");
            }
        }
    })?;
    Ok(())
}

fn render_shards(shards: &[Arc<ShardProbe>]) -> String {
    let mut page = String::new();
    let rows: Vec<_> = shards.iter().map(|shard| shard.rows()).collect();
    let Some(first) = rows.first() else { return page };
    for (index, (name, kind, help, _)) in first.iter().enumerate() {
        let suffix = if *kind == "counter" { "_total" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# HELP ringmq_shard_{name}{suffix}{help}\n# TYPE ringmq_shard_{name}{suffix} {kind}");
        for (shard, row) in rows.iter().enumerate() {
            let _ = writeln!(page, "ringmq_shard_{name}{suffix}{{shard=\"{shard}\"}} {}", row[index].3);
        }
    }
    page
}
