package dev.quiesce.examples;

import dev.quiesce.client.Problem;
import dev.quiesce.client.QuiesceClient;
import dev.quiesce.v1.Operation;
import io.grpc.StatusRuntimeException;

/** The example of README.md, word for word: that it is is a test of its own, here it is compiled. */
final class Readme {
  private Readme() {}

  static void migrate() throws Exception {
    try (QuiesceClient client = QuiesceClient.connect("http://127.0.0.1:7600")) {
      Operation operation = client.migrate("shop", "b", "maintenance");
      client.follow(
          operation.getName(),
          "",
          event -> System.out.println(event.getOperation().getState() + " " + event.getMessage()));
    } catch (StatusRuntimeException error) {
      System.err.println(Problem.of(error));
    }
  }
}
