package dev.quiesce.examples;

import dev.quiesce.client.Problem;
import dev.quiesce.client.QuiesceClient;
import dev.quiesce.v1.Operation;
import io.grpc.StatusRuntimeException;
import java.nio.file.Path;

/** Migrates an application and follows it to its end: Migrate APPLICATION CLUSTER [SCHEDULER]. */
public final class Migrate {
  private Migrate() {}

  public static void main(String[] arguments) throws Exception {
    QuiesceClient.Builder builder =
        QuiesceClient.builder(arguments.length > 2 ? arguments[2] : "http://127.0.0.1:7600");
    if (System.getenv("QUIESCE_CA") != null) {
      builder.ca(Path.of(System.getenv("QUIESCE_CA")));
    }
    if (System.getenv("QUIESCE_TOKEN_FILE") != null) {
      builder.tokenFile(Path.of(System.getenv("QUIESCE_TOKEN_FILE")));
    }
    Operation.State[] state = new Operation.State[1];
    try (QuiesceClient client = builder.build()) {
      Operation operation = client.migrate(arguments[0], arguments[1], "the example");
      client.follow(
          operation.getName(),
          "",
          event -> {
            state[0] = event.hasOperation() ? event.getOperation().getState() : state[0];
            System.out.println(state[0].name().replaceFirst("STATE_", "") + ": " + event.getMessage());
          });
    } catch (StatusRuntimeException error) {
      System.err.println("migrate: " + Problem.of(error));
      System.exit(1);
    }
    System.exit(state[0] == Operation.State.STATE_SUCCEEDED ? 0 : 3);
  }
}
