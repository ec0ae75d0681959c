//! `run`: one workload against one target, once or some times.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::options::{Common, NamedTarget, RunOptions, TargetOptions, parse_address, parse_target, read_slo};
use super::session::{Request, Session};
use super::{CliError, floors};
use crate::drivers::file::AppendMode;
use crate::drivers::null::Idle;
use crate::drivers::remoting::{configuration, connect, durability};
use crate::host::pinning;
use crate::host::process::listener_of;
use crate::peers::Peer;
use crate::result::{Durability, RunRole, SetKind};
use crate::runner::{RunError, Target, note};
use crate::workload::Workload;

/// Refuses what the target cannot do.
pub fn check_served(workload: &Workload, target: &NamedTarget) -> Result<(), CliError> {
    if let (NamedTarget::Start(Peer::RingMq), Some(lacks)) = (target, workload.lacks_in_ringmq()) {
        let name = &workload.name;
        return Err(CliError::Usage(format!(
            "{name} needs {lacks}, which RingMQ does not serve yet (it refuses such messages with code 13)"
        )));
    }
    if workload.requires.iter().any(|needed| needed == "delay-level") {
        let name = &workload.name;
        return Err(CliError::Usage(format!("{name} needs delay levels, which this harness does not send yet")));
    }
    Ok(())
}

/// Refuses a running broker that nobody can connect to, and a RingMQ that is not there to be started, before anything is made for the
/// result.
///
/// # Errors
/// Nobody listens there, or there is no such program.
pub fn check_there(common: &Common, target: &NamedTarget) -> Result<(), CliError> {
    match target {
        NamedTarget::Ready(Target::Broker(address)) => {
            connect(*address).map_err(RunError::from)?;
            Ok(())
        }
        NamedTarget::Start(Peer::RingMq) => common.ready_broker(),
        _ => Ok(()),
    }
}

/// How a target that is measured as it is appears in the result.
pub struct Ready {
    pub system: String,
    pub title: String,
    pub durability: Option<Durability>,
    pub pid: Option<u32>,
    /// What it says of its configuration.
    pub configuration: Vec<(String, String)>,
}

impl Ready {
    fn floor(system: &str, title: &str, durability: Option<Durability>) -> Ready {
        let (system, title) = (system.to_owned(), title.to_owned());
        Ready { system, title, durability, pid: None, configuration: Vec::new() }
    }
}

/// Describes a target and refuses one that shares the generator's core.
pub fn describe(session: &mut Session<'_>, target: &Target, options: &TargetOptions) -> Result<Ready, CliError> {
    let mut ready = describe_unnamed(session, target, options)?;
    if let Some(name) = &options.name {
        ready.title = format!("{name} ({})", ready.title);
        ready.system.clone_from(name);
    }
    Ok(ready)
}

/// Whether an address is one of this host's: only those can be listened on.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn describe_unnamed(session: &mut Session<'_>, target: &Target, options: &TargetOptions) -> Result<Ready, CliError> {
    let append = |mode, durability| {
        let (system, title) = floors::names(mode);
        Ready::floor(system, title, Some(durability))
    };
    Ok(match target {
        Target::Null(behaviour) if behaviour.idle == Idle::Sleep => {
            Ready::floor("null-sleep", "echo floor, sleeping", None)
        }
        Target::Null(_) => Ready::floor("null", "echo floor", None),
        Target::File(_, mode @ AppendMode::PageCache) => append(*mode, Durability::D1),
        Target::File(_, mode @ (AppendMode::Read | AppendMode::ReadDirect)) => {
            Ready { durability: None, ..append(*mode, Durability::D1) }
        }
        Target::File(_, mode) => append(*mode, Durability::D2),
        Target::Broker(address) => {
            let is_local = is_local(address.ip());
            let pid = if is_local { listener_of(address.port()) } else { None };
            if is_local && pid.is_none() {
                // Whoever it is, it may run anywhere: what is not known is not claimed.
                session.layout.broker = pinning::online_cores();
                if !session.common.allow_shared_cores {
                    return Err(CliError::Usage(format!(
                        "the broker at {address} is on this host, but its process cannot be seen (is it another user's?), so it \
                         may run on the generator's core; measure as its user or as root, or say --allow-shared-cores"
                    )));
                }
            } else if let Some(pid) = pid {
                let cores = i32::try_from(pid).map(pinning::allowed_cores).unwrap_or_default();
                session.layout.broker = cores;
                if session.layout.shares_cores() && !session.common.allow_shared_cores {
                    return Err(CliError::Usage(format!(
                        "the broker (process {pid}) may run on the generator's core {}; bind it to others (taskset -cp \
                         LIST {pid}), or say --allow-shared-cores",
                        session.layout.generator.unwrap_or(0)
                    )));
                }
            } else {
                session.layout.broker.clear();
            }
            let (durability, assumed, configuration) = class(*address, options);
            let title = format!("broker at {address}{assumed}");
            Ready { system: address.to_string(), title, durability: Some(durability), pid, configuration }
        }
    })
}

