package dev.quiesce.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.quiesce.examples.Migrate;
import dev.quiesce.v1.AccessGrpc;
import dev.quiesce.v1.AgentGatewayGrpc;
import dev.quiesce.v1.Application;
import dev.quiesce.v1.CreateApplicationRequest;
import dev.quiesce.v1.CreateTokenRequest;
import dev.quiesce.v1.GetApplicationRequest;
import dev.quiesce.v1.GetServerInfoRequest;
import dev.quiesce.v1.ListApplicationsRequest;
import dev.quiesce.v1.ListInstancesRequest;
import dev.quiesce.v1.MigrateApplicationRequest;
import dev.quiesce.v1.Operation;
import dev.quiesce.v1.OperationEvent;
import dev.quiesce.v1.SchedulerGrpc;
import dev.quiesce.v1.ShutdownPolicy;
import dev.quiesce.v1.Token;
import io.grpc.CallOptions;
import io.grpc.MethodDescriptor;
import io.grpc.ServiceDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

/** The client against the schedulers of clients/testbed and the real agent. */
class QuiesceClientTest {
  private static final String OPEN = environment("QUIESCE_TEST_OPEN");
  private static final String SECURE = environment("QUIESCE_TEST_SECURE");
  private static final Path CA = Path.of(environment("QUIESCE_TEST_CA"));
  private static final Path TOKEN_FILE = Path.of(environment("QUIESCE_TEST_TOKEN_FILE"));
  // A condition that has not come true by then will not.
  private static final long LIMIT_NANOS = TimeUnit.SECONDS.toNanos(30);

  private final String name = "java-" + UUID.randomUUID().toString().substring(0, 8);
  private final List<Process> processes = new ArrayList<>();
  private final List<QuiesceClient> clients = new ArrayList<>();
  private QuiesceClient client;
  @TempDir private Path place;

  private static String environment(String name) {
    String value = System.getenv(name);
    assertNotNull(value, "run the tests with clients/testbed: clients/testbed mvn test");
    return value;
  }

  private QuiesceClient opened(QuiesceClient.Builder builder) throws IOException {
    QuiesceClient made = builder.build();
    clients.add(made);
    return made;
  }

  private QuiesceClient secured() throws IOException {
    return opened(QuiesceClient.builder(SECURE).ca(CA).tokenFile(TOKEN_FILE));
  }

  @BeforeEach
  void connect() throws IOException {
    client = opened(QuiesceClient.builder(OPEN));
  }

  @AfterEach
  void end() throws InterruptedException {
    clients.forEach(QuiesceClient::close);
    for (Process process : processes) {
      process.destroyForcibly().waitFor();
    }
  }

  private void create(ShutdownPolicy policy) {
    Application.Builder application = Application.newBuilder().setName("applications/" + name).setCluster("a");
    application.setPolicy(policy);
    client.scheduler().createApplication(CreateApplicationRequest.newBuilder().setApplication(application).build());
  }

  /** The real agent with a real application, waited for until the scheduler says that it is ready. */
  private void agent() throws Exception {
    agent("sleep", "1000");
  }

  private void agent(String... application) throws Exception {
    create(ShutdownPolicy.getDefaultInstance());
    ProcessBuilder builder =
        new ProcessBuilder(
            environment("QUIESCE_TEST_AGENT"), "--application", name, "--cluster", "a", "--instance", "one",
            "--scheduler", OPEN, "--state-dir", place.resolve("agent").toString(), "--");
    builder.command().addAll(List.of(application));
    Path log = place.resolve("agent.log");
    processes.add(builder.redirectErrorStream(true).redirectOutput(log.toFile()).start());
    ListInstancesRequest ready =
        ListInstancesRequest.newBuilder().setParent("applications/" + name).setFilter("state = READY").build();
    long until = System.nanoTime() + LIMIT_NANOS;
    while (client.scheduler().listInstances(ready).getInstancesCount() == 0) {
      assertTrue(System.nanoTime() < until, Files.readString(log));
      Thread.sleep(20);
    }
  }

