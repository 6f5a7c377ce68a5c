//! The scenarios: connections, their roles, and the unit that is counted.

use super::conn::{Dialect, Role};
use super::count::Counters;
use super::payload::PAYLOAD_BYTES_MIN;
use super::{Api, LoadRunArgs, Scenario, Speak};
use purpose::wire::Version;

/// Connections of one address that may wait for a session at the same time: half of a server's
/// limit. The other half is for connections that stay unauthenticated.
const GREETED_MAX: usize = 32;

/// The unit of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Deliveries,
    Sends,
    Echoes,
    Messages,
    Logins,
    Restores,
    Requests,
    Connections,
}

impl Unit {
    /// The name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries",
            Self::Sends => "sends",
            Self::Echoes => "echoes",
            Self::Messages => "messages",
            Self::Logins => "logins",
            Self::Restores => "restores",
            Self::Requests => "requests",
            Self::Connections => "connections",
        }
    }

    /// The number of events; connections are not counted over time.
    pub(super) fn count(self, counters: &Counters) -> u64 {
        match self {
            Self::Deliveries => counters.deliveries,
            Self::Sends => counters.sends,
            Self::Echoes => counters.echoes,
            Self::Messages => counters.stored,
            Self::Logins => counters.logins,
            Self::Restores => counters.restores,
            Self::Requests => counters.answers(),
            Self::Connections => 0,
        }
    }
}

/// One measurement.
pub(super) struct Plan {
    /// The scenario, or the part of it.
    pub(super) name: &'static str,
    /// Its parameters, for the report.
    pub(super) words: String,
    /// The unit that is counted.
    pub(super) unit: Unit,
    /// The role of each connection.
    pub(super) roles: Vec<Role>,
    /// Whether connections belong to chats.
    pub(super) has_chats: bool,
    /// Sends per second, at a fixed rate.
    pub(super) pace: Option<f64>,
    /// Whether nobody sends.
    pub(super) is_still: bool,
}

/// The dialect of the connection at this index.
pub(super) fn dialect(args: &LoadRunArgs, index: usize) -> Dialect {
    let api = if args.scenario == Scenario::Mixed { Api::Both } else { args.api };
    match (args.speak, api) {
        (Speak::Redis, _) => Dialect::Resp,
        (Speak::Mqtt, _) => Dialect::Mqtt,
        (Speak::Nats, _) => Dialect::Nats,
        (Speak::Purpose, Api::V0_1) => Dialect::Purpose(Version::V0_1),
        (Speak::Purpose, Api::V1_0) => Dialect::Purpose(Version::V1_0),
        (Speak::Purpose, Api::Both) if index.is_multiple_of(2) => Dialect::Purpose(Version::V0_1),
        (Speak::Purpose, Api::Both) => Dialect::Purpose(Version::V1_0),
    }
}

/// The measurements that a scenario consists of.
pub(super) fn plans(args: &LoadRunArgs) -> Result<Vec<Plan>, String> {
    check(args)?;
    let default = match args.scenario {
        Scenario::Echo => 50,
        Scenario::Idle => 1000,
        Scenario::History => 4,
        Scenario::Login => 32,
        Scenario::Mixed => 100,
        Scenario::Fanout | Scenario::Rate | Scenario::Durable => 64,
    };
    let connections = args.connections.unwrap_or(default).max(1);
    let (window, payload) = (args.window, args.payload);
    let chats = if args.chats == 1 { "1 chat".to_owned() } else { format!("{} chats", args.chats) };
    let in_flight = format!("{connections} connections x {window} in flight");
    let plan = |name, unit, words, roles| Plan {
        name,
        words,
        unit,
        roles,
        has_chats: true,
        pace: None,
        is_still: false,
    };
    let without_chats = |plan: Plan| Plan { has_chats: false, ..plan };
    Ok(match args.scenario {
        Scenario::Fanout => {
            let (members, publishers) = (args.members, args.publishers);
            let words = format!(
                "{members} members, {publishers} publishers x {window} in flight, {payload} bytes, {chats}"
            );
            vec![plan("fanout", Unit::Deliveries, words, audience(args, Role::Send))]
        }
        Scenario::Rate => vec![paced(args)],
        Scenario::Durable => {
            let words = format!("{in_flight}, {payload} bytes, {chats}");
            vec![plan("durable", Unit::Sends, words, vec![Role::Send; connections])]
        }
        Scenario::Echo => {
            let words = format!("{in_flight}, {payload} bytes");
            let roles = vec![Role::Echo; connections];
            vec![without_chats(plan("echo", Unit::Echoes, words, roles))]
        }
        Scenario::Idle => {
            let words = format!("{connections} authorized connections");
            let roles = vec![Role::Listen; connections];
            vec![without_chats(plan("idle", Unit::Connections, words, roles))]
        }
        Scenario::History => {
            let words = format!("{connections} connections, pages of 1,000");
            let roles = vec![Role::History; connections];
            vec![Plan { is_still: true, ..plan("history", Unit::Messages, words, roles) }]
        }
        Scenario::Login => {
            let words = format!("{connections} connections");
            let logins = vec![Role::Login; connections];
            let restores = (0..connections / 2 * 2).map(|index| Role::Restore(index / 2)).collect();
            vec![
                without_chats(plan("login", Unit::Logins, words.clone(), logins)),
                without_chats(plan("restore", Unit::Restores, words, restores)),
            ]
        }
        Scenario::Mixed => {
            let words = format!("{in_flight}, {payload} bytes, {chats}");
            let roles = (0..connections).map(mixed_role).collect();
            vec![plan("mixed", Unit::Requests, words, roles)]
        }
    })
}

