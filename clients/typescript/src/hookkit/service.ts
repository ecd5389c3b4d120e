// The gRPC service: whoever has the credentials may ask, and is answered by `Shutdowns`.
import { createHash, timingSafeEqual } from "node:crypto";
import { createSecureServer, createServer, type Http2SecureServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { SecureContextOptions, TlsOptions } from "node:tls";
import { Code, type Interceptor } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { type HookInfo, ShutdownHook } from "../v1.js";
import { refusal } from "./refusal.js";
import type { Shutdowns } from "./shutdown.js";

/** Calls at a time on one connection. A scheduler needs a handful; a person with grpcurl a few more. */
const CALLS_MAX = 64;
const MESSAGE_MAX = 1 << 20;
const HEADERS_MAX = 16 * 1024;
/** Rule A3: the server pings, and gives up without an answer until the next. */
const PING_EVERY_MS = 20_000;

/** Lets in who sends the token; nobody as long as there is none. */
export class Guard {
  #digest: Buffer | undefined;

  /** From now on this token is asked for. Whether it is a new one. */
  expect(token: string): boolean {
    const before = this.#digest;
    this.#digest = digestOf(token);
    return !before?.equals(this.#digest);
  }

  readonly interceptor: Interceptor = (next) => (request) => {
    if (!this.#digest) {
      const message = "not registered with the scheduler yet, so its credentials are not known";
      throw refusal(Code.Unavailable, "NOT_SERVING", message);
    }
    const [scheme, token] = (request.header.get("authorization") ?? "").split(" ", 2);
    if (scheme?.toLowerCase() !== "bearer" || !timingSafeEqual(digestOf(token ?? ""), this.#digest)) {
      throw refusal(Code.Unauthenticated, "CREDENTIALS_INVALID", "no or unusable credentials");
    }
    return next(request);
  };
}

/** A server of the hook, in the clear or in TLS. */
export type HookServer = Http2Server | Http2SecureServer;

/** A server of the hook that listens nowhere yet; without a guard it serves whoever can connect. */
export function newServer(
  shutdowns: Shutdowns,
  info: () => Promise<HookInfo>,
  guard?: Guard,
  tls?: SecureContextOptions & TlsOptions,
): HookServer {
  const handler = connectNodeAdapter({
    connect: false,
    grpcWeb: false,
    readMaxBytes: MESSAGE_MAX,
    interceptors: guard ? [guard.interceptor] : [],
    routes: (router) =>
      // What is not here answers UNIMPLEMENTED, and is not announced.
      router.service(ShutdownHook, {
        getHookInfo: async () => ({ info: await info() }),
        async *shutdown(request, { signal }) {
          const accepted = shutdowns.accept(request);
          // The caller may go; the shutdown goes on (H9).
          for (let seen = 0; ; ) {
            const status = await shutdowns.nextReport(accepted, seen, signal);
            seen = status.sequence;
            yield { status };
            if (status.result) return;
          }
        },
        getShutdown: ({ shutdownId }) => ({ status: shutdowns.get(shutdownId) }),
        killApplication: async ({ shutdownId, completionToken }) => ({
          status: await shutdowns.kill(shutdownId, completionToken),
        }),
      }),
  });
  const settings = { maxConcurrentStreams: CALLS_MAX, maxHeaderListSize: HEADERS_MAX };
  const server: HookServer = tls ? createSecureServer({ settings, ...tls }, handler) : createServer({ settings }, handler);
  server.on("session", keepAlive);
  return server;
}

function keepAlive(session: ServerHttp2Session): void {
  let answered = true;
  const pings = setInterval(() => {
    if (!answered) {
      session.destroy();
      return;
    }
    answered = false;
    session.ping((error) => {
      answered = !error;
    });
  }, PING_EVERY_MS);
  session.on("close", () => clearInterval(pings));
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