  private List<OperationEvent> events(QuiesceClient with, String operation, String resumeToken) throws Exception {
    List<OperationEvent> events = new ArrayList<>();
    with.follow(operation, resumeToken, events::add);
    return events;
  }

  private static Problem problemOf(Executable call) {
    return Problem.of(assertThrows(StatusRuntimeException.class, call));
  }

  @Test
  void anApplicationIsCreatedReadAndListed() {
    com.google.protobuf.Duration grace = com.google.protobuf.Duration.newBuilder().setSeconds(7).build();
    create(ShutdownPolicy.newBuilder().setGracePeriod(grace).build());
    GetApplicationRequest get = GetApplicationRequest.newBuilder().setName("applications/" + name).build();
    Application read = client.scheduler().getApplication(get).getApplication();
    assertEquals("a", read.getCluster());
    assertEquals(grace, read.getPolicy().getGracePeriod());
    ListApplicationsRequest list =
        ListApplicationsRequest.newBuilder().setFilter("name = \"applications/" + name + "\"").build();
    assertEquals(List.of(read), client.scheduler().listApplications(list).getApplicationsList());
  }

  @Test
  void aRepeatedRequestOfTheSameIdHasNoFurtherEffect() throws Exception {
    agent();
    MigrateApplicationRequest request =
        MigrateApplicationRequest.newBuilder()
            .setName("applications/" + name)
            .setTargetCluster("b")
            .setRequestId("once-" + name)
            .build();
    Operation first = client.scheduler().migrateApplication(request).getOperation();
    Operation again = client.scheduler().migrateApplication(request).getOperation();
    assertEquals(first.getName(), again.getName());
    assertEquals("once-" + name, again.getRequestId());
  }

  @Test
  void progressIsFollowedAndResumed() throws Exception {
    agent();
    Operation operation = client.migrate(name, "b", "a test");
    assertNotEquals("", operation.getRequestId(), "a request without an id is given one");
    List<OperationEvent> events = events(client, operation.getName(), "");
    assertEquals(OperationEvent.Type.TYPE_SNAPSHOT, events.get(0).getType());
    assertEquals(Operation.State.STATE_SUCCEEDED, events.get(events.size() - 1).getOperation().getState());
    List<OperationEvent> told = events.stream().filter(event -> !event.getResumeToken().isEmpty()).toList();
    // From each place on the rest is the same, on a connection of its own.
    QuiesceClient another = opened(QuiesceClient.builder(OPEN));
    for (int place = 0; place < told.size(); place++) {
      List<OperationEvent> rest = events(another, operation.getName(), told.get(place).getResumeToken());
      assertEquals(happened(told.subList(place + 1, told.size())), happened(rest));
    }
  }

  @Test
  void followingSurvivesLostConnections() throws Exception {
    Path leave = place.resolve("leave");
    // Takes its time, until the file is there.
    agent("sh", "-c", "trap : TERM; while [ ! -e " + leave + " ]; do sleep 0.05; done");
    List<OperationEvent> events = new ArrayList<>();
    AtomicReference<String> first = new AtomicReference<>("");
    String operation;
    try (Relay relay = new Relay(OPEN)) {
      QuiesceClient cut = opened(QuiesceClient.builder(relay.url()));
      operation = cut.migrate(name, "b", "a test").getName();
      CompletableFuture<Void> returned = new CompletableFuture<>();
      cut.follow(
          operation,
          "",
          event -> {
            events.add(event);
            // Once there is something to go on behind.
            if (!event.getResumeToken().isEmpty() && first.compareAndSet("", event.getResumeToken())) {
              events.clear();
              try {
                relay.cut();
              } catch (IOException error) {
                throw new UncheckedIOException(error);
              }
              returned.completeAsync(() -> leaveAfterReturn(relay, leave));
            }
          });
      returned.get();
    }
    assertEquals(Operation.State.STATE_SUCCEEDED, events.get(events.size() - 1).getOperation().getState());
    assertEquals(happened(events(client, operation, first.get())), happened(events));
  }

