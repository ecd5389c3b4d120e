// Hooks on the kit: the example under a real scheduler, and the rules of the contract asked for directly.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Problem } from "../src/client.js";
import { Hook, Process } from "../src/hookkit.js";
import {
  Evidence,
  FailureStrategy,
  Failure_Reason as Reason,
  HookInfo_AppState as AppState,
  Operation_State as State,
  ShutdownHook,
  ShutdownPhase as Phase,
  type ShutdownRequestSchema,
  type ShutdownStatus,
  StopResult_Outcome as Outcome,
  Token_Role as Role,
} from "../src/v1.js";
import { CA, collect, eventually, OPEN, SECURE, SECURED, World } from "./world.js";

const BOTH_WAYS: [string, string[]][] = [
  ["dialling in", []],
  ["listening", ["127.0.0.1:0"]],
];

for (const [way, listen] of BOTH_WAYS) {
  test(`${way}: an application is stopped through the example`, async (t) => {
    const world = new World(t);
    await world.create();
    const application = await world.application();
    const ended = once(application, "exit");
    world.hook(OPEN, listen);
    const { hook } = await world.ready();
    assert.equal(hook?.implementation, "quiesce-hookkit-typescript");
    assert.equal(hook.appState, AppState.RUNNING);
    const done = await world.outcome((await world.client.migrate(world.name, "b")).name);
    assert.equal(done.state, State.SUCCEEDED);
    const [stopped] = done.instances;
    assert.equal(stopped?.verified, true);
    assert.equal(stopped.status?.result?.outcome, Outcome.STOPPED);
    assert.equal(stopped.status.result.evidence, Evidence.PROCESS_GONE);
    assert.deepEqual(await ended, [0, null]);
    assert.equal(world.signals(), 1);
  });

  test(`${way}: an application that ignores the stop is killed when the scheduler says so`, async (t) => {
    const world = new World(t);
    await world.create({
      gracePeriod: durationFromMs(1000),
      // Long enough for a busy machine: here the grace is to run out first.
      heartbeatTimeout: durationFromMs(10_000),
      retry: { maxAttempts: 1 },
      failureStrategy: FailureStrategy.GIVE_UP,
    });
    const application = await world.application("deaf");
    const ended = once(application, "exit");
    world.hook(OPEN, listen);
    await world.ready();
    const { name } = await world.client.delete(world.name);
    const degraded = await world.outcome(name);
    assert.equal(degraded.state, State.DEGRADED);
    assert.equal(degraded.failure?.reason, Reason.GRACE_TIMEOUT);
    assert.equal(application.signalCode, null, "the hook kills nothing by itself");
    assert.equal(world.signals(), 1);

    await world.client.scheduler.retryOperation({ name, force: true, reason: "a test" });
    const done = await world.outcome(name);
    assert.equal(done.state, State.SUCCEEDED);
    assert.equal(done.instances[0]?.status?.result?.outcome, Outcome.KILLED);
    assert.deepEqual(await ended, [null, "SIGKILL"]);
  });

  test(`${way}: a hook that is restarted goes on and tells nobody twice`, async (t) => {
    const world = new World(t);
    await world.create({ heartbeatTimeout: durationFromMs(20_000) });
    const application = await world.application("deaf");
    const before = world.hook(OPEN, listen);
    await world.ready();
    const { name } = await world.client.migrate(world.name, "b");
    await eventually("the signal", () => world.signals() || undefined);
    await world.kill(before);
    world.hook(OPEN, listen);
    // The new one has been heard: its reports continue those of the one before.
    const life = 1_000_000;
    await eventually("a report of the next life", async () => {
      return ((await world.snapshot(name)).instances[0]?.status?.sequence ?? 0) > life || undefined;
    });
    await world.kill(application);
    const done = await world.outcome(name);
    assert.equal(done.state, State.SUCCEEDED);
    assert.equal(done.instances[0]?.attempt, 1);
    assert.equal(done.instances[0].status?.result?.outcome, Outcome.STOPPED);
    assert.equal(world.signals(), 1);
  });

  test(`${way}: it joins over TLS with a token that nobody else sees`, async (t) => {
    const world = new World(t, SECURE, SECURED);
    await world.create();
    await world.application();
    const token = { displayName: "a test", role: Role.AGENT, applications: [`applications/${world.name}`] };
    const { bearerToken } = await world.client.access.createToken({ token });
    const join_file = join(world.place, "join.token");
    writeFileSync(join_file, bearerToken, { mode: 0o600 });
    const files = {
      QUIESCE_CA: CA,
      QUIESCE_HOOK_CERT: process.env.QUIESCE_TEST_CERT ?? "",
      QUIESCE_HOOK_KEY: process.env.QUIESCE_TEST_KEY ?? "",
    };
    const before = world.hook(SECURE, listen, { ...files, QUIESCE_JOIN_TOKEN_FILE: join_file });
    assert.equal((await world.ready()).endpoint.startsWith("https://"), listen.length > 0);
    const credential = join(world.place, "state", "instance.token");
    assert.equal(statSync(credential).mode & 0o777, 0o600);
    await world.kill(before);
    // The join token was good once. The credential that it brought goes on.
    unlinkSync(join_file);
    world.hook(SECURE, listen, files);
    const said = listen.length ? "the hook listens" : "attached";
    await eventually("the return of the hook", () => world.log().split(said).length > 2 || undefined);
    const done = await world.outcome((await world.client.migrate(world.name, "b")).name);
    assert.equal(done.state, State.SUCCEEDED);
    assert(!world.log().includes(bearerToken) && !world.log().includes(readFileSync(credential, "ascii").trim()));
  });
}

