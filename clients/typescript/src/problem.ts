import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/** The domain of the ErrorInfo of all errors of the contract. */
export const DOMAIN = "quiesce.v1";

/** One field of a request that cannot be used, by its path in the request. */
export interface Violation {
  field: string;
  description: string;
}

/** An error, decoded. Tell errors apart by `reason`; the message is for people. */
export class Problem {
  private constructor(
    readonly code: Code,
    readonly message: string,
    /**
     * A name of ErrorReason, such as "APPLICATION_NOT_FOUND"; empty when the error did not come from a scheduler or hook (a
     * lost connection, a deadline).
     */
    readonly reason: string,
    readonly metadata: Record<string, string>,
    readonly violations: Violation[],
    /** How long to wait before the same call is repeated, in milliseconds; undefined: there is no use in repeating it. */
    readonly retryAfterMs: number | undefined,
  ) {}

  /** Decodes what a call threw. */
  static of(error: unknown): Problem {
    const failed = ConnectError.from(error);
    const info = failed.findDetails(ErrorInfoSchema).find((found) => found.domain === DOMAIN);
    const fields = failed.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations);
    const retry = failed.findDetails(RetryInfoSchema)[0]?.retryDelay;
    return new Problem(
      failed.code,
      failed.rawMessage,
      info?.reason ?? "",
      info?.metadata ?? {},
      fields.map(({ field, description }) => ({ field, description })),
      retry && durationMs(retry),
    );
  }

  toString(): string {
    const named = this.reason ? `${Code[this.code]} / ${this.reason}` : Code[this.code];
    return `${named}: ${this.message}${this.violations.map((found) => `\n  ${found.field}: ${found.description}`).join("")}`;
  }
}