/// Rejects arguments that cannot work.
fn check(args: &LoadRunArgs) -> Result<(), String> {
    let is_echo = args.scenario == Scenario::Echo;
    if args.payload < PAYLOAD_BYTES_MIN && !(is_echo && args.payload == 0) {
        return Err(format!("--payload: at least {PAYLOAD_BYTES_MIN} bytes"));
    }
    let bytes_max = if is_echo {
        purpose::limits::HEARTBEAT_BYTES_MAX
    } else {
        purpose::limits::CONTENT_BYTES_MAX
    };
    if args.payload > bytes_max {
        return Err(format!("--payload: at most {bytes_max} bytes"));
    }
    let greeted_max = 2 * GREETED_MAX * usize::from(args.source_addresses);
    if args.scenario == Scenario::Login && args.connections.is_some_and(|n| n > greeted_max) {
        return Err(format!(
            "--connections: at most {greeted_max} for login, or more --source-addresses"
        ));
    }
    let compares = matches!(
        args.scenario,
        Scenario::Fanout | Scenario::Rate | Scenario::Durable | Scenario::Echo | Scenario::Idle
    );
    if args.speak != Speak::Purpose && !compares {
        return Err("this scenario exists for vestnik only".to_owned());
    }
    if args.speak == Speak::Nats && args.scenario == Scenario::Durable {
        return Err("NATS acknowledges no durable sends: durable exists for the others".to_owned());
    }
    if args.members == 0 || args.publishers == 0 || args.rate == 0 {
        return Err("--members, --publishers and --rate: at least 1".to_owned());
    }
    Ok(())
}

/// Members that receive, some of which also send. In Redis and MQTT, publishers are separate
/// connections, since a subscriber cannot publish.
fn audience(args: &LoadRunArgs, sender: Role) -> Vec<Role> {
    let mut roles = vec![Role::Listen; args.members];
    if args.speak == Speak::Purpose {
        roles.resize(args.members.max(args.publishers), Role::Listen);
        roles[..args.publishers].fill(sender);
    } else {
        roles.resize(args.members + args.publishers, sender);
    }
    roles
}

fn paced(args: &LoadRunArgs) -> Plan {
    let (members, publishers, rate) = (args.members, args.publishers, args.rate);
    Plan {
        name: "rate",
        words: format!(
            "{rate} deliveries/s to {members} members from {publishers} publishers, {} bytes",
            args.payload
        ),
        unit: Unit::Deliveries,
        roles: audience(args, Role::Timed),
        has_chats: true,
        pace: Some(f64::from(rate) / args.members as f64),
        is_still: false,
    }
}

/// Of nine connections, two send, one echoes, one reads history, one marks and types, four receive.
/// Nine is odd, so that both versions play every role.
fn mixed_role(index: usize) -> Role {
    match index % 9 {
        0 | 5 => Role::Send,
        1 => Role::Echo,
        2 => Role::Ephemeral,
        3 => Role::History,
        _ => Role::Listen,
    }
}
