// Package hookkit is a kit for shutdown hooks: two callbacks, Stop and Running, and the rules of
// quiesce.v1.ShutdownHook around them.
//
// The kit owns what is easily got wrong: one stop for a shutdown however often it is asked for, reports in time, one
// shutdown at a time, the completion token, credentials, registration, dialling in. Whether the application really runs
// is known to the callbacks alone; Process answers it for a process of this machine.
package hookkit

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	quiescev1 "quiesce.dev/go/v1"
)

// Version of this kit, as the hook tells it.
const Version = "0.1.0"

// A hook that listens registers again this often, so that a scheduler that lost its memory learns of it.
const refresh = time.Minute

// Callbacks are what a hook knows of its application. They are called from goroutines of the kit.
type Callbacks struct {
	// Stop tells the application to stop and may take its time. An error is reported, and the application taken for
	// running. The request comes without its token.
	Stop func(context.Context, *quiescev1.ShutdownRequest) error
	// Running says whether any process of the application is left: it is asked ten times a second, and the hook reports an
	// end when, and only when, it says no. An error means that nobody knows, which is no end.
	Running func() (bool, error)
	// Kill ends the application at once; without it the hook does not offer that.
	Kill func(context.Context) error
}

// Options of a hook.
type Options struct {
	Callbacks
	// Instance is applications/{application}/instances/{instance}; empty if the hook does not know.
	Instance string
	// Cluster it runs on; empty: that of the application.
	Cluster string
	// StateDir, a directory of its own, lets it remember the shutdown and its credential over a restart.
	StateDir string
	// Evidence is how well Running knows. Unset: EVIDENCE_PROCESS_GONE.
	Evidence  quiescev1.Evidence
	StopOrder int32
	Labels    map[string]string
	// Log is where the kit says what happens. Unset: slog.Default.
	Log *slog.Logger
}

// Hook stops one instance of an application through callbacks.
type Hook struct {
	options   Options
	state     *stateDirectory
	shutdowns *shutdowns
}

// New makes a hook. A shutdown that was interrupted by a restart goes on at once.
func New(options Options) (*Hook, error) {
	if options.Stop == nil || options.Running == nil {
		return nil, errors.New("a hook needs the callbacks Stop and Running")
	}
	if options.Log == nil {
		options.Log = slog.Default()
	}
	if options.Evidence == quiescev1.Evidence_EVIDENCE_UNSPECIFIED {
		options.Evidence = quiescev1.Evidence_EVIDENCE_PROCESS_GONE
	}
	state, err := openState(options.StateDir)
	if err != nil {
		return nil, err
	}
	shutdowns, err := newShutdowns(options, state)
	return &Hook{options, state, shutdowns}, err
}

// Progress is what the application does while it stops.
type Progress struct {
	Message, Step string
	Percent       *int32
	// WantedGracePeriod is the grace it would like to have in all; 0: no wish.
	WantedGracePeriod time.Duration
}

// Say reports progress, if a shutdown runs.
func (h *Hook) Say(progress Progress) {
	said := &quiescev1.ShutdownStatus{Message: progress.Message, Step: progress.Step, Percent: progress.Percent}
	if progress.WantedGracePeriod > 0 {
		said.WantedGracePeriod = durationpb.New(progress.WantedGracePeriod)
	}
	h.shutdowns.say(said)
}

// Listening says where a hook listens, and how.
type Listening struct {
	net.Listener
	// Advertise is where the scheduler reaches it; empty: the address of the listener.
	Advertise string
	// TLS, which schedulers want beyond loopback; the certificate is for the host that is advertised.
	TLS *tls.Config
}

func (l Listening) endpoint() string {
	switch address := l.Addr().String(); {
	case l.Advertise != "":
		return l.Advertise
	case l.TLS != nil:
		return "https://" + address
	default:
		return address
	}
}

// Serve serves the hook until the context ends. Callers need the token of a hook that somebody else has registered.
func (h *Hook) Serve(ctx context.Context, listening Listening, hookToken string) error {
	guard := &guard{}
	guard.expect(hookToken)
	return h.serve(ctx, listening, guard)
}

func (h *Hook) serve(ctx context.Context, listening Listening, guard *guard) error {
	h.options.Log.Info("the hook listens", "address", listening.Addr().String())
	var options []grpc.ServerOption
	if listening.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(listening.TLS)))
	}
	server := newServer(&service{shutdowns: h.shutdowns, info: h.info}, guard, options...)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listening.Listener); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Listen serves the hook and keeps it registered with the scheduler, until the context ends.
