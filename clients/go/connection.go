package quiesce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Deadline of a call whose context has none. Answers take milliseconds; a dry run asks hooks, for which the scheduler
// waits 10 seconds by default.
const Deadline = 15 * time.Second

// Messages of the contract stay under 1 MiB.
const messageMax = 1 << 20

// What docs/protocol.md says of repetitions. It covers calls that take a request_id as well, since this client always
// sends one. Watches are left out: they are resumed, which is something else.
const serviceConfig = `{ "methodConfig": [
  { "name": [ {"service":"quiesce.v1.Scheduler"}, {"service":"quiesce.v1.AgentGateway"} ],
    "retryPolicy": { "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "3s", "backoffMultiplier": 2.0,
                     "retryableStatusCodes": ["UNAVAILABLE"] } },
  { "name": [ {"service":"quiesce.v1.Scheduler","method":"WatchOperation"},
              {"service":"quiesce.v1.Scheduler","method":"WatchOperations"} ] } ] }`

// Options say who connects, and how.
type Options struct {
	// Token is sent as `authorization: Bearer`. TokenFile names a file with it that only its owner can read.
	Token, TokenFile string
	// TokenSource is asked before each call, instead; an empty token is not sent.
	TokenSource func() (string, error)
	// CA, Cert and Key are PEM files for https://: the CAs that sign the scheduler's certificate (those of the system, if
	// there is no file), and an own certificate with its key.
	CA, Cert, Key string
	// Deadline of calls whose context has none; 0 is the constant Deadline. It does not count for watches.
	Deadline time.Duration
}

// Target returns host:port of a URL such as http://127.0.0.1:7600, and what makes connections to it secure: nil for http.
func (o Options) Target(address string) (string, *tls.Config, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Hostname() == "" || strings.Trim(parsed.Path, "/") != "" {
		return "", nil, fmt.Errorf("%q is not http://HOST:PORT or https://HOST:PORT", address)
	}
	port := parsed.Port()
	switch parsed.Scheme {
	case "http":
		if o.CA != "" || o.Cert != "" || o.Key != "" {
			return "", nil, fmt.Errorf("%q is for talk in the clear, although there are files for TLS", address)
		}
		if port == "" {
			port = "80"
		}
		return net.JoinHostPort(parsed.Hostname(), port), nil, nil
	case "https":
		if port == "" {
			port = "443"
		}
		config, err := o.tls()
		return net.JoinHostPort(parsed.Hostname(), port), config, err
	default:
		return "", nil, fmt.Errorf("%q must begin with http:// or https://", address)
	}
}

func (o Options) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%q holds no certificate", o.CA)
		}
	}
	if o.Cert != "" || o.Key != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("cannot read the certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// ReadToken reads a token from a file that nobody but its owner can read.
func ReadToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others can read the token in %q: chmod 600", path)
	}
	// A token has some hundred bytes.
	content := make([]byte, 4096)
	length, err := file.Read(content)
	if err != nil {
		return "", fmt.Errorf("cannot read the token in %q: %w", path, err)
	}
	return strings.TrimSpace(string(content[:length])), nil
}

func (o Options) tokenSource() (func() (string, error), error) {
	if o.TokenSource != nil {
		return o.TokenSource, nil
	}
	token := o.Token
	if o.TokenFile != "" {
		if token != "" {
			return nil, fmt.Errorf("give a token or the file of one, not both")
		}
		var err error
		if token, err = ReadToken(o.TokenFile); err != nil {
			return nil, err
		}
	}
	return func() (string, error) { return token, nil }, nil
}

func (o Options) dial(address string) (*grpc.ClientConn, error) {
	target, config, err := o.Target(address)
	if err != nil {
		return nil, err
	}
	source, err := o.tokenSource()
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	add := additions{source, o.Deadline}
	if add.deadline == 0 {
		add.deadline = Deadline
	}
	return grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageMax)),
		// A watch that hears nothing asks whether anybody is there, no more often than schedulers put up with.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithUnaryInterceptor(add.unary),
		grpc.WithStreamInterceptor(add.stream))
}

// What is added to every call: who calls, how long it may take, and the name of the request.
type additions struct {
	token    func() (string, error)
	deadline time.Duration
}

func (a additions) credential(ctx context.Context) (context.Context, error) {
	token, err := a.token()
	if err != nil || token == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

func (a additions) unary(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	ctx, err := a.credential(ctx)
	if err != nil {
		return err
	}
	if _, given := ctx.Deadline(); !given {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.deadline)
		defer cancel()
	}
	return call(ctx, method, named(request), reply, connection, options...)
}

func (a additions) stream(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, call grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, err := a.credential(ctx)
	if err != nil {
		return nil, err
	}
	return call(ctx, description, connection, method, options...)
}

// named returns the request with a request_id, if it takes one and the caller gave none: then it can be repeated.
func named(request any) any {
	message, ok := request.(proto.Message)
	if !ok {
		return request
	}
	reflected := message.ProtoReflect()
	fields := reflected.Descriptor().Fields()
	field, dry := fields.ByName("request_id"), fields.ByName("validate_only")
	if field == nil || reflected.Has(field) || (dry != nil && reflected.Has(dry)) {
		return request
	}
	copied := proto.Clone(message)
	copied.ProtoReflect().Set(field, protoreflect.ValueOfString(uuid.NewString()))
	return copied
}
