// Migrates an application and follows it to its end: node migrate.js APPLICATION CLUSTER [SCHEDULER]
import { connect, Problem } from "../src/client.js";
import { Operation_State as State } from "../src/v1.js";

const [application = "", cluster = "", url] = process.argv.slice(2);
const client = connect(url, { tokenFile: process.env.QUIESCE_TOKEN_FILE, ca: process.env.QUIESCE_CA });
try {
  let { name, state } = await client.migrate(application, cluster, { reason: "the example" });
  for await (const event of client.follow(name)) {
    state = event.operation?.state ?? state;
    console.log(`${State[state]}: ${event.message}`);
  }
  process.exitCode = state === State.SUCCEEDED ? 0 : 3;
} catch (error) {
  console.error(`migrate: ${Problem.of(error)}`);
  process.exitCode = 1;
} finally {
  client.close();
}
