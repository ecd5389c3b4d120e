// What the tests share: the schedulers of clients/testbed, applications to be stopped, hooks of the example.
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, connect, type Options } from "../src/client.js";
import type { Instance, Operation, OperationEvent, ShutdownPolicySchema } from "../src/v1.js";

const EXAMPLES = join(import.meta.dirname, "..", "examples");
/** A condition that has not come true by then will not. */
const LIMIT_MS = 30_000;

export const OPEN = process.env.QUIESCE_TEST_OPEN ?? "";
export const SECURE = process.env.QUIESCE_TEST_SECURE ?? "";
export const CA = process.env.QUIESCE_TEST_CA ?? "";
export const TOKEN_FILE = process.env.QUIESCE_TEST_TOKEN_FILE ?? "";

if (!OPEN) throw new Error("run the tests with clients/testbed, which starts schedulers: clients/testbed npm test");

export const SECURED: Options = { ca: CA, tokenFile: TOKEN_FILE };

/** Waits until `found` finds something. */
export async function eventually<T>(what: string, found: () => T | undefined | Promise<T | undefined>): Promise<T> {
  for (const until = Date.now() + LIMIT_MS; Date.now() < until; await sleep(20)) {
    const value = await found();
    if (value !== undefined) return value;
  }
  throw new Error(`${what} has not come true within ${LIMIT_MS} ms`);
}

/** All that comes of a stream. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const one of stream) found.push(one);
  return found;
}

/** Stands between a client and a scheduler, and can cut every connection. */
export class Relay {
  connections = 0;
  readonly #open = new Set<Socket>();

  private constructor(
    readonly url: string,
    readonly server: Server,
  ) {}

  static async before(test: TestContext, target: string): Promise<Relay> {
    const { hostname, port } = new URL(target);
    const server = createServer((near) => {
      const far = connectTcp(Number(port), hostname);
      relay.connections += 1;
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        relay.#open.add(one);
        one.pipe(other);
        one.on("error", () => {}).on("close", () => other.destroy());
      }
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const relay: Relay = new Relay(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, server);
    test.after(() => {
      server.close();
      relay.cut();
    });
    return relay;
  }

  cut(): void {
    for (const socket of this.#open) socket.destroy();
    this.#open.clear();
  }
}

/** The application of one test and the processes it starts, ended with it. */
export class World {
  readonly place = mkdtempSync(join(tmpdir(), "quiesce-test-"));
  readonly name = `ts-${randomUUID().slice(0, 8)}`;
  readonly instance = `applications/${this.name}/instances/one`;
  readonly client: Client;
  readonly #processes: ChildProcess[] = [];
  readonly #clients: Client[] = [];

  constructor(test: TestContext, url: string = OPEN, options: Options = {}) {
    this.client = this.connect(url, options);
    test.after(async () => {
      for (const client of this.#clients) client.close();
      for (const process of this.#processes) await this.kill(process);
      rmSync(this.place, { recursive: true });
    });
  }

  connect(url: string, options: Options = {}): Client {
    const client = connect(url, options);
    this.#clients.push(client);
    return client;
  }

  /** Makes the application known on cluster a; the caller moves it. */
  async create(policy: MessageInitShape<typeof ShutdownPolicySchema> = {}): Promise<void> {
    const application = { name: `applications/${this.name}`, cluster: "a", policy };
    await this.client.scheduler.createApplication({ application });
  }

  #start(command: string, args: string[], environment: Record<string, string> = {}): ChildProcess {
    const log = openSync(join(this.place, "hook.log"), "a");
    const started = spawn(command, args, { stdio: ["ignore", log, log], env: { ...process.env, ...environment } });
    this.#processes.push(started);
    return started;
  }

  /** Ends a process at once, if it has not ended. */
  async kill(process: ChildProcess): Promise<void> {
    if (process.exitCode !== null || process.signalCode !== null) return;
    const ended = once(process, "exit");
    process.kill("SIGKILL");
    await ended;
  }

  /** The real agent with a real application. */
  async agent(): Promise<void> {
    const named = ["--application", this.name, "--cluster", "a", "--instance", "one", "--scheduler", OPEN];
    const state = ["--state-dir", join(this.place, "agent")];
    this.#start(process.env.QUIESCE_TEST_AGENT ?? "", [...named, ...state, "--", "sleep", "1000"]);
    await this.ready();
  }

  /** An application beside the hook; its pid stands in the file `pid`. */
  async application(...mode: string[]): Promise<ChildProcess> {
    const program = process.env.QUIESCE_TEST_APPLICATION ?? "";
    const started = spawn(program, [join(this.place, "signals"), ...mode], { stdio: ["pipe", "pipe", "inherit"] });
    this.#processes.push(started);
    const [said] = await once(createInterface(started.stdout), "line");
    assert.equal(said, "ready");
    writeFileSync(join(this.place, "pid"), String(started.pid));
    return started;
  }

  /** How often the application was told to stop. */
  signals(): number {
    return readFileSync(join(this.place, "signals"), "ascii").split("\n").length - 1;
  }

  hook(url: string, listen: string[], environment: Record<string, string> = {}): ChildProcess {
    const files = [join(this.place, "pid"), join(this.place, "state")];
    const args = [join(EXAMPLES, "hook.js"), this.instance, ...files, url, ...listen];
    return this.#start(process.execPath, args, environment);
  }

  /** Runs the example `migrate` to its end. */
  migrate(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(process.execPath, [join(EXAMPLES, "migrate.js"), ...args], { encoding: "utf8", timeout: LIMIT_MS });
  }

  /** Waits until the scheduler says that the instance is ready. */
  ready(): Promise<Instance> {
    const request = { parent: `applications/${this.name}`, filter: "state = READY" };
    return eventually("that the instance is ready", async () => {
      return (await this.client.scheduler.listInstances(request)).instances[0];
    });
  }

  /** Follows an operation to its end. */
  async events(operation: string, resumeToken = "", client = this.client): Promise<OperationEvent[]> {
    return collect(client.follow(operation, { resumeToken }));
  }

  /** Follows an operation to its end; then how it stands, instances included. */
  async outcome(operation: string): Promise<Operation> {
    await this.events(operation);
    return this.snapshot(operation);
  }

  async snapshot(operation: string): Promise<Operation> {
    const answer = await this.client.scheduler.getOperation({ name: operation });
    assert(answer.operation);
    return answer.operation;
  }

  /** What the hooks have said. */
  log(): string {
    return readFileSync(join(this.place, "hook.log"), "utf8");
  }
}
