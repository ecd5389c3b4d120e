package dev.quiesce.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * An error, decoded. Tell errors apart by {@code reason}; the message is for people.
 *
 * @param reason a name of ErrorReason without its prefix, such as "APPLICATION_NOT_FOUND"; empty when the error did not come
 *     from a scheduler or hook (a lost connection, a deadline)
 * @param retryAfter how long to wait before the same call is repeated; empty when there is no use in repeating it
 */
public record Problem(
    Status.Code code,
    String message,
    String reason,
    Map<String, String> metadata,
    List<Violation> violations,
    Optional<Duration> retryAfter) {

  /** The domain of the ErrorInfo of all errors of the contract. */
  public static final String DOMAIN = "quiesce.v1";

  /** One field of a request that cannot be used, by its path in the request. */
  public record Violation(String field, String description) {}

  /** Decodes what a call threw. */
  public static Problem of(Throwable error) {
    Status status = Status.fromThrowable(error);
    String message = Optional.ofNullable(status.getDescription()).orElse("");
    com.google.rpc.Status details = StatusProto.fromThrowable(error);
    String reason = "";
    Map<String, String> metadata = Map.of();
    List<Violation> violations = new ArrayList<>();
    Optional<Duration> retryAfter = Optional.empty();
    try {
      for (Any detail : details == null ? List.<Any>of() : details.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          if (info.getDomain().equals(DOMAIN)) {
            reason = info.getReason();
            metadata = info.getMetadataMap();
          }
        } else if (detail.is(BadRequest.class)) {
          for (BadRequest.FieldViolation found : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            violations.add(new Violation(found.getField(), found.getDescription()));
          }
        } else if (detail.is(RetryInfo.class)) {
          com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryAfter = Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
        }
      }
    } catch (InvalidProtocolBufferException broken) {
      // The code is what counts; details that cannot be read are left out.
    }
    return new Problem(status.getCode(), message, reason, metadata, List.copyOf(violations), retryAfter);
  }

  @Override
  public String toString() {
    StringBuilder text = new StringBuilder(code.name());
    if (!reason.isEmpty()) {
      text.append(" / ").append(reason);
    }
    text.append(": ").append(message);
    for (Violation found : violations) {
      text.append("\n  ").append(found.field()).append(": ").append(found.description());
    }
    return text.toString();
  }
}
