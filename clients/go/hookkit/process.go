package hookkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	quiescev1 "quiesce.dev/go/v1"
)

const (
	// In which Linux counts the start time of a process, on every machine there is.
	ticksPerSecond = 100
	// The times of files and of processes are rounded differently.
	rounding = time.Second
)

// Process is the process whose pid stands in a file: whether it runs, and signals to it and to no other. Linux only.
//
// The file is read each time, so whoever starts the application anew writes a new one. A process that has begun after the
// file was written is another one that was given the same pid: it is neither taken for the application nor sent signals.
// A zombie has ended. Once seen, a process is watched until its end, also when it has removed its file by then; a file
// that is missing says nothing about a process that was never seen, which is an error.
type Process struct {
	PidFile string

	lock sync.Mutex
	seen identity
}

// identity is a process: its pid, and when it began, in clock ticks since the machine was started. The zero is none.
type identity struct {
	pid   int
	start int64
}

// Running says whether it runs; fit to be Callbacks.Running.
func (p *Process) Running() (bool, error) {
	found, err := p.find()
	return found != identity{}, err
}

// Terminate sends SIGTERM; fit to be Callbacks.Stop.
func (p *Process) Terminate(context.Context, *quiescev1.ShutdownRequest) error {
	return p.Signal(syscall.SIGTERM)
}

// Kill sends SIGKILL; fit to be Callbacks.Kill.
func (p *Process) Kill(context.Context) error { return p.Signal(syscall.SIGKILL) }

// Signal sends a signal. That it has ended is no error.
func (p *Process) Signal(number syscall.Signal) error {
	found, err := p.find()
	if found == (identity{}) || err != nil {
		return err
	}
	// It holds on to the process, by pidfd where there is one.
	process, err := os.FindProcess(found.pid)
	if err != nil {
		return err
	}
	defer process.Release()
	// Now it cannot be mistaken any more.
	if alive, err := found.alive(); !alive || err != nil {
		return err
	}
	if err := process.Signal(number); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (p *Process) find() (identity, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	seen := p.seen
	if alive, err := seen.alive(); err != nil {
		return identity{}, err
	} else if !alive {
		seen = identity{}
	}
	content, err := os.ReadFile(p.PidFile)
	if errors.Is(err, fs.ErrNotExist) && p.seen != (identity{}) {
		return seen, nil
	}
	if err != nil {
		return identity{}, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid <= 0 {
		return identity{}, fmt.Errorf("%s holds no pid", p.PidFile)
	}
	written, err := os.Stat(p.PidFile)
	if err != nil {
		return identity{}, err
	}
	start, err := startOf(pid)
	if start == 0 || err != nil {
		return seen, err
	}
	boot, err := bootTime()
	if err != nil {
		return identity{}, err
	}
	if boot.Add(time.Duration(start) * time.Second / ticksPerSecond).After(written.ModTime().Add(rounding)) {
		return seen, nil
	}
	p.seen = identity{pid, start}
	return p.seen, nil
}

func (i identity) alive() (bool, error) {
	if i.pid == 0 {
		return false, nil
	}
	start, err := startOf(i.pid)
	return start == i.start, err
}

// startOf is when the process of that pid began; 0 if there is none that has not ended.
func startOf(pid int) (int64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	// The name of the program, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("cannot understand /proc/%d/stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, nil
	}
	return strconv.ParseInt(fields[19], 10, 64)
}

func bootTime() (time.Time, error) {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(content)) {
		if seconds, found := strings.CutPrefix(line, "btime "); found {
			since, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
			return time.Unix(since, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not say when the machine was started")
}
