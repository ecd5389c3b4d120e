package quiesce_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	quiesce "quiesce.dev/go"
	"quiesce.dev/go/internal/testbed"
	quiescev1 "quiesce.dev/go/v1"
)

func TestMain(m *testing.M) { testbed.Main(m) }

func secured() quiesce.Options {
	return quiesce.Options{CA: testbed.CA, TokenFile: testbed.TokenFile}
}

func TestAnApplicationIsCreatedReadAndListed(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(&quiescev1.ShutdownPolicy{GracePeriod: durationpb.New(7 * time.Second)})
	name := "applications/" + w.Name
	read, err := w.Client.Scheduler.GetApplication(w.Ctx, &quiescev1.GetApplicationRequest{Name: name})
	w.Must(err)
	if read.Application.Cluster != "a" || read.Application.Policy.GracePeriod.AsDuration() != 7*time.Second {
		t.Error(read)
	}
	listed, err := w.Client.Scheduler.ListApplications(w.Ctx, &quiescev1.ListApplicationsRequest{Filter: `name = "` + name + `"`})
	w.Must(err)
	if len(listed.Applications) != 1 || listed.Applications[0].Name != name {
		t.Error(listed)
	}
}

func TestARepeatedRequestOfTheSameIDHasNoFurtherEffect(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(nil)
	w.Agent()
	request := &quiescev1.MigrateApplicationRequest{Name: "applications/" + w.Name, TargetCluster: "b", RequestId: "once-" + w.Name}
	first, err := w.Client.Scheduler.MigrateApplication(w.Ctx, request)
	w.Must(err)
	again, err := w.Client.Scheduler.MigrateApplication(w.Ctx, request)
	w.Must(err)
	if first.Operation.Name != again.Operation.Name {
		t.Error(first, again)
	}
	if first.Operation.RequestId != request.RequestId {
		t.Error(first.Operation.RequestId)
	}
}

func TestProgressIsFollowedAndResumed(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(nil)
	w.Agent()
	operation, err := w.Client.Migrate(w.Ctx, w.Name, "b", "a test")
	w.Must(err)
	if operation.RequestId == "" {
		t.Error("a request without an id was sent without one")
	}
	events := w.Events(w.Client, operation.Name, "")
	last := events[len(events)-1].Operation
	if events[0].Type != quiescev1.OperationEvent_TYPE_SNAPSHOT || last.State != quiescev1.Operation_STATE_SUCCEEDED || !last.Done {
		t.Fatal(events)
	}
	told := slices.DeleteFunc(events, func(event *quiescev1.OperationEvent) bool { return event.ResumeToken == "" })
	// From each place on the rest is the same, on a connection of its own.
	another := w.Connect(testbed.Open, quiesce.Options{})
	for place, event := range told {
		rest := w.Events(another, operation.Name, event.ResumeToken)
		same := slices.EqualFunc(rest, told[place+1:], func(a, b *quiescev1.OperationEvent) bool { return a.Revision == b.Revision })
		if !same {
			t.Errorf("behind %d: %v", place, rest)
		}
	}
}

func TestFollowingSurvivesLostConnections(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(nil)
	application := w.Application("deaf")
	w.Hook(testbed.Open, nil)
	w.Ready()
	relay := w.Relay(testbed.Open)
	cut := w.Connect(relay.URL, quiesce.Options{})
	operation, err := cut.Migrate(w.Ctx, w.Name, "b", "")
	w.Must(err)
	var told []*quiescev1.OperationEvent
	var last *quiescev1.Operation
	first := ""
	for event, err := range cut.Follow(w.Ctx, operation.Name, "") {
		w.Must(err)
		last = event.Operation
		if first != "" {
			told = append(told, event)
			continue
		}
		// Once there is something to go on behind.
		if first = event.ResumeToken; first != "" {
			relay.Cut()
			go func() {
				for relay.Connections() < 2 && w.Ctx.Err() == nil {
					time.Sleep(20 * time.Millisecond)
				}
				w.Kill(application)
			}()
		}
	}
	if relay.Connections() < 2 || last.GetState() != quiescev1.Operation_STATE_SUCCEEDED {
		t.Fatal(relay.Connections(), last)
	}
	// Bookmarks come where nothing happens, on each stream elsewhere.
	happened := func(events []*quiescev1.OperationEvent) (revisions []int64) {
		for _, event := range events {
			if event.Type != quiescev1.OperationEvent_TYPE_BOOKMARK {
				revisions = append(revisions, event.Revision)
			}
		}
		return revisions
	}
	if !slices.Equal(happened(told), happened(w.Events(w.Client, operation.Name, first))) {
		t.Errorf("something is missing, or came twice: %v", told)
	}
}

