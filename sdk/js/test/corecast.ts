import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server as TcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const KEY = "278d425bdf160c739803:7ad3773142a6692b25b8";

/** A socket_id and a channel that a backend must not sign for a user who may join `private-foobar` only. */
export const FORGED: [string, string][] = [
  // With the channel_data `private-foobar` this is the signature of private-victim.
  ["1234.1234:private-victim", "private-foobar"],
  // This is the signature of a request to the HTTP API.
  ["POST\n/apps/1/events\nauth_key=278d425bdf160c739803&auth_timestamp=1&auth_version=1.0&body_md5=0&z=", "private-foobar"],
  ["c38d3b54-fcf0-419c-a455-e60b6cfb937d\n", "private-foobar"],
  ["c38d3b54fcf0419ca455e60b6cfb937d----", "private-foobar"],
  ["", "private-foobar"],
  ["1234.1234", "private-victim"],
  ["1234.1234", "private-foobar:private-victim"],
  ["1234.1234", "private-foobar\n"],
];

const root = fileURLToPath(new URL("../../..", import.meta.url));

export function binary(): string {
  const places = [process.env.CORECAST_BIN, join(root, "target/release/corecast"), join(root, "target/debug/corecast")];
  const found = places.find((place) => place && existsSync(place));
  if (!found) throw new Error("no corecast binary: run cargo build, or set CORECAST_BIN to its path");
  return found;
}

/** A free port. It has a fixed number because the server uses it again after a restart. */
export async function freePort(): Promise<number> {
  const first = 9400 + Math.floor(Math.random() * 100);
  for (let n = 0; n < 100; n += 1) {
    const port = 9400 + ((first + n) % 100);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error("no free port from 9400 to 9499");
}

/** A server process that can be stopped, restarted and paused. */
export class Server {
  readonly directory = mkdtempSync(join(tmpdir(), "corecast-js-"));
  readonly adminSocket = join(this.directory, "admin");
  #process: ChildProcess | undefined;

  private constructor(
    readonly port: number,
    private readonly options: string[],
  ) {}

  static async start(...options: string[]): Promise<Server> {
    const server = new Server(await freePort(), options);
    await server.start();
    return server;
  }

  /** With rules for channels: `[[channel]]` tables. */
  static async withRules(rules: string, ...options: string[]): Promise<Server> {
    const server = new Server(await freePort(), options);
    const config = join(server.directory, "corecast.toml");
    writeFileSync(config, rules);
    options.push("--config", config);
    await server.start();
    return server;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const child = spawn(
      binary(),
      [
        ...["serve", "--listen", `127.0.0.1:${this.port}`, "--admin-socket", this.adminSocket, "--key", KEY],
        ...["--shards", "1", "--pin", "none", "--shutdown-timeout", "1", ...this.options],
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    this.#process = child;
    await new Promise<void>((resolve, reject) => {
      let said = "";
      child.stderr!.on("data", (text) => {
        said += text;
        if (said.includes("listening on")) resolve();
      });
      child.once("exit", (code) => reject(new Error(`corecast exited with ${code}: ${said}`)));
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#process!.kill(signal);
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#process!;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGCONT");
    child.kill(signal);
    await gone;
  }

  async dispose(): Promise<void> {
    await this.stop("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The network between clients and a server. While it is cut, nothing passes and no connection is made; then all are reset. */
export class Network {
  #isCut = false;
  #sockets = new Set<Socket>();

  private constructor(
    private readonly server: TcpServer,
    public port: number,
  ) {
    server.on("connection", (near) => {
      if (this.#isCut) return near.resetAndDestroy();
      const far = connect(this.port, "127.0.0.1");
      for (const [from, to] of [[near, far], [far, near]] as const) {
        this.#sockets.add(from);
        from.pipe(to);
        from.on("error", () => {}).on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
      }
    });
  }

  static async to(port: number): Promise<Network> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Network(server, port);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  mend(): void {
    this.#isCut = false;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async dispose(): Promise<void> {
    this.mend();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
