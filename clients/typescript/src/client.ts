/**
 * Client of the Quiesce scheduler. `connect` is where to begin; `@quiesce/client/v1` is the generated contract,
 * `@quiesce/client/hookkit` the kit for shutdown hooks.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Code, createClient, type Client as Calls } from "@connectrpc/connect";
import { type Options, open } from "./connection.js";
import { Problem } from "./problem.js";
import { Access, AgentGateway, type Operation, type OperationEvent, Scheduler } from "./v1.js";

export { Code, ConnectError } from "@connectrpc/connect";
export { DEADLINE_MS, type Options, readToken } from "./connection.js";
export { Problem, type Violation } from "./problem.js";

const PAUSE_FIRST_MS = 200;
const PAUSE_MAX_MS = 10_000;
const WITHOUT_TOKEN = ["RESUME_TOKEN_EXPIRED", "INVALID_RESUME_TOKEN"];
const WITH_TOKEN = ["WATCH_TOO_SLOW", "LIMIT_EXCEEDED"];
const BROKEN = [Code.Unavailable, Code.Unknown, Code.Canceled, Code.Aborted];

/** How to follow an operation. */
export interface Following {
  /** Begins behind an event of an earlier watch. */
  resumeToken?: string;
  /** Ends also when the operation rests until a person decides. Default: true. */
  endOnDegraded?: boolean;
  /** Breaks it off. */
  signal?: AbortSignal;
}

/** A scheduler. The services take and return what the contract says and throw ConnectError; see `Problem.of`. */
export class Client {
  readonly scheduler: Calls<typeof Scheduler>;
  readonly access: Calls<typeof Access>;
  readonly gateway: Calls<typeof AgentGateway>;
  /** Ends all calls. */
  readonly close: () => void;

  constructor(url: string, options: Options) {
    const { transport, close } = open(url, options);
    this.scheduler = createClient(Scheduler, transport);
    this.access = createClient(Access, transport);
    this.gateway = createClient(AgentGateway, transport);
    this.close = close;
  }

  /** Begins the migration of an application, named without `applications/`, to a cluster. */
  async migrate(application: string, to: string, more: { requestId?: string; reason?: string } = {}): Promise<Operation> {
    const answer = await this.scheduler.migrateApplication({ name: `applications/${application}`, targetCluster: to, ...more });
    return answer.operation!;
  }

  /** Begins the deletion of an application, named without `applications/`. */
  async delete(application: string, more: { requestId?: string; reason?: string } = {}): Promise<Operation> {
    const answer = await this.scheduler.deleteApplication({ name: `applications/${application}`, ...more });
    return answer.operation!;
  }

  /**
   * Every event of an operation until it is done, or rests until a person decides. A watch that breaks is opened again where
   * it was: nothing is missing, nothing comes twice.
   */
  async *follow(operation: string, following: Following = {}): AsyncGenerator<OperationEvent, void, void> {
    const { endOnDegraded = true, signal } = following;
    let resumeToken = following.resumeToken ?? "";
    for (let pause = PAUSE_FIRST_MS; ; pause = Math.min(2 * pause, PAUSE_MAX_MS)) {
      let wait = pause * (0.8 + 0.4 * Math.random());
      try {
        const call = { ...(signal && { signal }) };
        for await (const { event } of this.scheduler.watchOperation({ name: operation, resumeToken, endOnDegraded }, call)) {
          if (!event) continue;
          yield event;
          resumeToken = event.resumeToken || resumeToken;
          pause = PAUSE_FIRST_MS;
        }
        return;
      } catch (error) {
        const problem = Problem.of(error);
        if (signal?.aborted) throw error;
        if (resumeToken && WITHOUT_TOKEN.includes(problem.reason)) resumeToken = "";
        else if (!WITH_TOKEN.includes(problem.reason) && !BROKEN.includes(problem.code)) throw error;
        wait = Math.max(wait, problem.retryAfterMs ?? 0);
      }
      await sleep(wait, undefined, { ...(signal && { signal }) });
    }
  }
}

/** A client of the scheduler at `url`, connected when it is first asked something. */
export function connect(url = "http://127.0.0.1:7600", options: Options = {}): Client {
  return new Client(url, options);
}