func TestTheExampleMigrates(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(nil)
	w.Agent()
	said, code := w.Example("migrate", w.Name, "b", testbed.Open)
	if code != 0 || !strings.Contains(said, "SUCCEEDED: ") {
		t.Fatal(code, said)
	}
	said, code = w.Example("migrate", w.Name, "b", testbed.Open)
	if code != 1 || !strings.Contains(said, "FailedPrecondition / ALREADY_ON_TARGET") {
		t.Fatal(code, said)
	}
}

func TestErrorsAreDecoded(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	_, err := w.Client.Scheduler.GetApplication(w.Ctx, &quiescev1.GetApplicationRequest{Name: "applications/nobody"})
	problem := quiesce.ProblemOf(err)
	if problem.Code != codes.NotFound || problem.Reason != "APPLICATION_NOT_FOUND" || problem.Metadata["name"] != "applications/nobody" {
		t.Error(problem)
	}
	wrong := &quiescev1.CreateApplicationRequest{Application: &quiescev1.Application{Name: "applications/NO"}}
	_, err = w.Client.Scheduler.CreateApplication(w.Ctx, wrong)
	problem = quiesce.ProblemOf(err)
	var fields []string
	for _, found := range problem.Violations {
		fields = append(fields, found.Field)
	}
	slices.Sort(fields)
	if problem.Reason != "INVALID_FIELD" || !slices.Equal(fields, []string{"application.cluster", "application.name"}) {
		t.Error(problem)
	}
	if !strings.Contains(problem.String(), "application.cluster") {
		t.Error(problem)
	}
}

func TestABusyApplicationSaysWhenToTryAgain(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	w.Create(nil)
	w.Application("deaf")
	w.Hook(testbed.Open, nil)
	w.Ready()
	first, err := w.Client.Migrate(w.Ctx, w.Name, "b", "")
	w.Must(err)
	_, err = w.Client.Delete(w.Ctx, w.Name, "")
	problem := quiesce.ProblemOf(err)
	if problem.Reason != "OPERATION_IN_PROGRESS" || problem.Metadata["operation"] != first.Name || problem.RetryAfter <= 0 {
		t.Error(problem, problem.RetryAfter)
	}
}

func TestADeadlineIsKept(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	// Somebody who takes connections and never says a word.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	defer silent.Close()
	url := "http://" + silent.Addr().String()
	hurried := w.Connect(url, quiesce.Options{Deadline: 200 * time.Millisecond})
	_, err = hurried.Scheduler.GetServerInfo(w.Ctx, &quiescev1.GetServerInfoRequest{})
	if code := quiesce.ProblemOf(err).Code; code != codes.DeadlineExceeded {
		t.Error(code)
	}
	patient := w.Connect(url, quiesce.Options{Deadline: time.Hour})
	ctx, cancel := context.WithTimeout(w.Ctx, 200*time.Millisecond)
	defer cancel()
	_, err = patient.Scheduler.GetServerInfo(ctx, &quiescev1.GetServerInfoRequest{})
	if code := quiesce.ProblemOf(err).Code; code != codes.DeadlineExceeded {
		t.Error(code)
	}
	// Following does not go on behind it either.
	for _, err := range patient.Follow(ctx, "operations/x", "") {
		if code := quiesce.ProblemOf(err).Code; code != codes.DeadlineExceeded {
			t.Error(code)
		}
	}
}

