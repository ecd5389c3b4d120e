package hookkit_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quiesce "quiesce.dev/go"
	"quiesce.dev/go/hookkit"
	"quiesce.dev/go/internal/testbed"
	quiescev1 "quiesce.dev/go/v1"
)

func TestMain(m *testing.M) { testbed.Main(m) }

func bothWays(t *testing.T, test func(*testing.T, []string)) {
	t.Run("dialling in", func(t *testing.T) { test(t, nil) })
	t.Run("listening", func(t *testing.T) { test(t, []string{"127.0.0.1:0"}) })
}

func TestAnApplicationIsStoppedThroughTheExample(t *testing.T) {
	bothWays(t, func(t *testing.T, listen []string) {
		w := testbed.New(t, testbed.Open, quiesce.Options{})
		w.Create(nil)
		application := w.Application()
		w.Hook(testbed.Open, listen)
		hook := w.Ready().Hook
		if hook.Implementation != "quiesce-hookkit-go" || hook.AppState != quiescev1.HookInfo_APP_STATE_RUNNING {
			t.Error(hook)
		}
		operation, err := w.Client.Migrate(w.Ctx, w.Name, "b", "")
		w.Must(err)
		w.Events(w.Client, operation.Name, "")
		done := w.Snapshot(operation.Name)
		result := done.Instances[0].Status.Result
		if done.State != quiescev1.Operation_STATE_SUCCEEDED || !done.Instances[0].Verified {
			t.Fatal(done)
		}
		if result.Outcome != quiescev1.StopResult_OUTCOME_STOPPED || result.Evidence != quiescev1.Evidence_EVIDENCE_PROCESS_GONE {
			t.Error(result)
		}
		w.Must(application.Wait())
		if w.Signals() != 1 {
			t.Error(w.Signals())
		}
	})
}

func TestAnApplicationThatIgnoresTheStopIsKilledWhenTheSchedulerSaysSo(t *testing.T) {
	bothWays(t, func(t *testing.T, listen []string) {
		w := testbed.New(t, testbed.Open, quiesce.Options{})
		w.Create(&quiescev1.ShutdownPolicy{
			GracePeriod: durationpb.New(time.Second),
			// Long enough for a busy machine: here the grace is to run out first.
			HeartbeatTimeout: durationpb.New(10 * time.Second),
			Retry:            &quiescev1.RetryPolicy{MaxAttempts: proto.Int32(1)},
			FailureStrategy:  quiescev1.FailureStrategy_FAILURE_STRATEGY_GIVE_UP,
		})
		application := w.Application("deaf")
		w.Hook(testbed.Open, listen)
		w.Ready()
		operation, err := w.Client.Delete(w.Ctx, w.Name, "")
		w.Must(err)
		w.Events(w.Client, operation.Name, "")
		degraded := w.Snapshot(operation.Name)
		if degraded.State != quiescev1.Operation_STATE_DEGRADED || degraded.Failure.Reason != quiescev1.Failure_REASON_GRACE_TIMEOUT {
			t.Fatal(degraded)
		}
		if application.Process.Signal(syscall.Signal(0)) != nil || w.Signals() != 1 {
			t.Error("the hook kills nothing by itself")
		}
		retry := &quiescev1.RetryOperationRequest{Name: operation.Name, Force: true, Reason: "a test"}
		_, err = w.Client.Scheduler.RetryOperation(w.Ctx, retry)
		w.Must(err)
		w.Events(w.Client, operation.Name, "")
		done := w.Snapshot(operation.Name)
		if done.State != quiescev1.Operation_STATE_SUCCEEDED || done.Instances[0].Status.Result.Outcome != quiescev1.StopResult_OUTCOME_KILLED {
			t.Error(done)
		}
		if application.Wait() == nil {
			t.Error("it was not killed")
		}
	})
}