test("the example is short", () => {
  const source = readFileSync(join(import.meta.dirname, "..", "..", "examples", "hook.ts"), "utf8");
  const code = source.split("\n").filter((line) => line.trim() && !line.startsWith("//"));
  assert(code.length <= 20, String(code.length));
});

test("the hook of the README is one", (t) => {
  const code = readFileSync(join(import.meta.dirname, "..", "..", "README.md"), "utf8").split("```ts\n")[2]!.split("```")[0]!;
  const place = mkdtempSync(join(tmpdir(), "quiesce-test-"));
  const file = join(import.meta.dirname, `readme-${process.pid}.mjs`);
  t.after(() => {
    rmSync(file);
    rmSync(place, { recursive: true });
  });
  const said = code.replace("await hook.dialIn(", "console.log(typeof hook.dialIn, ").replace("/var/lib/shop-hook", place);
  writeFileSync(file, said);
  const done = spawnSync(process.execPath, [file], { encoding: "utf8", timeout: 30_000 });
  assert.match(done.stdout, /^function .*scheduler\.example\.net/s, done.stderr);
});

/** A hook in this process, asked without a scheduler. */
class Direct {
  alive = true;
  stops = 0;
  kills = 0;
  onStop = () => {};
  readonly state = mkdtempSync(join(tmpdir(), "quiesce-test-"));
  readonly authorized: CallOptions = { headers: { authorization: "Bearer a-hook-token" } };
  stub!: Client<typeof ShutdownHook>;

  static async start(t: TestContext): Promise<Direct> {
    const direct = new Direct();
    const hook = new Hook({
      instance: "applications/shop/instances/one",
      stateDir: direct.state,
      log: () => {},
      running: () => direct.alive,
      stop: (request) => {
        assert.equal(request.completionToken, "", "a secret between the kit and the scheduler");
        direct.stops += 1;
        direct.onStop();
      },
      kill: () => {
        direct.kills += 1;
        direct.alive = false;
      },
    });
    let served = Promise.resolve();
    const address = await new Promise<string>((listening) => {
      served = hook.listen({ host: "127.0.0.1", port: 0, hookToken: "a-hook-token" }, listening);
    });
    t.after(async () => {
      hook.close();
      await served;
      rmSync(direct.state, { recursive: true });
    });
    direct.stub = createClient(ShutdownHook, createGrpcTransport({ baseUrl: `http://${address}` }));
    return direct;
  }

