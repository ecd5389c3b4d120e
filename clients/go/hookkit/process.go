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
// A zombie has ended.
type Process struct {
	PidFile string
}

// Running says whether it runs; fit to be Callbacks.Running.
func (p Process) Running() (bool, error) {
	pid, err := p.pid()
	return pid != 0, err
}

// Terminate sends SIGTERM; fit to be Callbacks.Stop.
func (p Process) Terminate(context.Context, *quiescev1.ShutdownRequest) error {
	return p.Signal(syscall.SIGTERM)
}

// Kill sends SIGKILL; fit to be Callbacks.Kill.
func (p Process) Kill(context.Context) error { return p.Signal(syscall.SIGKILL) }

// Signal sends a signal. That it has ended is no error.
func (p Process) Signal(number syscall.Signal) error {
	pid, err := p.pid()
	if pid == 0 || err != nil {
		return err
	}
	// It holds on to the process, by pidfd where there is one.
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer process.Release()
	// Now it cannot be mistaken any more.
	if again, err := p.pid(); again != pid || err != nil {
		return err
	}
	if err := process.Signal(number); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// pid returns 0 if there is no such process.
func (p Process) pid() (int, error) {
	content, err := os.ReadFile(p.PidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s holds no pid", p.PidFile)
	}
	written, err := os.Stat(p.PidFile)
	if err != nil {
		return 0, err
	}
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
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return 0, err
	}
	boot, err := bootTime()
	if err != nil {
		return 0, err
	}
	started := boot.Add(time.Duration(ticks) * time.Second / ticksPerSecond)
	if fields[0] == "Z" || fields[0] == "X" || started.After(written.ModTime().Add(rounding)) {
		return 0, nil
	}
	return pid, nil
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
