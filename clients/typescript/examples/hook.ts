// A hook for whatever wrote its pid into a file: node hook.js INSTANCE PID_FILE STATE_DIR SCHEDULER [LISTEN]
import { Hook, Process } from "../src/hookkit.js";

const [instance = "", pidFile = "", stateDir = "", url = "", listen] = process.argv.slice(2);
const app = new Process(pidFile);
const hook = new Hook({ instance, stop: app.terminate, running: app.running, kill: app.kill, stateDir });
const scheduler = { url, ca: process.env.QUIESCE_CA, joinTokenFile: process.env.QUIESCE_JOIN_TOKEN_FILE };
if (listen) {
  const { hostname, port } = new URL(`http://${listen}`);
  const files = { cert: process.env.QUIESCE_HOOK_CERT, key: process.env.QUIESCE_HOOK_KEY };
  await hook.listen({ host: hostname, port: Number(port), scheduler, ...files });
} else {
  await hook.dialIn(scheduler);
}
