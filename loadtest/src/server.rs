//! Servers: corecast or a peer, started on a free port and ended when dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::affinity;
use crate::plan::Plan;
use crate::target::KEY_PAIR;

/// A running server. It ends when this is dropped.
pub struct Server {
    child: Child,
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The Unix socket for publishers, if it has one.
    pub admin_socket: Option<PathBuf>,
    /// The TCP address for publishers, if it has another one.
    pub publish_to: Option<SocketAddr>,
    /// Its configuration file, if it has one.
    pub config: Option<PathBuf>,
    /// The folder of its files.
    directory: PathBuf,
}

/// Options of a corecast that is started.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// The corecast binary that is started [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    pub server_bin: Option<PathBuf>,
    /// Shards of the corecast that is started.
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// The core for the server that is started [default: its own choice].
    #[arg(long, value_name = "CORE")]
    pub server_core: Option<usize>,
}

impl ServerArgs {
    /// Starts servers as the options say.
    pub fn starter(&self, stop: &Arc<AtomicBool>) -> Starter {
        Starter {
            core: self.server_core,
            shards: self.shards,
            corecast: self.server_bin.clone(),
            stop: Arc::clone(stop),
            ..Starter::default()
        }
    }
}

/// How to start servers.
#[derive(Clone, Default)]
pub struct Starter {
    /// The core for the server; any core without it.
    pub core: Option<usize>,
    /// Shards of corecast.
    pub shards: usize,
    /// The corecast binary, if it is not the one beside this program.
    pub corecast: Option<PathBuf>,
    /// Further options of `corecast serve`.
    pub options: Vec<String>,
    /// The rules for channels: `[[channel]]` tables of corecast's configuration file.
    pub rules: String,
    /// The file for the server's log, instead of a temporary one.
    pub log: Option<PathBuf>,
    /// Write the server's output to the terminal, instead of to a file.
    pub is_foreground: bool,
    /// Stop waiting for the server. Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

/// Where a server listens and keeps its files.
struct Site {
    address: SocketAddr,
    directory: PathBuf,
    /// The Unix socket for publishers, for servers that have one.
    admin: PathBuf,
    /// The TCP address for publishers, if the server has another one.
    publish_to: Option<SocketAddr>,
}

impl Starter {
    /// Starts a server and waits until it accepts connections.
    pub fn start(&self, name: &str, listen: Option<SocketAddr>, admin: Option<&Path>) -> anyhow::Result<Server> {
        let address = match listen {
            Some(address) => address,
            None => free_address()?,
        };
        let directory = std::env::temp_dir().join(format!("loadtest-{}-{}", std::process::id(), address.port()));
        fs::create_dir_all(&directory)?;
        let admin = admin.map_or_else(|| directory.join("admin.sock"), Path::to_path_buf);
        let _ = fs::remove_file(&admin);
        let mut site = Site { address, directory, admin, publish_to: None };
        let mut command = self.command(name, &mut site)?;
        let Site { directory, admin, publish_to, .. } = site;
        let (log, config) = (directory.join("log"), directory.join(CONFIG));
        if !self.is_foreground {
            let file = File::options().create(true).append(true).open(self.log.as_ref().unwrap_or(&log))?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            // Ctrl-C must not reach the server, which has to run until the results are complete.
            command.process_group(0);
        }
        let child = affinity::on_core(self.core, || command.spawn())
            .with_context(|| format!("cannot start {name} ({})", command.get_program().to_string_lossy()))?;
        let has_admin = name.starts_with("corecast") || name.starts_with("floor");
        let mut server = Server {
            child,
            address,
            admin_socket: has_admin.then_some(admin),
            publish_to,
            config: config.exists().then_some(config),
            directory,
        };
        server.wait_until_ready(name, &self.stop)?;
        Ok(server)
    }

