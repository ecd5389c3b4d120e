package hookkit

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	quiescev1 "quiesce.dev/go/v1"
)

const (
	// How often it is looked whether the application has ended.
	lookEvery = 100 * time.Millisecond
	// What a report takes on its way must fit between this share of the interval and the whole of it.
	heartbeatShare   = 0.8
	heartbeatDefault = 5 * time.Second
	heartbeatMin     = 100 * time.Millisecond
	// Reports of one life of the hook; those of the next begin above, so that `sequence` rises over restarts.
	reportsOfALife = 1_000_000
	tokenMax       = 512
)

var shutdownID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// shutdown is one shutdown and all that is known of it. Guarded by the lock of its shutdowns.
type shutdown struct {
	id, operation string
	attempt       int32
	epoch         int64
	token         string
	tokenKnown    bool
	digest        string
	heartbeat     time.Duration
	accepted      time.Time
	life, reports int32
	phase         quiescev1.ShutdownPhase
	said          *quiescev1.ShutdownStatus
	result        *quiescev1.StopResult
	supersededBy  string
	reported      time.Time
}

func newShutdown(request *quiescev1.ShutdownRequest) *shutdown {
	heartbeat := request.HeartbeatInterval.AsDuration()
	if heartbeat <= 0 {
		heartbeat = heartbeatDefault
	}
	return &shutdown{
		id: request.ShutdownId, operation: request.Operation, attempt: request.Attempt, epoch: request.Epoch,
		token: request.CompletionToken, tokenKnown: true, digest: digestOf(request.CompletionToken),
		heartbeat: max(heartbeat, heartbeatMin), accepted: time.Now(), reports: 1, reported: time.Now(),
		phase: quiescev1.ShutdownPhase_SHUTDOWN_PHASE_ACCEPTED, said: &quiescev1.ShutdownStatus{Message: "accepted"},
	}
}

func (s *shutdown) sequence() int32 { return s.life*reportsOfALife + s.reports }

func (s *shutdown) status() *quiescev1.ShutdownStatus {
	status := proto.CloneOf(s.said)
	status.ShutdownId, status.Sequence, status.Phase = s.id, s.sequence(), s.phase
	status.ReportTime = timestamppb.Now()
	if s.result != nil {
		status.Result, status.CompletionToken = s.result, s.token
	}
	return status
}

// yieldsTo is rule H10: to a later attempt of the same operation, or to a later operation.
func (s *shutdown) yieldsTo(request *quiescev1.ShutdownRequest) bool {
	if s.operation == request.Operation {
		return s.operation != "" && request.Attempt > s.attempt
	}
	return s.epoch != 0 && request.Epoch > s.epoch
}

func (s *shutdown) toRecord() record {
	return record{
		ShutdownID: s.id, Operation: s.operation, Attempt: s.attempt, Epoch: s.epoch, TokenDigest: s.digest,
		HeartbeatMs: s.heartbeat.Milliseconds(), AcceptedMs: s.accepted.UnixMilli(), Life: s.life, Reports: s.reports,
		Phase: s.phase.String(), Result: resultToRecord(s.result),
	}
}

func fromRecord(known *record) (*shutdown, error) {
	result, err := resultFromRecord(known.Result)
	if err != nil {
		return nil, err
	}
	// The token comes again with the call that joins.
	return &shutdown{
		id: known.ShutdownID, operation: known.Operation, attempt: known.Attempt, epoch: known.Epoch, digest: known.TokenDigest,
		heartbeat: time.Duration(known.HeartbeatMs) * time.Millisecond, accepted: time.UnixMilli(known.AcceptedMs),
		life: known.Life, reports: known.Reports, reported: time.Now(), result: result,
		phase: quiescev1.ShutdownPhase(quiescev1.ShutdownPhase_value[known.Phase]), said: &quiescev1.ShutdownStatus{},
	}, nil
}

// shutdowns is the shutdown in progress, or the last one: once, one at a time, reported until the end (H1 to H14).
type shutdowns struct {
	callbacks Callbacks
	instance  string
	evidence  quiescev1.Evidence
	state     *stateDirectory
	log       *slog.Logger

	lock    sync.Mutex
	current *shutdown
	// Closed, and replaced, at every change.
	changed chan struct{}
}

func newShutdowns(options Options, state *stateDirectory) (*shutdowns, error) {
	all := &shutdowns{
		callbacks: options.Callbacks, instance: options.Instance, evidence: options.Evidence, state: state,
		log: options.Log, changed: make(chan struct{}),
	}
	known, err := state.load()
	if err != nil || known == nil {
		return all, err
	}
	current, err := fromRecord(known)
	if err != nil {
		return nil, fmt.Errorf("cannot understand %s: %w", recordFile, err)
	}
	all.current = current
	if current.result != nil {
		return all, nil
	}
	current.life, current.reports, current.said.Message = current.life+1, 1, "the hook was restarted"
	if err := state.save(current.toRecord()); err != nil {
		return nil, err
	}
	if current.phase >= quiescev1.ShutdownPhase_SHUTDOWN_PHASE_STOPPING {
		go all.watch(current)
	} else {
		go all.begin(current, &quiescev1.ShutdownRequest{})
	}
	return all, nil
}

