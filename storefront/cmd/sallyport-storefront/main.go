// Command sallyport-storefront is the public door of Sallyport: it keeps ciphertext and signed documents for people and
// businesses and carries reads to a vault. What it is trusted for, and what not, says package storefront.
//
// The normal path: `sallyport-storefront config` prints a documented configuration; with names and files filled in,
// `sallyport-storefront serve --config FILE` runs until SIGTERM or SIGINT, logs to stderr, and says "ready" with its address when it listens.
//
// It refuses to start on a configuration with an unknown member, a TLS key or store key that others can read, a store
// that another process has open, or a disk without its reserve.
//
// Exit codes: 0 stopped cleanly, 1 an error, 2 a wrong command line or configuration.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
