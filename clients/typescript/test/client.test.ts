// The client against real schedulers and the real agent.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, connect, Problem } from "../src/client.js";
import {
  Access,
  AgentGateway,
  Operation_State as State,
  type OperationEvent,
  OperationEvent_Type as Type,
  Scheduler,
  Token_Role as Role,
} from "../src/v1.js";
import { CA, eventually, OPEN, Relay, SECURE, SECURED, World } from "./world.js";

async function problemOf(call: Promise<unknown>): Promise<Problem> {
  try {
    await call;
  } catch (error) {
    return Problem.of(error);
  }
  throw new Error("the call has succeeded");
}

test("an application is created, read and listed", async (t) => {
  const world = new World(t);
  await world.create({ gracePeriod: durationFromMs(7000) });
  const name = `applications/${world.name}`;
  const { application } = await world.client.scheduler.getApplication({ name });
  assert.equal(application?.cluster, "a");
  assert.equal(application.policy?.gracePeriod && durationMs(application.policy.gracePeriod), 7000);
  const listed = await world.client.scheduler.listApplications({ filter: `name = "${name}"` });
  assert.deepEqual(listed.applications.map((found) => found.name), [name]);
});

test("a repeated request of the same id has no further effect", async (t) => {
  const world = new World(t);
  await world.create();
  await world.agent();
  const first = await world.client.migrate(world.name, "b", { requestId: `once-${world.name}` });
  const again = await world.client.migrate(world.name, "b", { requestId: `once-${world.name}` });
  assert.equal(again.name, first.name);
  assert.equal(again.requestId, `once-${world.name}`);
});

test("progress is followed and resumed", async (t) => {
  const world = new World(t);
  await world.create();
  await world.agent();
  const operation = await world.client.migrate(world.name, "b");
  assert.notEqual(operation.requestId, "", "a request without an id is given one");
  const events = await world.events(operation.name);
  assert.equal(events[0]?.type, Type.SNAPSHOT);
  assert.equal(events.at(-1)?.operation?.state, State.SUCCEEDED);
  const told = events.filter((event) => event.resumeToken);
  // From each place on the rest is the same, on a connection of its own.
  const another = world.connect(OPEN);
  for (const [place, event] of told.entries()) {
    const rest = await world.events(operation.name, event.resumeToken, another);
    assert.deepEqual(
      rest.map((later) => later.revision),
      told.slice(place + 1).map((later) => later.revision),
    );
  }
});

test("following survives lost connections", async (t) => {
  const world = new World(t);
  await world.create();
  const application = await world.application("deaf");
  world.hook(OPEN, []);
  await world.ready();
  const relay = await Relay.before(t, OPEN);
  const cut = world.connect(relay.url);
  const { name } = await cut.migrate(world.name, "b");
  const told: OperationEvent[] = [];
  let returned: Promise<void> | undefined;
  for await (const event of cut.follow(name)) {
    told.push(event);
    // Once there is something to go on behind.
    if (returned || !event.resumeToken) continue;
    relay.cut();
    returned = eventually("a second connection", () => relay.connections > 1 || undefined).then(() => world.kill(application));
  }
  await returned;
  assert.equal(told.at(-1)?.operation?.state, State.SUCCEEDED);
  const first = told.findIndex((event) => event.resumeToken);
  const whole = await world.events(name, told[first]!.resumeToken);
  // Bookmarks come where nothing happens, on each stream elsewhere.
  const happened = (events: OperationEvent[]) =>
    events.filter((event) => event.type !== Type.BOOKMARK).map((event) => event.revision);
  assert.deepEqual(happened(told.slice(first + 1)), happened(whole), "nothing is missing, nothing comes twice");
});

test("following is broken off", async (t) => {
  const world = new World(t);
  await world.create();
  await world.application("deaf");
  world.hook(OPEN, []);
  await world.ready();
  const { name } = await world.client.migrate(world.name, "b");
  const breaking = new AbortController();
  const problem = await problemOf(
    (async () => {
      for await (const _ of world.client.follow(name, { signal: breaking.signal })) breaking.abort();
    })(),
  );
  assert.equal(problem.code, Code.Canceled);
});

test("the example migrates", async (t) => {
  const world = new World(t);
  await world.create();
  await world.agent();
  const done = world.migrate(world.name, "b", OPEN);
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /SUCCEEDED: .*\n$/);
  const again = world.migrate(world.name, "b", OPEN);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /FailedPrecondition \/ ALREADY_ON_TARGET/);
});