func TestTLSAndATokenAreNeededWhereAccessIsEnforced(t *testing.T) {
	w := testbed.New(t, testbed.Secure, secured())
	list := func(client *quiesce.Client) quiesce.Problem {
		_, err := client.Scheduler.ListApplications(w.Ctx, &quiescev1.ListApplicationsRequest{})
		return quiesce.ProblemOf(err)
	}
	if problem := list(w.Client); problem.Code != codes.OK {
		t.Error(problem)
	}
	if problem := list(w.Connect(testbed.Secure, quiesce.Options{CA: testbed.CA})); problem.Reason != "CREDENTIALS_INVALID" {
		t.Error(problem)
	}
	if problem := list(w.Connect(testbed.Secure, quiesce.Options{})); problem.Code != codes.Unavailable {
		t.Error(problem)
	}
	token := &quiescev1.Token{DisplayName: "a test", Role: quiescev1.Token_ROLE_VIEWER}
	made, err := w.Client.Access.CreateToken(w.Ctx, &quiescev1.CreateTokenRequest{Token: token})
	w.Must(err)
	viewer := w.Connect(testbed.Secure, quiesce.Options{CA: testbed.CA, Token: made.BearerToken})
	if problem := list(viewer); problem.Code != codes.OK {
		t.Error(problem)
	}
	_, err = viewer.Delete(w.Ctx, "whatever", "")
	problem := quiesce.ProblemOf(err)
	if problem.Reason != "CALLER_NOT_ALLOWED" || strings.Contains(problem.String(), made.BearerToken) {
		t.Error(problem)
	}
	readable := filepath.Join(w.Place, "token")
	w.Must(os.WriteFile(readable, []byte("qbt1.x"), 0o644))
	if _, err := quiesce.Connect(testbed.Secure, quiesce.Options{TokenFile: readable}); err == nil {
		t.Error("a token that others can read was taken")
	}
}

func TestEveryRPCOfTheContractIsAnswered(t *testing.T) {
	w := testbed.New(t, testbed.Open, quiesce.Options{})
	answered := 0
	for _, file := range []protoreflect.FileDescriptor{
		quiescev1.File_quiesce_v1_scheduler_proto, quiescev1.File_quiesce_v1_access_proto, quiescev1.File_quiesce_v1_agent_gateway_proto,
	} {
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			name := fmt.Sprintf("/%s/%s", service.FullName(), method.Name())
			// With nothing in it: most are refused, and say which field it is that is missing.
			request, answer := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
			var err error
			if method.IsStreamingServer() {
				err = first(w.Ctx, w.Client.Connection, name, request, answer)
			} else {
				err = w.Client.Connection.Invoke(w.Ctx, name, request, answer)
			}
			if problem := quiesce.ProblemOf(err); problem.Code != codes.OK && problem.Reason != "INVALID_FIELD" {
				t.Error(name, problem)
			}
			answered++
		}
	}
	if answered < 31 {
		t.Error(answered)
	}
}

func first(ctx context.Context, connection grpc.ClientConnInterface, name string, request, answer any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil {
		return err
	}
	return stream.RecvMsg(answer)
}

func TestTheCodeOfTheReadmeIsThatOfAnExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(readme), "```go\n")[1:] {
		code, _, _ := strings.Cut(block, "```")
		indented := "\t" + strings.ReplaceAll(strings.TrimSpace(code), "\n", "\n\t")
		if !strings.Contains(string(source), indented) {
			t.Errorf("readme_test.go does not hold this:\n%s", indented)
		}
	}
}

func TestAddressesThatCannotBeMeantAreRefused(t *testing.T) {
	for _, wrong := range []string{"127.0.0.1:7600", "ftp://x", "http://", "http://x/path"} {
		if _, err := quiesce.Connect(wrong, quiesce.Options{}); err == nil {
			t.Error(wrong)
		}
	}
	if _, err := quiesce.Connect("http://127.0.0.1:7600", quiesce.Options{CA: "ca.pem"}); err == nil {
		t.Error("files for TLS were left unused")
	}
}
