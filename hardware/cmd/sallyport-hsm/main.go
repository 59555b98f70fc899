// Command sallyport-hsm is the operator's tool for the vault's token: the key ceremony, and looking at what it left.
//
// Run "sallyport-hsm --help" for its commands; README.md of package hardware has the runbook of a ceremony. It takes PINs and passphrases from
// files or the terminal, never from arguments, and nothing it prints is secret. What it changes for good, it changes only with --yes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends it at once, also where a module hangs
	code := Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