  begin(request: MessageInitShape<typeof ShutdownRequestSchema>, more: CallOptions = {}): AsyncIterator<ShutdownStatus> {
    const asked = { heartbeatInterval: durationFromMs(200), ...request };
    const call = this.stub.shutdown(asked, { ...this.authorized, ...more });
    return (async function* () {
      for await (const { status } of call) if (status) yield status;
    })();
  }

  refused(request: MessageInitShape<typeof ShutdownRequestSchema>): Promise<Problem> {
    return refusedBy(rest(this.begin(request)));
  }
}

async function next(call: AsyncIterator<ShutdownStatus>): Promise<ShutdownStatus> {
  const { value, done } = await call.next();
  assert(!done);
  return value;
}

function rest(call: AsyncIterator<ShutdownStatus>): Promise<ShutdownStatus[]> {
  return collect({ [Symbol.asyncIterator]: () => call });
}

async function end(call: AsyncIterator<ShutdownStatus>): Promise<ShutdownStatus> {
  const last = (await rest(call)).at(-1);
  assert(last);
  return last;
}

async function refusedBy(call: Promise<unknown>): Promise<Problem> {
  const done = await call.then(
    () => undefined,
    (error: unknown) => Problem.of(error),
  );
  assert(done, "the call has succeeded");
  return done;
}

test("a repeated shutdown joins and tells nobody twice", async (t) => {
  const direct = await Direct.start(t);
  const first = direct.begin({ shutdownId: "s1", completionToken: "t1" });
  const reports = [await next(first)];
  const joined = direct.begin({ shutdownId: "s1", completionToken: "x", operation: "operations/other", attempt: 9 });
  const later = await next(joined);
  assert(reports[0]!.sequence >= 1 && later.sequence > reports[0]!.sequence);
  await eventually("the stop", () => direct.stops || undefined);
  direct.alive = false;
  reports.push(...(await rest(first)));
  const last = reports.at(-1)!;
  for (const found of [await end(joined), last, await end(direct.begin({ shutdownId: "s1" }))]) {
    assert.deepEqual(
      [found.sequence, found.result?.outcome, found.completionToken],
      [last.sequence, Outcome.STOPPED, "t1"],
    );
  }
  for (const [place, report] of reports.slice(0, -1).entries()) {
    const following = reports[place + 1]!;
    assert(!report.result && !report.completionToken);
    assert(following.sequence > report.sequence && following.phase >= report.phase);
  }
  assert.equal(direct.stops, 1);
});

test("reports come while nothing happens, and nothing is killed", async (t) => {
  const direct = await Direct.start(t);
  const call = direct.begin({ shutdownId: "s1", gracePeriod: durationFromMs(1) });
  for (let heard = 0; heard < 6; heard++) await next(call);
  assert(direct.alive && direct.kills === 0);
});

test("the end of the call is not the end of the shutdown", async (t) => {
  const direct = await Direct.start(t);
  const breaking = new AbortController();
  const call = direct.begin({ shutdownId: "s1" }, { signal: breaking.signal });
  await next(call);
  breaking.abort();
  assert.equal((await refusedBy(rest(call))).code, Code.Canceled);
  await eventually("the stop", () => direct.stops || undefined);
  direct.alive = false;
  await eventually("the end", async () => (await direct.stub.getShutdown({}, direct.authorized)).status?.result);
});