/// The class of a running broker: what it is called, or what it says. A broker that does neither is taken for one that has the usual
/// setting, and the second value, for its title, says so. The third is what it says of its configuration.
fn class(address: SocketAddr, options: &TargetOptions) -> (Durability, String, Vec<(String, String)>) {
    let said = configuration(address);
    let settings = said.as_ref().map(Vec::as_slice).unwrap_or_default();
    let usual = options.flush().durability();
    let (class, assumed) = match (options.flush, durability(settings)) {
        (Some(_), _) => (usual, String::new()),
        (None, Some(class)) => (class, String::new()),
        (None, None) => {
            let why = said.as_ref().err().map_or_else(|| "it names no flushDiskType".to_owned(), ToString::to_string);
            note(&format!("{} is assumed: {why}; say --flush", usual.name()));
            (usual, format!(", {} assumed: it does not tell its flushDiskType", usual.name()))
        }
    };
    (class, assumed, said.unwrap_or_default())
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &RunOptions) -> Result<u8, CliError> {
    let (mut workload, definition) = Workload::find(&options.workload)?;
    options.changes.apply(&mut workload)?;
    let target = parse_target(&options.target.target, &common.store_folder())?;
    check_served(&workload, &target)?;
    let slo = options.slo.as_deref().map(|slo| read_slo(slo, &workload)).transpose()?;
    let metrics = options.target.metrics.as_deref().map(parse_address).transpose()?;
    check_there(common, &target)?;
    let starts = matches!(target, NamedTarget::Start(_) | NamedTarget::Ready(Target::Null(_)));
    let mut session = Session::begin(common, SetKind::Run, &format!("run-{}", workload.name), starts)?;
    session.set.slo = slo;
    session.add_workload(&workload, &definition);
    let failure = (|| {
        for round in 1..=options.repeat.max(1) {
            if session.is_stopped() {
                break;
            }
            let (header, scale) = (options.changes.header.into(), options.changes.scale);
            match &target {
                NamedTarget::Start(peer) => {
                    let settings = common.settings(&workload)?;
                    let flush = options.target.flush();
                    let name = format!("{}-{round}", peer.name());
                    session.with_broker((*peer, flush), settings, &name, |session, broker| {
                        let request = Request::of_broker(broker, *peer, flush, &workload, RunRole::Measured);
                        session.run(&Request { round, header, scale, ..request }).map(|_| ())
                    })?;
                }
                NamedTarget::Ready(target) => {
                    let ready = describe(&mut session, target, &options.target)?;
                    session.add_ready_system(&ready);
                    let floor = Request::of_floor(&ready.system, target.clone(), &workload, ready.durability);
                    let role = RunRole::Measured;
                    let broker_pid = ready.pid;
                    let deletes_topics = options.target.deletes_topics(target);
                    let request = Request { role, round, header, scale, broker_pid, metrics, deletes_topics, ..floor };
                    session.run(&request)?;
                }
            }
        }
        Ok(())
    })();
    session.finish(failure.err())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a broker on this host is recognized by whatever address it is called, one elsewhere is not. Method: loopback of both
    /// families, and addresses for documentation, which no host has.
    #[test]
    fn addresses_of_this_host() {
        for address in ["127.0.0.1", "127.0.0.9"] {
            assert!(is_local(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "198.51.100.7", "2001:db8::1"] {
            assert!(!is_local(address.parse().unwrap()), "{address}");
        }
    }
}
