//! The real binary: a server in a folder of its own, and the commands of an operator.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, PASSWORD, tunnel};

/// How long the server may take to print its `listening` line, or to end.
const PROCESS_WAIT: Duration = Duration::from_secs(30);

/// A folder for one test, removed with all that is in it.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("vestnik-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary with nothing of the caller's surroundings: no VESTNIK_… and no RUST_LOG.
pub(crate) fn vestnik(folder: &Path) -> Command {
    vestnik_under(&[], folder)
}

/// The same, started by another program that makes its surroundings and then becomes it.
fn vestnik_under(wrapper: &[String], folder: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_vestnik");
    let mut command = match wrapper {
        [] => Command::new(binary),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(binary);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("VESTNIK_") || name_text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.current_dir(folder);
    command
}

/// `serve` on `data` with cheap password hashes, on a free port unless `options` name a listener.
pub(crate) fn serve_command(folder: &Path, data: &Path, options: &[&str]) -> Command {
    serve_under(&[], folder, data, options)
}

fn serve_under(wrapper: &[String], folder: &Path, data: &Path, options: &[&str]) -> Command {
    let mut command = vestnik_under(wrapper, folder);
    command.arg("serve").arg("--data").arg(data);
    if !options.contains(&"--password-iterations") {
        command.args(["--password-iterations", "1000"]);
    }
    if !options.iter().any(|option| option.contains("listen")) {
        if tunnel::is_over_tls() {
            let (cert, key) = tunnel::pair();
            command.args(["--tls-listen", "127.0.0.1:0", "--tls-cert"]).arg(cert);
            command.arg("--tls-key").arg(key);
        } else {
            command.args(["--listen", "127.0.0.1:0"]);
        }
    }
    command.args(options);
    command
}

/// Runs a command to its end within the time limit.
pub(crate) fn run(mut command: Command, input: Option<&str>) -> Output {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe to stdin");
    if let Some(input) = input {
        // A command that failed before it read its input closes the pipe: its status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    drop(stdin);
    let id = child.id();
    let (done, waiting) = channel();
    let waiter = thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    if waiting.recv_timeout(PROCESS_WAIT).is_err() {
        signal(id, "KILL");
        panic!("a command did not end");
    }
    waiter.join().expect("the waiter").expect("an output")
}

/// Sends a signal by name to a process that the test started.
pub(crate) fn signal(id: u32, name: &str) {
    let status =
        Command::new("sh").arg("-c").arg(format!("kill -{name} {id}")).status().expect("sh runs");
    assert!(status.success(), "kill -{name} {id}");
}

/// A running server; killed and cleaned up when dropped.
pub(crate) struct Server {
    dir: TempDir,
    options: Vec<String>,
    /// A program and its arguments that make the server's surroundings.
    wrapper: Vec<String>,
    /// The data file lies on a disk that only the server's mount namespace has.
    has_own_disk: bool,
    /// The process that keeps a disk of its own mounted while the server does not run.
    holder: Option<Child>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    lines: Receiver<String>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// A new server on a fresh file.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// A new server on a fresh file with more options.
    #[track_caller]
    pub(crate) fn with(options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        server.restart();
        server
    }

    /// A new server on a copy of a data file.
    #[track_caller]
    pub(crate) fn on_copy_of(file: &Path) -> Self {
        let mut server = Self::prepare(&[]);
        fs::copy(file, server.data()).expect("a copy");
        server.restart();
        server
    }

    /// A new server whose process is set up by shell commands first, such as `ulimit -n 100`.
    #[track_caller]
    pub(crate) fn after(commands: &str, options: &[&str]) -> Self {
        let mut server = Self::prepare(options);
        let script = format!("{commands} && exec \"$0\" \"$@\"");
        server.wrapper = ["sh", "-c", &script].map(str::to_owned).to_vec();
        server.restart();
        server
    }

    /// A new server whose data lies on a disk of its own, its size in KiB. `None` where the test
    /// may not make one, which it says.
    #[track_caller]
    pub(crate) fn on_small_disk(kib: u32, options: &[&str]) -> Option<Self> {
        let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
        let tried = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
        if !tried.is_ok_and(|output| output.status.success()) {
            eprintln!("no disk of one's own can be made here: nothing is tested");
            return None;
        }
        let mut server = Self::prepare(options);
        let disk = server.dir.join("disk");
        fs::create_dir(&disk).expect("a mount point");
        let script = format!(
            "mount -t tmpfs -o size={kib}k tmpfs '{}' && exec \"$0\" \"$@\"",
            disk.display()
        );
        server.wrapper = unshare.map(str::to_owned).to_vec();
        server.wrapper.extend(["sh".into(), "-c".into(), script]);
        server.has_own_disk = true;
        server.restart();
        Some(server)
    }

    /// The same, on a disk that outlives the server's process: it can be killed and started again.
    #[track_caller]
    pub(crate) fn on_lasting_disk(kib: u32, options: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(options);
        let disk = server.dir.join("disk");
        fs::create_dir(&disk).expect("a mount point");
        let script = format!(
            "mount -t tmpfs -o size={kib}k tmpfs '{}' && echo mounted && exec sleep 600",
            disk.display()
        );
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut line = String::new();
        if let Ok(mut holder) = holder {
            let stdout = holder.stdout.take().expect("a pipe");
            let _ = BufReader::new(stdout).read_line(&mut line);
            server.wrapper = enter(holder.id());
            server.holder = Some(holder);
        }
        if line != "mounted\n" {
            eprintln!("no disk of one's own can be made here: nothing is tested");
            return None;
        }
        server.has_own_disk = true;
        server.restart();
        Some(server)
    }

    fn prepare(options: &[&str]) -> Self {
        Self {
            dir: TempDir::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            wrapper: Vec::new(),
            has_own_disk: false,
            holder: None,
            process: None,
        }
    }

    pub(crate) fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// The data file, where it is not on a disk of the server's own.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("t.db")
    }

    /// The folder of a disk of the server's own, while it runs.
    pub(crate) fn disk(&self) -> PathBuf {
        let inside = self.dir.join("disk");
        PathBuf::from(format!("/proc/{}/root{}", self.disk_process(), inside.display()))
    }

    /// A process that sees the server's disk.
    fn disk_process(&self) -> u32 {
        self.holder.as_ref().map_or_else(|| self.process_id(), Child::id)
    }

    /// The data file, as the server and the commands next to it reach it.
    fn data_inside(&self) -> PathBuf {
        let folder = if self.has_own_disk { "disk/" } else { "" };
        self.dir.join(&format!("{folder}t.db"))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("stderr.txt")
    }

    /// Starts the binary on the same file; the one before must be gone.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let log =
            File::options().create(true).append(true).open(self.log()).expect("a file for stderr");
        let data = self.data_inside();
        let mut child = serve_under(&self.wrapper, self.dir.path(), &data, &options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let lines = lines_of(&mut child);
        let wanted = options.iter().filter(|option| option.ends_with("listen")).count();
        let mut process = Process { child, lines, addresses: Vec::new() };
        for _ in 0..wanted.max(1) {
            let Ok(line) = process.lines.recv_timeout(PROCESS_WAIT) else {
                let _ = process.child.kill();
                panic!("no `listening` line; stderr:\n{}", self.stderr());
            };
            let address = line
                .strip_prefix("listening plain ")
                .or_else(|| line.strip_prefix("listening tls "))
                .or_else(|| line.strip_prefix("listening metrics "))
                .and_then(|address| address.parse().ok())
                .unwrap_or_else(|| panic!("not a `listening KIND ADDR` line: {line:?}"));
            if line.starts_with("listening tls ") {
                tunnel::note(address);
            }
            process.addresses.push(address);
        }
        self.process = Some(process);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process().addresses[0]
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.process().addresses
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process().child.id()
    }

    /// All that the server wrote to standard error, over all its starts.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// `kill -9`: no chance to say good-bye.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("the server runs");
        process.child.kill().expect("kill -9");
        process.child.wait().expect("the end of the server");
    }

    /// Sends the signal and waits for the end; also returns what stdout said after `listening`.
    #[track_caller]
    pub(crate) fn stop_by(&mut self, name: &str) -> (ExitStatus, Vec<String>) {
        signal(self.process_id(), name);
        self.wait_for_end()
    }

    #[track_caller]
    pub(crate) fn wait_for_end(&mut self) -> (ExitStatus, Vec<String>) {
        let mut process = self.process.take().expect("the server runs");
        let deadline = Instant::now() + PROCESS_WAIT;
        let status = loop {
            if let Some(status) = process.child.try_wait().expect("a status") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = process.child.kill();
                panic!("the server did not end; stderr:\n{}", self.stderr());
            }
            thread::sleep(Duration::from_millis(5));
        };
        (status, process.lines.iter().collect())
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        match &mut self.process {
            Some(process) => matches!(process.child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// What brings a command to where the server's disk is.
    fn entrance(&self) -> Vec<String> {
        if !self.has_own_disk {
            return Vec::new();
        }
        enter(self.disk_process())
    }

    /// Runs `vestnik ARGS --data FILE`.
    pub(crate) fn admin(&self, args: &[&str], input: Option<&str>) -> Output {
        let mut command = vestnik_under(&self.entrance(), self.dir.path());
        command.args(args).arg("--data").arg(self.data_inside());
        run(command, input)
    }

    /// Runs `vestnik ARGS --data FILE`, which must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn admin_ok(&self, args: &[&str], input: Option<&str>) -> String {
        let output = self.admin(args, input);
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8 on stdout")
    }

    /// The server's metrics now, by name and label as Prometheus gets them, without `vestnik_`.
    #[track_caller]
    pub(crate) fn metrics(&self) -> HashMap<String, f64> {
        samples(&self.admin_ok(&["stats", "--raw"], None))
    }

    /// Resident memory of the server's process, in bytes.
    #[track_caller]
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()));
        let status = status.expect("Linux reports on processes");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
        kib * 1024
    }

    /// A user with [`PASSWORD`].
    #[track_caller]
    pub(crate) fn add_user(&self, name: &str) {
        self.add_user_with_password(name, PASSWORD);
    }

    #[track_caller]
    pub(crate) fn add_user_with_password(&self, name: &str, password: &str) {
        self.admin_ok(
            &["user", "add", name, "--password-stdin", "--password-iterations", "1000"],
            Some(&format!("{password}\n")),
        );
    }

    /// A chat without a password whose members are `members`; the first is its admin.
    #[track_caller]
    pub(crate) fn add_chat(&self, name: &str, members: &[&str]) {
        let mut args = vec!["chat", "add", name];
        if let Some(admin) = members.first() {
            args.extend(["--admin", admin]);
        }
        self.admin_ok(&args, None);
        for member in members.iter().skip(1) {
            self.admin_ok(&["chat", "join", name, member], None);
        }
    }

    /// A chat without members that asks for `password`.
    #[track_caller]
    pub(crate) fn add_locked_chat(&self, name: &str, password: &str) {
        self.admin_ok(&["chat", "add", name, "--password-stdin"], Some(&format!("{password}\n")));
    }

    /// A connection that said nothing yet.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// A connection that said HELLO 0.1.
    #[track_caller]
    pub(crate) fn greeted(&self) -> Client {
        let mut client = self.connect();
        client.hello(0, 1);
        client
    }

    /// A connection of a user that [`Server::add_user`] made, on API 0.1.
    #[track_caller]
    pub(crate) fn login(&self, name: &str) -> Client {
        let mut client = self.greeted();
        client.login(name);
        client
    }
}

/// A command that brings another one to where a process is.
fn enter(process: u32) -> Vec<String> {
    let enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target"];
    let mut command = enter.map(str::to_owned).to_vec();
    command.extend([process.to_string(), "--".to_owned()]);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.process.as_mut().map(|process| &mut process.child);
        for child in [process, self.holder.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("---- the server's stderr ----\n{}", self.stderr());
        }
    }
}

/// All samples of a page of metrics.
pub(crate) fn samples(page: &str) -> HashMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.strip_prefix("vestnik_").expect("a name of ours");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// The lines of the child's standard output as they come.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let stdout = child.stdout.take().expect("a pipe from stdout");
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// How often words stand in the memory of a process; `None` where it may not be read.
pub(crate) fn in_memory_of(process: u32, words: &[&str]) -> Option<Vec<usize>> {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    let mut found = vec![0; words.len()];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; (to - from) as usize];
        if memory.read_at(&mut bytes, from).is_err() {
            // A mapping that cannot be read by anybody, or has gone meanwhile.
            continue;
        }
        let text = String::from_utf8_lossy(&bytes);
        for (word, count) in words.iter().zip(&mut found) {
            *count += text.matches(word).count();
        }
    }
    Some(found)
}
