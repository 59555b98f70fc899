// Command sallyport-witness cosigns the checkpoints of key-use logs, for a second machine or another organisation: a C2SP tlog-witness. See package
// vault/witness for what its signature says.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
