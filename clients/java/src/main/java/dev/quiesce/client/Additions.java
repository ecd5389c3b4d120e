package dev.quiesce.client;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/** What is added to every call: who calls, how long it may take, and the name of the request. */
final class Additions implements ClientInterceptor {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final Supplier<String> token;
  private final Duration deadline;

  Additions(Supplier<String> token, Duration deadline) {
    this.token = token;
    this.deadline = deadline;
  }

  @Override
  public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions given, Channel next) {
    boolean bounded = given.getDeadline() != null || method.getType() != MethodDescriptor.MethodType.UNARY;
    CallOptions options = bounded ? given : given.withDeadlineAfter(deadline.toNanos(), TimeUnit.NANOSECONDS);
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<A> listener, Metadata headers) {
        String held = token.get();
        if (held != null && !held.isEmpty()) {
          headers.put(AUTHORIZATION, "Bearer " + held);
        }
        super.start(listener, headers);
      }

      @Override
      public void sendMessage(Q message) {
        super.sendMessage(named(message));
      }
    };
  }

  /** The request with a request_id, if it takes one and the caller gave none: then it can be repeated. */
  @SuppressWarnings("unchecked")
  private static <Q> Q named(Q request) {
    if (!(request instanceof Message message)) {
      return request;
    }
    FieldDescriptor id = message.getDescriptorForType().findFieldByName("request_id");
    FieldDescriptor dry = message.getDescriptorForType().findFieldByName("validate_only");
    if (id == null || message.getField(id) instanceof String given && !given.isEmpty()) {
      return request;
    }
    if (dry != null && Boolean.TRUE.equals(message.getField(dry))) {
      return request;
    }
    // A builder of a message makes messages of the same type.
    return (Q) message.toBuilder().setField(id, UUID.randomUUID().toString()).build();
  }
}
