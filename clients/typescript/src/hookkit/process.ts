import { readFileSync, statSync } from "node:fs";

/** In which Linux counts the start time of a process, on every machine there is. */
const TICKS_PER_SECOND = 100;
/** The times of files and of processes are rounded differently. */
const ROUNDING_MS = 1000;

/** A process: its pid, and when it began, in clock ticks since the machine was started. */
interface Identity {
  pid: number;
  ticks: number;
}

/**
 * The process whose pid stands in a file: whether it runs, and signals to it and to no other. Linux only.
 *
 * The file is read each time, so whoever starts the application anew writes a new one. A process that has begun after the
 * file was written is another one that was given the same pid: it is neither taken for the application nor sent signals. A
 * zombie has ended. Once seen, a process is watched until its end, also when it has removed its file by then; a file that is
 * missing says nothing about a process that was never seen.
 */
export class Process {
  #seen: Identity | undefined;

  constructor(readonly pidFile: string) {}

  /** Whether it runs; throws when that cannot be told. */
  readonly running = (): boolean => this.#find() !== undefined;

  /** Sends SIGTERM; fit to be the callback `stop`. */
  readonly terminate = (): void => this.signal("SIGTERM");

  /** Sends SIGKILL; fit to be the callback `kill`. */
  readonly kill = (): void => this.signal("SIGKILL");

  /** Sends a signal, at once after a look at who it is: Node has no handle of a process that it did not start. */
  signal(signal: NodeJS.Signals): void {
    const found = this.#find();
    if (!found) return;
    try {
      process.kill(found.pid, signal);
    } catch (error) {
      // That it has ended is no error.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  #find(): Identity | undefined {
    const seen = this.#seen && startOf(this.#seen.pid) === this.#seen.ticks ? this.#seen : undefined;
    let content: string, writtenMs: number;
    try {
      content = readFileSync(this.pidFile, "ascii").trim();
      writtenMs = statSync(this.pidFile).mtimeMs;
    } catch (error) {
      if (this.#seen && (error as NodeJS.ErrnoException).code === "ENOENT") return seen;
      throw error;
    }
    if (!/^[1-9]\d*$/.test(content)) throw new Error(`${this.pidFile} holds no pid`);
    const pid = Number(content);
    const ticks = startOf(pid);
    if (ticks === undefined || bootTimeMs() + (ticks * 1000) / TICKS_PER_SECOND > writtenMs + ROUNDING_MS) return seen;
    this.#seen = { pid, ticks };
    return this.#seen;
  }
}

/** When the process of that pid began; undefined if there is none that has not ended. */
function startOf(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  // The name of the program, in parentheses, may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 1).trim().split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? undefined : Number(fields[19]);
}

function bootTimeMs(): number {
  const found = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "ascii"));
  if (!found) throw new Error("/proc/stat does not say when the machine was started");
  return Number(found[1]) * 1000;
}