    fn command(&self, name: &str, site: &mut Site) -> anyhow::Result<Command> {
        match name {
            name if name.starts_with("corecast") => self.corecast_command(name, site),
            "floor" | "floor-per-message" => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["peer", name, "--listen", &site.address.to_string(), "--admin-socket"]).arg(&site.admin);
                Ok(command)
            }
            _ => site.peer_command(name),
        }
    }

    fn corecast_command(&self, name: &str, site: &mut Site) -> anyhow::Result<Command> {
        let mut command = Command::new(self.corecast()?);
        command.args(["serve", "--listen", &site.address.to_string(), "--admin-socket"]).arg(&site.admin);
        let shards = if name == "corecast-2-shards" { 2 } else { self.shards.max(1) };
        command.args(["--shards", &shards.to_string()]);
        // A core that was asked for is inherited; the server would choose another one.
        command.args(["--pin", if self.core.is_some() { "none" } else { "auto" }]);
        // The clients of a churn subscribe and unsubscribe as fast as they can. Not a flag: older binaries do not know it.
        command.env("CORECAST_MAX_SUBSCRIBES_PER_SECOND", "0");
        command.args(&self.options);
        if !self.rules.is_empty() {
            let config = site.directory.join(CONFIG);
            fs::write(&config, &self.rules)?;
            command.arg("--config").arg(config);
        }
        if name.ends_with("rest") {
            let http = free_address()?;
            site.publish_to = Some(http);
            command.args(["--http", &http.to_string()]);
        }
        if ["rest", "pusher", "both"].iter().any(|part| name.contains(part)) {
            let (key, secret) = KEY_PAIR;
            command.args(["--key", &format!("{key}:{secret}")]);
        }
        if name.starts_with("corecast-tls") {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            let (cert, key) = (site.directory.join("cert.pem"), site.directory.join("key.pem"));
            fs::write(&cert, pair.cert.pem())?;
            fs::write(&key, pair.signing_key.serialize_pem())?;
            command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        }
        Ok(command)
    }

    /// The corecast binary.
    pub fn corecast(&self) -> anyhow::Result<PathBuf> {
        let beside = std::env::current_exe()?.with_file_name("corecast");
        let path = self.corecast.clone().unwrap_or(beside);
        ensure!(
            path.exists(),
            "{} does not exist: build it (cargo build --release) or give --server-bin",
            path.display()
        );
        Ok(path)
    }
}

impl Site {
    /// The command of a server that others wrote.
    fn peer_command(&mut self, name: &str) -> anyhow::Result<Command> {
        let port = self.address.port().to_string();
        match name {
            "bun" | "bun-deferred" => {
                let folder = peers_folder().join("bun");
                let bun = folder.join("node_modules/@oven/bun-linux-x64/bin/bun");
                npm_install(&folder, &bun)?;
                let mut command = Command::new(bun);
                let mode = if name == "bun" { "direct" } else { "deferred" };
                command.arg(folder.join("server.js")).args([&port, mode]);
                Ok(command)
            }
            "node-ws" => {
                let folder = peers_folder().join("node-ws");
                npm_install(&folder, &folder.join("node_modules/ws/package.json"))?;
                let mut command = Command::new("node");
                command.arg(folder.join("server.js")).arg(&port);
                Ok(command)
            }
            "tokio-tungstenite" => {
                let mut command = Command::new(tokio_tungstenite()?);
                command.arg(&port);
                Ok(command)
            }
            "nchan" => {
                let directory = self.directory.to_string_lossy();
                let file = self.configuration("nchan/nginx.conf", &[("@PORT@", &port), ("@DIR@", &directory)])?;
                let mut command = Command::new("nginx");
                command.arg("-p").arg(&self.directory).arg("-c").arg(file);
                command.arg("-e").arg(self.directory.join("error.log"));
                Ok(command)
            }
            "soketi" => {
                let folder = peers_folder().join("soketi");
                let server = folder.join("node_modules/@soketi/soketi/bin/server.js");
                npm_install(&folder, &server)?;
                let mut command = Command::new("node");
                command.arg(server).arg("start").env("SOKETI_PORT", &port).envs(SOKETI);
                let (key, secret) = KEY_PAIR;
                command.envs([("SOKETI_DEFAULT_APP_KEY", key), ("SOKETI_DEFAULT_APP_SECRET", secret)]);
                for variable in ["SOKETI_METRICS_SERVER_PORT", "SOKETI_CLUSTER_PORT"] {
                    command.env(variable, free_address()?.port().to_string());
                }
                Ok(command)
            }
            "nats" => {
                let lines = free_address()?;
                self.publish_to = Some(lines);
                let line_port = lines.port().to_string();
                let file = self.configuration("nats/nats.conf", &[("@WS_PORT@", &port), ("@PORT@", &line_port)])?;
                let mut command = Command::new("nats-server");
                command.arg("-c").arg(file);
                Ok(command)
            }
            _ => bail!("{name} is not a server that this program can start"),
        }
    }

    /// Writes a configuration file with its holes filled.
    fn configuration(&self, template: &str, holes: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let template = fs::read_to_string(peers_folder().join(template))?;
        let text = holes.iter().fold(template, |text, (hole, value)| text.replace(hole, value));
        let file = self.directory.join("server.conf");
        fs::write(&file, text)?;
        Ok(file)
    }
}

