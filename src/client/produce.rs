//! `ringmq produce`: sends one message, or one per line of the input, and prints a receipt for each.
//!
//! Invariant: a receipt is printed only for a message that the broker has confirmed.

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use super::blocking::Client;
use super::error::ClientError;
use super::limits::MAX_LINE_BYTES;
use super::message::Message;
use super::output::print_receipt;
use crate::cli::ProduceOptions;
use crate::process::{ExitStatus, complain};

/// Why the command ended early.
enum Stop {
    /// A broker or the message itself.
    Client(ClientError),
    /// Standard input.
    Input(io::Error),
    /// Standard output.
    Output(io::Error),
    /// A line that is too long, by number.
    LongLine(u64),
}

/// Sends what the options and the input say.
pub fn produce(options: &ProduceOptions) -> ExitCode {
    let sent = Client::connect(&options.name_servers.addresses()).map_err(Stop::Client).and_then(|client| {
        let mut client = client.with_group(&options.group);
        match &options.body {
            Some(body) => send_repeatedly(&mut client, options, body.as_bytes()),
            None => send_lines(&mut client, options, io::stdin().lock()),
        }
    });
    let Err(stop) = sent else { return ExitStatus::Ok.into() };
    let (status, text) = match stop {
        Stop::Client(error @ ClientError::Message(_)) => (ExitStatus::Usage, error.to_string()),
        Stop::Client(error) => (ExitStatus::ServerRefused, error.to_string()),
        Stop::Input(error) => (ExitStatus::Failure, format!("cannot read standard input: {error}")),
        // The reader (`| head`) has seen enough.
        Stop::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitStatus::Ok.into(),
        Stop::Output(error) => (ExitStatus::Failure, format!("cannot write to standard output: {error}")),
        Stop::LongLine(number) => {
            (ExitStatus::Failure, format!("line {number} is longer than {MAX_LINE_BYTES} bytes: no message holds it"))
        }
    };
    complain(&text);
    status.into()
}

fn message(options: &ProduceOptions, body: &[u8]) -> Message {
    Message {
        tags: options.tag.clone(),
        keys: options.key.iter().cloned().collect(),
        properties: Vec::new(),
        body: body.to_vec(),
    }
}

fn send_repeatedly(client: &mut Client, options: &ProduceOptions, body: &[u8]) -> Result<(), Stop> {
    let message = message(options, body);
    for _ in 0..options.count.unwrap_or(1) {
        send(client, options, &message)?;
    }
    Ok(())
}

fn send_lines(client: &mut Client, options: &ProduceOptions, mut input: impl BufRead) -> Result<(), Stop> {
    let (mut number, mut sent) = (0, 0);
    while options.count.is_none_or(|count| sent < count) {
        number += 1;
        let Some(line) = next_line(&mut input, number)? else { break };
        // Brokers refuse messages without a body.
        if !line.is_empty() {
            send(client, options, &message(options, &line))?;
            sent += 1;
        }
    }
    Ok(())
}

/// The next line without its end; `None` at the end of the input.
fn next_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, Stop> {
    let bound = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let read = input.by_ref().take(bound).read_until(b'\n', &mut line).map_err(Stop::Input)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if read == MAX_LINE_BYTES {
        return Err(Stop::LongLine(number));
    }
    Ok(Some(line))
}

fn send(client: &mut Client, options: &ProduceOptions, message: &Message) -> Result<(), Stop> {
    let receipt = client.send(&options.topic, message).map_err(Stop::Client)?;
    if !receipt.is_settled() {
        complain(&format!(
            "message {} is stored, but the broker gave up a wait (code {}): a power cut may take it",
            receipt.message_id, receipt.code
        ));
    }
    let mut out = io::stdout().lock();
    print_receipt(&mut out, &receipt).and_then(|()| out.flush()).map_err(Stop::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: lines come without their ends, and a line that never ends is refused. Method: both ends of line, a last line
    /// without one, an endless input.
    #[test]
    fn lines() {
        let mut input = &b"one\r\n\ntwo\nlast"[..];
        let mut lines = Vec::new();
        while let Ok(Some(line)) = next_line(&mut input, 1) {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"two", b"last"]);
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(matches!(next_line(&mut endless, 9), Err(Stop::LongLine(9))));
    }
}
