// What a hook remembers over a restart: files in its state directory that nobody else can read. Written before what they
// announce is done, replaced as a whole. Of the completion token only a digest is kept.
import { randomUUID } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { JsonValue } from "@bufbuild/protobuf";

/** A reader that finds another format refuses to run rather than to guess. */
const FORMAT = 1;

/** The last shutdown, as far as it has to survive. */
export interface ShutdownRecord {
  shutdownId: string;
  operation: string;
  attempt: number;
  epoch: string;
  tokenDigest: string;
  heartbeatMs: number;
  acceptedMs: number;
  life: number;
  reports: number;
  phase: number;
  result: JsonValue;
}

/** The directory, or the memory of this process if there is none. */
export class StateDirectory {
  readonly #memory = new Map<string, string>();

  constructor(readonly path: string | undefined) {
    if (path !== undefined) mkdirSync(path, { recursive: true, mode: 0o700 });
  }

  /** The content of a file, undefined if there is none. */
  read(name: string): string | undefined {
    if (this.path === undefined) return this.#memory.get(name);
    try {
      return readFileSync(join(this.path, name), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  /** Replaces a file; durable when it returns. */
  replace(name: string, content: string): void {
    if (this.path === undefined) {
      this.#memory.set(name, content);
      return;
    }
    const fresh = join(this.path, `.${name}.${randomUUID()}`);
    try {
      sync(fresh, "wx", (file) => writeSync(file, content));
      renameSync(fresh, join(this.path, name));
    } catch (error) {
      rmSync(fresh, { force: true });
      throw error;
    }
    sync(this.path, "r", () => {});
  }

  load(): ShutdownRecord | undefined {
    const content = this.read("hook.json");
    if (content === undefined) return undefined;
    const { format, shutdown } = JSON.parse(content) as { format: number; shutdown: ShutdownRecord };
    if (format !== FORMAT) throw new Error(`hook.json has format ${format}, this program knows ${FORMAT}`);
    return shutdown;
  }

  save(shutdown: ShutdownRecord): void {
    this.replace("hook.json", JSON.stringify({ format: FORMAT, shutdown }));
  }

  /** The credential of the instance. */
  get instanceToken(): string {
    return this.read("instance.token")?.trim() ?? "";
  }

  set instanceToken(token: string) {
    this.replace("instance.token", `${token}\n`);
  }

  /** Identity of this hook: made once. */
  agentId(): string {
    const known = this.read("agent.id")?.trim();
    if (known) return known;
    const made = randomUUID();
    this.replace("agent.id", made);
    return made;
  }
}

function sync(path: string, flags: string, work: (file: number) => void): void {
  const file = openSync(path, flags, 0o600);
  try {
    work(file);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
