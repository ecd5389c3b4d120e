package hookkit

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"

	quiescev1 "quiesce.dev/go/v1"
)

// A reader that finds another format refuses to run rather than to guess.
const recordFormat = 1

const (
	recordFile  = "hook.json"
	tokenFile   = "instance.token"
	agentIDFile = "agent.id"
)

// stateDirectory is what a hook remembers over a restart: files that nobody else can read, replaced as a whole. Without a
// path it remembers for the life of this process.
type stateDirectory struct {
	path   string
	lock   sync.Mutex
	memory map[string][]byte
}

func openState(path string) (*stateDirectory, error) {
	if path != "" {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, fmt.Errorf("cannot use the state directory: %w", err)
		}
	}
	return &stateDirectory{path: path, memory: map[string][]byte{}}, nil
}

func (s *stateDirectory) durable() bool { return s.path != "" }

// read returns nil if there is no such file.
func (s *stateDirectory) read(name string) ([]byte, error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.path == "" {
		return s.memory[name], nil
	}
	content, err := os.ReadFile(filepath.Join(s.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// replace is durable when it returns.
func (s *stateDirectory) replace(name string, content []byte) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.path == "" {
		s.memory[name] = content
		return nil
	}
	// Made with mode 0600.
	fresh, err := os.CreateTemp(s.path, "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(fresh.Name())
	_, err = fresh.Write(content)
	err = errors.Join(err, fresh.Sync(), fresh.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(fresh.Name(), filepath.Join(s.path, name)); err != nil {
		return err
	}
	directory, err := os.Open(s.path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// agentID is the identity of this hook: made once.
func (s *stateDirectory) agentID() (string, error) {
	known, err := s.read(agentIDFile)
	if id := strings.TrimSpace(string(known)); err != nil || id != "" {
		return id, err
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	id := hex.EncodeToString(random)
	return id, s.replace(agentIDFile, []byte(id))
}

// record is the last shutdown, as far as it has to survive. Of the completion token it holds a digest only.
type record struct {
	Format      int             `json:"format"`
	ShutdownID  string          `json:"shutdown_id"`
	Operation   string          `json:"operation"`
	Attempt     int32           `json:"attempt"`
	Epoch       int64           `json:"epoch"`
	TokenDigest string          `json:"token_digest"`
	HeartbeatMs int64           `json:"heartbeat_ms"`
	AcceptedMs  int64           `json:"accepted_ms"`
	Life        int32           `json:"life"`
	Reports     int32           `json:"reports"`
	Phase       string          `json:"phase"`
	Result      json.RawMessage `json:"result,omitempty"`
}

func (s *stateDirectory) load() (*record, error) {
	content, err := s.read(recordFile)
	if err != nil || content == nil {
		return nil, err
	}
	var found record
	if err := json.Unmarshal(content, &found); err != nil {
		return nil, fmt.Errorf("cannot understand %s: %w", recordFile, err)
	}
	if found.Format != recordFormat {
		return nil, fmt.Errorf("%s has format %d, this program knows %d", recordFile, found.Format, recordFormat)
	}
	return &found, nil
}

func (s *stateDirectory) save(shutdown record) error {
	shutdown.Format = recordFormat
	content, err := json.Marshal(shutdown)
	if err != nil {
		return err
	}
	return s.replace(recordFile, content)
}

func resultToRecord(result *quiescev1.StopResult) json.RawMessage {
	if result == nil {
		return nil
	}
	// A message that was made here can be encoded.
	content, _ := protojson.Marshal(result)
	return content
}

func resultFromRecord(content json.RawMessage) (*quiescev1.StopResult, error) {
	if content == nil {
		return nil, nil
	}
	result := &quiescev1.StopResult{}
	err := protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(content, result)
	return result, err
}
