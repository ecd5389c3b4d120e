// Command migrate migrates an application and follows it to its end: migrate APPLICATION CLUSTER [SCHEDULER]
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	quiesce "quiesce.dev/go"
	quiescev1 "quiesce.dev/go/v1"
)

func main() {
	url := "http://127.0.0.1:7600"
	if len(os.Args) > 3 {
		url = os.Args[3]
	}
	state, err := migrate(context.Background(), url, os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "migrate:", quiesce.ProblemOf(err))
		os.Exit(1)
	}
	if state != quiescev1.Operation_STATE_SUCCEEDED {
		os.Exit(3)
	}
}

func migrate(ctx context.Context, url, application, cluster string) (state quiescev1.Operation_State, err error) {
	options := quiesce.Options{TokenFile: os.Getenv("QUIESCE_TOKEN_FILE"), CA: os.Getenv("QUIESCE_CA")}
	client, err := quiesce.Connect(url, options)
	if err != nil {
		return state, err
	}
	defer client.Close()
	operation, err := client.Migrate(ctx, application, cluster, "the example")
	if err != nil {
		return state, err
	}
	for event, err := range client.Follow(ctx, operation.Name, "") {
		if err != nil {
			return state, err
		}
		if event.Operation != nil {
			state = event.Operation.State
		}
		fmt.Printf("%s: %s\n", strings.TrimPrefix(state.String(), "STATE_"), event.Message)
	}
	return state, nil
}