test("errors are decoded", async (t) => {
  const { client } = new World(t);
  const missing = await problemOf(client.scheduler.getApplication({ name: "applications/nobody" }));
  assert.deepEqual([missing.code, missing.reason], [Code.NotFound, "APPLICATION_NOT_FOUND"]);
  assert.deepEqual({ ...missing.metadata }, { name: "applications/nobody" });
  assert.equal(missing.retryAfterMs, undefined);

  const invalid = await problemOf(client.scheduler.createApplication({ application: { name: "applications/NO" } }));
  assert.equal(invalid.reason, "INVALID_FIELD");
  assert.deepEqual(invalid.violations.map((found) => found.field).sort(), ["application.cluster", "application.name"]);
  assert.match(String(invalid), /application\.cluster/);
});

test("a busy application says when to try again", async (t) => {
  const world = new World(t);
  await world.create();
  await world.application("deaf");
  world.hook(OPEN, []);
  await world.ready();
  const first = await world.client.migrate(world.name, "b");
  const busy = await problemOf(world.client.delete(world.name));
  assert.equal(busy.reason, "OPERATION_IN_PROGRESS");
  assert.deepEqual({ ...busy.metadata }, { operation: first.name });
  assert(busy.retryAfterMs && busy.retryAfterMs > 0);
});

test("a deadline is kept", async (t) => {
  const world = new World(t);
  // Somebody who takes connections and never says a word.
  const silent = createServer(() => {}).listen(0, "127.0.0.1");
  await once(silent, "listening");
  t.after(() => silent.close());
  const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const hurried = await problemOf(world.connect(url, { deadlineMs: 200 }).scheduler.getServerInfo({}));
  assert.equal(hurried.code, Code.DeadlineExceeded);
  const patient = world.connect(url, { deadlineMs: 1_000_000 });
  const late = await problemOf(patient.scheduler.getServerInfo({}, { timeoutMs: 200 }));
  assert.equal(late.code, Code.DeadlineExceeded);
});

test("TLS and a token are needed where access is enforced", async (t) => {
  const world = new World(t, SECURE, SECURED);
  const list = (client: Client) => client.scheduler.listApplications({});
  await list(world.client);
  const nobody = await problemOf(list(world.connect(SECURE, { ca: CA })));
  assert.equal(nobody.reason, "CREDENTIALS_INVALID");
  const untrusted = await problemOf(list(world.connect(SECURE)));
  assert.equal(untrusted.reason, "");
  assert.match(untrusted.message, /certificate/);

  const { bearerToken } = await world.client.access.createToken({ token: { displayName: "a test", role: Role.VIEWER } });
  const viewer = world.connect(SECURE, { ca: CA, token: bearerToken });
  await list(viewer);
  const forbidden = await problemOf(viewer.delete("whatever"));
  assert.equal(forbidden.reason, "CALLER_NOT_ALLOWED");
  assert(!String(forbidden).includes(bearerToken));

  const readable = join(world.place, "token");
  writeFileSync(readable, "qbt1.x", { mode: 0o644 });
  assert.throws(() => connect(SECURE, { ca: CA, tokenFile: readable }), /chmod 600/);
});

test("every RPC of the contract is answered", async (t) => {
  const { client } = new World(t);
  let answered = 0;
  for (const [calls, service] of [
    [client.scheduler, Scheduler],
    [client.access, Access],
    [client.gateway, AgentGateway],
  ] as const) {
    const byName = calls as unknown as Record<string, (request: object) => Promise<unknown> | AsyncIterable<unknown>>;
    for (const method of service.methods) {
      try {
        // With nothing in it: most are refused, and say which field it is that is missing.
        const answer = byName[method.localName]!({});
        if (Symbol.asyncIterator in answer) for await (const _ of answer) break;
        else await answer;
      } catch (error) {
        assert.equal(Problem.of(error).reason, "INVALID_FIELD", method.name);
      }
      answered += 1;
    }
  }
  assert(answered >= 31, String(answered));
});

test("the example of the README migrates", async (t) => {
  const world = new World(t);
  await world.create();
  await world.agent();
  const code = readFileSync(join(import.meta.dirname, "..", "..", "README.md"), "utf8").split("```ts\n")[1]!.split("```")[0]!;
  assert(code.trimEnd().split("\n").length <= 10);
  // Inside of the package, so that it finds it by its name.
  const file = join(import.meta.dirname, `readme-${world.name}.mjs`);
  t.after(() => rmSync(file));
  writeFileSync(file, code.replace("http://127.0.0.1:7600", OPEN).replace('"shop"', JSON.stringify(world.name)));
  const done = spawnSync(process.execPath, [file], { encoding: "utf8", timeout: 30_000 });
  assert.equal(done.status, 0, done.stderr);
  assert.match(done.stdout, /SUCCEEDED .*\n$/);
});

test("addresses that cannot be meant are refused", () => {
  for (const wrong of ["127.0.0.1:7600", "ftp://x", "http://", "http://x/path"]) {
    assert.throws(() => connect(wrong), TypeError, wrong);
  }
  assert.throws(() => connect("http://127.0.0.1:7600", { ca: CA }), TypeError);
});