func TestAHookThatIsRestartedGoesOnAndTellsNobodyTwice(t *testing.T) {
	bothWays(t, func(t *testing.T, listen []string) {
		w := testbed.New(t, testbed.Open, quiesce.Options{})
		w.Create(&quiescev1.ShutdownPolicy{HeartbeatTimeout: durationpb.New(20 * time.Second)})
		application := w.Application("deaf")
		before := w.Hook(testbed.Open, listen)
		w.Ready()
		operation, err := w.Client.Migrate(w.Ctx, w.Name, "b", "")
		w.Must(err)
		w.Eventually("the signal", func() bool { return w.Signals() > 0 })
		w.Kill(before)
		w.Hook(testbed.Open, listen)
		// The new one has been heard: its reports continue those of the one before.
		const life = 1_000_000
		w.Eventually("a report of the next life", func() bool {
			return w.Snapshot(operation.Name).Instances[0].Status.Sequence > life
		})
		w.Kill(application)
		w.Events(w.Client, operation.Name, "")
		done := w.Snapshot(operation.Name)
		if done.State != quiescev1.Operation_STATE_SUCCEEDED || done.Instances[0].Attempt != 1 || w.Signals() != 1 {
			t.Error(done, w.Signals())
		}
		if outcome := done.Instances[0].Status.Result.Outcome; outcome != quiescev1.StopResult_OUTCOME_STOPPED {
			t.Error(outcome)
		}
	})
}

func TestItJoinsOverTLSWithATokenThatNobodyElseSees(t *testing.T) {
	bothWays(t, func(t *testing.T, listen []string) {
		w := testbed.New(t, testbed.Secure, quiesce.Options{CA: testbed.CA, TokenFile: testbed.TokenFile})
		w.Create(nil)
		w.Application()
		token := &quiescev1.Token{DisplayName: "a test", Role: quiescev1.Token_ROLE_AGENT, Applications: []string{"applications/" + w.Name}}
		made, err := w.Client.Access.CreateToken(w.Ctx, &quiescev1.CreateTokenRequest{Token: token})
		w.Must(err)
		join := filepath.Join(w.Place, "join.token")
		w.Must(os.WriteFile(join, []byte(made.BearerToken), 0o600))
		files := []string{
			"QUIESCE_CA=" + testbed.CA,
			"QUIESCE_HOOK_CERT=" + os.Getenv("QUIESCE_TEST_CERT"), "QUIESCE_HOOK_KEY=" + os.Getenv("QUIESCE_TEST_KEY"),
		}
		before := w.Hook(testbed.Secure, listen, append(files, "QUIESCE_JOIN_TOKEN_FILE="+join)...)
		if endpoint := w.Ready().Endpoint; strings.HasPrefix(endpoint, "https://") != (listen != nil) {
			t.Error(endpoint)
		}
		credential := filepath.Join(w.Place, "state", "instance.token")
		info, err := os.Stat(credential)
		w.Must(err)
		if info.Mode().Perm() != 0o600 {
			t.Error(info.Mode())
		}
		w.Kill(before)
		// The join token was good once. The credential that it brought goes on.
		w.Must(os.Remove(join))
		w.Hook(testbed.Secure, listen, files...)
		said := map[bool]string{true: "attached", false: "the hook listens"}[listen == nil]
		w.Eventually("the return of the hook", func() bool { return strings.Count(w.Log(), said) >= 2 })
		operation, err := w.Client.Migrate(w.Ctx, w.Name, "b", "")
		w.Must(err)
		w.Events(w.Client, operation.Name, "")
		if done := w.Snapshot(operation.Name); done.State != quiescev1.Operation_STATE_SUCCEEDED {
			t.Error(done)
		}
		held, err := os.ReadFile(credential)
		w.Must(err)
		if strings.Contains(w.Log(), made.BearerToken) || strings.Contains(w.Log(), strings.TrimSpace(string(held))) {
			t.Error("a token stands in the log")
		}
	})
}

func TestTheExampleIsShort(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(testbed.Root(), "examples", "hook", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(content), "func main() {")
	if lines := strings.Count(strings.TrimSpace(code), "\n"); lines > 20 {
		t.Error(lines)
	}
}

// direct is a hook in this process, asked without a scheduler.
type direct struct {
	*testing.T
	alive        atomic.Bool
	stops, kills atomic.Int32
	onStop       func() error
	state        string
	connection   *grpc.ClientConn
	client       quiescev1.ShutdownHookClient
	ctx          context.Context
}

