//! Options of every layer become settings, or lines that say what is wrong.

use std::path::Path;

use super::*;

fn config(toml: &str) -> Result<Config, ConfigError> {
    Options::parse(toml).and_then(Config::new)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[track_caller]
fn refused(toml: &str, about: &str) {
    let words = config(toml).expect_err(toml).to_string();
    assert!(words.contains(about), "{toml}: {words}");
    assert!(!words.contains('\n'), "{words}");
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = config("").unwrap();
    assert_eq!(config.data, Path::new(DATA));
    assert_eq!(config.listen, [address(LISTEN)]);
    assert_eq!(config.stats_socket, Path::new("vestnik.db.sock"));
    assert_eq!(config.registration, Registration::Closed);
    assert_eq!(config.auth_timeout_ms, 30_000);
    assert_eq!(config.drain_timeout_ms, 2_000);
    assert_eq!(config.body_limit_bytes, limits::BODY_BYTES_MAX);
    assert_eq!(config.tls, None);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_option_of_the_file_arrives() {
    let config = config(
        r#"
        data = "/srv/chat.db"
        listen = ["127.0.0.1:1", "[::1]:2"]
        tls-listen = "0.0.0.0:3, [::]:3"
        tls-cert = "c.pem"
        tls-key = "k.pem"
        registration = "invite"
        invites-by = "admins"
        user-list = "operators"
        push = "on"
        push-hosts = "push.example,.services.example"
        push-content = "none"
        push-contact = "admin@example.org"
        push-resolve = ["push.example=127.0.0.1:8443"]
        password-iterations = 1000
        session-days = 2
        auth-timeout = 1
        idle-timeout = 2.5
        heartbeat-timeout = 3
        stall-timeout = 4
        drain-timeout = 0.25
        shutdown-timeout = 6
        max-connections = 7
        max-unauthorized-per-address = 0
        body-limit = 5000
        content-limit = 100
        outbound-limit = 70000
        memory-limit = 9000000
        sends-per-second = 9
        user-bytes-per-day = 1000000
        file-limit = 10
        user-files-limit = 11
        files-limit = 12
        disk-reserve = 13
        checkpoints = "external"
        accept-future-time = true
        metrics-listen = "127.0.0.1:4"
        stats-socket = "/run/v.sock"
        web = "off"
        web-origin = ["https://a.example", "http://localhost:8080"]
        trusted-proxy = "127.0.0.1, 10.0.0.0/8"
        public-url = "https://chat.example.org/"
        "#,
    );
    let list = |text: &str| text.split(' ').map(address).collect();
    let expected = Config {
        data: "/srv/chat.db".into(),
        listen: list("127.0.0.1:1 [::1]:2"),
        tls: Some(Tls {
            listen: list("0.0.0.0:3 [::]:3"),
            certificate: CertificateSource::Files { cert: "c.pem".into(), key: "k.pem".into() },
        }),
        registration: Registration::Invite,
        invites_by: InvitesBy::Admins,
        user_list: UserList::Operators,
        push: true,
        push_hosts: vec!["push.example".into(), ".services.example".into()],
        push_content: PushContent::None,
        push_contact: Some("mailto:admin@example.org".parse().unwrap()),
        push_resolve: vec!["push.example=127.0.0.1:8443".parse().unwrap()],
        password_iterations: 1000,
        session_days: 2,
        auth_timeout_ms: 1000,
        idle_timeout_ms: 2500,
        heartbeat_timeout_ms: 3000,
        stall_timeout_ms: 4000,
        drain_timeout_ms: 250,
        shutdown_timeout_ms: 6000,
        max_connections: 7,
        max_unauthorized_per_address: 0,
        body_limit_bytes: 5000,
        content_limit_bytes: 100,
        outbound_limit_bytes: 70_000,
        memory_limit_bytes: 9_000_000,
        sends_per_second: 9,
        user_bytes_per_day: 1_000_000,
        file_limit_bytes: 10,
        user_files_limit_bytes: 11,
        files_limit_bytes: 12,
        disk_reserve_bytes: 13,
        checkpoints: Checkpoints::External,
        accept_future_time: true,
        metrics_listen: Some(address("127.0.0.1:4")),
        stats_socket: "/run/v.sock".into(),
        web: false,
        web_origin: ["https://a.example", "http://localhost:8080"]
            .map(|origin| origin.parse().unwrap())
            .into(),
        trusted_proxy: ["127.0.0.1", "10.0.0.0/8"].map(|network| network.parse().unwrap()).into(),
        public_url: Some("https://chat.example.org".parse().unwrap()),
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn a_higher_layer_wins_where_it_speaks() {
    let high = Options::parse("auth-timeout = 5\nlisten = '127.0.0.1:1'").unwrap();
    let low = Options::parse("auth-timeout = 6\nidle-timeout = 7\nlisten = '127.0.0.1:2'");
    let config = Config::new(high.or(low.unwrap())).unwrap();
    assert_eq!(config.auth_timeout_ms, 5000);
    assert_eq!(config.idle_timeout_ms, 7000);
    assert_eq!(config.listen, [address("127.0.0.1:1")]);
}

#[test]
fn plain_tcp_stays_at_home_unless_allowed() {
    for public in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1", "[::ffff:10.0.0.1]:1"] {
        refused(&format!("listen = '{public}'"), "allow-plaintext");
        refused(&format!("metrics-listen = '{public}'"), "allow-plaintext");
        config(&format!("listen = '{public}'\nallow-plaintext = true")).expect(public);
        let tls = format!("tls-listen = '{public}'\ntls-cert = 'c'\ntls-key = 'k'");
        config(&tls).expect(public);
    }
    for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        config(&format!("listen = '{loopback}'")).expect(loopback);
    }
}

#[test]
fn tls_is_whole_or_absent() {
    refused("tls-listen = '127.0.0.1:1'", "tls-cert");
    refused("tls-listen = '127.0.0.1:1'\ntls-key = 'k'", "tls-cert");
    refused("tls-listen = '127.0.0.1:1'\ntls-cert = 'c'", "tls-key");
    refused("tls-cert = 'c'\ntls-key = 'k'", "tls-listen");
    let config = config("tls-listen = '127.0.0.1:1'\ntls-cert = 'c'\ntls-key = 'k'").unwrap();
    assert!(config.listen.is_empty(), "with a TLS listener alone there is no plain TCP");
}

#[test]
fn a_domain_is_the_whole_of_tls() {
    let alone = config("domain = 'chat.example.org'").unwrap();
    assert!(alone.listen.is_empty());
    assert_eq!(alone.public_url.as_ref().unwrap().as_str(), "https://chat.example.org");
    let tls = alone.tls.unwrap();
    let addresses: Vec<_> = tls.listen.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:443", "[::]:443"]);
    let CertificateSource::Acme(acme) = tls.certificate else { panic!("no ACME") };
    assert_eq!(acme.domains, ["chat.example.org"]);
    assert_eq!(acme.directory, acme::LETS_ENCRYPT);
    let whole = config(
        "domain = ['Chat.Example.org', 'www.example.org']\ntls-listen = '127.0.0.1:1'\n\
         acme-directory = 'staging'\nacme-contact = 'a@b.c'\nacme-ca = 'ca.pem'\n\
         listen = '127.0.0.1:2'\npublic-url = 'https://www.example.org'",
    )
    .unwrap();
    assert_eq!(whole.listen.len(), 1);
    assert_eq!(whole.public_url.unwrap().as_str(), "https://www.example.org");
    let expected = Acme {
        domains: vec!["chat.example.org".to_owned(), "www.example.org".to_owned()],
        directory: acme::LETS_ENCRYPT_STAGING.to_owned(),
        contact: Some("a@b.c".to_owned()),
        ca: Some("ca.pem".into()),
    };
    let tls = Tls {
        listen: vec![address("127.0.0.1:1")],
        certificate: CertificateSource::Acme(expected),
    };
    assert_eq!(whole.tls, Some(tls));
    refused("acme-directory = 'staging'", "acme-directory has no effect without domain");
    refused("acme-contact = 'a@b.c'", "acme-contact has no effect without domain");
    refused("domain = 'a.b'\ntls-cert = 'c'\ntls-key = 'k'", "tls-cert contradicts domain");
    refused("domain = 'a.b, A.b'", "twice");
    refused("domain = []", "1 to 10");
    refused("domain = 'localhost'", "localhost");
    refused("domain = 'a.b'\nacme-directory = 'http://a'", "http://a");
    refused("domain = 'a.b'\nacme-contact = 'a'", "address of mail");
}

#[test]
fn an_address_is_named_once() {
    refused("listen = '127.0.0.1:1,127.0.0.1:1'", "twice");
    refused("listen = '127.0.0.1:1'\nmetrics-listen = '127.0.0.1:1'", "twice");
    config("listen = '127.0.0.1:0,127.0.0.1:0'").expect("two free ports");
    refused("listen = []", "nothing to listen on");
}

#[test]
fn values_have_bounds() {
    refused("password-iterations = 0", "password-iterations");
    refused("password-iterations = 10000001", "password-iterations");
    refused("session-days = 0", "session-days");
    refused("max-connections = 0", "max-connections");
    refused("auth-timeout = 0", "auth-timeout must be 0.1 to 86400 seconds, not 0");
    refused("idle-timeout = 86401", "idle-timeout");
    refused("stall-timeout = -1", "line 1");
    refused("stall-timeout = nan", "line 1");
    refused("body-limit = 100", "body-limit");
    refused("content-limit = 0", "content-limit");
    refused("content-limit = 65536", "body-limit must be at least 65600");
    refused("content-limit = 60000\noutbound-limit = 65536", "outbound-limit");
    // One lower bound, whatever the number.
    refused("outbound-limit = 100", "at least 49152");
    refused("outbound-limit = 40000", "at least 49152");
    refused("body-limit = 100", "at least 16448");
    refused("body-limit = 3000", "at least 16448");
    refused("body-limit = 100\ncontent-limit = 1", "at least 2048");
}

#[test]
fn all_problems_of_the_options_are_found() {
    let toml = "session-days = 0\nmax-connections = 0\ncontent-limit = 65536\n\
                tls-listen = '0.0.0.0:1'\ntls-key = 'k'\nlisten = '10.0.0.1:1'";
    let problems = Config::check(Options::parse(toml).unwrap()).unwrap_err();
    let options: Vec<_> = problems
        .iter()
        .map(|problem| problem.to_string().split(' ').next().unwrap().to_owned())
        .collect();
    let expected = ["tls-listen", "session-days", "max-connections", "body-limit"];
    assert_eq!(options[..4], expected, "{problems:?}");
    assert!(Config::check(Options::default()).is_ok());
}

#[test]
fn what_is_no_option_is_named_with_its_line() {
    refused("\nlissen = '127.0.0.1:1'", "line 2: lissen is not an option");
    refused("listen = ['127.0.0.1']", "127.0.0.1");
    refused("listen = 7", "an address");
    refused("registration = 'perhaps'", "perhaps");
    refused("data = [", "line 1");
    refused("max-connections = -1", "line 1");
    refused("web = 'perhaps'", "perhaps");
    refused("web-origin = 'chat.example.org'", "https://chat.example.org");
    refused("trusted-proxy = ['10.0.0.0/33']", "10.0.0.0/33");
    refused("public-url = 'https://chat.example.org/chat'", "not the address of a site");
}
