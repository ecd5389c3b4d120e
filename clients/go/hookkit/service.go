package hookkit

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"

	quiescev1 "quiesce.dev/go/v1"
)

const (
	// Calls at a time on one connection. A scheduler needs a handful; a person with grpcurl a few more.
	callsMax   = 64
	messageMax = 1 << 20
	headersMax = 16 << 10
	// Rule A3: the server pings, also while nothing is going on.
	pingEvery = 20 * time.Second
)

// guard lets in who sends the token; nobody as long as there is none.
type guard struct {
	digest atomic.Pointer[[sha256.Size]byte]
}

// expect asks for this token from now on. It says whether it is a new one.
func (g *guard) expect(token string) bool {
	digest := sha256.Sum256([]byte(token))
	before := g.digest.Swap(&digest)
	return before == nil || *before != digest
}

func (g *guard) check(ctx context.Context) error {
	digest := g.digest.Load()
	if digest == nil {
		return refusal(codes.Unavailable, "NOT_SERVING", "not registered with the scheduler yet, so its credentials are not known")
	}
	for _, authorization := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		scheme, token, _ := strings.Cut(authorization, " ")
		presented := sha256.Sum256([]byte(token))
		if strings.EqualFold(scheme, "bearer") && subtle.ConstantTimeCompare(presented[:], digest[:]) == 1 {
			return nil
		}
	}
	return refusal(codes.Unauthenticated, "CREDENTIALS_INVALID", "no or unusable credentials")
}

// open says whether a method is for everybody: whether the hook serves at all.
func open(method string) bool {
	return strings.HasPrefix(method, "/"+healthv1.Health_ServiceDesc.ServiceName+"/")
}

// newServer serves the hook; without a guard, to whoever can connect.
func newServer(served *service, guard *guard, more ...grpc.ServerOption) *grpc.Server {
	options := append(more,
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingEvery}),
		grpc.MaxConcurrentStreams(callsMax),
		grpc.MaxRecvMsgSize(messageMax),
		grpc.MaxHeaderListSize(headersMax),
	)
	if guard != nil {
		options = append(options,
			grpc.UnaryInterceptor(func(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				if open(call.FullMethod) {
					return handle(ctx, request)
				}
				if err := guard.check(ctx); err != nil {
					return nil, err
				}
				return handle(ctx, request)
			}),
			grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, call *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
				if open(call.FullMethod) {
					return handle(server, stream)
				}
				if err := guard.check(stream.Context()); err != nil {
					return err
				}
				return handle(server, stream)
			}))
	}
	server := grpc.NewServer(options...)
	quiescev1.RegisterShutdownHookServer(server, served)
	healthv1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)
	return server
}

// service is quiesce.v1.ShutdownHook. What is not here answers UNIMPLEMENTED, and is not announced.
type service struct {
	quiescev1.UnimplementedShutdownHookServer
	shutdowns *shutdowns
	info      func() *quiescev1.HookInfo
}

func (s *service) GetHookInfo(context.Context, *quiescev1.GetHookInfoRequest) (*quiescev1.GetHookInfoResponse, error) {
	return &quiescev1.GetHookInfoResponse{Info: s.info()}, nil
}

func (s *service) Shutdown(request *quiescev1.ShutdownRequest, stream grpc.ServerStreamingServer[quiescev1.ShutdownResponse]) error {
	accepted, err := s.shutdowns.accept(request)
	if err != nil {
		return err
	}
	// The caller may go; the shutdown goes on (H9).
	for seen := int32(0); ; {
		status, err := s.shutdowns.nextReport(stream.Context(), accepted, seen)
		if err != nil {
			return err
		}
		seen = status.Sequence
		if err := stream.Send(&quiescev1.ShutdownResponse{Status: status}); err != nil || status.Result != nil {
			return err
		}
	}
}

func (s *service) GetShutdown(_ context.Context, request *quiescev1.GetShutdownRequest) (*quiescev1.GetShutdownResponse, error) {
	status, err := s.shutdowns.get(request.ShutdownId)
	if err != nil {
		return nil, err
	}
	return &quiescev1.GetShutdownResponse{Status: status}, nil
}

func (s *service) KillApplication(ctx context.Context, request *quiescev1.KillApplicationRequest) (*quiescev1.KillApplicationResponse, error) {
	status, err := s.shutdowns.kill(ctx, request.ShutdownId, request.CompletionToken)
	if err != nil {
		return nil, err
	}
	return &quiescev1.KillApplicationResponse{Status: status}, nil
}