func newDirect(t *testing.T) *direct {
	d := &direct{T: t, onStop: func() error { return nil }, state: t.TempDir()}
	d.alive.Store(true)
	hook, err := hookkit.New(hookkit.Options{
		Instance: "applications/shop/instances/one",
		StateDir: d.state,
		Callbacks: hookkit.Callbacks{
			Stop: func(_ context.Context, request *quiescev1.ShutdownRequest) error {
				if request.CompletionToken != "" {
					t.Error("a secret between the kit and the scheduler")
				}
				d.stops.Add(1)
				return d.onStop()
			},
			Running: func() (bool, error) { return d.alive.Load(), nil },
			Kill: func(context.Context) error {
				d.kills.Add(1)
				d.alive.Store(false)
				return nil
			},
		},
	})
	d.must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- hook.Serve(ctx, hookkit.Listening{Listener: listener}, "a hook token") }()
	t.Cleanup(func() {
		cancel()
		d.must(<-served)
	})
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	d.must(err)
	t.Cleanup(func() { connection.Close() })
	d.connection, d.client = connection, quiescev1.NewShutdownHookClient(connection)
	d.ctx = metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer a hook token")
	return d
}

func (d *direct) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *direct) begin(request *quiescev1.ShutdownRequest) grpc.ServerStreamingClient[quiescev1.ShutdownResponse] {
	d.Helper()
	request.HeartbeatInterval = durationpb.New(200 * time.Millisecond)
	call, err := d.client.Shutdown(d.ctx, request)
	d.must(err)
	return call
}

func (d *direct) next(call grpc.ServerStreamingClient[quiescev1.ShutdownResponse]) *quiescev1.ShutdownStatus {
	d.Helper()
	answer, err := call.Recv()
	d.must(err)
	return answer.Status
}

// rest reads to the end; the error is that of a call that was refused.
func rest(call grpc.ServerStreamingClient[quiescev1.ShutdownResponse]) ([]*quiescev1.ShutdownStatus, error) {
	var reports []*quiescev1.ShutdownStatus
	for {
		answer, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return reports, nil
		}
		if err != nil {
			return reports, err
		}
		reports = append(reports, answer.Status)
	}
}

func (d *direct) refused(call grpc.ServerStreamingClient[quiescev1.ShutdownResponse], reason string) quiesce.Problem {
	d.Helper()
	_, err := rest(call)
	problem := quiesce.ProblemOf(err)
	if problem.Reason != reason {
		d.Error(problem)
	}
	return problem
}

func (d *direct) end(call grpc.ServerStreamingClient[quiescev1.ShutdownResponse]) *quiescev1.ShutdownStatus {
	d.Helper()
	reports, err := rest(call)
	d.must(err)
	return reports[len(reports)-1]
}

func (d *direct) eventually(condition func() bool) {
	d.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	d.Fatal("it has not come true")
}

