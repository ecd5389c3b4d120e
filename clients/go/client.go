// Package quiesce is the client of the Quiesce scheduler. Connect is where to begin.
//
// Package v1 beside it is the generated contract, package hookkit the kit for shutdown hooks.
package quiesce

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	quiescev1 "quiesce.dev/go/v1"
)

// Between two tries to open a watch.
const firstPause, longestPause = 200 * time.Millisecond, 10 * time.Second

// Client is a scheduler. The services take and return what the contract says; see ProblemOf for errors.
type Client struct {
	Scheduler quiescev1.SchedulerClient
	Access    quiescev1.AccessClient
	Gateway   quiescev1.AgentGatewayClient
	// Connection is for clients of other services, such as health.
	Connection grpc.ClientConnInterface
	close      func() error
}

// Connect returns a client of the scheduler at a URL such as http://127.0.0.1:7600, or https:// for TLS. It is connected
// when it is first asked something.
func Connect(url string, options Options) (*Client, error) {
	connection, err := options.dial(url)
	if err != nil {
		return nil, err
	}
	return &Client{
		Scheduler:  quiescev1.NewSchedulerClient(connection),
		Access:     quiescev1.NewAccessClient(connection),
		Gateway:    quiescev1.NewAgentGatewayClient(connection),
		Connection: connection,
		close:      connection.Close,
	}, nil
}

// Close ends all calls.
func (c *Client) Close() error { return c.close() }

// Migrate begins the migration of an application, named without applications/, to a cluster.
func (c *Client) Migrate(ctx context.Context, application, to, reason string) (*quiescev1.Operation, error) {
	request := &quiescev1.MigrateApplicationRequest{Name: "applications/" + application, TargetCluster: to, Reason: reason}
	answer, err := c.Scheduler.MigrateApplication(ctx, request)
	return answer.GetOperation(), err
}

// Delete begins the deletion of an application, named without applications/.
func (c *Client) Delete(ctx context.Context, application, reason string) (*quiescev1.Operation, error) {
	request := &quiescev1.DeleteApplicationRequest{Name: "applications/" + application, Reason: reason}
	answer, err := c.Scheduler.DeleteApplication(ctx, request)
	return answer.GetOperation(), err
}

// Follow yields every event of an operation until it is done, or rests until a person decides. An error is the last thing
// it yields.
//
// A watch that breaks is opened again where it was: nothing is missing, nothing comes twice. To begin behind an event of
// an earlier one, give its resume token.
func (c *Client) Follow(ctx context.Context, operation, resumeToken string) iter.Seq2[*quiescev1.OperationEvent, error] {
	return func(yield func(*quiescev1.OperationEvent, error) bool) {
		// What is under way ends when the reader breaks off.
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		pause := firstPause
		for {
			request := &quiescev1.WatchOperationRequest{Name: operation, ResumeToken: resumeToken, EndOnDegraded: true}
			watch, err := c.Scheduler.WatchOperation(ctx, request)
			for err == nil {
				var answer *quiescev1.WatchOperationResponse
				if answer, err = watch.Recv(); err != nil {
					break
				}
				if !yield(answer.Event, nil) {
					return
				}
				if answer.Event.ResumeToken != "" {
					resumeToken = answer.Event.ResumeToken
				}
				pause = firstPause
			}
			if errors.Is(err, io.EOF) {
				return
			}
			problem := ProblemOf(err)
			switch {
			case ctx.Err() != nil:
				yield(nil, err)
				return
			case resumeToken != "" && slices.Contains([]string{"RESUME_TOKEN_EXPIRED", "INVALID_RESUME_TOKEN"}, problem.Reason):
				resumeToken = ""
			case slices.Contains([]string{"WATCH_TOO_SLOW", "LIMIT_EXCEEDED"}, problem.Reason):
			case slices.Contains([]codes.Code{codes.Unavailable, codes.Unknown, codes.Canceled}, problem.Code):
			default:
				yield(nil, err)
				return
			}
			spread := time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
			select {
			case <-time.After(max(spread, problem.RetryAfter)):
			case <-ctx.Done():
			}
			pause = min(2*pause, longestPause)
		}
	}
}
