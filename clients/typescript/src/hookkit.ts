/**
 * A kit for shutdown hooks: two callbacks, `stop` and `running`, and the rules of quiesce.v1.ShutdownHook around them.
 *
 * The kit owns what is easily got wrong: one stop for a shutdown however often it is asked for, reports in time, one
 * shutdown at a time, the completion token, credentials, registration, dialling in. Whether the application really runs is
 * known to the callbacks alone; `Process` answers it for a process of this machine.
 */
export { Hook, type HookOptions } from "./hookkit/hook.js";
export type { SchedulerAddress } from "./hookkit/link.js";
export { Process } from "./hookkit/process.js";
export type { Callbacks } from "./hookkit/shutdown.js";