func (a *shutdowns) appState() (quiescev1.HookInfo_AppState, error) {
	running, err := a.callbacks.Running()
	if err != nil {
		return quiescev1.HookInfo_APP_STATE_UNSPECIFIED, err
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	switch {
	case !running:
		return quiescev1.HookInfo_APP_STATE_STOPPED, nil
	case a.current != nil && a.current.result == nil:
		return quiescev1.HookInfo_APP_STATE_STOPPING, nil
	default:
		return quiescev1.HookInfo_APP_STATE_RUNNING, nil
	}
}

// accept begins a shutdown, or joins the one of that name.
func (a *shutdowns) accept(request *quiescev1.ShutdownRequest) (*shutdown, error) {
	if request.Instance != "" && a.instance != "" && request.Instance != a.instance {
		return nil, refusal(codes.FailedPrecondition, "WRONG_INSTANCE", "this hook serves "+a.instance, "instance", a.instance)
	}
	if !shutdownID.MatchString(request.ShutdownId) {
		return nil, badField("shutdown_id", "must be 1 to 128 characters of A-Z, a-z, 0-9 and ._-")
	}
	if len(request.CompletionToken) > tokenMax {
		return nil, badField("completion_token", fmt.Sprintf("must have at most %d bytes", tokenMax))
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	if current := a.current; current != nil {
		if current.id == request.ShutdownId {
			a.join(current, request)
			return current, nil
		}
		if current.result == nil && !current.yieldsTo(request) {
			return nil, refusal(codes.Aborted, "SHUTDOWN_IN_PROGRESS", "another shutdown runs", "shutdownId", current.id)
		}
		if request.Epoch > 0 && request.Epoch < current.epoch {
			inForce := strconv.FormatInt(current.epoch, 10)
			return nil, refusal(codes.FailedPrecondition, "EPOCH_STALE", "a later operation has been here", "epoch", inForce)
		}
	}
	accepted := newShutdown(request)
	// Before anything is done: a hook that is restarted must know it.
	if err := a.record(accepted); err != nil {
		return nil, err
	}
	if a.current != nil && a.current.result == nil {
		a.current.supersededBy = accepted.id
	}
	a.current = accepted
	a.notify()
	told := proto.CloneOf(request)
	told.CompletionToken = ""
	go a.begin(accepted, told)
	return accepted, nil
}

func (a *shutdowns) join(s *shutdown, request *quiescev1.ShutdownRequest) {
	if !s.tokenKnown && isDigestOf(s.digest, request.CompletionToken) {
		s.token, s.tokenKnown = request.CompletionToken, true
	}
	if s.result == nil {
		// What this call hears first is later than what an earlier one has heard.
		a.report(s, s.said.Message)
	}
}

func (a *shutdowns) get(id string) (*quiescev1.ShutdownStatus, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if a.current == nil || (id != "" && id != a.current.id) {
		return nil, refusal(codes.NotFound, "SHUTDOWN_NOT_FOUND", "there is no such shutdown")
	}
	return a.current.status(), nil
}

// kill kills the application, for the scheduler that began this shutdown.
func (a *shutdowns) kill(ctx context.Context, id, token string) (*quiescev1.ShutdownStatus, error) {
	if a.callbacks.Kill == nil {
		return nil, refusal(codes.Unimplemented, "NOT_IMPLEMENTED", "this hook cannot kill", "capability", "CAPABILITY_KILL")
	}
	if id == "" {
		return nil, badField("shutdown_id", "must be set")
	}
	if _, err := a.get(id); err != nil {
		return nil, err
	}
	a.lock.Lock()
	s := a.current
	over := s.result != nil
	switch {
	case s.id != id || !isDigestOf(s.digest, token):
		a.lock.Unlock()
		return nil, refusal(codes.PermissionDenied, "COMPLETION_TOKEN_INVALID", "that is not the token of this shutdown")
	case !over:
		s.phase = quiescev1.ShutdownPhase_SHUTDOWN_PHASE_KILLING
		if err := a.record(s); err != nil {
			a.lock.Unlock()
			return nil, err
		}
		a.report(s, "told to end at once")
	}
	a.lock.Unlock()
	if !over {
		if err := a.callbacks.Kill(ctx); err != nil {
			return nil, refusal(codes.FailedPrecondition, "NOT_STOPPABLE", fmt.Sprintf("cannot kill: %v", err))
		}
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	return s.status(), nil
}

// say puts what the application says of itself into the reports of a shutdown, if one runs.
func (a *shutdowns) say(said *quiescev1.ShutdownStatus) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if a.current != nil && a.current.result == nil {
		a.current.said = said
		a.report(a.current, said.Message)
	}
}

// nextReport waits for a report later than seen: for news, or until one is due. Any number of calls may wait.
func (a *shutdowns) nextReport(ctx context.Context, s *shutdown, seen int32) (*quiescev1.ShutdownStatus, error) {
	for {
		a.lock.Lock()
		due := time.Until(s.reported.Add(time.Duration(float64(s.heartbeat) * heartbeatShare)))
		if s.sequence() <= seen && s.supersededBy == "" && due <= 0 {
			a.report(s, s.said.Message)
		}
		superseded, news, changed := s.supersededBy, s.sequence() > seen, a.changed
		var status *quiescev1.ShutdownStatus
		if news {
			status = s.status()
		}
		a.lock.Unlock()
		if superseded != "" {
			return nil, refusal(codes.Aborted, "SHUTDOWN_SUPERSEDED", superseded+" has taken over")
		}
		if news {
			return status, nil
		}
		timer := time.NewTimer(due)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

func (a *shutdowns) report(s *shutdown, message string) {
	s.said.Message = message
	s.reports++
	s.reported = time.Now()
	a.notify()
}

func (a *shutdowns) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *shutdowns) record(s *shutdown) error {
	if err := a.state.save(s.toRecord()); err != nil {
		a.log.Error("cannot record the shutdown", "error", err)
		return refusal(codes.Unavailable, "NOT_SERVING", "the hook cannot write its state")
	}
	return nil
}

func (a *shutdowns) begin(s *shutdown, request *quiescev1.ShutdownRequest) {
	if a.hasEnded() {
		a.finish(s, quiescev1.StopResult_OUTCOME_NOT_RUNNING, "it was not running")
		return
	}
	a.lock.Lock()
	if !a.isOpen(s) {
		a.lock.Unlock()
		return
	}
	s.phase = max(s.phase, quiescev1.ShutdownPhase_SHUTDOWN_PHASE_STOPPING)
	err := a.record(s)
	if err == nil {
		a.report(s, "told to stop")
	}
	a.lock.Unlock()
	if err != nil {
		a.finish(s, quiescev1.StopResult_OUTCOME_STILL_RUNNING, "the hook cannot write its state")
		return
	}
	// Beside the watch: a stop command may well last until the end.
	go a.tell(s, request)
	a.watch(s)
}

func (a *shutdowns) tell(s *shutdown, request *quiescev1.ShutdownRequest) {
	// The end of a call is not the end of the shutdown, so this is the context of none.
	if err := a.callbacks.Stop(context.Background(), request); err != nil {
		a.log.Error("the callback Stop has failed", "error", err)
		a.finish(s, quiescev1.StopResult_OUTCOME_STILL_RUNNING, fmt.Sprintf("the stop has failed: %v", err))
	}
}

func (a *shutdowns) watch(s *shutdown) {
	for {
		ended := a.hasEnded()
		a.lock.Lock()
		open, killed := a.isOpen(s), s.phase == quiescev1.ShutdownPhase_SHUTDOWN_PHASE_KILLING
		a.lock.Unlock()
		switch {
		case !open:
			return
		case ended && killed:
			a.finish(s, quiescev1.StopResult_OUTCOME_KILLED, "it has ended")
			return
		case ended:
			a.finish(s, quiescev1.StopResult_OUTCOME_STOPPED, "it has ended")
			return
		}
		time.Sleep(lookEvery)
	}
}

func (a *shutdowns) isOpen(s *shutdown) bool { return s == a.current && s.result == nil }

func (a *shutdowns) hasEnded() bool {
	running, err := a.callbacks.Running()
	if err != nil {
		// Not to know is not to have ended.
		a.log.Warn("the callback Running has failed", "error", err)
		return false
	}
	return !running
}

func (a *shutdowns) finish(s *shutdown, outcome quiescev1.StopResult_Outcome, message string) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if !a.isOpen(s) {
		return
	}
	s.result = &quiescev1.StopResult{Outcome: outcome, Message: message, Duration: durationpb.New(max(0, time.Since(s.accepted)))}
	s.phase = quiescev1.ShutdownPhase_SHUTDOWN_PHASE_FAILED
	if outcome != quiescev1.StopResult_OUTCOME_STILL_RUNNING {
		s.result.Evidence = a.evidence
		s.phase = quiescev1.ShutdownPhase_SHUTDOWN_PHASE_STOPPED
	}
	a.report(s, message)
	if err := a.record(s); err != nil {
		// The result holds all the same; after a restart it is found out anew.
		a.log.Warn("the end of the shutdown could not be recorded")
	}
}

func digestOf(token string) string {
	digest := sha256.Sum256([]byte(token))
	return hex.EncodeToString(digest[:])
}

func isDigestOf(digest, token string) bool {
	return subtle.ConstantTimeCompare([]byte(digest), []byte(digestOf(token))) == 1
}