test("one shutdown at a time, and later ones take over", async (t) => {
  const direct = await Direct.start(t);
  const request = (shutdownId: string, operation: string, attempt: number, epoch: bigint) => {
    return { shutdownId, operation: `operations/${operation}`, attempt, epoch };
  };
  const first = direct.begin(request("s1", "a", 1, 5n));
  await next(first);
  for (const [operation, attempt, epoch] of [["a", 1, 5n], ["b", 9, 5n], ["b", 9, 4n], ["b", 9, 0n]] as const) {
    const problem = await direct.refused(request("s2", operation, attempt, epoch));
    assert.deepEqual([problem.code, problem.reason], [Code.Aborted, "SHUTDOWN_IN_PROGRESS"]);
    assert.equal(problem.metadata.shutdownId, "s1");
    assert(problem.retryAfterMs);
  }
  const second = direct.begin(request("s2", "a", 2, 5n));
  await next(second);
  assert.equal((await refusedBy(rest(first))).reason, "SHUTDOWN_SUPERSEDED");
  const third = direct.begin(request("s3", "b", 1, 6n));
  await next(third);
  assert.equal((await refusedBy(rest(second))).reason, "SHUTDOWN_SUPERSEDED");
  direct.alive = false;
  assert.equal((await end(third)).result?.outcome, Outcome.STOPPED);
  assert.equal((await direct.refused(request("s4", "c", 1, 5n))).reason, "EPOCH_STALE");
  assert.equal((await end(direct.begin(request("s4", "c", 1, 7n)))).result?.outcome, Outcome.NOT_RUNNING);
});

test("only who began the shutdown may kill", async (t) => {
  const direct = await Direct.start(t);
  const call = direct.begin({ shutdownId: "s1", completionToken: "t1" });
  await next(call);
  const kill = (shutdownId: string, completionToken: string) => {
    return direct.stub.killApplication({ shutdownId, completionToken }, direct.authorized);
  };
  assert.equal((await refusedBy(kill("s1", "t2"))).reason, "COMPLETION_TOKEN_INVALID");
  assert.equal((await refusedBy(kill("s2", "t1"))).reason, "SHUTDOWN_NOT_FOUND");
  assert.equal(direct.kills, 0);
  await kill("s1", "t1");
  assert.equal((await end(call)).result?.outcome, Outcome.KILLED);
  await kill("s1", "t1");
  assert.equal(direct.kills, 1);
});

test("a stop that fails is a result", async (t) => {
  const direct = await Direct.start(t);
  direct.onStop = () => {
    throw new Error("no such command");
  };
  const last = await end(direct.begin({ shutdownId: "s1" }));
  assert.deepEqual([last.phase, last.result?.outcome], [Phase.FAILED, Outcome.STILL_RUNNING]);
  assert.match(last.result?.message ?? "", /no such command/);
});

test("wrong requests and strangers change nothing", async (t) => {
  const direct = await Direct.start(t);
  for (const wrong of ["", "a b", "x".repeat(129)]) {
    const problem = await direct.refused({ shutdownId: wrong });
    assert.equal(problem.reason, "INVALID_FIELD");
    assert.equal(problem.violations[0]?.field, "shutdown_id");
  }
  const foreign = await direct.refused({ shutdownId: "s1", instance: "applications/shop/instances/two" });
  assert.equal(foreign.reason, "WRONG_INSTANCE");
  for (const stranger of [{}, { headers: { authorization: "Bearer guess" } }]) {
    for (const call of [direct.stub.getHookInfo({}, stranger), direct.stub.cancelShutdown({}, stranger)]) {
      assert.equal((await refusedBy(call)).reason, "CREDENTIALS_INVALID");
    }
  }
  assert.equal((await refusedBy(direct.stub.cancelShutdown({}, direct.authorized))).code, Code.Unimplemented);
  assert.equal(direct.stops, 0);
});

/** Certificate and key that another CA has signed. */
function pairOfAnotherCa(place: string): { cert: string; key: string } {
  const quiesce = join(dirname(process.env.QUIESCE_TEST_AGENT ?? ""), "quiesce");
  for (const args of [["init", place], ["issue", place, "127.0.0.1"]]) {
    assert.equal(spawnSync(quiesce, ["pki", ...args]).status, 0);
  }
  return { cert: join(place, "127.0.0.1.pem"), key: join(place, "127.0.0.1.key") };
}

