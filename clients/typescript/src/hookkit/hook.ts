// The hook as a whole: what it is, and the two ways to serve it.
import { once } from "node:events";
import type { ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { tlsOf } from "../connection.js";
import { Capability, Evidence, type HookInfo, HookInfoSchema, Instance_ConnectMode as ConnectMode } from "../v1.js";
import { Pauses, Redial, Registrar, type SchedulerAddress } from "./link.js";
import { StateDirectory } from "./record.js";
import { Guard, type HookServer, newServer } from "./service.js";
import { type Callbacks, Shutdowns, textOf } from "./shutdown.js";

/** Version of this kit, as the hook tells it. */
const VERSION = "0.1.0";
/** A hook that listens registers again this often, so that a scheduler that lost its memory learns of it. */
const REFRESH_MS = 60_000;

/** What a hook is. */
export interface HookOptions extends Callbacks {
  /** applications/{application}/instances/{instance}; empty if the hook does not know. */
  instance: string;
  /** Where it runs; unset: where the application does. */
  cluster?: string;
  /** A directory of its own: with it the hook remembers the shutdown and its credential over a restart. */
  stateDir?: string;
  /** How well `running` knows. Unset: PROCESS_GONE. */
  evidence?: Evidence;
  stopOrder?: number;
  labels?: Record<string, string>;
  /** Where the kit says what happens. Unset: standard error. */
  log?: (message: string) => void;
}

/** Where to listen. */
export interface ListenOptions {
  host: string;
  /** 0: a free one. */
  port: number;
  /** Registers with this scheduler, which brings the token that callers need. */
  scheduler?: SchedulerAddress;
  /** The token of a hook that somebody else has registered, instead. */
  hookToken?: string;
  /** Where the scheduler reaches it, host:port or https://host:port, if that is another address. */
  advertise?: string;
  /** PEM files for TLS, which schedulers want beyond loopback; the certificate is for the host of the address. */
  cert?: string | undefined;
  key?: string | undefined;
  /** Lets only clients in that show a certificate of these CAs. */
  clientCa?: string | undefined;
}

/** Stops one instance of an application through callbacks. A shutdown that a restart has interrupted goes on at once. */
export class Hook {
  readonly #options: HookOptions;
  readonly #state: StateDirectory;
  readonly #shutdowns: Shutdowns;
  readonly #closing = new AbortController();
  readonly #log: (message: string) => void;

  constructor(options: HookOptions) {
    this.#options = options;
    this.#log = options.log ?? ((message) => process.stderr.write(`quiesce hook: ${message}\n`));
    this.#state = new StateDirectory(options.stateDir);
    const evidence = options.evidence ?? Evidence.PROCESS_GONE;
    this.#shutdowns = new Shutdowns(options, options.instance, evidence, this.#state, this.#log);
  }

  /** Reports what the application does while it stops, and how much grace it would like in all. */
  say(progress: { message?: string; step?: string; percent?: number; wantedGracePeriodMs?: number }): void {
    const { wantedGracePeriodMs: wanted, ...said } = progress;
    this.#shutdowns.say({ ...said, ...(wanted !== undefined && { wantedGracePeriod: durationFromMs(wanted) }) });
  }

  /** Serves the hook on a port until it is closed. `listening` is told the address. */
  async listen(options: ListenOptions, listening?: (address: string) => void): Promise<void> {
    const { scheduler, hookToken } = options;
    if ((scheduler === undefined) === (hookToken === undefined)) {
      throw new TypeError("listen takes a scheduler to register with, or the token of a hook that is registered");
    }
    const guard = new Guard();
    const tls = serverTls(options);
    const server = newServer(this.#shutdowns, () => this.#info(), guard, tls);
    const close = closerOf(server);
    try {
      server.listen(options.port, options.host);
      await once(server, "listening");
      const address = `${tls ? "https://" : ""}${options.host}:${(server.address() as AddressInfo).port}`;
      this.#log(`the hook listens on ${address}`);
      if (hookToken !== undefined) guard.expect(hookToken);
      listening?.(address);
      if (scheduler) {
        const instance = { connectMode: ConnectMode.LISTEN, endpoint: options.advertise ?? address };
        await this.#keepRegistered(this.#registrar(scheduler, instance), guard);
      } else if (!this.#closing.signal.aborted) {
        await once(this.#closing.signal, "abort");
      }
    } finally {
      close();
    }
  }

  async #keepRegistered(registrar: Registrar, guard: Guard): Promise<void> {
    const pauses = new Pauses();
    while (!this.#closing.signal.aborted) {
      const answer = await registrar.register(this.#closing.signal);
      if (!answer) {
        await this.#pause(pauses.next());
        continue;
      }
      pauses.reset();
      // A scheduler asks a hook as soon as it is registered, which may be before its token has got here; turned away, it
      // comes back much later. Registering again makes it ask again.
      if (!guard.expect(answer.hookToken)) await this.#pause(REFRESH_MS);
    }
    registrar.close();
  }

  /** Opens the connection to the scheduler and serves the hook over it, until it is closed. */
  async dialIn(scheduler: SchedulerAddress): Promise<void> {
    const registrar = this.#registrar(scheduler, { connectMode: ConnectMode.DIAL_IN });
    const redial = new Redial();
    while (!this.#closing.signal.aborted) {
      await this.#pause(redial.after(await this.#dialOnce(registrar)));
    }
    registrar.close();
  }

  /** One connection from its beginning to its end; says how long it lasted. */
  async #dialOnce(registrar: Registrar): Promise<number | undefined> {
    const answer = await registrar.register(this.#closing.signal);
    if (!answer) return undefined;
    try {
      const socket = await registrar.attach(answer, this.#closing.signal);
      this.#log("attached to the scheduler");
      const since = performance.now();
      const server = newServer(this.#shutdowns, () => this.#info());
      const close = closerOf(server);
      // A server of Node serves any socket that it is told of, whoever has opened it.
      server.emit("connection", socket);
      this.#closing.signal.addEventListener("abort", close, { once: true });
      if (!socket.closed) await once(socket, "close");
      this.#closing.signal.removeEventListener("abort", close);
      close();
      if (!this.#closing.signal.aborted) this.#log("lost the connection to the scheduler, the application runs on");
      return performance.now() - since;
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#log(`cannot attach to the scheduler, trying again: ${textOf(error)}`);
      return undefined;
    }
  }

  /** Ends `listen` or `dialIn`. A shutdown that runs is not taken back. */
  close(): void {
    this.#closing.abort();
  }

  async #pause(ms: number): Promise<void> {
    // Closing ends the pause, and whoever called it sees that.
    await sleep(ms, undefined, { signal: this.#closing.signal }).catch(() => {});
  }

  #registrar(scheduler: SchedulerAddress, connection: { connectMode: ConnectMode; endpoint?: string }): Registrar {
    const { instance: name, cluster = "", stopOrder = 0, labels = {} } = this.#options;
    return new Registrar(scheduler, { name, cluster, stopOrder, labels, ...connection }, this.#state, this.#log);
  }

  async #info(): Promise<HookInfo> {
    const capabilities = [Capability.STATUS];
    if (this.#options.kill) capabilities.push(Capability.KILL);
    if (this.#state.path !== undefined) capabilities.push(Capability.DURABLE);
    const info = create(HookInfoSchema, {
      instance: this.#options.instance,
      implementation: "quiesce-hookkit-typescript",
      implementationVersion: VERSION,
      protocolVersion: "1.0",
      capabilities,
      ready: true,
    });
    try {
      info.appState = await this.#shutdowns.appState();
    } catch (error) {
      info.ready = false;
      info.notReadyReason = `cannot tell whether the application runs: ${textOf(error)}`;
    }
    return info;
  }
}

function serverTls({ cert, key, clientCa }: ListenOptions) {
  if (cert === undefined || key === undefined) {
    if (cert !== undefined || key !== undefined || clientCa !== undefined) {
      throw new TypeError("TLS takes a certificate and its key");
    }
    return undefined;
  }
  return {
    ...tlsOf({ cert, key, ca: clientCa }),
    ...(clientCa !== undefined && { requestCert: true, rejectUnauthorized: true }),
  };
}

/** Closes a server together with its connections, which it does not do by itself. */
function closerOf(server: HookServer): () => void {
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    // A connection that breaks is dialled again, or was the caller's; either way there is nothing to be done about it here.
    session.on("error", () => {});
  });
  return () => {
    if (server.listening) server.close();
    for (const session of sessions) session.destroy();
  };
}
