package testbed

import (
	"io"
	"net"
	"strings"
	"sync"
)

// Relay stands between a client and a scheduler, and can cut every connection.
type Relay struct {
	URL      string
	listener net.Listener
	target   string

	lock        sync.Mutex
	open        []net.Conn
	connections int
}

// Relay makes one in front of the scheduler at url, closed with the test.
func (w *World) Relay(url string) *Relay {
	w.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.Must(err)
	relay := &Relay{URL: "http://" + listener.Addr().String(), listener: listener, target: strings.TrimPrefix(url, "http://")}
	go relay.accept()
	w.Cleanup(func() {
		listener.Close()
		relay.Cut()
	})
	return relay
}

func (r *Relay) accept() {
	for {
		near, err := r.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", r.target)
		if err != nil {
			near.Close()
			continue
		}
		r.lock.Lock()
		r.open = append(r.open, near, far)
		r.connections++
		r.lock.Unlock()
		for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				// It ends when either side is closed.
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
			}()
		}
	}
}

// Cut cuts every connection that there is now.
func (r *Relay) Cut() {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, connection := range r.open {
		connection.Close()
	}
	r.open = nil
}

// Connections is how many there have been.
func (r *Relay) Connections() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.connections
}
