// Errors with the details that the contract wants.
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.js";
import { DOMAIN } from "../problem.js";

/** What is worth repeating is so after this time. */
const REPEAT_AFTER = { seconds: 1n, nanos: 0 };

/** An error of a call. The reason is one of ErrorReason, without prefix. */
export function refusal(code: Code, reason: string, message: string, metadata: Record<string, string> = {}): ConnectError {
  const info = { desc: ErrorInfoSchema, value: { reason, domain: DOMAIN, metadata } };
  if (code === Code.FailedPrecondition) {
    const value = { violations: [{ type: reason, description: message }] };
    return new ConnectError(message, code, undefined, [info, { desc: PreconditionFailureSchema, value }]);
  }
  if (reason === "SHUTDOWN_IN_PROGRESS" || reason === "NOT_SERVING") {
    return new ConnectError(message, code, undefined, [info, { desc: RetryInfoSchema, value: { retryDelay: REPEAT_AFTER } }]);
  }
  return new ConnectError(message, code, undefined, [info]);
}

/** A request with a field that cannot be used. */
export function badField(field: string, description: string): ConnectError {
  return new ConnectError(`${field} ${description}`, Code.InvalidArgument, undefined, [
    { desc: ErrorInfoSchema, value: { reason: "INVALID_FIELD", domain: DOMAIN } },
    { desc: BadRequestSchema, value: { fieldViolations: [{ field, description }] } },
  ]);
}
