// Package testbed is what the tests share: the schedulers of clients/testbed, applications to be stopped, hooks of the
// example.
package testbed

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	quiesce "quiesce.dev/go"
	quiescev1 "quiesce.dev/go/v1"
)

// A condition that has not come true by then will not.
const limit = 30 * time.Second

// Open and Secure are the URLs of the two schedulers; CA and TokenFile are for the latter.
var (
	Open      = os.Getenv("QUIESCE_TEST_OPEN")
	Secure    = os.Getenv("QUIESCE_TEST_SECURE")
	CA        = os.Getenv("QUIESCE_TEST_CA")
	TokenFile = os.Getenv("QUIESCE_TEST_TOKEN_FILE")
)

// World is the application of one test and the processes it starts, ended with it.
type World struct {
	*testing.T
	Ctx            context.Context
	Place          string
	Name, Instance string
	Client         *quiesce.Client
}

// New makes a world with a client of the scheduler at url.
func New(t *testing.T, url string, options quiesce.Options) *World {
	t.Helper()
	if Open == "" {
		t.Fatal("run the tests with clients/testbed, which starts schedulers: clients/testbed go test ./...")
	}
	name := "go-" + uuid.NewString()[:8]
	world := &World{T: t, Ctx: t.Context(), Place: t.TempDir(), Name: name, Instance: "applications/" + name + "/instances/one"}
	world.Client = world.Connect(url, options)
	return world
}

// Connect makes a further client.
func (w *World) Connect(url string, options quiesce.Options) *quiesce.Client {
	w.Helper()
	client, err := quiesce.Connect(url, options)
	w.Must(err)
	w.Cleanup(func() { client.Close() })
	return client
}

// Must fails the test with an error.
func (w *World) Must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(quiesce.ProblemOf(err))
	}
}

// Eventually waits until a condition is true.
func (w *World) Eventually(what string, condition func() bool) {
	w.Helper()
	for until := time.Now().Add(limit); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if condition() {
			return
		}
	}
	w.Fatalf("%s has not come true within %s; the hook says:\n%s", what, limit, w.Log())
}

// Create makes the application known on cluster a; the caller moves it.
func (w *World) Create(policy *quiescev1.ShutdownPolicy) {
	w.Helper()
	application := &quiescev1.Application{Name: "applications/" + w.Name, Cluster: "a", Policy: policy}
	_, err := w.Client.Scheduler.CreateApplication(w.Ctx, &quiescev1.CreateApplicationRequest{Application: application})
	w.Must(err)
}

