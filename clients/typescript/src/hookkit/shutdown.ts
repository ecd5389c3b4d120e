// The rules of a shutdown: once, one at a time, reported until the end (H1 to H14). Knows nothing of connections.
import { createHash, timingSafeEqual } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { clone, create, fromJson, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import {
  type Evidence,
  HookInfo_AppState as AppState,
  ShutdownPhase as Phase,
  type ShutdownRequest,
  ShutdownRequestSchema,
  type ShutdownStatus,
  ShutdownStatusSchema,
  type StopResult,
  StopResult_Outcome as Outcome,
  StopResultSchema,
} from "../v1.js";
import type { ShutdownRecord, StateDirectory } from "./record.js";
import { badField, refusal } from "./refusal.js";

/** How often it is looked whether the application has ended. */
const LOOK_EVERY_MS = 100;
/** What a report takes on its way must fit between this share of the interval and the whole of it. */
const HEARTBEAT_SHARE = 0.8;
const HEARTBEAT_DEFAULT_MS = 5_000;
const HEARTBEAT_MIN_MS = 100;
/** Reports of one life of the hook; those of the next begin above, so that `sequence` rises over restarts. */
const REPORTS_OF_A_LIFE = 1_000_000;
const TOKEN_MAX = 512;

/** What a hook knows of its application. */
export interface Callbacks {
  /**
   * Tells the application to stop and may take its time. What it throws is reported, and the application taken for running.
   * The request comes without its token.
   */
  stop(request: ShutdownRequest): unknown;
  /**
   * Whether any process of the application is left: asked ten times a second. The hook reports an end when, and only when,
   * it says no. To throw means that nobody knows, which is no end.
   */
  running(): boolean | Promise<boolean>;
  /** Ends the application at once; without it the hook does not offer that. */
  kill?(): unknown;
}

/** One shutdown and all that is known of it. */
export class Shutdown {
  token: string | undefined;
  life = 0;
  reports = 1;
  phase = Phase.ACCEPTED;
  said: MessageInitShape<typeof ShutdownStatusSchema> = { message: "accepted" };
  result: StopResult | undefined;
  supersededBy: string | undefined;
  reportedMs = performance.now();

  private constructor(
    readonly id: string,
    readonly operation: string,
    readonly attempt: number,
    readonly epoch: bigint,
    readonly digest: string,
    readonly heartbeatMs: number,
    readonly acceptedMs: number,
  ) {}

  static of(request: ShutdownRequest): Shutdown {
    const { shutdownId, operation, attempt, epoch, completionToken } = request;
    const asked = request.heartbeatInterval ? durationMs(request.heartbeatInterval) : 0;
    const heartbeatMs = Math.max(asked > 0 ? asked : HEARTBEAT_DEFAULT_MS, HEARTBEAT_MIN_MS);
    const made = new Shutdown(shutdownId, operation, attempt, epoch, digestOf(completionToken), heartbeatMs, Date.now());
    made.token = completionToken;
    return made;
  }

  static fromRecord(known: ShutdownRecord): Shutdown {
    const { shutdownId, operation, attempt, epoch, tokenDigest, heartbeatMs, acceptedMs } = known;
    // The token comes again with the call that joins.
    const made = new Shutdown(shutdownId, operation, attempt, BigInt(epoch), tokenDigest, heartbeatMs, acceptedMs);
    made.life = known.life;
    made.reports = known.reports;
    made.phase = known.phase;
    made.said = {};
    if (known.result !== null) made.result = fromJson(StopResultSchema, known.result, { ignoreUnknownFields: true });
    return made;
  }

  toRecord(): ShutdownRecord {
    return {
      shutdownId: this.id,
      operation: this.operation,
      attempt: this.attempt,
      epoch: String(this.epoch),
      tokenDigest: this.digest,
      heartbeatMs: this.heartbeatMs,
      acceptedMs: this.acceptedMs,
      life: this.life,
      reports: this.reports,
      phase: this.phase,
      result: this.result ? toJson(StopResultSchema, this.result) : null,
    };
  }

  get sequence(): number {
    return this.life * REPORTS_OF_A_LIFE + this.reports;
  }

  /** The latest report. */
  status(): ShutdownStatus {
    const status = create(ShutdownStatusSchema, this.said);
    status.shutdownId = this.id;
    status.sequence = this.sequence;
    status.phase = this.phase;
    status.reportTime = timestampNow();
    if (this.result) {
      status.result = this.result;
      status.completionToken = this.token ?? "";
    }
    return status;
  }

  /** H10: to a later attempt of the same operation, or to a later operation. */
  yieldsTo(request: ShutdownRequest): boolean {
    if (this.operation === request.operation) return this.operation !== "" && request.attempt > this.attempt;
    return this.epoch !== 0n && request.epoch > this.epoch;
  }
}

/** The shutdown in progress, or the last one. */
export class Shutdowns {
  #current: Shutdown | undefined;
  readonly #changes = new EventEmitter().setMaxListeners(0);

  constructor(
    readonly callbacks: Callbacks,
    readonly instance: string,
    readonly evidence: Evidence,
    readonly state: StateDirectory,
    readonly log: (message: string) => void,
  ) {
    const known = state.load();
    if (!known) return;
    const current = Shutdown.fromRecord(known);
    this.#current = current;
    if (current.result) return;
    current.life += 1;
    current.reports = 1;
    current.said = { message: "the hook was restarted" };
    state.save(current.toRecord());
    void (current.phase >= Phase.STOPPING ? this.#watch(current) : this.#begin(current, create(ShutdownRequestSchema)));
  }

  /** Whether the application runs; what `running` throws is passed on. */
  async appState(): Promise<AppState> {
    if (!(await this.callbacks.running())) return AppState.STOPPED;
    return this.#current && !this.#current.result ? AppState.STOPPING : AppState.RUNNING;
  }

  /** Begins a shutdown, or joins the one of that name. */
  accept(request: ShutdownRequest): Shutdown {
    if (request.instance && this.instance && request.instance !== this.instance) {
      const message = `this hook serves ${this.instance}`;
      throw refusal(Code.FailedPrecondition, "WRONG_INSTANCE", message, { instance: this.instance });
    }
    if (!/^[A-Za-z0-9._-]{1,128}$/.test(request.shutdownId)) {
      throw badField("shutdown_id", "must be 1 to 128 characters of A-Z, a-z, 0-9 and ._-");
    }
    if (request.completionToken.length > TOKEN_MAX) {
      throw badField("completion_token", `must have at most ${TOKEN_MAX} bytes`);
    }
    const current = this.#current;
    if (current?.id === request.shutdownId) {
      this.#join(current, request);
      return current;
    }
    if (current && !current.result && !current.yieldsTo(request)) {
      throw refusal(Code.Aborted, "SHUTDOWN_IN_PROGRESS", "another shutdown runs", { shutdownId: current.id });
    }
    if (current && request.epoch > 0n && request.epoch < current.epoch) {
      const inForce = { epoch: String(current.epoch) };
      throw refusal(Code.FailedPrecondition, "EPOCH_STALE", "a later operation has been here", inForce);
    }
    const accepted = Shutdown.of(request);
    // Before anything is done: a hook that is restarted must know it.
    this.#record(accepted);
    if (current && !current.result) current.supersededBy = accepted.id;
    this.#current = accepted;
    this.#changes.emit("change");
    const told = clone(ShutdownRequestSchema, request);
    told.completionToken = "";
    void this.#begin(accepted, told);
    return accepted;
  }

  #join(shutdown: Shutdown, request: ShutdownRequest): void {
    if (shutdown.token === undefined && isDigestOf(shutdown.digest, request.completionToken)) {
      shutdown.token = request.completionToken;
    }
    // What this call hears first is later than what an earlier one has heard.
    if (!shutdown.result) this.#report(shutdown);
  }

  /** The latest report of a shutdown, or of the last one. */
  get(shutdownId: string): ShutdownStatus {
    return this.#known(shutdownId).status();
  }

  #known(shutdownId: string): Shutdown {
    if (!this.#current || !["", this.#current.id].includes(shutdownId)) {
      throw refusal(Code.NotFound, "SHUTDOWN_NOT_FOUND", "there is no such shutdown");
    }
    return this.#current;
  }

  /** Kills the application, for the scheduler that began this shutdown. */
  async kill(shutdownId: string, token: string): Promise<ShutdownStatus> {
    const { kill } = this.callbacks;
    if (!kill) {
      throw refusal(Code.Unimplemented, "NOT_IMPLEMENTED", "this hook cannot kill", { capability: "CAPABILITY_KILL" });
    }
    if (!shutdownId) throw badField("shutdown_id", "must be set");
    const shutdown = this.#known(shutdownId);
    if (!isDigestOf(shutdown.digest, token)) {
      throw refusal(Code.PermissionDenied, "COMPLETION_TOKEN_INVALID", "that is not the token of this shutdown");
    }
    if (!shutdown.result) {
      shutdown.phase = Phase.KILLING;
      this.#record(shutdown);
      this.#report(shutdown, "told to end at once");
      try {
        await kill.call(this.callbacks);
      } catch (error) {
        throw refusal(Code.FailedPrecondition, "NOT_STOPPABLE", `cannot kill: ${textOf(error)}`);
      }
    }
    return shutdown.status();
  }

  /** Puts what the application says of itself into the reports of a shutdown, if one runs. */
  say(said: MessageInitShape<typeof ShutdownStatusSchema>): void {
    if (!this.#current || this.#current.result) return;
    this.#current.said = said;
    this.#report(this.#current);
  }

  /** Waits for a report later than `seen`: for news, or until one is due. Any number of calls may wait. */
  async nextReport(shutdown: Shutdown, seen: number, signal: AbortSignal): Promise<ShutdownStatus> {
    for (;;) {
      if (shutdown.supersededBy) {
        throw refusal(Code.Aborted, "SHUTDOWN_SUPERSEDED", `${shutdown.supersededBy} has taken over`);
      }
      if (shutdown.sequence > seen) return shutdown.status();
      const due = shutdown.reportedMs + shutdown.heartbeatMs * HEARTBEAT_SHARE - performance.now();
      if (due <= 0) {
        this.#report(shutdown);
        continue;
      }
      // News, or the time of the next report, or the caller is gone.
      const waiting = AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(due))]);
      try {
        await once(this.#changes, "change", { signal: waiting });
      } catch {
        signal.throwIfAborted();
      }
    }
  }

  #report(shutdown: Shutdown, message?: string): void {
    if (message !== undefined) shutdown.said = { ...shutdown.said, message };
    shutdown.reports += 1;
    shutdown.reportedMs = performance.now();
    this.#changes.emit("change");
  }

  #record(shutdown: Shutdown): void {
    try {
      this.state.save(shutdown.toRecord());
    } catch (error) {
      this.log(`cannot record the shutdown: ${textOf(error)}`);
      throw refusal(Code.Unavailable, "NOT_SERVING", "the hook cannot write its state");
    }
  }

  async #begin(shutdown: Shutdown, request: ShutdownRequest): Promise<void> {
    if (await this.#hasEnded()) {
      this.#finish(shutdown, Outcome.NOT_RUNNING, "it was not running");
      return;
    }
    if (!this.#isOpen(shutdown)) return;
    shutdown.phase = Math.max(shutdown.phase, Phase.STOPPING);
    try {
      this.#record(shutdown);
    } catch {
      this.#finish(shutdown, Outcome.STILL_RUNNING, "the hook cannot write its state");
      return;
    }
    this.#report(shutdown, "told to stop");
    // Beside the watch: a stop command may well last until the end.
    void this.#tell(shutdown, request);
    await this.#watch(shutdown);
  }

  async #tell(shutdown: Shutdown, request: ShutdownRequest): Promise<void> {
    try {
      await this.callbacks.stop(request);
    } catch (error) {
      this.log(`the callback stop has failed: ${textOf(error)}`);
      this.#finish(shutdown, Outcome.STILL_RUNNING, `the stop has failed: ${textOf(error)}`);
    }
  }

  async #watch(shutdown: Shutdown): Promise<void> {
    for (;;) {
      const ended = await this.#hasEnded();
      if (!this.#isOpen(shutdown)) return;
      if (ended) {
        const killed = shutdown.phase === Phase.KILLING;
        this.#finish(shutdown, killed ? Outcome.KILLED : Outcome.STOPPED, "it has ended");
        return;
      }
      // A hook that is closed does not keep its program from ending.
      await sleep(LOOK_EVERY_MS, undefined, { ref: false });
    }
  }

  #isOpen(shutdown: Shutdown): boolean {
    return shutdown === this.#current && !shutdown.result;
  }

  async #hasEnded(): Promise<boolean> {
    try {
      return !(await this.callbacks.running());
    } catch (error) {
      // Not to know is not to have ended.
      this.log(`the callback running has failed: ${textOf(error)}`);
      return false;
    }
  }

  #finish(shutdown: Shutdown, outcome: Outcome, message: string): void {
    if (!this.#isOpen(shutdown)) return;
    const ended = outcome !== Outcome.STILL_RUNNING;
    const duration = durationFromMs(Math.max(0, Date.now() - shutdown.acceptedMs));
    shutdown.result = create(StopResultSchema, { outcome, message, duration, ...(ended && { evidence: this.evidence }) });
    shutdown.phase = ended ? Phase.STOPPED : Phase.FAILED;
    this.#report(shutdown, message);
    try {
      this.#record(shutdown);
    } catch {
      // The result holds all the same; after a restart it is found out anew.
      this.log("the end of the shutdown could not be recorded");
    }
  }
}

export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

function isDigestOf(digest: string, token: string): boolean {
  return timingSafeEqual(Buffer.from(digest), Buffer.from(digestOf(token)));
}
