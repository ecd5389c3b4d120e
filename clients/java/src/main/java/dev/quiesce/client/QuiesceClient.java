package dev.quiesce.client;

import dev.quiesce.v1.AccessGrpc;
import dev.quiesce.v1.AgentGatewayGrpc;
import dev.quiesce.v1.DeleteApplicationRequest;
import dev.quiesce.v1.MigrateApplicationRequest;
import dev.quiesce.v1.Operation;
import dev.quiesce.v1.OperationEvent;
import dev.quiesce.v1.SchedulerGrpc;
import dev.quiesce.v1.WatchOperationRequest;
import dev.quiesce.v1.WatchOperationResponse;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContextBuilder;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * A scheduler. The stubs take and return what the contract says and throw {@link StatusRuntimeException}; see {@link
 * Problem#of}.
 */
public final class QuiesceClient implements AutoCloseable {
  /** Of calls without a deadline of their own. A dry run asks hooks, for which the scheduler waits 10 seconds by default. */
  public static final Duration DEADLINE = Duration.ofSeconds(15);

  /** Messages of the contract stay under 1 MiB. */
  private static final int MESSAGE_MAX = 1 << 20;

  private static final Duration PAUSE_FIRST = Duration.ofMillis(200);
  private static final Duration PAUSE_MAX = Duration.ofSeconds(10);
  private static final Set<String> WITHOUT_TOKEN = Set.of("RESUME_TOKEN_EXPIRED", "INVALID_RESUME_TOKEN");
  private static final Set<String> WITH_TOKEN = Set.of("WATCH_TOO_SLOW", "LIMIT_EXCEEDED");
  private static final Set<Status.Code> BROKEN = EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.UNKNOWN);

  private final ManagedChannel channel;
  private final SchedulerGrpc.SchedulerBlockingStub scheduler;
  private final AccessGrpc.AccessBlockingStub access;
  private final AgentGatewayGrpc.AgentGatewayBlockingStub gateway;

  private QuiesceClient(ManagedChannel channel) {
    this.channel = channel;
    this.scheduler = SchedulerGrpc.newBlockingStub(channel);
    this.access = AccessGrpc.newBlockingStub(channel);
    this.gateway = AgentGatewayGrpc.newBlockingStub(channel);
  }

  /** A client of the scheduler at a URL such as http://127.0.0.1:7600, connected when it is first asked something. */
  public static QuiesceClient connect(String url) throws IOException {
    return builder(url).build();
  }

  /** The same with a token, files for TLS, another deadline. */
  public static Builder builder(String url) {
    return new Builder(url);
  }

  /** Applications, operations, clusters. */
  public SchedulerGrpc.SchedulerBlockingStub scheduler() {
    return scheduler;
  }

  /** Tokens. */
  public AccessGrpc.AccessBlockingStub access() {
    return access;
  }

  /** What agents and applications call. */
  public AgentGatewayGrpc.AgentGatewayBlockingStub gateway() {
    return gateway;
  }

  /** For stubs of other kinds, such as those that do not block. */
  public ManagedChannel channel() {
    return channel;
  }

  /** Begins the migration of an application, named without {@code applications/}, to a cluster. */
  public Operation migrate(String application, String cluster, String reason) {
    MigrateApplicationRequest.Builder request = MigrateApplicationRequest.newBuilder();
    request.setName("applications/" + application).setTargetCluster(cluster).setReason(reason);
    return scheduler.migrateApplication(request.build()).getOperation();
  }

  /** Begins the deletion of an application, named without {@code applications/}. */
  public Operation delete(String application, String reason) {
    DeleteApplicationRequest.Builder request = DeleteApplicationRequest.newBuilder();
    request.setName("applications/" + application).setReason(reason);
    return scheduler.deleteApplication(request.build()).getOperation();
  }

  /**
   * Hands over every event of an operation until it is done, or rests until a person decides.
   *
   * <p>A watch that breaks is opened again where it was: nothing is missing, nothing comes twice.
   *
   * @param resumeToken that of an earlier event, to begin behind it; else empty
   */
  public void follow(String operation, String resumeToken, Consumer<OperationEvent> reader) throws InterruptedException {
    String place = resumeToken;
    Duration pause = PAUSE_FIRST;
    while (true) {
      WatchOperationRequest request =
          WatchOperationRequest.newBuilder().setName(operation).setResumeToken(place).setEndOnDegraded(true).build();
      // A reader that throws breaks off, and the call with it.
      Context.CancellableContext call = Context.current().withCancellation();
      Context before = call.attach();
      try {
        Iterator<WatchOperationResponse> watch = scheduler.watchOperation(request);
        while (hasNext(watch)) {
          OperationEvent event = watch.next().getEvent();
          reader.accept(event);
          place = event.getResumeToken().isEmpty() ? place : event.getResumeToken();
          pause = PAUSE_FIRST;
        }
        return;
      } catch (WatchEnded ended) {
        Problem problem = Problem.of(ended.getCause());
        if (WITHOUT_TOKEN.contains(problem.reason()) && !place.isEmpty()) {
          place = "";
        } else if (!WITH_TOKEN.contains(problem.reason()) && !BROKEN.contains(problem.code())) {
          throw ended.getCause();
        }
        long spread = (long) (pause.toMillis() * ThreadLocalRandom.current().nextDouble(0.8, 1.2));
        Thread.sleep(Math.max(spread, problem.retryAfter().orElse(Duration.ZERO).toMillis()));
        pause = pause.multipliedBy(2).compareTo(PAUSE_MAX) < 0 ? pause.multipliedBy(2) : PAUSE_MAX;
      } finally {
        call.detach(before);
        call.cancel(null);
      }
    }
  }

  /** Tells what the watch throws from what its reader throws. */
  private static boolean hasNext(Iterator<?> watch) {
    try {
      return watch.hasNext();
    } catch (StatusRuntimeException error) {
      throw new WatchEnded(error);
    }
  }

  private static final class WatchEnded extends RuntimeException {
    private static final long serialVersionUID = 1;

    WatchEnded(StatusRuntimeException cause) {
      super(cause);
    }

    @Override
    public synchronized StatusRuntimeException getCause() {
      return (StatusRuntimeException) super.getCause();
    }
  }

  /** Ends all calls. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** Who connects, and how. */
  public static final class Builder {
    private final String url;
    private Supplier<String> token = () -> null;
    private Path ca;
    private Path certificate;
    private Path key;
    private Duration deadline = DEADLINE;

    private Builder(String url) {
      this.url = url;
    }

    /** Sent as {@code authorization: Bearer}. */
    public Builder token(String token) {
      this.token = () -> token;
      return this;
    }

    /** The file with it, which nobody but its owner can read. */
    public Builder tokenFile(Path file) throws IOException {
      Set<PosixFilePermission> modes = Files.getPosixFilePermissions(file);
      modes.removeAll(EnumSet.range(PosixFilePermission.OWNER_READ, PosixFilePermission.OWNER_EXECUTE));
      if (!modes.isEmpty()) {
        throw new IOException("others can read the token in " + file + ": chmod 600");
      }
      return token(Files.readString(file).strip());
    }

    /** PEM file with the CAs that sign the scheduler's certificate; without it, those that Java trusts. */
    public Builder ca(Path file) {
      this.ca = file;
      return this;
    }

    /** PEM files with an own certificate and its key (PKCS#8). */
    public Builder certificate(Path certificate, Path key) {
      this.certificate = certificate;
      this.key = key;
      return this;
    }

    /** Of calls without a deadline of their own; it does not count for watches. */
    public Builder deadline(Duration deadline) {
      this.deadline = deadline;
      return this;
    }

    /** Reads the files. */
    public QuiesceClient build() throws IOException {
      URI uri = URI.create(url);
      boolean secure = "https".equals(uri.getScheme());
      boolean plain = "http".equals(uri.getScheme());
      String path = uri.getPath() == null ? "" : uri.getPath();
      if (!(secure || plain) || uri.getHost() == null || !(path.isEmpty() || path.equals("/"))) {
        throw new IllegalArgumentException(url + " is not http://HOST:PORT or https://HOST:PORT");
      }
      if (plain && (ca != null || certificate != null)) {
        throw new IllegalArgumentException(url + " is for talk in the clear, although there are files for TLS");
      }
      int port = uri.getPort() >= 0 ? uri.getPort() : secure ? 443 : 80;
      String host = uri.getHost().replaceAll("^\\[|\\]$", "");
      NettyChannelBuilder channel = NettyChannelBuilder.forAddress(host, port);
      if (secure) {
        SslContextBuilder tls = GrpcSslContexts.forClient().protocols("TLSv1.3");
        if (ca != null) {
          tls.trustManager(ca.toFile());
        }
        if (certificate != null) {
          tls.keyManager(certificate.toFile(), key.toFile());
        }
        channel.sslContext(tls.build());
      } else {
        channel.usePlaintext();
      }
      channel
          .intercept(new Additions(token, deadline))
          .maxInboundMessageSize(MESSAGE_MAX)
          // A watch that hears nothing asks whether anybody is there, no more often than schedulers put up with.
          .keepAliveTime(30, TimeUnit.SECONDS)
          .keepAliveTimeout(20, TimeUnit.SECONDS)
          .defaultServiceConfig(repetitions())
          .enableRetry();
      return new QuiesceClient(channel.build());
    }

    /**
     * What docs/protocol.md says of repetitions. It covers calls that take a request_id as well, since this client always
     * sends one. Watches are left out: they are resumed, which is something else.
     */
    private static Map<String, ?> repetitions() {
      Map<String, ?> policy =
          Map.of(
              "maxAttempts", 4.0,
              "initialBackoff", "0.2s",
              "maxBackoff", "3s",
              "backoffMultiplier", 2.0,
              "retryableStatusCodes", List.of("UNAVAILABLE"));
      String scheduler = SchedulerGrpc.SERVICE_NAME;
      Map<String, ?> repeated =
          Map.of(
              "name", List.of(Map.of("service", scheduler), Map.of("service", AgentGatewayGrpc.SERVICE_NAME)),
              "retryPolicy", policy);
      Map<String, ?> watches =
          Map.of(
              "name",
              List.of(
                  Map.of("service", scheduler, "method", "WatchOperation"),
                  Map.of("service", scheduler, "method", "WatchOperations")));
      return Map.of("methodConfig", List.of(repeated, watches));
    }
  }
}
