// Command hook is a hook for whatever wrote its pid into a file: hook INSTANCE PID_FILE STATE_DIR SCHEDULER [LISTEN]
package main

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"os"

	"quiesce.dev/go/hookkit"
)

func main() {
	app := &hookkit.Process{PidFile: os.Args[2]}
	callbacks := hookkit.Callbacks{Stop: app.Terminate, Running: app.Running, Kill: app.Kill}
	hook, err := hookkit.New(hookkit.Options{Callbacks: callbacks, Instance: os.Args[1], StateDir: os.Args[3]})
	scheduler := hookkit.Scheduler{URL: os.Args[4], CA: os.Getenv("QUIESCE_CA"), JoinTokenFile: os.Getenv("QUIESCE_JOIN_TOKEN_FILE")}
	if err == nil && len(os.Args) == 5 {
		err = hook.DialIn(context.Background(), scheduler)
	} else if listener, failed := net.Listen("tcp", os.Args[5]); err == nil && failed == nil {
		listening := hookkit.Listening{Listener: listener}
		if pair, failed := tls.LoadX509KeyPair(os.Getenv("QUIESCE_HOOK_CERT"), os.Getenv("QUIESCE_HOOK_KEY")); failed == nil {
			listening.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		}
		err = hook.Listen(context.Background(), listening, scheduler)
	}
	log.Fatal(err)
}
