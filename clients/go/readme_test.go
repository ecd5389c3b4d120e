package quiesce_test

// The examples of README.md, word for word: that they are is a test of its own, here they are compiled.

import (
	"context"
	"fmt"

	quiesce "quiesce.dev/go"
	"quiesce.dev/go/hookkit"
)

var _ = []func(context.Context) error{readmeClient, readmeHook}

func readmeClient(ctx context.Context) error {
	client, err := quiesce.Connect("http://127.0.0.1:7600", quiesce.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	operation, err := client.Migrate(ctx, "shop", "b", "maintenance")
	if err != nil {
		return err
	}
	for event, err := range client.Follow(ctx, operation.Name, "") {
		if err != nil {
			return err
		}
		fmt.Println(event.GetOperation().GetState(), event.Message)
	}
	return nil
}

func readmeHook(ctx context.Context) error {
	database := &hookkit.Process{PidFile: "/run/database.pid"}
	hook, err := hookkit.New(hookkit.Options{
		Callbacks: hookkit.Callbacks{Stop: database.Terminate, Running: database.Running},
		Instance:  "applications/shop/instances/shop-0",
		StateDir:  "/var/lib/shop-hook",
	})
	if err != nil {
		return err
	}
	return hook.DialIn(ctx, hookkit.Scheduler{URL: "https://scheduler.example.net:7600", CA: "ca.pem", JoinTokenFile: "join.token"})
}