test("with a client CA only who has its certificate and the token is let in", async (t) => {
  const place = mkdtempSync(join(tmpdir(), "quiesce-test-"));
  const own = { cert: process.env.QUIESCE_TEST_CERT ?? "", key: process.env.QUIESCE_TEST_KEY ?? "" };
  const instance = "applications/shop/instances/one";
  const hook = new Hook({ instance, log: () => {}, running: () => true, stop: () => {} });
  let served = Promise.resolve();
  const address = await new Promise<string>((listening) => {
    const options = { host: "127.0.0.1", port: 0, hookToken: "a-hook-token", ...own, clientCa: CA };
    served = hook.listen(options, listening);
  });
  t.after(async () => {
    hook.close();
    await served;
    rmSync(place, { recursive: true });
  });
  const ask = async (pair: { cert?: string; key?: string }, headers: Record<string, string>): Promise<string> => {
    const [cert, key] = [pair.cert, pair.key].map((file) => (file === undefined ? undefined : readFileSync(file)));
    const nodeOptions = { ca: readFileSync(CA), ...(cert && key && { cert, key }) };
    const sessions = new Http2SessionManager(address, undefined, nodeOptions);
    const transport = createGrpcTransport({ baseUrl: address, sessionManager: sessions });
    try {
      return (await createClient(ShutdownHook, transport).getHookInfo({}, { headers })).info?.instance ?? "";
    } finally {
      sessions.abort();
    }
  };
  const token = { authorization: "Bearer a-hook-token" };
  assert.equal(await ask(own, token), instance);
  assert.equal((await refusedBy(ask(own, {}))).reason, "CREDENTIALS_INVALID");
  for (const stranger of [{}, pairOfAnotherCa(join(place, "pki"))]) {
    const problem = await refusedBy(ask(stranger, token));
    assert.equal(problem.reason, "", "turned away before the call");
    assert.notEqual(problem.code, Code.Unauthenticated);
  }
});

test("the completion token is not written down", async (t) => {
  const direct = await Direct.start(t);
  const call = direct.begin({ shutdownId: "s1", completionToken: "a-secret-token" });
  await next(call);
  direct.alive = false;
  await end(call);
  const record = join(direct.state, "hook.json");
  assert(!readFileSync(record, "utf8").includes("a-secret-token"));
  assert.equal(statSync(record).mode & 0o777, 0o600);
});

test("a process is told from another that was given its pid", async (t) => {
  const world = new World(t);
  const application = await world.application();
  const ended = once(application, "exit");
  const file = join(world.place, "pid");
  assert(new Process(file).running());
  const written = statSync(file).mtime;
  const long = new Date(written.getTime() - 3_600_000);
  utimesSync(file, long, long);
  const stranger = new Process(file);
  assert(!stranger.running(), "it began after the file was written");
  stranger.terminate();
  assert.equal(world.signals(), 0);
  utimesSync(file, written, written);
  const process = new Process(file);
  process.terminate();
  assert.deepEqual(await ended, [0, null]);
  assert(!process.running());
  assert.equal(world.signals(), 1);
});

test("a process that removes its file has not ended by that", async (t) => {
  const world = new World(t);
  const application = await world.application();
  const ended = once(application, "exit");
  const file = join(world.place, "pid");
  const process = new Process(file);
  assert(process.running());
  unlinkSync(file);
  assert(process.running());
  process.terminate();
  assert.deepEqual(await ended, [0, null]);
  assert(!process.running());
  assert.equal(world.signals(), 1);
  assert.throws(() => new Process(file).running(), /ENOENT/);
  writeFileSync(file, "");
  assert.throws(() => new Process(file).running(), /holds no pid/);
});