func TestARepeatedShutdownJoinsAndTellsNobodyTwice(t *testing.T) {
	d := newDirect(t)
	first := d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", CompletionToken: "t1"})
	reports := []*quiescev1.ShutdownStatus{d.next(first)}
	joined := d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", CompletionToken: "x", Operation: "operations/other", Attempt: 9})
	if later := d.next(joined); reports[0].Sequence < 1 || later.Sequence <= reports[0].Sequence {
		t.Error(reports[0], later)
	}
	d.eventually(func() bool { return d.stops.Load() > 0 })
	d.alive.Store(false)
	later, err := rest(first)
	d.must(err)
	reports = append(reports, later...)
	last := reports[len(reports)-1]
	for _, end := range []*quiescev1.ShutdownStatus{d.end(joined), last, d.end(d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1"}))} {
		if end.Sequence != last.Sequence || end.Result.Outcome != quiescev1.StopResult_OUTCOME_STOPPED || end.CompletionToken != "t1" {
			t.Error(end)
		}
	}
	for i, report := range reports[:len(reports)-1] {
		next := reports[i+1]
		if report.Result != nil || report.CompletionToken != "" || next.Sequence <= report.Sequence || next.Phase < report.Phase {
			t.Error(report, next)
		}
	}
	if d.stops.Load() != 1 {
		t.Error(d.stops.Load())
	}
}

func TestReportsComeWhileNothingHappensAndNothingIsKilled(t *testing.T) {
	d := newDirect(t)
	call := d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", GracePeriod: durationpb.New(time.Millisecond)})
	for range 6 {
		d.next(call)
	}
	if !d.alive.Load() || d.kills.Load() != 0 {
		t.Error("killed")
	}
}

func TestTheEndOfTheCallIsNotTheEndOfTheShutdown(t *testing.T) {
	d := newDirect(t)
	ctx, cancel := context.WithCancel(d.ctx)
	call, err := d.client.Shutdown(ctx, &quiescev1.ShutdownRequest{ShutdownId: "s1"})
	d.must(err)
	d.next(call)
	cancel()
	d.eventually(func() bool { return d.stops.Load() > 0 })
	d.alive.Store(false)
	d.eventually(func() bool {
		answer, err := d.client.GetShutdown(d.ctx, &quiescev1.GetShutdownRequest{})
		d.must(err)
		return answer.Status.Result != nil
	})
}

func TestOneShutdownAtATimeAndLaterOnesTakeOver(t *testing.T) {
	d := newDirect(t)
	request := func(id, operation string, attempt int32, epoch int64) *quiescev1.ShutdownRequest {
		return &quiescev1.ShutdownRequest{ShutdownId: id, Operation: "operations/" + operation, Attempt: attempt, Epoch: epoch}
	}
	first := d.begin(request("s1", "a", 1, 5))
	d.next(first)
	for _, other := range []*quiescev1.ShutdownRequest{request("s2", "a", 1, 5), request("s2", "b", 9, 5), request("s2", "b", 9, 4), request("s2", "b", 9, 0)} {
		problem := d.refused(d.begin(other), "SHUTDOWN_IN_PROGRESS")
		if problem.Code != codes.Aborted || problem.Metadata["shutdownId"] != "s1" || problem.RetryAfter <= 0 {
			t.Error(problem)
		}
	}
	second := d.begin(request("s2", "a", 2, 5))
	d.next(second)
	d.refused(first, "SHUTDOWN_SUPERSEDED")
	third := d.begin(request("s3", "b", 1, 6))
	d.next(third)
	d.refused(second, "SHUTDOWN_SUPERSEDED")
	d.alive.Store(false)
	if end := d.end(third); end.Result.Outcome != quiescev1.StopResult_OUTCOME_STOPPED {
		t.Error(end)
	}
	d.refused(d.begin(request("s4", "c", 1, 5)), "EPOCH_STALE")
	if end := d.end(d.begin(request("s4", "c", 1, 7))); end.Result.Outcome != quiescev1.StopResult_OUTCOME_NOT_RUNNING {
		t.Error(end)
	}
}

func TestOnlyWhoBeganTheShutdownMayKill(t *testing.T) {
	d := newDirect(t)
	call := d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", CompletionToken: "t1"})
	d.next(call)
	kill := func(id, token string) quiesce.Problem {
		_, err := d.client.KillApplication(d.ctx, &quiescev1.KillApplicationRequest{ShutdownId: id, CompletionToken: token})
		return quiesce.ProblemOf(err)
	}
	if problem := kill("s1", "t2"); problem.Reason != "COMPLETION_TOKEN_INVALID" {
		t.Error(problem)
	}
	if problem := kill("s2", "t1"); problem.Reason != "SHUTDOWN_NOT_FOUND" || d.kills.Load() != 0 {
		t.Error(problem)
	}
	if problem := kill("s1", "t1"); problem.Code != codes.OK {
		t.Error(problem)
	}
	if end := d.end(call); end.Result.Outcome != quiescev1.StopResult_OUTCOME_KILLED {
		t.Error(end)
	}
	if problem := kill("s1", "t1"); problem.Code != codes.OK || d.kills.Load() != 1 {
		t.Error(problem, d.kills.Load())
	}
}

func TestAStopThatFailsIsAResult(t *testing.T) {
	d := newDirect(t)
	d.onStop = func() error { return errors.New("no such command") }
	end := d.end(d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1"}))
	if end.Phase != quiescev1.ShutdownPhase_SHUTDOWN_PHASE_FAILED || end.Result.Outcome != quiescev1.StopResult_OUTCOME_STILL_RUNNING {
		t.Error(end)
	}
	if !strings.Contains(end.Result.Message, "no such command") {
		t.Error(end)
	}
}

func TestWrongRequestsAndStrangersChangeNothing(t *testing.T) {
	d := newDirect(t)
	for _, wrong := range []string{"", "a b", strings.Repeat("x", 129)} {
		problem := d.refused(d.begin(&quiescev1.ShutdownRequest{ShutdownId: wrong}), "INVALID_FIELD")
		if len(problem.Violations) != 1 || problem.Violations[0].Field != "shutdown_id" {
			t.Error(problem)
		}
	}
	d.refused(d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", Instance: "applications/shop/instances/two"}), "WRONG_INSTANCE")
	for _, stranger := range []context.Context{t.Context(), metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer guess")} {
		_, info := d.client.GetHookInfo(stranger, &quiescev1.GetHookInfoRequest{})
		_, cancel := d.client.CancelShutdown(stranger, &quiescev1.CancelShutdownRequest{})
		for _, err := range []error{info, cancel} {
			if problem := quiesce.ProblemOf(err); problem.Reason != "CREDENTIALS_INVALID" {
				t.Error(problem)
			}
		}
	}
	_, err := d.client.CancelShutdown(d.ctx, &quiescev1.CancelShutdownRequest{})
	if code := quiesce.ProblemOf(err).Code; code != codes.Unimplemented || d.stops.Load() != 0 {
		t.Error(code, d.stops.Load())
	}
}

func TestWithClientCAsOnlyWhoHasTheirCertificateAndTheTokenIsLetIn(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(os.Getenv("QUIESCE_TEST_CERT"), os.Getenv("QUIESCE_TEST_KEY"))
	must(err)
	pem, err := os.ReadFile(os.Getenv("QUIESCE_TEST_CA"))
	must(err)
	cas := x509.NewCertPool()
	cas.AppendCertsFromPEM(pem)
	pki, quiesceProgram := filepath.Join(t.TempDir(), "pki"), filepath.Join(filepath.Dir(os.Getenv("QUIESCE_TEST_AGENT")), "quiesce")
	must(exec.Command(quiesceProgram, "pki", "init", pki).Run())
	must(exec.Command(quiesceProgram, "pki", "issue", pki, "127.0.0.1").Run())
	foreign, err := tls.LoadX509KeyPair(filepath.Join(pki, "127.0.0.1.pem"), filepath.Join(pki, "127.0.0.1.key"))
	must(err)

	hook, err := hookkit.New(hookkit.Options{
		Instance: "applications/shop/instances/one",
		Callbacks: hookkit.Callbacks{
			Stop:    func(context.Context, *quiescev1.ShutdownRequest) error { return nil },
			Running: func() (bool, error) { return true, nil },
		},
	})
	must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	serverTLS := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: cas, ClientAuth: tls.RequireAndVerifyClientCert}
	go func() {
		served <- hook.Serve(ctx, hookkit.Listening{Listener: listener, TLS: serverTLS}, "a hook token")
	}()
	defer func() {
		cancel()
		must(<-served)
	}()

	ask := func(ctx context.Context, shown ...tls.Certificate) (string, error) {
		// Whatever is shown: Go leaves out a certificate that the server has not asked for.
		show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(shown) == 0 {
				return &tls.Certificate{}, nil
			}
			return &shown[0], nil
		}
		callerTLS := credentials.NewTLS(&tls.Config{RootCAs: cas, GetClientCertificate: show})
		connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(callerTLS))
		must(err)
		defer connection.Close()
		answer, err := quiescev1.NewShutdownHookClient(connection).GetHookInfo(ctx, &quiescev1.GetHookInfoRequest{})
		return answer.GetInfo().GetInstance(), err
	}
	authorized := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer a hook token")
	if instance, err := ask(authorized, pair); err != nil || instance != "applications/shop/instances/one" {
		t.Error(instance, err)
	}
	if _, err := ask(t.Context(), pair); quiesce.ProblemOf(err).Reason != "CREDENTIALS_INVALID" {
		t.Error(err)
	}
	for _, stranger := range [][]tls.Certificate{nil, {foreign}} {
		if _, err := ask(authorized, stranger...); quiesce.ProblemOf(err).Code != codes.Unavailable {
			t.Error("not turned away before the call:", err)
		}
	}
}

