// The link to the scheduler: registration, the credential of the instance, and dialling in (rules A1 to A6).
import { once } from "node:events";
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectSecure } from "node:tls";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { Client, Problem, readToken } from "../client.js";
import { type Files, targetOf, tlsOf } from "../connection.js";
import type { InstanceSchema, RegisterInstanceResponse } from "../v1.js";
import type { StateDirectory } from "./record.js";

/** For the connection, and again for the exchange of lines. */
const ATTACH_LIMIT_MS = 5_000;
const LINE_MAX = 512;
/** A registration is waited for no longer than this; schedulers answer within milliseconds. */
const CALL_LIMIT_MS = 10_000;
/** Rule A5. */
const PAUSE_FIRST_MS = 1_000;
const PAUSE_MAX_MS = 30_000;
/** Behind a connection, since the scheduler was there: half of what it waits for a hook. */
const ABSENCE_MAX_MS = 5_000;
/** After this time a connection was a good one, and the next try comes quickly. */
const GOOD_CONNECTION_MS = 10_000;

/** Where the scheduler is, and what proves who calls. */
export interface SchedulerAddress extends Files {
  /** Such as http://127.0.0.1:7600, or https:// for TLS. */
  url: string;
  /**
   * The file with the token the instance joins with, where access is enforced. It gets a credential of its own, which is kept
   * in the state directory, and needs the file no more.
   */
  joinTokenFile?: string | undefined;
}

/** Between tries: growing, spread. */
export class Pauses {
  #next = PAUSE_FIRST_MS;

  constructor(readonly longest = PAUSE_MAX_MS) {}

  reset(): void {
    this.#next = PAUSE_FIRST_MS;
  }

  next(): number {
    const pause = this.#next;
    this.#next = Math.min(2 * pause, this.longest);
    return pause * (0.8 + 0.4 * Math.random());
  }
}

/** When a hook that dials in does so again. */
export class Redial {
  readonly #unreachable = new Pauses();
  readonly #lost = new Pauses(ABSENCE_MAX_MS);

  /** The pause behind a try; `lastedMs` is how long the connection did, undefined if there was none. */
  after(lastedMs: number | undefined): number {
    if (lastedMs === undefined) return this.#unreachable.next();
    this.#unreachable.reset();
    if (lastedMs >= GOOD_CONNECTION_MS) this.#lost.reset();
    return this.#lost.next();
  }
}

/** Registers the instance, and keeps the credential that the scheduler gives it. */
export class Registrar {
  readonly #client: Client;
  #rejected = false;

  constructor(
    readonly scheduler: SchedulerAddress,
    readonly instance: MessageInitShape<typeof InstanceSchema>,
    readonly state: StateDirectory,
    readonly log: (message: string) => void,
  ) {
    const { url, ca, cert, key } = scheduler;
    this.#client = new Client(url, { ca, cert, key, token: () => this.#token(), deadlineMs: CALL_LIMIT_MS });
  }

  #token(): string | undefined {
    const held = this.state.instanceToken;
    // What was rejected last makes room for the other; a certificate may do without either.
    if (held && !this.#rejected) return held;
    return this.scheduler.joinTokenFile && readToken(this.scheduler.joinTokenFile);
  }

  /** Registers, as before every dialling in; undefined when it has failed, which is logged. */
  async register(signal: AbortSignal): Promise<RegisterInstanceResponse | undefined> {
    try {
      const instance = { ...this.instance, agentId: this.state.agentId() };
      const answer = await this.#client.gateway.registerInstance({ instance }, { signal });
      this.#rejected = false;
      if (answer.instanceToken && answer.instanceToken !== this.state.instanceToken) {
        this.state.instanceToken = answer.instanceToken;
        this.log("the scheduler knows this instance by a credential of its own now");
      }
      return answer;
    } catch (error) {
      const problem = Problem.of(error);
      if (problem.code === Code.Unauthenticated) this.#rejected = !this.#rejected;
      if (!signal.aborted) this.log(`cannot register, trying again: ${problem}`);
      return undefined;
    }
  }

  /** Dials in. The roles are reversed on the connection it returns. */
  async attach(answer: RegisterInstanceResponse, signal: AbortSignal): Promise<Socket> {
    const { secure, ...target } = targetOf(this.scheduler.url, this.scheduler);
    const named = answer.attachEndpoint ? targetOf(`http://${answer.attachEndpoint}`, {}) : target;
    const { host, port } = named;
    const limit = AbortSignal.any([signal, AbortSignal.timeout(2 * ATTACH_LIMIT_MS)]);
    const servername = isIP(host) ? "" : host;
    const socket = secure
      ? connectSecure({ ...tlsOf(this.scheduler), host, port, servername, ALPNProtocols: ["quiesce-attach/1"] })
      : connectPlain({ host, port });
    // Whoever waits hears of it in another way; without anybody listening it would end the program.
    socket.on("error", () => {});
    try {
      await once(socket, secure ? "secureConnect" : "connect", { signal: limit });
      socket.setNoDelay(true);
      socket.write(`QUIESCE/1 ATTACH ${answer.attachToken}\r\n`);
      const words = (await readLine(socket, limit)).split(" ");
      if (words[0] === "QUIESCE/1" && words[1] === "ERROR") {
        throw new Error(`the scheduler refuses: ${words.slice(2).join(" ")}`);
      }
      if (words.join(" ") !== "QUIESCE/1 OK") throw new Error("not the answer of a quiesce scheduler");
      return socket;
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  close(): void {
    this.#client.close();
  }
}

/** Reads a line and nothing behind it: what follows belongs to HTTP/2, which takes it from the socket. */
async function readLine(socket: Socket, signal: AbortSignal): Promise<string> {
  let line = "";
  while (!line.endsWith("\r\n")) {
    if (line.length === LINE_MAX) throw new Error("not the answer of a quiesce scheduler");
    const byte: Buffer | null = socket.read(1);
    if (byte) line += byte.toString("latin1");
    else if (socket.readableEnded || socket.destroyed) throw new Error("lost the connection while attaching");
    else await Promise.race([once(socket, "readable", { signal }), once(socket, "end", { signal })]);
  }
  return line.trimEnd();
}
