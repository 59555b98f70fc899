//go:build !linux

package sockets

import (
	"syscall"
	"time"
)

// impatient does nothing: keep-alive has to do.
func impatient(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
