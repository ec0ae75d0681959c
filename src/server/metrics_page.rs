//! The metrics endpoint: one thread, Prometheus text over HTTP, on a port of its own.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use ringmq_shards::probe::Registry;

/// Serves `/metrics` until the process ends.
pub fn start(listener: TcpListener, registry: Arc<Registry>) -> io::Result<()> {
    let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
    std::thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        for request in server.incoming_requests() {
            let response = if request.url() == "/metrics" || request.url().starts_with("/metrics?") {
                let page = registry.render();
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