  private static Void leaveAfterReturn(Relay relay, Path leave) {
    try {
      while (relay.connections() < 2) {
        Thread.sleep(20);
      }
      Files.writeString(leave, "");
    } catch (IOException | InterruptedException error) {
      throw new IllegalStateException(error);
    }
    return null;
  }

  /** Without bookmarks, which come where nothing happens, on each stream elsewhere. */
  private static List<Long> happened(List<OperationEvent> events) {
    return events.stream()
        .filter(event -> event.getType() != OperationEvent.Type.TYPE_BOOKMARK)
        .map(OperationEvent::getRevision)
        .toList();
  }

  @Test
  void aReaderThatThrowsBreaksOff() throws Exception {
    agent();
    Operation operation = client.migrate(name, "b", "a test");
    IllegalStateException own = new IllegalStateException("enough");
    Executable following =
        () ->
            client.follow(
                operation.getName(),
                "",
                event -> {
                  throw own;
                });
    assertEquals(own, assertThrows(IllegalStateException.class, following));
  }

  @Test
  void theExampleMigrates() throws Exception {
    agent();
    Process done = example();
    String said = new String(done.getInputStream().readAllBytes());
    assertEquals(0, done.waitFor(), said);
    assertTrue(said.contains("SUCCEEDED: "), said);
    Process again = example();
    said = new String(again.getInputStream().readAllBytes());
    assertEquals(1, again.waitFor(), said);
    assertTrue(said.contains("FAILED_PRECONDITION / ALREADY_ON_TARGET"), said);
  }

  private Process example() throws IOException {
    String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
    String classes = System.getProperty("java.class.path");
    ProcessBuilder builder = new ProcessBuilder(java, "-cp", classes, Migrate.class.getName(), name, "b", OPEN);
    Process started = builder.redirectErrorStream(true).start();
    processes.add(started);
    return started;
  }

  @Test
  void errorsAreDecoded() {
    GetApplicationRequest get = GetApplicationRequest.newBuilder().setName("applications/nobody").build();
    Problem missing = problemOf(() -> client.scheduler().getApplication(get));
    assertEquals(Status.Code.NOT_FOUND, missing.code());
    assertEquals("APPLICATION_NOT_FOUND", missing.reason());
    assertEquals("applications/nobody", missing.metadata().get("name"));
    assertTrue(missing.retryAfter().isEmpty());

    Application wrong = Application.newBuilder().setName("applications/NO").build();
    CreateApplicationRequest create = CreateApplicationRequest.newBuilder().setApplication(wrong).build();
    Problem invalid = problemOf(() -> client.scheduler().createApplication(create));
    assertEquals("INVALID_FIELD", invalid.reason());
    Set<String> fields = invalid.violations().stream().map(Problem.Violation::field).collect(Collectors.toSet());
    assertEquals(Set.of("application.name", "application.cluster"), fields);
    assertTrue(invalid.toString().contains("application.cluster"));
  }

