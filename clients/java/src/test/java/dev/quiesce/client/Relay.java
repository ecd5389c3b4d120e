package dev.quiesce.client;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/** Stands between a client and a scheduler, and can cut every connection. */
final class Relay implements AutoCloseable {
  private final ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
  private final List<Socket> open = new ArrayList<>();
  private final AtomicInteger connections = new AtomicInteger();
  private final URI target;

  Relay(String url) throws IOException {
    target = URI.create(url);
    start(this::accept);
  }

  String url() {
    return "http://127.0.0.1:" + listener.getLocalPort();
  }

  int connections() {
    return connections.get();
  }

  private void accept() throws IOException {
    while (true) {
      Socket near = listener.accept();
      Socket far = new Socket(target.getHost(), target.getPort());
      synchronized (open) {
        open.add(near);
        open.add(far);
      }
      connections.incrementAndGet();
      start(() -> near.getInputStream().transferTo(far.getOutputStream()));
      start(() -> far.getInputStream().transferTo(near.getOutputStream()));
    }
  }

  private interface Work {
    void run() throws IOException;
  }

  private static void start(Work work) {
    Thread thread =
        new Thread(
            () -> {
              try {
                work.run();
              } catch (IOException cut) {
                // Which is what it is for.
              }
            });
    thread.setDaemon(true);
    thread.start();
  }

  void cut() throws IOException {
    synchronized (open) {
      for (Socket socket : open) {
        socket.close();
      }
      open.clear();
    }
  }

  @Override
  public void close() throws IOException {
    listener.close();
    cut();
  }
}