func TestWhetherItServesIsForEverybodyAndWhatItServesForWhoHasTheToken(t *testing.T) {
	d := newDirect(t)
	health, err := healthv1.NewHealthClient(d.connection).Check(t.Context(), &healthv1.HealthCheckRequest{})
	d.must(err)
	if health.Status != healthv1.HealthCheckResponse_SERVING {
		t.Error(health)
	}
	list := func(ctx context.Context) (*reflectionv1.ServerReflectionResponse, error) {
		stream, err := reflectionv1.NewServerReflectionClient(d.connection).ServerReflectionInfo(ctx)
		d.must(err)
		// What is wrong with the call comes with the answer.
		_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
		return stream.Recv()
	}
	listed, err := list(d.ctx)
	d.must(err)
	var names []string
	for _, service := range listed.GetListServicesResponse().Service {
		names = append(names, service.Name)
	}
	if !slices.Contains(names, "quiesce.v1.ShutdownHook") || slices.Contains(names, "quiesce.v1.Scheduler") {
		t.Error(names)
	}
	if _, err := list(t.Context()); quiesce.ProblemOf(err).Reason != "CREDENTIALS_INVALID" {
		t.Error(err)
	}
}

func TestTheCompletionTokenIsNotWrittenDown(t *testing.T) {
	d := newDirect(t)
	call := d.begin(&quiescev1.ShutdownRequest{ShutdownId: "s1", CompletionToken: "a-secret-token"})
	d.next(call)
	d.alive.Store(false)
	d.end(call)
	file := filepath.Join(d.state, "hook.json")
	content, err := os.ReadFile(file)
	d.must(err)
	info, err := os.Stat(file)
	d.must(err)
	if strings.Contains(string(content), "a-secret-token") || info.Mode().Perm() != 0o600 {
		t.Error(string(content), info.Mode())
	}
}

