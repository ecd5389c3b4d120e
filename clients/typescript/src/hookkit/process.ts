import { readFileSync, statSync } from "node:fs";

/** In which Linux counts the start time of a process, on every machine there is. */
const TICKS_PER_SECOND = 100;
/** The times of files and of processes are rounded differently. */
const ROUNDING_MS = 1000;

/**
 * The process whose pid stands in a file: whether it runs, and signals to it and to no other. Linux only.
 *
 * The file is read each time, so whoever starts the application anew writes a new one. A process that has begun after the
 * file was written is another one that was given the same pid: it is neither taken for the application nor sent signals. A
 * zombie has ended.
 */
export class Process {
  constructor(readonly pidFile: string) {}

  /** Whether it runs. */
  readonly running = (): boolean => this.#pid() !== undefined;

  /** Sends SIGTERM; fit to be the callback `stop`. */
  readonly terminate = (): void => this.signal("SIGTERM");

  /** Sends SIGKILL; fit to be the callback `kill`. */
  readonly kill = (): void => this.signal("SIGKILL");

  /** Sends a signal, at once after a look at who it is: Node has no handle of a process that it did not start. */
  signal(signal: NodeJS.Signals): void {
    const pid = this.#pid();
    if (pid === undefined) return;
    try {
      process.kill(pid, signal);
    } catch (error) {
      // That it has ended is no error.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  #pid(): number | undefined {
    let pid: number, writtenMs: number, stat: string;
    try {
      pid = Number.parseInt(readFileSync(this.pidFile, "ascii"), 10);
      writtenMs = statSync(this.pidFile).mtimeMs;
      stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    } catch (error) {
      if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
      throw error;
    }
    // The name of the program, in parentheses, may hold anything.
    const fields = stat.slice(stat.lastIndexOf(")") + 1).trim().split(" ");
    const startedMs = bootTimeMs() + (Number(fields[19]) * 1000) / TICKS_PER_SECOND;
    const ended = fields[0] === "Z" || fields[0] === "X";
    return ended || startedMs > writtenMs + ROUNDING_MS ? undefined : pid;
  }
}

function bootTimeMs(): number {
  const found = /^btime (\d+)$/m.exec(readFileSync("/proc/stat", "ascii"));
  if (!found) throw new Error("/proc/stat does not say when the machine was started");
  return Number(found[1]) * 1000;
}