func (w *World) start(command *exec.Cmd) *exec.Cmd {
	w.Helper()
	log, err := os.OpenFile(filepath.Join(w.Place, "hook.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.Must(err)
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	w.Must(command.Start())
	w.Cleanup(func() { w.Kill(command) })
	return command
}

// Kill ends a process at once, if it has not ended.
func (w *World) Kill(command *exec.Cmd) {
	if command.ProcessState == nil {
		// It fails if the process has just ended, which is what is wanted.
		_ = command.Process.Kill()
		_ = command.Wait()
	}
}

// Agent starts the real agent with a real application.
func (w *World) Agent() {
	w.Helper()
	w.start(exec.Command(os.Getenv("QUIESCE_TEST_AGENT"), "--application", w.Name, "--cluster", "a", "--instance", "one",
		"--scheduler", Open, "--state-dir", filepath.Join(w.Place, "agent"), "--", "sleep", "1000"))
	w.Ready()
}

// Application starts an application beside the hook; its pid stands in the file "pid".
func (w *World) Application(mode ...string) *exec.Cmd {
	w.Helper()
	command := exec.Command(os.Getenv("QUIESCE_TEST_APPLICATION"), append([]string{filepath.Join(w.Place, "signals")}, mode...)...)
	// It ends when this pipe is closed, at the latest with the test.
	_, err := command.StdinPipe()
	w.Must(err)
	output, err := command.StdoutPipe()
	w.Must(err)
	w.Must(command.Start())
	w.Cleanup(func() { w.Kill(command) })
	line, err := bufio.NewReader(output).ReadString('\n')
	w.Must(err)
	if line != "ready\n" {
		w.Fatalf("the application says %q", line)
	}
	w.Must(os.WriteFile(filepath.Join(w.Place, "pid"), fmt.Append(nil, command.Process.Pid), 0o600))
	return command
}

// Signals is how often the application was told to stop.
func (w *World) Signals() int {
	content, err := os.ReadFile(filepath.Join(w.Place, "signals"))
	w.Must(err)
	return strings.Count(string(content), "\n")
}

// Hook starts the example.
func (w *World) Hook(url string, listen []string, environment ...string) *exec.Cmd {
	w.Helper()
	arguments := append([]string{w.Instance, filepath.Join(w.Place, "pid"), filepath.Join(w.Place, "state"), url}, listen...)
	command := exec.Command(w.example("hook"), arguments...)
	command.Env = append(os.Environ(), environment...)
	return w.start(command)
}

// Example runs an example to its end and returns what it says and its exit code.
func (w *World) Example(name string, arguments ...string) (string, int) {
	w.Helper()
	command := exec.Command(w.example(name), arguments...)
	output, err := command.CombinedOutput()
	if command.ProcessState == nil {
		w.Must(err)
	}
	return string(output), command.ProcessState.ExitCode()
}

func (w *World) example(name string) string {
	w.Helper()
	examples.lock.Lock()
	defer examples.lock.Unlock()
	program := filepath.Join(examples.directory, name)
	if _, err := os.Stat(program); err != nil {
		build := exec.Command("go", "build", "-o", program, "./examples/"+name)
		build.Dir = Root()
		if output, err := build.CombinedOutput(); err != nil {
			w.Fatalf("cannot build the example: %v\n%s", err, output)
		}
	}
	return program
}

// The examples, each built once.
var examples struct {
	lock      sync.Mutex
	directory string
}

// Main runs the tests of a package; for its TestMain.
func Main(tests *testing.M) {
	directory, err := os.MkdirTemp("", "quiesce-examples-")
	if err != nil {
		panic(err)
	}
	examples.directory = directory
	code := tests.Run()
	os.RemoveAll(directory)
	os.Exit(code)
}

// Root is the directory of the module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Ready waits until the scheduler says that the instance is ready.
func (w *World) Ready() *quiescev1.Instance {
	w.Helper()
	var found *quiescev1.Instance
	w.Eventually("that the instance is ready", func() bool {
		request := &quiescev1.ListInstancesRequest{Parent: "applications/" + w.Name, Filter: "state = READY"}
		answer, err := w.Client.Scheduler.ListInstances(w.Ctx, request)
		w.Must(err)
		if len(answer.Instances) > 0 {
			found = answer.Instances[0]
		}
		return found != nil
	})
	return found
}

// Events follows an operation to its end.
func (w *World) Events(client *quiesce.Client, operation, resumeToken string) []*quiescev1.OperationEvent {
	w.Helper()
	var events []*quiescev1.OperationEvent
	for event, err := range client.Follow(w.Ctx, operation, resumeToken) {
		w.Must(err)
		events = append(events, event)
	}
	return events
}

// Snapshot is the operation as it stands, instances included.
func (w *World) Snapshot(operation string) *quiescev1.Operation {
	w.Helper()
	answer, err := w.Client.Scheduler.GetOperation(w.Ctx, &quiescev1.GetOperationRequest{Name: operation})
	w.Must(err)
	return answer.Operation
}

// Log is what the hooks have said.
func (w *World) Log() string {
	// There is none as long as no hook was started.
	content, _ := os.ReadFile(filepath.Join(w.Place, "hook.log"))
	return string(content)
}