func TestAProcessIsToldFromAnotherThatWasGivenItsPid(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	application := w.Application()
	file := filepath.Join(w.Place, "pid")
	process := &hookkit.Process{PidFile: file}
	running := func() bool {
		is, err := process.Running()
		w.Must(err)
		return is
	}
	if !running() {
		t.Error("it runs")
	}
	info, err := os.Stat(file)
	w.Must(err)
	long := info.ModTime().Add(-time.Hour)
	w.Must(os.Chtimes(file, long, long))
	process = &hookkit.Process{PidFile: file}
	if running() {
		t.Error("it began after the file was written")
	}
	w.Must(process.Terminate(w.Ctx, nil))
	if w.Signals() != 0 {
		t.Error("it was sent a signal")
	}
	w.Must(os.Chtimes(file, info.ModTime(), info.ModTime()))
	w.Must(process.Terminate(w.Ctx, nil))
	// Before anybody waits for it: a zombie has ended.
	w.Eventually("the end", func() bool { return !running() })
	w.Must(application.Wait())
	if running() || !slices.Equal([]int{w.Signals()}, []int{1}) {
		t.Error(w.Signals())
	}
}

func TestAProcessThatRemovesItsFileHasNotEndedByThat(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	application := w.Application()
	file := filepath.Join(w.Place, "pid")
	process := &hookkit.Process{PidFile: file}
	expect := func(expected bool) {
		t.Helper()
		is, err := process.Running()
		w.Must(err)
		if is != expected {
			t.Error(is)
		}
	}
	expect(true)
	w.Must(os.Remove(file))
	expect(true)
	w.Must(process.Terminate(w.Ctx, nil))
	w.Must(application.Wait())
	expect(false)
	if w.Signals() != 1 {
		t.Error(w.Signals())
	}
	if _, err := (&hookkit.Process{PidFile: file}).Running(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	w.Must(os.WriteFile(file, nil, 0o600))
	if _, err := (&hookkit.Process{PidFile: file}).Running(); err == nil {
		t.Error("an empty file says nothing")
	}
}