impl Server {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes a plan use this server.
    pub fn aim(&self, plan: &mut Plan) {
        plan.address = self.address;
        plan.admin_socket.clone_from(&self.admin_socket);
        plan.publish_to = self.publish_to;
    }

    /// A connection to the admin socket.
    pub fn admin(&self) -> anyhow::Result<Admin> {
        Admin::connect(self.admin_socket.as_deref().context("no admin socket")?)
    }

    /// The counters and gauges of a corecast, by name.
    pub fn stats(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let reply = self.admin()?.ask(r#"{"id":1,"command":"stats"}"#)?;
        Ok(serde_json::from_value(reply["stats"].clone())?)
    }

    /// Waits until the server ends by itself. Returns its exit status, or `None` if it runs when `is_over`.
    pub fn wait(&mut self, is_over: impl Fn() -> bool) -> std::io::Result<Option<ExitStatus>> {
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || is_over() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_until_ready(&mut self, name: &str, stop: &AtomicBool) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            ensure!(!stop.load(Relaxed), "interrupted while {name} was starting");
            // The path exists some time before the server listens there.
            let admin = self.admin_socket.as_ref().is_none_or(|path| UnixStream::connect(path).is_ok());
            let lines = self.publish_to.is_none_or(|address| TcpStream::connect(address).is_ok());
            if admin && lines && TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                bail!("{name} does not accept connections on {}:\n{}", self.address, tail.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // SIGKILL would leave the workers of nginx behind.
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(1);
        let _ = self.wait(|| Instant::now() > deadline);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A connection to the admin socket of a corecast.
pub struct Admin(BufReader<UnixStream>);

impl Admin {
    /// Connects.
    pub fn connect(path: &Path) -> anyhow::Result<Admin> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Admin(BufReader::new(stream)))
    }

    /// Sends a command, and returns the reply.
    pub fn ask(&mut self, command: &str) -> anyhow::Result<Value> {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes())?;
        let mut reply = String::new();
        ensure!(self.0.read_line(&mut reply)? > 0, "the server closed the admin connection");
        Ok(serde_json::from_str(&reply)?)
    }
}

/// Runs `npm install` in `folder`, unless `result` exists.
fn npm_install(folder: &Path, result: &Path) -> anyhow::Result<()> {
    if result.exists() {
        return Ok(());
    }
    let _ = writeln!(std::io::stderr(), "installing {} (once)", folder.display());
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder).stdout(Stdio::null());
    ensure!(npm.status().context("npm is not installed")?.success(), "npm install failed in {}", folder.display());
    Ok(())
}

/// The binary of the tokio-tungstenite peer, which is built on first use.
fn tokio_tungstenite() -> anyhow::Result<PathBuf> {
    let folder = peers_folder().join("tokio-tungstenite");
    let binary = folder.join("target/release/peer-tokio-tungstenite");
    if !binary.exists() {
        eprintln!("building the tokio-tungstenite peer (once)");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet", "--manifest-path"]).arg(folder.join("Cargo.toml"));
        cargo.env("CARGO_TARGET_DIR", folder.join("target"));
        ensure!(cargo.status()?.success(), "the tokio-tungstenite peer does not build");
    }
    Ok(binary)
}

fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A free address, with a port below those that the system gives to connections: none of them takes it before the server does.
/// The probe does not listen, or programs that start meanwhile would inherit a listener, and the server could not bind.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let addresses = (0..1000).map(|_| SocketAddr::from(([127, 0, 0, 1], fastrand::u16(10_000..30_000))));
    let mut free = addresses.filter(|address| {
        let probe = Socket::new(Domain::IPV4, Type::STREAM, None);
        probe.is_ok_and(|probe| probe.set_reuse_address(true).is_ok() && probe.bind(&(*address).into()).is_ok())
    });
    free.next().context("no free port from 10000 to 29999")
}

/// Settings of soketi: one application, and nothing beyond loopback.
const SOKETI: [(&str, &str); 5] = [
    ("SOKETI_HOST", "127.0.0.1"),
    ("SOKETI_METRICS_HOST", "127.0.0.1"),
    ("SOKETI_CLUSTER_HOST", "127.0.0.1"),
    ("SOKETI_CLUSTER_UNICAST_ADDRESSES", "127.0.0.1"),
    ("SOKETI_DEFAULT_APP_ID", "1"),
];
/// Time limit of a reply on the admin socket.
const PATIENCE: Duration = Duration::from_secs(20);
/// The name of corecast's configuration file.
const CONFIG: &str = "corecast.toml";
