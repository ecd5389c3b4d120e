package hookkit

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	quiesce "quiesce.dev/go"
	quiescev1 "quiesce.dev/go/v1"
)

const (
	// For the connection, and again for the exchange of lines.
	attachLimit = 5 * time.Second
	lineMax     = 512
	// A registration is waited for no longer than this; schedulers answer within milliseconds.
	callLimit = 10 * time.Second
	// Rule A5.
	pauseFirst = time.Second
	pauseMax   = 30 * time.Second
	// Behind a connection, since the scheduler was there: half of what it waits for a hook.
	absenceMax = 5 * time.Second
	// After this time a connection was a good one, and the next try comes quickly.
	goodConnection = 10 * time.Second
)

// Scheduler says where the scheduler is, and what proves who calls.
type Scheduler struct {
	// URL such as http://127.0.0.1:7600, or https:// for TLS.
	URL string
	// CA, Cert and Key are PEM files for https://.
	CA, Cert, Key string
	// JoinTokenFile is the file with the token the instance joins with, where access is enforced. It gets a credential of
	// its own, which is kept in the state directory, and needs the file no more.
	JoinTokenFile string
}

// pauses lie between tries: growing, spread.
type pauses struct{ next, longest time.Duration }

func newPauses(longest time.Duration) *pauses { return &pauses{pauseFirst, longest} }

func (p *pauses) reset() { p.next = pauseFirst }

func (p *pauses) take() time.Duration {
	pause := p.next
	p.next = min(2*pause, p.longest)
	return time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
}

// registrar registers the instance, and keeps the credential that the scheduler gives it.
type registrar struct {
	scheduler Scheduler
	options   quiesce.Options
	request   *quiescev1.RegisterInstanceRequest
	state     *stateDirectory
	client    *quiesce.Client
	log       *slog.Logger
	rejected  bool
}

func newRegistrar(scheduler Scheduler, instance *quiescev1.Instance, state *stateDirectory, log *slog.Logger) (*registrar, error) {
	id, err := state.agentID()
	if err != nil {
		return nil, err
	}
	instance.AgentId = id
	r := &registrar{scheduler: scheduler, state: state, log: log, request: &quiescev1.RegisterInstanceRequest{Instance: instance}}
	r.options = quiesce.Options{CA: scheduler.CA, Cert: scheduler.Cert, Key: scheduler.Key, TokenSource: r.token, Deadline: callLimit}
	r.client, err = quiesce.Connect(scheduler.URL, r.options)
	return r, err
}

func (r *registrar) token() (string, error) {
	held, err := r.state.read(tokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(held))
	// What was rejected last makes room for the other; a certificate may do without either.
	if token != "" && !r.rejected {
		return token, nil
	}
	if r.scheduler.JoinTokenFile == "" {
		return "", nil
	}
	return quiesce.ReadToken(r.scheduler.JoinTokenFile)
}

// register returns nil when it has failed, which is logged.
func (r *registrar) register(ctx context.Context) *quiescev1.RegisterInstanceResponse {
	answer, err := r.client.Gateway.RegisterInstance(ctx, r.request)
	if err != nil {
		if status.Code(err) == codes.Unauthenticated {
			r.rejected = !r.rejected
		}
		if ctx.Err() == nil {
			r.log.Warn("cannot register, trying again", "error", quiesce.ProblemOf(err).String())
		}
		return nil
	}
	r.rejected = false
	if answer.InstanceToken == "" {
		return answer
	}
	held, err := r.state.read(tokenFile)
	if err == nil && strings.TrimSpace(string(held)) != answer.InstanceToken {
		if err = r.state.replace(tokenFile, []byte(answer.InstanceToken+"\n")); err == nil {
			r.log.Info("the scheduler knows this instance by a credential of its own now")
		}
	}
	if err != nil {
		r.log.Error("cannot keep the credential of this instance: after a restart it has to join anew", "error", err)
	}
	return answer
}

// attach dials in. The roles are reversed on the connection it returns.
func (r *registrar) attach(ctx context.Context, answer *quiescev1.RegisterInstanceResponse) (net.Conn, error) {
	target, config, err := r.options.Target(r.scheduler.URL)
	if err != nil {
		return nil, err
	}
	if answer.AttachEndpoint != "" {
		target = answer.AttachEndpoint
	}
	ctx, cancel := context.WithTimeout(ctx, 2*attachLimit)
	defer cancel()
	connection, err := (&net.Dialer{Timeout: attachLimit}).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(attachLimit)); err != nil {
		connection.Close()
		return nil, err
	}
	if config != nil {
		config.NextProtos = []string{"quiesce-attach/1"}
		config.ServerName, _, _ = net.SplitHostPort(target)
		connection = tls.Client(connection, config)
	}
	if err := exchange(connection, answer.AttachToken); err != nil {
		connection.Close()
		return nil, err
	}
	return connection, connection.SetDeadline(time.Time{})
}

// exchange says the line and reads the answer, byte by byte: what follows it belongs to HTTP/2.
func exchange(connection io.ReadWriter, token string) error {
	if _, err := fmt.Fprintf(connection, "QUIESCE/1 ATTACH %s\r\n", token); err != nil {
		return err
	}
	line := make([]byte, 0, lineMax)
	for !strings.HasSuffix(string(line), "\r\n") {
		if len(line) == lineMax {
			return fmt.Errorf("not the answer of a quiesce scheduler")
		}
		line = append(line, 0)
		if _, err := io.ReadFull(connection, line[len(line)-1:]); err != nil {
			return err
		}
	}
	switch words := strings.Fields(string(line)); {
	case len(words) == 2 && words[0] == "QUIESCE/1" && words[1] == "OK":
		return nil
	case len(words) == 4 && words[0] == "QUIESCE/1" && words[1] == "ERROR":
		return fmt.Errorf("the scheduler refuses: %s %s", words[2], words[3])
	default:
		return fmt.Errorf("not the answer of a quiesce scheduler")
	}
}

// oneConnection is a listener that accepts the one connection there is, and ends with it.
type oneConnection struct {
	connection net.Conn
	accepted   bool
	closed     chan struct{}
	once       sync.Once
}

func (l *oneConnection) Accept() (net.Conn, error) {
	if !l.accepted {
		l.accepted = true
		return &noticed{l.connection, l}, nil
	}
	<-l.closed
	return nil, io.EOF
}

func (l *oneConnection) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *oneConnection) Addr() net.Addr { return l.connection.LocalAddr() }

type noticed struct {
	net.Conn
	listener *oneConnection
}

func (c *noticed) Close() error {
	c.listener.Close()
	return c.Conn.Close()
}