  @Test
  void aDeadlineIsKept() throws Exception {
    // Somebody who takes connections and never says a word.
    try (ServerSocket silent = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      String url = "http://127.0.0.1:" + silent.getLocalPort();
      GetServerInfoRequest request = GetServerInfoRequest.getDefaultInstance();
      QuiesceClient hurried = opened(QuiesceClient.builder(url).deadline(Duration.ofMillis(200)));
      Problem late = problemOf(() -> hurried.scheduler().getServerInfo(request));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, late.code());
      QuiesceClient patient = opened(QuiesceClient.builder(url).deadline(Duration.ofHours(1)));
      var bounded = patient.scheduler().withDeadlineAfter(200, TimeUnit.MILLISECONDS);
      assertEquals(Status.Code.DEADLINE_EXCEEDED, problemOf(() -> bounded.getServerInfo(request)).code());
    }
  }

  @Test
  void tlsAndATokenAreNeededWhereAccessIsEnforced() throws Exception {
    ListApplicationsRequest list = ListApplicationsRequest.getDefaultInstance();
    QuiesceClient admin = secured();
    admin.scheduler().listApplications(list);
    QuiesceClient nobody = opened(QuiesceClient.builder(SECURE).ca(CA));
    assertEquals("CREDENTIALS_INVALID", problemOf(() -> nobody.scheduler().listApplications(list)).reason());
    QuiesceClient stranger = opened(QuiesceClient.builder(SECURE));
    assertEquals(Status.Code.UNAVAILABLE, problemOf(() -> stranger.scheduler().listApplications(list)).code());

    Token viewing = Token.newBuilder().setDisplayName("a test").setRole(Token.Role.ROLE_VIEWER).build();
    CreateTokenRequest create = CreateTokenRequest.newBuilder().setToken(viewing).build();
    String token = admin.access().createToken(create).getBearerToken();
    QuiesceClient viewer = opened(QuiesceClient.builder(SECURE).ca(CA).token(token));
    viewer.scheduler().listApplications(list);
    Problem forbidden = problemOf(() -> viewer.delete("whatever", ""));
    assertEquals("CALLER_NOT_ALLOWED", forbidden.reason());
    assertFalse(forbidden.toString().contains(token));

    Path readable = place.resolve("token");
    Files.writeString(readable, "qbt1.x");
    Files.setPosixFilePermissions(readable, PosixFilePermissions.fromString("rw-r--r--"));
    assertThrows(IOException.class, () -> QuiesceClient.builder(SECURE).tokenFile(readable));
  }

  @Test
  void everyRpcOfTheContractIsAnswered() {
    int answered = 0;
    for (ServiceDescriptor service :
        List.of(
            SchedulerGrpc.getServiceDescriptor(),
            AccessGrpc.getServiceDescriptor(),
            AgentGatewayGrpc.getServiceDescriptor())) {
      for (MethodDescriptor<?, ?> method : service.getMethods()) {
        Problem problem = answer(method);
        assertTrue(problem == null || problem.reason().equals("INVALID_FIELD"), method + ": " + problem);
        answered++;
      }
    }
    assertTrue(answered >= 31, "" + answered);
  }

  /** With nothing in it: most are refused, and say which field it is that is missing. */
  private <Q, A> Problem answer(MethodDescriptor<Q, A> method) {
    Q empty = ((MethodDescriptor.PrototypeMarshaller<Q>) method.getRequestMarshaller()).getMessagePrototype();
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(20, TimeUnit.SECONDS);
    try {
      if (method.getType() == MethodDescriptor.MethodType.UNARY) {
        ClientCalls.blockingUnaryCall(client.channel(), method, options, empty);
      } else {
        ClientCalls.blockingServerStreamingCall(client.channel(), method, options, empty).next();
      }
      return null;
    } catch (StatusRuntimeException error) {
      return Problem.of(error);
    }
  }

  @Test
  void theCodeOfTheReadmeIsThatOfAnExample() throws Exception {
    String code = Files.readString(Path.of("README.md")).split("```java\n")[1].split("```")[0];
    String indented = code.strip().indent(4);
    String source = Files.readString(Path.of("src/test/java/dev/quiesce/examples/Readme.java"));
    assertTrue(source.contains(indented), indented);
  }

  @Test
  void addressesThatCannotBeMeantAreRefused() {
    for (String wrong : List.of("ftp://x", "http://x/path", "//x")) {
      assertThrows(IllegalArgumentException.class, () -> QuiesceClient.connect(wrong), wrong);
    }
    QuiesceClient.Builder builder = QuiesceClient.builder("http://127.0.0.1:7600").ca(CA);
    assertThrows(IllegalArgumentException.class, builder::build);
  }
}
