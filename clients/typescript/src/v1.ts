// The generated contract, package quiesce.v1.
export * from "./gen/quiesce/v1/access_pb.js";
export * from "./gen/quiesce/v1/agent_gateway_pb.js";
export * from "./gen/quiesce/v1/errors_pb.js";
export * from "./gen/quiesce/v1/scheduler_pb.js";
export * from "./gen/quiesce/v1/shutdown_hook_pb.js";
export * from "./gen/quiesce/v1/types_pb.js";
