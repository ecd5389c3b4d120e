// Connections to a scheduler: addresses, TLS, tokens, deadlines, repetitions.
import { randomUUID } from "node:crypto";
import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { Code, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Problem } from "./problem.js";
import { Access } from "./v1.js";

/**
 * How long a call that says nothing else may take. Answers take milliseconds; a dry run asks hooks, for which the scheduler
 * waits 10 seconds by default.
 */
export const DEADLINE_MS = 15_000;

/** Messages of the contract stay under 1 MiB. */
const MESSAGE_MAX = 1 << 20;
/** What docs/protocol.md says of repetitions. */
const ATTEMPTS_MAX = 4;
const PAUSE_FIRST_MS = 200;
const PAUSE_MAX_MS = 3_000;
/** A watch that hears nothing asks whether anybody is there, no more often than schedulers put up with. */
const PING_EVERY_MS = 30_000;
const PING_TIMEOUT_MS = 20_000;

/** PEM files for https://: the CAs that sign the scheduler's certificate, and an own certificate with its key. */
export interface Files {
  ca?: string | undefined;
  cert?: string | undefined;
  key?: string | undefined;
}

/** Who connects, and how. */
export interface Options extends Files {
  /** Sent as `authorization: Bearer`; a function is asked before each call. */
  token?: string | (() => string | undefined) | undefined;
  /** The file with it, which nobody but its owner can read. */
  tokenFile?: string | undefined;
  /** Of every call that is not a watch and is given no `timeoutMs` of its own. */
  deadlineMs?: number;
}

/** Where a URL such as http://127.0.0.1:7600 leads to, and whether over TLS. */
export interface Target {
  host: string;
  port: number;
  secure: boolean;
}

export function targetOf(url: string, files: Files): Target {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed?.hostname || !["http:", "https:"].includes(parsed.protocol) || parsed.pathname !== "/") {
    throw new TypeError(`${JSON.stringify(url)} is not http://HOST:PORT or https://HOST:PORT`);
  }
  const secure = parsed.protocol === "https:";
  if (!secure && (files.ca || files.cert || files.key)) {
    throw new TypeError(`${JSON.stringify(url)} is for talk in the clear, although there are files for TLS`);
  }
  return { host: parsed.hostname.replace(/^\[|\]$/g, ""), port: Number(parsed.port || (secure ? 443 : 80)), secure };
}

/** What TLS needs of the files. */
export function tlsOf(files: Files) {
  return {
    minVersion: "TLSv1.3" as const,
    ...(files.ca && { ca: readFileSync(files.ca) }),
    ...(files.cert && { cert: readFileSync(files.cert) }),
    ...(files.key && { key: readFileSync(files.key) }),
  };
}

/** A token from a file that nobody but its owner can read. */
export function readToken(path: string): string {
  const file = openSync(path, "r");
  try {
    if (fstatSync(file).mode & 0o077) throw new Error(`others can read the token in ${JSON.stringify(path)}: chmod 600`);
    return readFileSync(file, "ascii").trim();
  } finally {
    closeSync(file);
  }
}

function tokenSource({ token, tokenFile }: Options): () => string | undefined {
  if (tokenFile !== undefined) {
    if (token !== undefined) throw new TypeError("give a token or the file of one, not both");
    const read = readToken(tokenFile);
    return () => read;
  }
  return typeof token === "function" ? token : () => token;
}

/** A transport to the scheduler, and what closes it. */
export function open(url: string, options: Options): { transport: Transport; close: () => void } {
  const { secure } = targetOf(url, options);
  const source = tokenSource(options);
  const sessions = new Http2SessionManager(
    url,
    { pingIntervalMs: PING_EVERY_MS, pingTimeoutMs: PING_TIMEOUT_MS },
    secure ? tlsOf(options) : undefined,
  );
  const inner = createGrpcTransport({
    baseUrl: url,
    sessionManager: sessions,
    readMaxBytes: MESSAGE_MAX,
    interceptors: [
      (next) => (request) => {
        const token = source();
        if (token) request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return { transport: careful(inner, options.deadlineMs ?? DEADLINE_MS), close: () => sessions.abort() };
}

/** The same with deadlines, names for requests, and repetitions. */
function careful(inner: Transport, deadlineMs: number): Transport {
  return {
    stream: inner.stream.bind(inner),
    async unary(method, signal, timeoutMs, header, input, context) {
      const request = named(method.input, input);
      const until = Date.now() + (timeoutMs ?? deadlineMs);
      for (let attempt = 1, pause = PAUSE_FIRST_MS; ; attempt++, pause = Math.min(2 * pause, PAUSE_MAX_MS)) {
        try {
          return await inner.unary(method, signal, Math.max(1, until - Date.now()), header, request, context);
        } catch (error) {
          // Tokens are made without a request_id: once more could be one too many.
          const repeatable = method.parent.typeName !== Access.typeName && Problem.of(error).code === Code.Unavailable;
          if (!repeatable || attempt === ATTEMPTS_MAX || Date.now() + pause >= until) throw error;
        }
        await sleep(pause * (0.8 + 0.4 * Math.random()), undefined, { ...(signal && { signal }) });
      }
    },
  };
}

/** The request with a request_id, if it takes one and the caller gave none: then it can be repeated. */
function named<I extends DescMessage>(type: I, input: MessageInitShape<I>): MessageInitShape<I> {
  const given = input as { requestId?: string; validateOnly?: boolean };
  if (!type.field.requestId || given.requestId || given.validateOnly) return input;
  return { ...input, requestId: randomUUID() };
}