func (h *Hook) Listen(ctx context.Context, listening Listening, scheduler Scheduler) error {
	registrar, err := h.registrar(scheduler, quiescev1.Instance_CONNECT_MODE_LISTEN, listening.endpoint())
	if err != nil {
		return err
	}
	defer registrar.client.Close()
	guard := &guard{}
	// What serves and what registers end together.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		pauses := newPauses(pauseMax)
		for ctx.Err() == nil {
			answer := registrar.register(ctx)
			if answer == nil {
				sleep(ctx, pauses.take())
				continue
			}
			pauses.reset()
			// A scheduler asks a hook as soon as it is registered, which may be before its token has got here; turned away,
			// it comes back much later. Registering again makes it ask again.
			if !guard.expect(answer.HookToken) {
				sleep(ctx, refresh)
			}
		}
	}()
	return h.serve(ctx, listening, guard)
}

// DialIn opens the connection to the scheduler and serves the hook over it, until the context ends.
func (h *Hook) DialIn(ctx context.Context, scheduler Scheduler) error {
	registrar, err := h.registrar(scheduler, quiescev1.Instance_CONNECT_MODE_DIAL_IN, "")
	if err != nil {
		return err
	}
	defer registrar.client.Close()
	unreachable, lost := newPauses(pauseMax), newPauses(absenceMax)
	for ctx.Err() == nil {
		lasted, attached := h.dialOnce(ctx, registrar)
		if !attached {
			sleep(ctx, unreachable.take())
			continue
		}
		unreachable.reset()
		if lasted >= goodConnection {
			lost.reset()
		}
		sleep(ctx, lost.take())
	}
	return nil
}

// dialOnce is one connection from its beginning to its end; it says how long it lasted.
func (h *Hook) dialOnce(ctx context.Context, registrar *registrar) (time.Duration, bool) {
	answer := registrar.register(ctx)
	if answer == nil {
		return 0, false
	}
	connection, err := registrar.attach(ctx, answer)
	if err != nil {
		h.options.Log.Warn("cannot attach to the scheduler, trying again", "error", err)
		return 0, false
	}
	h.options.Log.Info("attached to the scheduler", "address", connection.RemoteAddr().String())
	since := time.Now()
	listener := &oneConnection{connection: connection, closed: make(chan struct{})}
	server := newServer(&service{shutdowns: h.shutdowns, info: h.info}, nil)
	stop := context.AfterFunc(ctx, server.Stop)
	// It always ends with an error, that of a listener that has no further connection.
	_ = server.Serve(listener)
	stop()
	server.Stop()
	if ctx.Err() == nil {
		h.options.Log.Warn("lost the connection to the scheduler, the application runs on")
	}
	return time.Since(since), true
}

func (h *Hook) registrar(scheduler Scheduler, mode quiescev1.Instance_ConnectMode, endpoint string) (*registrar, error) {
	instance := &quiescev1.Instance{
		Name: h.options.Instance, ConnectMode: mode, Endpoint: endpoint, Cluster: h.options.Cluster,
		StopOrder: h.options.StopOrder, Labels: h.options.Labels,
	}
	return newRegistrar(scheduler, instance, h.state, h.options.Log)
}

func (h *Hook) info() *quiescev1.HookInfo {
	info := &quiescev1.HookInfo{
		Instance: h.options.Instance, Implementation: "quiesce-hookkit-go", ImplementationVersion: Version, ProtocolVersion: "1.0",
		Capabilities: []quiescev1.Capability{quiescev1.Capability_CAPABILITY_STATUS}, Ready: proto.Bool(true),
	}
	if h.options.Kill != nil {
		info.Capabilities = append(info.Capabilities, quiescev1.Capability_CAPABILITY_KILL)
	}
	if h.state.durable() {
		info.Capabilities = append(info.Capabilities, quiescev1.Capability_CAPABILITY_DURABLE)
	}
	state, err := h.shutdowns.appState()
	if err != nil {
		info.Ready = proto.Bool(false)
		info.NotReadyReason = "cannot tell whether the application runs: " + err.Error()
	}
	info.AppState = state
	return info
}

func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
